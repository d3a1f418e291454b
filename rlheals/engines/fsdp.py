"""FSDP: a stage's work done by several processes of this machine that hold a model's weights together.

`together("rlheals.training.sft", work, 4)` starts four processes that each call `part(work)` of it; inside,
torch.distributed is set up (NCCL with GPUs, a GPU each; Gloo without). Processes end with the one that started them,
however that ends. What goes wrong in one of them is raised here: bad input, too little memory, or a crash with the end
of its log. The module is imported by the child's command line and not here: an import by a computed name would make
every module of the package part of the code behind a stage.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist

from rlheals.errors import BadInput
from rlheals.stage import Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 12
"""Lines of the log of a process that crashed."""


def together(module: str, work: Work, processes: int) -> None:
    """Call `part(work)` of a module in so many processes; progress of the first one is that of the work."""
    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise BadInput(f"processes={processes}: this machine has {torch.cuda.device_count()} GPUs")
    # other processes may compute the same run in that folder
    place = Path(tempfile.mkdtemp(prefix="together-", dir=work.scratch))
    told: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    with _started(module, work, processes, place) as children:
        for rank, child in enumerate(children):
            threading.Thread(target=_listen, args=(rank, child.stdout, told), daemon=True).start()
        left = processes
        while left:
            rank, said = told.get()
            if said is None:
                raise RuntimeError(_crash(module, rank, children[rank].wait(), place))
            if "tick" in said:
                work.tick(*said["tick"])
            elif said["ended"] == "well":
                left -= 1
            else:
                raise (torch.OutOfMemoryError if said["ended"] == "memory" else BadInput)(said["said"])
        for child in children:
            child.wait()
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _started(module: str, work: Work, processes: int, place: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    order = {
        "meeting": str(place / "meeting"),
        "out": str(work.out),
        "scratch": str(work.scratch),
        "settings": dict(work.settings),
        "seed": work.seed,
        "inputs": {name: str(folder) for name, folder in work.inputs.items()},
    }
    count = str(processes)
    paths = os.pathsep.join(path for path in sys.path if path)
    same = {"PYTHONPATH": paths, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            with (place / f"process-{rank}.log").open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, "-c", f"import {module}, {__name__} as us; us.child({module}.part)"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | same | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            children.append(child)
            assert child.stdin is not None
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()  # it stays open: a child whose standard input ends has lost its parent
        yield children
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _listen(rank: int, pipe: IO[bytes], told: queue.Queue[tuple[int, dict[str, Any] | None]]) -> None:
    said: dict[str, Any] = {}
    for line in pipe:
        said = json.loads(line)
        told.put((rank, said))
    if "ended" not in said:
        told.put((rank, None))


def _crash(module: str, rank: int, status: int, place: Path) -> str:
    lines = (place / f"process-{rank}.log").read_text("utf-8", "replace").splitlines()[-SHOWN:]
    return "\n".join([f"{module}: process {rank} ended with status {status}; the end of its log:", *lines])


# Inside of one of the processes ---------------------------------------------------------------------------------------


def child(part: Callable[[Work], None]) -> None:
    """What a child does: read the order, meet the others, do its part, say how it ended."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    with os.fdopen(os.dup(0), "rb", buffering=0) as told:
        order = json.loads(told.readline())  # no byte more: `_end_with_parent` reads on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    first = os.environ["RANK"] == "0"

    def tick(done: int, total: int, unit: str) -> None:
        if first:
            channel.write(json.dumps({"tick": [done, total, unit]}) + "\n")

    inputs = {name: Path(folder) for name, folder in order["inputs"].items()}
    work = Work(Path(order["out"]), Path(order["scratch"]), order["settings"], order["seed"], inputs, tick)
    try:
        _meet(order["meeting"])
        part(work)
        ended = {"ended": "well"}
    except BadInput as error:
        ended = {"ended": "badly", "said": str(error)}
    except torch.OutOfMemoryError as error:
        ended = {"ended": "memory", "said": str(error)}
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    channel.write(json.dumps(ended) + "\n")
    if ended["ended"] == "well":
        torch.distributed.destroy_process_group()
    os._exit(0)  # no waiting for threads of libraries


def _meet(meeting: str) -> None:
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    torch.distributed.init_process_group(
        backend, init_method=f"file://{meeting}", rank=rank, world_size=processes
    )


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


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
