"""What chapter 03 works with: spectra of the reader's own runs, the recorded study beside them, their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, rotation
from rlheals.chapters import Chapter, load
from rlheals.profiles import Profile
from rlheals.rotation import RotationTables
from rlheals.store import Store


@dataclass(frozen=True)
class RotationChapter(Chapter[RotationTables]):
    """Chapter 03."""

    def how_fresh(self) -> list[str]:
        peaks = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"])
        return [f"peak at SFT step {peaks}", f"{self.profile.rotation.draws} draws of every null"]

    def how_recorded(self, recorded: RotationTables) -> list[str]:
        steps = recorded.peaks["peak"]
        spread = f"{steps.min():,}" if steps.nunique() == 1 else f"{steps.min():,} to {steps.max():,}"
        return [f"peaks at steps {spread}"]


def spectra(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> RotationChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study."""
    return RotationChapter(**vars(load(rotation.STUDY, profile, seeds, workers, results, store, quiet)))
