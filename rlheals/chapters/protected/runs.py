"""Protected SFT: the runs of chapter 04's last part, and their tables; one training run per regulariser, from one base.

A regulariser (column `way`) is text, `NAME=VALUE`: subspace, random or kl with a strength (`training/protected.py`),
or a setting of SFT with another value (learning_rate, weight_decay). "sft" is plain SFT, with early stopping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, get_args

import pandas as pd

from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rows import collector, only
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import Plan, SeedPlan, census_spec, followed
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part, Seeded

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

SFT = "sft"


@dataclass(frozen=True)
class ProtectedPlan(SeedPlan):
    """The runs of one base seed by regulariser, and the evaluations of (way, step, sampling seed)."""

    before: Plan
    trained: dict[str, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[str, int, int], RunSpec] = field(default_factory=dict)

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        return [self.before.base, *followed(self.trained, self.censuses)]


@dataclass(frozen=True)
class ProtectedTables(Seeded):
    """What protected SFT is drawn from; every row says seed, way and step.

    accuracy     per (decode, split): hands, solved in five attempts, solved in the first
    penalties    of the penalised: the penalty without its strength
    """

    LISTS = "accuracy"

    accuracy: pd.DataFrame
    penalties: pd.DataFrame


def plan(profile: Profile, seed: int, store: Store) -> ProtectedPlan:
    """The runs of one base seed."""
    group = profile.protection
    from rlheals.profiles.sections import read_regulariser
    from rlheals.training import protected, sft

    made = ProtectedPlan(seed, sft_plan(profile, seed, store))
    made.trained[SFT] = made.before.sft
    for way in group.regularisers:
        name, value = read_regulariser(way)
        changes = {"kind": name, "strength": value} if name in get_args(protected.Kind) else {name: value}
        kind = protected.ProtectedSettings if "kind" in changes else sft.SFTSettings
        settings = kind.model_validate(profile.sft.model_dump() | changes).model_dump(mode="json")
        stage = "protected" if "kind" in changes else "sft"
        made.trained[way] = made.before.sft.model_copy(update={"stage": stage, "settings": settings})
    for way, spec in made.trained.items():
        key = store.key(spec)
        for step, decode in product(group.steps, range(group.decodes)):
            folder = sft.checkpoint_name(step)
            made.censuses[way, step, decode] = census_spec(profile, key, folder, seed, decode)
    return made


def _of_plan(made: ProtectedPlan, store: Store) -> ProtectedTables:
    folder = tables.folders(store)
    accuracy = [
        tables.solved(folder(spec)).assign(way=way, step=step, decode=decode)
        for (way, step, decode), spec in made.censuses.items()
    ]
    penalties = [
        pd.DataFrame(json.loads((folder(spec) / "penalties.json").read_text())).assign(way=way)
        for way, spec in made.trained.items()
        if spec.stage == "protected"
    ]
    found = (accuracy, penalties or [pd.DataFrame(columns=["step", "penalty", "way"])])
    joined = (pd.concat(frames, ignore_index=True) for frames in found)
    return ProtectedTables(*(frame.assign(seed=made.seed) for frame in joined))


def _lacking(profile: Profile) -> str:
    nothing = not profile.protection.regularisers
    return "protection.regularisers is empty, so nothing is protected" if nothing else ""


collect = collector(_of_plan, ProtectedTables)
STUDY = Part("-protection", plan, collect, ProtectedTables, "protected", _lacking)


@dataclass(frozen=True)
class ProtectedChapter(Chapter[ProtectedTables]):
    """The part of chapter 04 about protected SFT."""

    PART = STUDY

    @classmethod
    def slice_of(cls, recorded: ProtectedTables, profile: Profile, seed: int, store: Store) -> Slice:
        """One run under a penalty, and an evaluation of its last checkpoint."""
        whole = plan(profile, seed, store)
        way = next(way for way, spec in whole.trained.items() if spec.stage == "protected")
        step = max(step for _, step, _ in whole.censuses)
        at = (way, step, 0)
        part = replace(whole, trained={way: whole.trained[way]}, censuses={at: whole.censuses[at]})
        rows = {
            "accuracy": only(recorded.accuracy, way=way, step=step, decode=0),
            "penalties": only(recorded.penalties, way=way),
        }
        return Slice((step,), part, rows)

    def how_fresh(self) -> list[str]:
        ways = [str(way) for way in self.fresh.accuracy["way"].unique()]
        return [f"regularisers {', '.join(ways)}, up to step {self.fresh.accuracy['step'].max():,}"]

    def how_recorded(self, recorded: ProtectedTables) -> list[str]:
        rows = recorded.accuracy
        return [f"{rows['way'].nunique()} regularisers, {rows['decode'].nunique()} sampling seeds"]


CHAPTER = ProtectedChapter
protect = ProtectedChapter.open
