"""What the processes of `test_together` do: stages one after the other, or a part that goes wrong in every way."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from rlheals.engines import fsdp
from rlheals.errors import BadInput
from rlheals.stage import Work


def part(work: Work) -> None:
    rank, settings = fsdp.rank(), work.settings
    for name, job in settings.get("jobs", {}).items():
        inputs = {kind: Path(path) for kind, path in job["inputs"].items()}

        def tick(done: int, total: int, unit: str, name: str = name) -> None:
            work.tick(done, total, name)

        one = replace(work, scratch=Path(job["scratch"]), settings=job["settings"], inputs=inputs, tick=tick)
        import_module(job["module"]).part(one)
    if "jobs" in settings:
        return
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
