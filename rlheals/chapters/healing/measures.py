"""What chapter 05 measures of one base seed: accuracies before and after a second stage, and shares of a loss regained.

Accuracies are those of the half of the hands that did not choose the states (`rlheals.study.peaks`). All RL seeds of a
second stage count alike. Without an `ability`, a base is the ablest one of the study. A state that SFT did not reach is
BadInput; what is not recorded (yet) is not a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rlheals.chapters.healing.runs import BEFORE, HealingTables
from rlheals.chapters.rows import halved, only
from rlheals.chapters.sft.measures import rule_read
from rlheals.errors import BadInput
from rlheals.study.peaks import PEAK

PART = 4
"""Angles are those of the leading quarter of a matrix's smaller side."""
MEASURES = ["pass1", "pass4", "success5", "rule", "arithmetic"]
MEASURING = 1
"""The half of the hands that measures."""


def hits(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per (arm, state, run, split, half, hand) with what its sampling seeds say of it.

    pass4: whether one of them solved it at the first attempt in either layout (pass@k of k sampling seeds, 4 in the
    lab); pass1: the share that did; success5: the share that solved it in five attempts with feedback; rule: the share
    of first attempts that read the rule right; arithmetic: how many of these solve it.
    """
    first = episodes["solved_at_either"] == 1
    read = rule_read(episodes)
    marked = episodes.assign(
        pass1=first,
        success5=episodes["solved_at"] > 0,
        rule=read.astype(float),
        solved_right=first & read.astype(bool),
    )
    keys = ["ability", "control", "start", "run", "split", "half", "item"]
    found = marked.groupby(keys, observed=True)[["pass1", "success5", "rule", "solved_right"]].mean()
    found["pass4"] = (found["pass1"] > 0).astype(float)
    found["arithmetic"] = (found["solved_right"] / found["rule"]).where(found["rule"] > 0)
    return found.drop(columns="solved_right").reset_index()


@dataclass(frozen=True)
class Healing:
    """One base seed. able: the ability of the ablest bases of the study."""

    hits: pd.DataFrame
    tables: HealingTables
    able: float

    @classmethod
    def of(cls, tables: HealingTables, seed: int) -> Healing:
        mine = tables.of_seed(seed)
        return cls(hits(halved(mine.episodes)), mine, float(tables.steps["ability"].max()))

    @cached_property
    def states(self) -> dict[float, list[int]]:
        """By ability of the base."""
        each = self.tables.steps.groupby("ability")["state"]
        return {float(str(ability)): sorted(map(int, own.unique())) for ability, own in each}

    def reached(self, ability: float | None = None) -> list[int]:
        """The states that SFT of its base reached, the peak first."""
        return self.states.get(self.able if ability is None else ability, [])

    def check(self, state: int, ability: float | None = None) -> None:
        """BadInput where SFT did not reach a state."""
        reached = self.reached(ability)
        if reached and state not in reached:
            raise BadInput(f"SFT did not lose {state} % of the OOD peak")

    @cached_property
    def levels(self) -> dict[tuple[Any, ...], dict[str, float]]:
        """By (ability, arm, state, split, whether after the second stage): each measure, a mean over RL seeds."""
        keys, rows = ["ability", "control", "start", "split"], only(self.hits, half=MEASURING)
        runs = rows.groupby([*keys, "run"], observed=True)[MEASURES].mean().reset_index()
        runs = runs.astype({"control": str, "split": str}).assign(after=runs["run"] >= 0)
        return runs.groupby([*keys, "after"])[MEASURES].mean().to_dict("index")

    def accuracy(
        self,
        arm: str,
        state: int,
        after: bool,
        *,
        measure: str = "pass4",
        split: str = "ood",
        ability: float | None = None,
    ) -> float:
        """Of an arm's result, mean over its RL seeds, or of its start; not a number where nothing was measured."""
        self.check(state, ability)
        ability = self.able if ability is None else ability
        found = self.levels.get((ability, arm, state, split, after))
        if not after and found is None:
            found = self.levels.get((ability, BEFORE, state, split, False))
        return float("nan") if found is None else found[measure]

    def peak(self, **options: object) -> float:
        """Accuracy of the SFT checkpoint of highest ability."""
        return self.accuracy(BEFORE, PEAK, False, **options)  # type: ignore[arg-type]

    def lost(self, state: int, arm: str = BEFORE, **options: object) -> float:
        """Accuracy at the peak minus that of a start."""
        return self.peak(**options) - self.accuracy(arm, state, False, **options)  # type: ignore[arg-type]

    def gain(self, arm: str, state: int, **options: object) -> float:
        """Accuracy after a second stage minus that of its start."""
        before, after = (self.accuracy(arm, state, done, **options) for done in (False, True))  # type: ignore[arg-type]
        return after - before

    def angle(self, arm: str, state: int, size: float) -> float:
        """Mean angle in degrees of leading subspaces to those of the peak, at that distance from the start.

        Interpolated along the checkpoints of the run, from its start on; size: |dW| over all matrices.
        """
        sizes, angles = (self.path(arm, state, seen_from) for seen_from in (-1, PEAK))
        if sizes.empty or angles.empty:
            return float("nan")
        return float(np.interp(size, sizes["size"], angles["angle"]))

    def reach(self, arm: str, state: int) -> float:
        """How far a run went from its start: |dW| over all matrices at its last checkpoint."""
        sizes = self.path(arm, state, -1)["size"]
        return float(sizes.iloc[-1]) if len(sizes) else float("nan")

    def path(self, arm: str, state: int, seen_from: int) -> pd.DataFrame:
        """By checkpoint, the start first: |dW| from what it is seen from, and the mean angle to it."""
        self.check(state)
        if "seen_from" not in self.tables.path:  # the mechanism is not recorded (yet)
            return pd.DataFrame({"size": [], "angle": []})
        rows = only(self.tables.path, control=arm, start=state, seen_from=seen_from, part=PART)
        by = rows.groupby("folder", sort=True)
        return pd.DataFrame(
            {
                "size": by["change_norm"].apply(lambda norm: float(np.sqrt((norm**2).sum()))),
                "angle": by["angle"].mean(),
            }
        )


def by_seed(tables: HealingTables) -> dict[int, Healing]:
    """Those of every base seed; through `tables.once`, made one time."""
    return {seed: Healing.of(tables, seed) for seed in tables.seeds}
