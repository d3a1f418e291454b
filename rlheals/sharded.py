"""Weights that several processes hold together: which process this is, its part of a tensor, and the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

# What shares weights takes a second to import: only processes that do share them import it.

One = TypeVar("One")


def processes() -> int:
    """How many processes work together; 1 outside of `together`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Until all of them are here."""
    if dist.is_initialized():
        dist.barrier()


def share(model: PreTrainedModel) -> None:
    """Leave this process only its part of every weight, layer by layer; a layer is whole while it computes."""
    from torch.distributed.fsdp import fully_shard

    layers = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)


def whole(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """All weights, on the CPU, for the first process; nothing for others. Every process has to call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = cast(dict[str, torch.Tensor], get_model_state_dict(model, options=options))
    if rank() > 0:
        return None
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        state[name] = state[first.setdefault(id(parameter), name)]  # one that has two names stays one
    return state


def part(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies here; of one that is not shared, all of it."""
    return cast(Any, tensor).to_local() if shared(tensor) else tensor


def shared(tensor: torch.Tensor) -> bool:
    """Whether other processes hold parts of a tensor."""
    if processes() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A part of an optimiser's state in the form of the parameter that it belongs to; a count stays one."""
    if not shared(parameter) or value.dim() == 0:
        return value
    from torch.distributed.tensor import DTensor

    whole = cast(DTensor, parameter)
    return DTensor.from_local(
        value.to(part(parameter).device),
        whole.device_mesh,
        whole.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def gathered(mine: Sequence[One]) -> list[One]:
    """What every process has of a list that was dealt out in turn, in the order of the whole; all get the same."""
    if processes() == 1:
        return list(mine)
    dealt: list[Any] = [None] * processes()
    dist.all_gather_object(dealt, list(mine))
    return [dealt[i % processes()][i // processes()] for i in range(sum(map(len, dealt)))]


def of_first(value: One) -> One:
    """The first process's value."""
    if processes() == 1:
        return value
    told: list[Any] = [value]
    dist.broadcast_object_list(told)
    return cast(One, told[0])


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(tensor)
    return tensor


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Of parameters that every process has whole: the mean over all, as it is for those that are shared."""
    if processes() > 1:
        for parameter in parameters:
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes()


def clip_gradients(parameters: Sequence[torch.nn.Parameter], limit: float) -> float:
    """As torch's, also where some gradients are shared and some are not; the norm before."""
    if processes() == 1:
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = torch.zeros(2, dtype=torch.float64)
    for gradient in gradients:
        squares[int(shared(gradient))] += float(part(gradient).double().square().sum())
    dist.all_reduce(across := squares[1:])
    norm = float((squares[0] + across[0]).sqrt())
    factor = min(1.0, limit / (norm + 1e-6))
    for gradient in gradients:
        part(gradient).mul_(factor)
    return norm
