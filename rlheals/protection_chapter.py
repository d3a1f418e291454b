"""Protected SFT in chapter 04: the reader's own runs, the recorded study beside them, and their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import protection, record
from rlheals.chapters import Chapter, load
from rlheals.profiles import Profile
from rlheals.protection import ProtectionTables
from rlheals.store import Store


@dataclass(frozen=True)
class ProtectionChapter(Chapter[ProtectionTables]):
    """The part of chapter 04 about protected SFT."""

    def how_fresh(self) -> list[str]:
        ways = [str(way) for way in self.fresh.accuracy["way"].unique()]
        return [f"ways {', '.join(ways)}, up to step {self.fresh.accuracy['step'].max():,}"]

    def how_recorded(self, recorded: ProtectionTables) -> list[str]:
        return [f"{recorded.accuracy['way'].nunique()} ways, {recorded.accuracy['decode'].nunique()} decodes"]


def protect(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> ProtectionChapter:
    """Load the runs, or compute those that are not in the store yet, and read the recorded study."""
    return ProtectionChapter(**vars(load(protection.STUDY, profile, seeds, workers, results, store, quiet)))
