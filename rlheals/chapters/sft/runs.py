"""What chapter 01 works with: the reader's own SFT runs, the recorded study and its variants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rows import only
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.plan import plan
from rlheals.study.tables import Tables

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile


@dataclass(frozen=True)
class SFTChapter(Chapter[Tables]):
    """Chapter 01; variants: recorded sensitivity studies by name."""

    PART = tables.SFT

    variants: dict[str, Tables]

    @classmethod
    def more(cls, profile: Profile, recorded: Tables | None, results: Path) -> dict[str, Any]:
        return {"variants": {} if recorded is None else variant_studies(results)}

    @classmethod
    def slice_of(cls, recorded: Tables, profile: Profile, seed: int, store: Store) -> Slice:
        """Base, SFT and two evaluations: of the checkpoint in the middle and of the last."""
        whole = plan(profile, seed, store)
        steps = sorted({recorded.steps[len(recorded.steps) // 2], recorded.steps[-1]})
        part = replace(whole, censuses={(step, 0): whole.censuses[step, 0] for step in steps}, rules={})
        kept = only(recorded.episodes, step=steps, decode=0)
        rows = {"bases": recorded.bases, "losses": recorded.losses, "episodes": kept}
        return Slice(tuple(steps), part, rows)

    def how_fresh(self) -> list[str]:
        settings = self.profile.evaluate
        hands = self.fresh.episodes.drop_duplicates(["split", "item"]).groupby("split", observed=True).size()
        counted = ", ".join(f"{HANDS.get(str(split), split)} {count:,}" for split, count in hands.items())
        return [
            f"hands {counted}",
            f"up to {settings.attempts} attempts at temperature {settings.sampling.temperature:g}",
        ]

    def how_recorded(self, recorded: Tables) -> list[str]:
        return [f"{recorded.episodes['decode'].nunique()} sampling seeds"]


HANDS = {
    "sft": "of SFT",
    "rl": "of RL alone",
    "held_out": "held out",
    "ood": "OOD",
    "control": "of the other unseen rule",
}
"""Whose hands a split has, as captions count them."""
CHAPTER = SFTChapter
sft = SFTChapter.open


def variant_studies(results: Path) -> dict[str, Tables]:
    """The recorded sensitivity studies by name, as far as there are any."""
    from rlheals.profiles import VARIANTS

    studies = {name: record.find(f"lab-{name}", tables.SFT, results)[0] for name in VARIANTS}
    return {name: study for name, study in studies.items() if study is not None}
