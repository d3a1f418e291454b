"""One unit of work: the run of a spec, loaded or computed; the same in a notebook, on a worker, in a cluster's job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

from rlheals.stage import Tick, no_tick
from rlheals.store.runs import Run, RunSpec
from rlheals.store.stages import modules_behind
from rlheals.store.store import Store
from rlheals.study.slurm import Job


def run_unit(spec: RunSpec, store: Store, echo: Callable[[str], None], tick: Tick = no_tick) -> Run:
    """One unit of work: load the run of a spec or compute it; its inputs have to be in the store."""
    stage = import_module(modules_behind(spec.stage, spec.settings)[0])
    return store.ensure(spec, lambda work: stage.run(replace(work, tick=tick)), echo)


GONE = "the study's workers have ended; the same command resumes"


@dataclass(frozen=True)
class Workers:
    """count: workers at once; scheduler: address of a Dask scheduler; slurm: jobs to start instead, by stage.

    Workers of a scheduler and of jobs have to see the same store, at the same path, and have the same packages.
    """

    count: int = 1
    scheduler: str | None = None
    slurm: Mapping[str, Job] | None = None
