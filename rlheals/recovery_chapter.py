"""What chapter 02 works with: the reader's own RL runs, the recorded study beside them, and where both come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlheals import record, recovery, tables
from rlheals.chapters.base import Chapter
from rlheals.profile import Profile
from rlheals.recovery import RecoveryTables
from rlheals.tables import Tables


@dataclass(frozen=True)
class RecoveryChapter(Chapter[RecoveryTables]):
    """Chapter 02; sft: the recorded study of chapter 01."""

    PART = recovery.STUDY

    sft: Tables | None

    @classmethod
    def more(cls, profile: Profile, recorded: RecoveryTables | None, results: Path) -> dict[str, Any]:
        return {"sft": record.find(profile.name, tables.SFT, results)[0]}

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


rl = RecoveryChapter.open
