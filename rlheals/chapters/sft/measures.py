"""What the figures of chapter 01 show, as tables: one value per base seed and SFT step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlheals.study.claims import half_of
from rlheals.study.tables import Tables
from rlheals.tasks import load_task

LAYOUTS = {"target": "solved_at", "either": "solved_at_either"}


@dataclass(frozen=True)
class Curves:
    """One base seed's measurements, ready for the estimators."""

    episodes: pd.DataFrame
    losses: pd.DataFrame

    @classmethod
    def of(cls, tables: Tables) -> Curves:
        halves = {item: half_of(str(item)) for item in tables.episodes["item"].unique()}
        return cls(
            tables.episodes.assign(half=tables.episodes["item"].map(halves).astype(int)), tables.losses
        )

    def accuracy(self, split: str, layout: str = "target", half: int | None = None) -> pd.Series:
        """success@5 by step, all sampling seeds together; `half` restricts it to one half of the hands."""
        rows = self.episodes[self.episodes["split"] == split]
        if half is not None:
            rows = rows[rows["half"] == half]
        return (rows[LAYOUTS[layout]] > 0).groupby(rows["step"]).mean()

    def peaks(self, layout: str = "target") -> list[tuple[int, int]]:
        """(step of the OOD peak as chosen on one half of the hands, the other half), both ways; step 0 is the base."""
        return [(int(self.accuracy("ood", layout, 1 - half).drop(0).idxmax()), half) for half in (0, 1)]

    def loss(self, name: str) -> pd.Series:
        """Loss of one set by step, at the steps that have a census."""
        rows = self.losses[self.losses["set"] == name].set_index("step")["loss"]
        return rows[rows.index.isin(self.episodes["step"].unique())]

    @property
    def end(self) -> int:
        return int(self.episodes["step"].max())


def by_seed(tables: Tables) -> dict[int, Curves]:
    """The curves of every base seed; through `tables.once`, made one time."""
    return {seed: Curves.of(tables.of_seed(seed)) for seed in tables.seeds}


Measure = Callable[[Tables], pd.DataFrame]
Solved = Callable[[pd.Series], pd.Series]


def within_five(solved_at: pd.Series) -> pd.Series:
    """success@5 with feedback: solved in any attempt (0 stands for never)."""
    return solved_at > 0


def first_try(solved_at: pd.Series) -> pd.Series:
    """pass@1: solved in the first attempt."""
    return solved_at == 1


def shares(table: pd.DataFrame, hit: pd.Series, by: tuple[str, ...] = ("seed", "step")) -> pd.DataFrame:
    """Share of True in `hit` per group, with its count: columns by..., value, n."""
    grouped = hit.astype(float).groupby([table[column] for column in by], observed=True)
    return grouped.agg(value="mean", n="size").reset_index()


def of_split(tables: Tables, split: str) -> pd.DataFrame:
    """The episodes of one split."""
    return tables.episodes[tables.episodes["split"] == split]


def accuracy(
    tables: Tables, split: str, solved: Solved = within_five, column: str = "solved_at"
) -> pd.DataFrame:
    """Share of hands solved; `column="solved_at_either"` is format-agnostic."""
    rows = of_split(tables, split)
    return shares(rows, solved(rows[column]))


def common_hands(tables: Tables, rule: str, task: str = "general_points") -> pd.DataFrame:
    """success@5 on the task's paired items (hands that both rules can solve), asked under one of the rules."""
    of = load_task(task)
    wanted = {item.id for split in of.paired for item in of.items(split) if item.rule == rule}
    rows = tables.episodes[tables.episodes["item"].isin(wanted)]
    return shares(rows, within_five(rows["solved_at"]))


def unreadable(tables: Tables, split: str) -> pd.DataFrame:
    """Share of first attempts that cannot be read."""
    rows = of_split(tables, split)
    return shares(rows, rows["first"] == "illegal_formula")


def loss(tables: Tables, name: str) -> pd.DataFrame:
    """Cross-entropy of one set of expert answers."""
    rows = tables.losses.loc[tables.losses["set"] == name, ["seed", "step", "loss"]]
    return rows.rename(columns={"loss": "value"})


def part(tables: Tables, split: str, name: str) -> pd.DataFrame:
    """One of `PARTS` for a split: the share that gets this part right among those that got to it."""
    rows = of_split(tables, split)
    among, hit = PARTS[name](rows)
    return shares(rows[among], hit[among])


PARTS: dict[str, Callable[[pd.DataFrame], tuple[pd.Series, pd.Series]]] = {
    "format: readable": lambda e: (e["first"] != "", e["first"] != "illegal_formula"),
    "rule: values right, if readable": lambda e: (e["first"] != "illegal_formula", e["first_values_right"]),
    "arithmetic: makes 24, if values right": lambda e: (
        e["first_values_right"] & (e["first"] != "illegal_formula"),
        e["first"] == "correct",
    ),
    "revision: solved later, if failed": lambda e: (e["solved_at"] != 1, e["solved_at"] > 1),
}
"""Among which hands a part is measured, and what counts as getting it right."""


def categories(tables: Tables, split: str, names: list[str]) -> pd.DataFrame:
    """Attempts by category: one row per step, one column per name, rows sum to 1."""
    rows = tables.categories
    rows = rows[(rows["split"] == split) & (rows["protocol"] == "target")]
    kinds = rows["category"].astype(str).replace("partial", "no_solution")
    counts = rows["attempts"].groupby([rows["step"], kinds]).sum().unstack(fill_value=0)
    return counts.div(counts.sum(axis=1), axis=0).reindex(columns=names, fill_value=0.0)


def rule_trials(tables: Tables, task: str = "general_points") -> pd.DataFrame:
    """Accuracy by (seed, step, distance), the distance being the task's: how far a rule is from the ID rule."""
    distance = load_task(task).rule_distance
    rules = tables.rules.assign(distance=[distance(name) for name in tables.rules["rule"]])
    return shares(rules, rules["solved_at"] > 0, by=("seed", "step", "distance"))


def base_level(curves: Curves) -> float:
    """OOD accuracy of the base, format-agnostic."""
    return float(curves.accuracy("ood", "either")[0])


def peak_level(curves: Curves) -> float:
    """OOD accuracy at the peak, chosen on one half of the hands and measured on the other, both ways."""
    return float(np.mean([curves.accuracy("ood", half=half)[step] for step, half in curves.peaks()]))


def end_level(curves: Curves) -> float:
    """OOD accuracy of the last checkpoint."""
    return float(curves.accuracy("ood")[curves.end])
