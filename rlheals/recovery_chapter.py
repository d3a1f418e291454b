"""What chapter 02 works with: the reader's own RL runs, the recorded study beside them, and where both come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import record, recovery, tables
from rlheals.chapters import Chapter, load
from rlheals.places import project_root
from rlheals.profiles import Profile
from rlheals.recovery import RecoveryTables
from rlheals.store import Store
from rlheals.tables import Tables


@dataclass(frozen=True)
class RecoveryChapter(Chapter[RecoveryTables]):
    """Chapter 02; sft: the recorded study of chapter 01."""

    MARKS = " (dots with Wilson intervals)", " (lines with bands)"

    sft: Tables | None

    @property
    def starts(self) -> list[int]:
        return sorted({start for rows, _ in self.layers for start in rows.starts})

    def how_fresh(self) -> list[str]:
        rl = self.profile.ladder.rl
        return [
            f"starts {', '.join(f'{start:,}' for start in self.fresh.starts)}",
            f"{rl.algorithm}, {rl.updates} updates of {rl.episodes} episodes, learning rate {rl.learning_rate:g}",
        ]

    def how_recorded(self, recorded: RecoveryTables) -> list[str]:
        runs = recorded.log.groupby(["seed", "control"])["run"].nunique().max()
        return [f"RL seeds per start: up to {runs}", f"{recorded.episodes['decode'].nunique()} decodes"]


def rl(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> RecoveryChapter:
    """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study."""
    found = load(recovery.STUDY, profile, seeds, workers, results, store, quiet)
    sft, _ = record.find(found.profile.name, tables.SFT, project_root() / results)
    return RecoveryChapter(**vars(found), sft=sft)
