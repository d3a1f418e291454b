"""What chapter 04 works with: the reader's own edited checkpoints, the recorded study beside them, and their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, swaps
from rlheals.chapters import Chapter, load
from rlheals.profiles import Profile
from rlheals.store import Store
from rlheals.swaps import SwapTables


@dataclass(frozen=True)
class SwapChapter(Chapter[SwapTables]):
    """Chapter 04."""

    def how_fresh(self) -> list[str]:
        peaks, grid = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"]), self.profile.swaps
        return [f"peak at SFT step {peaks}", f"late checkpoint at {grid.late:,}", f"RL from {grid.start:,}"]


def edits(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> SwapChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study."""
    return SwapChapter(**vars(load(swaps.STUDY, profile, seeds, workers, results, store, quiet)))
