"""One unit of work: the run of a spec, loaded or computed; the same in a notebook, on a worker, in a cluster's job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.stage import Tick, no_tick
from rlheals.store.runs import Run, RunSpec
from rlheals.store.stages import STAGES, module_of
from rlheals.store.store import Store
from rlheals.study.slurm import Job


def run_unit(spec: RunSpec, store: Store, echo: Callable[[str], None], tick: Tick = no_tick) -> Run:
    """One unit of work: load the run of a spec or compute it; its inputs have to be in the store."""
    if spec.stage not in STAGES:
        raise BadInput(f"stage {spec.stage!r} is not known; accepted: {', '.join(STAGES)}")
    stage = import_module(module_of(spec.stage))
    return store.ensure(spec, lambda work: stage.run(replace(work, tick=tick)), echo)


def settings_file(path: Path) -> RunSpec:
    """A unit of work read from a JSON file: {"stage": ..., "settings": {...}, "inputs": {...}, "seed": 0}."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"settings file {str(path)!r}: {getattr(error, 'strerror', None) or 'is not UTF-8'}"
        ) from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"settings file {str(path)!r} is not JSON: {str(error).splitlines()[0]}") from None
    return validated(RunSpec, data, f"settings file {path.name}")


GONE = "the study's workers have ended; the same command goes on"


@dataclass(frozen=True)
class Workers:
    """count: workers at once; scheduler: address of a Dask scheduler; slurm: jobs to start instead, by stage.

    Workers of a scheduler and of jobs have to see the same store, at the same path, and have the same packages.
    """

    count: int = 1
    scheduler: str | None = None
    slurm: Mapping[str, Job] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a cluster computes."""
        return self.scheduler is not None or self.slurm is not None
