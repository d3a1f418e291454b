"""Protected SFT in chapter 04: the reader's own runs, the recorded study beside them, and their origin."""

from __future__ import annotations

from dataclasses import dataclass

from rlheals import protection
from rlheals.chapters.base import Chapter
from rlheals.protection import ProtectionTables


@dataclass(frozen=True)
class ProtectionChapter(Chapter[ProtectionTables]):
    """The part of chapter 04 about protected SFT."""

    PART = protection.STUDY

    def how_fresh(self) -> list[str]:
        ways = [str(way) for way in self.fresh.accuracy["way"].unique()]
        return [f"ways {', '.join(ways)}, up to step {self.fresh.accuracy['step'].max():,}"]

    def how_recorded(self, recorded: ProtectionTables) -> list[str]:
        return [f"{recorded.accuracy['way'].nunique()} ways, {recorded.accuracy['decode'].nunique()} decodes"]


protect = ProtectionChapter.open
