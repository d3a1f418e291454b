"""What chapter 04 works with: the reader's own edited checkpoints, the recorded study beside them, and their origin."""

from __future__ import annotations

from dataclasses import dataclass

from rlheals import swaps
from rlheals.chapters.base import Chapter
from rlheals.swaps import SwapTables


@dataclass(frozen=True)
class SwapChapter(Chapter[SwapTables]):
    """Chapter 04."""

    PART = swaps.STUDY

    def how_fresh(self) -> list[str]:
        peaks, grid = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"]), self.profile.swaps
        return [f"peak at SFT step {peaks}", f"late checkpoint at {grid.late:,}", f"RL from {grid.start:,}"]


edits = SwapChapter.open
