"""Small recorded studies of the chapters that follow SFT: two base seeds each, computed in seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from small_study import CLIMB, EDIT, HEAL, SHIELD, SPIN

from rlheals.chapters.registry import CHAPTERS
from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.tables import Part

STUDIES = {"recovery": CLIMB, "rotation": SPIN, "swaps": EDIT, "protection": SHIELD, "healing": HEAL}
"""Their profiles, by part of `claims.yaml`."""
PEAK = 3
STARTS = {0: PEAK, 10: PEAK, 50: 5, 90: 5}
"""The states of the small studies, whose untrained models reach none."""


def parts(key: str, profile: Profile, seeds: tuple[int, ...] = (2, 3), peak: int = PEAK) -> list[Part]:
    """What is recorded of a chapter, in its units, with the points of SFT known."""
    part = CHAPTERS[key].part
    points = {"peaks": peak, "starts": STARTS | {0: peak}}
    known = part.at(dict.fromkeys(seeds, points[part.from_sft])) if part.from_sft else part
    return known.in_units(profile)


def recorded_study(key: str, store: Store, root: Path) -> SimpleNamespace:
    """Base seeds 2 and 3 of a chapter's small profile, recorded below root/results."""
    profile, lines = STUDIES[key], list[str]()
    for part in parts(key, profile):
        record.record(profile, [2, 3], store, root / "results", say=lines.append, part=part)
    folder = root / "results" / f"{profile.name}{CHAPTERS[key].part.suffix}"
    return SimpleNamespace(
        key=key, profile=profile, store=store, results=root / "results", folder=folder, lines=lines
    )
