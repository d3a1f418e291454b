"""What the processes of `test_together` do: a module of parts that go wrong in every way."""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist

from rlheals.engines import fsdp
from rlheals.errors import BadInput
from rlheals.stage import Work


def part(work: Work) -> None:
    rank, settings = fsdp.rank(), work.settings
    print("what a library prints")  # must not be taken for a message
    named = work.scratch / f"named-{os.getpid()}"
    named.write_text(str(os.getpid()))
    named.rename(work.scratch / f"pid-{rank}")  # whole, also if the other process ends this one now
    wrong = settings.get("wrong")
    if wrong and rank == settings["rank"]:
        if wrong == "input":
            raise BadInput("card 14 is no card")
        if wrong == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if wrong == "bug":
            sys.stderr.write("something\n" * 50)
            raise ZeroDivisionError("by zero")
        os._exit(7)
    if settings.get("wait"):
        time.sleep(600)
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    work.tick(rank + 1, 3, "part")
    (work.out / f"sum-{rank}").write_text(f"{total.item()} of {fsdp.processes()}, {work.seed}")
