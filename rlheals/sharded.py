"""Weights that several processes hold together: which process this is, its part of a tensor, and the whole."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor


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


def whole(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """All weights, on the CPU, for the first process; nothing for others. Every process has to call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = cast(dict[str, torch.Tensor], get_model_state_dict(model, options=options))
    return state if rank() == 0 else None


def part(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies here; of one that is not shared, all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A part of an optimiser's state in the form of the parameter that it belongs to; a count stays one."""
    if not isinstance(parameter, DTensor) or value.dim() == 0:
        return value
    return DTensor.from_local(
        value.to(parameter.to_local().device),
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
