"""The fresh core: every run that the book shows of a reader's own seed, computed before any page is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlheals import record
from rlheals.chapters import Chapter, Peaks
from rlheals.computing import compute
from rlheals.profile import Profile
from rlheals.project import project_root
from rlheals.protection_chapter import ProtectionChapter
from rlheals.recovery_chapter import RecoveryChapter
from rlheals.rotation_chapter import RotationChapter
from rlheals.runs import Run
from rlheals.sft_chapter import SFTChapter
from rlheals.store import Store, default_store
from rlheals.swaps_chapter import SwapChapter

CHAPTERS: dict[str, type[Chapter[Any]]] = {
    "sft": SFTChapter,
    "recovery": RecoveryChapter,
    "rotation": RotationChapter,
    "swaps": SwapChapter,
    "protection": ProtectionChapter,
}
"""By part of `claims.yaml`, in the order of the book."""


def core(
    profile: Profile,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> list[Run]:
    """Load or compute the runs of all chapters: chapter 1's, which the others start from, then the rest together."""
    root = project_root()
    place, specs = store or default_store(root), []
    peaks = Peaks(place, workers, quiet)
    for chapter in CHAPTERS.values():
        recorded, _ = record.find(profile.name, chapter.PART, root / results)
        _, plans = chapter.planned(profile, seeds, recorded, place, peaks)
        specs += [spec for one in plans for spec in one.specs()]
    return compute(specs, place, workers, quiet)
