"""One piece of a stage's work done by several processes of this machine that hold a model's weights together (FSDP).

`together("rlheals.sft", work, 4)` starts four processes that each call `rlheals.sft.part(work)`; inside,
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from rlheals.errors import BadInput
from rlheals.stage import Work

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
        left = set(range(processes))
        while left:
            rank, said = told.get()
            if said is None:
                raise RuntimeError(_crash(module, rank, children[rank].wait(), place))
            if "tick" in said:
                work.tick(*said["tick"])
            elif said["ended"] == "well":
                left.discard(rank)
            elif said["ended"] == "memory":
                raise torch.OutOfMemoryError(said["said"])
            else:
                raise BadInput(said["said"])
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
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            with _log(place, rank).open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, "-c", f"import {module}, {__name__} as us; us.child({module}.part)"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(rank, processes),
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


def _environment(rank: int, processes: int) -> Mapping[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }


def _log(place: Path, rank: int) -> Path:
    return place / f"process-{rank}.log"


def _listen(rank: int, pipe: IO[bytes], told: queue.Queue[tuple[int, dict[str, Any] | None]]) -> None:
    said: dict[str, Any] = {}
    for line in pipe:
        said = json.loads(line)
        told.put((rank, said))
    if "ended" not in said:
        told.put((rank, None))


def _crash(module: str, rank: int, status: int, place: Path) -> str:
    lines = _log(place, rank).read_text("utf-8", "replace").splitlines()[-SHOWN:]
    return "\n".join([f"{module}: process {rank} ended with status {status}; the end of its log:", *lines])


# Inside of one of the processes ---------------------------------------------------------------------------------------


def child(part: Callable[[Work], None]) -> None:
    """What a child does: read the order, meet the others, do its part, say how it ended."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    order = json.loads(_line())
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


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    return line


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
