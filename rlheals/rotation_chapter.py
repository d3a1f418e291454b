"""What chapter 03 works with: spectra of the reader's own runs, the recorded study beside them, their origin."""

from __future__ import annotations

from dataclasses import dataclass

from rlheals import rotation
from rlheals.chapters.base import Chapter
from rlheals.rotation import RotationTables


@dataclass(frozen=True)
class RotationChapter(Chapter[RotationTables]):
    """Chapter 03."""

    PART = rotation.STUDY

    def how_fresh(self) -> list[str]:
        peaks = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"])
        return [f"peak at SFT step {peaks}", f"{self.profile.rotation.draws} draws of every null"]

    def how_recorded(self, recorded: RotationTables) -> list[str]:
        steps = recorded.peaks["peak"]
        spread = f"{steps.min():,}" if steps.nunique() == 1 else f"{steps.min():,} to {steps.max():,}"
        return [f"peaks at steps {spread}"]


spectra = RotationChapter.open
