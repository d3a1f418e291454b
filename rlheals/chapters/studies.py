"""The recorded studies of all chapters: which profiles and base seeds they run, computed and recorded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlheals.chapters.registry import CHAPTERS
from rlheals.errors import BadInput
from rlheals.profiles import VARIANTS, load_profile, variant
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.store import default_store
from rlheals.study import record
from rlheals.study.attempts import ATTEMPTS
from rlheals.study.bases import BASES
from rlheals.study.claims import StudyPlan
from rlheals.study.compute import compute
from rlheals.study.jobs import Workers
from rlheals.study.peaks import recorded_points
from rlheals.study.tables import Part

MORE: dict[str, Part[Any]] = {"bases": BASES, "attempts": ATTEMPTS}
"""What is recorded beside the chapters of the registry."""


def chosen(part: str, profile: str | None, variants: Sequence[str], changes: dict[str, Any]) -> list[Profile]:
    """The profiles to run: variants of the lab ("all": every one), or one profile, by default that of the claims."""
    if profile is not None and variants:
        raise BadInput("--profile and --variant: only one of the two is accepted")
    if changes and profile is None:
        raise BadInput("--set: only with --profile; the settings of the study and of its variants are fixed")
    if not variants:
        return [load_profile(profile or _claimed(part).profile, changes)]
    return [variant(name) for name in (VARIANTS if "all" in variants else variants)]


def _claimed(part: str) -> StudyPlan:
    """What the claims say of the study that decides them; of what is recorded beside chapters, those of the first."""
    return CHAPTERS[next(iter(CHAPTERS)) if part in MORE else part].claims.read().study


def run(
    part: str,
    profiles: Sequence[Profile],
    seeds: Sequence[int] | None,
    workers: Workers,
    folder: Path | None,
    only_missing: bool = False,
) -> list[dict[str, Any]]:
    """Compute a part's study for some profiles; with `folder` each base seed is recorded as soon as it is complete.

    only_missing: leave out what the folder has. What is recorded in several units (RL seeds, controls) is made unit by
    unit, the first one of all base seeds first, so that a study that is cut short is short everywhere.
    """
    own, done = list(_claimed(part).seeds if seeds is None else seeds), []
    whole = MORE[part] if part in MORE else CHAPTERS[part].part
    store = default_store()
    for profile in profiles:
        whole.check(profile)
        for unit in whole.in_units(profile):
            known: dict[str, Any] = {}
            if unit.from_sft:
                results = project_root() / (folder or record.FOLDER)
                points = recorded_points(unit.from_sft, profile.name, own, results)
                unit, known = unit.at(points), {unit.from_sft: list(points.values())}
            if folder is None:
                plans = [unit.plan(profile, seed, store) for seed in own]
                compute([spec for one in plans for spec in one.specs()], store, workers)
            else:
                record.record(profile, own, store, folder, workers, _told, unit, only_missing)
            place = None if folder is None else str(folder / f"{profile.name}{unit.suffix}")
            done.append({"profile": profile.name, "seeds": own, **known, "recorded": place})
    return done


def _told(line: str) -> None:
    print(line, file=sys.stderr)
