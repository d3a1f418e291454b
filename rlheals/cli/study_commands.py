"""What `rlheals study` does: the recorded studies of all chapters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlheals.chapters.base import core
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.sft.claims import CLAIMS
from rlheals.errors import BadInput
from rlheals.profiles import VARIANTS, load_profile, variant
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.store import default_store
from rlheals.study import record
from rlheals.study.compute import compute
from rlheals.study.jobs import Workers
from rlheals.study.peaks import recorded_peaks
from rlheals.study.slurm import read_slurm_file

VARIANT_SEEDS = 3


def studies(
    profile: str | None, variants: Sequence[str], changes: dict[str, Any]
) -> list[tuple[Profile, int]]:
    """The profiles to run, each with the number of decided seeds it is run for by default.

    Nothing asked for: the study of `claims.yaml`, then every variant on its first seeds. "all" means every variant.
    """
    if profile is not None and variants:
        raise BadInput("--profile and --variant: only one of the two is accepted")
    plan = CLAIMS.read().study
    every = len(plan.seeds)
    if profile is not None:
        return [(load_profile(profile, changes), every)]
    names = list(VARIANTS) if not variants or "all" in variants else list(variants)
    if changes:
        raise BadInput("--set: accepted together with --profile only; a variant is what it is")
    chosen = [(variant(name), VARIANT_SEEDS) for name in names]
    if not variants:
        chosen.insert(0, (load_profile(plan.profile, {"decodes": plan.decodes}), every))
    return chosen


@dataclass(frozen=True)
class Target:
    """Where a study is recorded (None: only computed), and whether only what is not recorded there yet."""

    folder: Path | None = None
    only_missing: bool = False


def target(folder: Path | None, only_missing: bool) -> Target:
    """BadInput when there is nothing that something could be missing from."""
    if only_missing and folder is None:
        raise BadInput("--missing leaves out what a folder has recorded; it needs --record FOLDER")
    return Target(folder, only_missing)


def crew(count: int, scheduler: str | None, slurm: Path | None) -> Workers:
    """Who computes; BadInput when two were asked for."""
    if scheduler is not None and slurm is not None:
        raise BadInput("--scheduler and --slurm: only one of the two is accepted")
    return Workers(count, scheduler, None if slurm is None else read_slurm_file(slurm))


def run_studies(
    chosen: Sequence[tuple[Profile, int]], seeds: Sequence[int] | None, workers: Workers, target: Target
) -> list[dict[str, Any]]:
    """Compute studies of chapter 1, and record each seed as soon as it is complete when a folder is given."""
    decided, done = CLAIMS.read().study.seeds, []
    for profile, count in chosen:
        own = seeds if seeds is not None else decided[:count]
        done += _run("sft", profile, own, workers, target)
    return done


def run_later(
    key: str,
    profile: str | None,
    changes: dict[str, Any],
    seeds: Sequence[int] | None,
    workers: Workers,
    target: Target,
) -> list[dict[str, Any]]:
    """The study of a later chapter (a key of `CHAPTERS`), each base seed recorded as soon as it is done."""
    decided = CHAPTERS[key].claims.read().study
    chosen = load_profile(profile or decided.profile, changes)
    return _run(key, chosen, decided.seeds if seeds is None else seeds, workers, target)


def _run(
    key: str, profile: Profile, seeds: Sequence[int], workers: Workers, target: Target
) -> list[dict[str, Any]]:
    """What is recorded in several units (RL seeds, controls) is made unit by unit, the first one of all bases first,
    so that a study that is cut short is short everywhere."""
    CHAPTERS[key].part.check(profile)
    store, folder, done = default_store(project_root()), target.folder, list[dict[str, Any]]()
    for part in CHAPTERS[key].parts(profile):
        known: dict[str, Any] = {}
        if part.from_peaks:
            peaks = recorded_peaks(profile.name, seeds, project_root() / (folder or record.FOLDER))
            part, known = part.at(peaks), {"peaks": list(peaks.values())}
        if folder is None:
            plans = [part.plan(profile, seed, store) for seed in seeds]
            compute([spec for one in plans for spec in one.specs()], store, workers)
        else:
            record.record(profile, seeds, store, folder, workers, _told, part, target.only_missing)
        place = None if folder is None else str(folder / f"{profile.name}{part.suffix}")
        done.append({"profile": profile.name, "seeds": list(seeds), **known, "recorded": place})
    return done


def fresh(profile: Profile, seeds: Sequence[int] | None, workers: int, results: Path) -> dict[str, Any]:
    """The fresh runs of all chapters."""
    chapters = [one.chapter for one in CHAPTERS.values()]
    runs = {run.id: run.manifest.seconds for run in core(chapters, profile, seeds, workers, results)}
    return {"profile": profile.name, "runs": len(runs), "core_minutes": sum(runs.values()) / 60}


def compared(profile: Profile, seeds: Sequence[int] | None, workers: int, results: Path) -> dict[str, Any]:
    """Whether the fresh runs of a profile agree with its recorded study, number by number."""
    from rlheals.chapters.compare import compare

    found = compare(profile, seeds, workers, results)
    return {
        "profile": profile.name,
        "agrees": all(one.agrees for one in found),
        "numbers": [{**asdict(one), "agrees": one.agrees} for one in found],
    }


def _told(line: str) -> None:
    print(line, file=sys.stderr)
