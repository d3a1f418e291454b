"""What the figures of chapter 01 show, as tables: one value per base seed and SFT step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlheals.chapters.rows import halved, only, shares
from rlheals.study.tables import Tables
from rlheals.tasks import load_task

Measure = Callable[[pd.DataFrame], pd.Series]
"""From episodes to hits, one per hand: True, False, or missing where a hand does not count."""

SOLVED: dict[str, Measure] = {
    "within_five": lambda e: e["solved_at"] > 0,
    "first_try": lambda e: e["solved_at"] == 1,
    "either": lambda e: e["solved_at_either"] > 0,
    "revision": lambda e: (e["solved_at"] > 1).where(e["solved_at"] != 1),
}
"""success@5 with feedback; pass@1; format-agnostic success@5; solved later, among those whose first attempt failed."""
PARTS: dict[str, Measure] = {
    "format: readable": lambda e: (e["first"] != "illegal_formula").where(e["first"] != ""),
    "rule: values right, if readable": lambda e: e["first_values_right"].where(
        e["first"] != "illegal_formula"
    ),
    "arithmetic: makes 24, if values right": lambda e: (e["first"] == "correct").where(
        e["first_values_right"] & (e["first"] != "illegal_formula")
    ),
    "revision: solved later, if failed": SOLVED["revision"],
}
"""What goes right, each among the hands that got to it."""
MEASURES: dict[str, Measure] = {
    **SOLVED, **PARTS,
    "first_either": lambda e: e["solved_at_either"] == 1,
    "unreadable": lambda e: e["first"] == "illegal_formula",
}  # fmt: skip
LAYOUTS = {"target": "within_five", "either": "either"}


@dataclass(frozen=True)
class Curves:
    """One base seed's measurements, ready for the estimators."""

    episodes: pd.DataFrame
    losses: pd.DataFrame

    @classmethod
    def of(cls, tables: Tables) -> Curves:
        return cls(halved(tables.episodes), tables.losses)

    def accuracy(self, split: str, layout: str = "target", half: int | None = None) -> pd.Series:
        """success@5 by step, all sampling seeds together; `half` restricts it to one half of the hands."""
        rows = only(self.episodes, split=split, **({} if half is None else {"half": half}))
        return MEASURES[LAYOUTS[layout]](rows).groupby(rows["step"]).mean()

    def peaks(self, layout: str = "target") -> list[tuple[int, int]]:
        """(step of the OOD peak as chosen on one half of the hands, the other half), both ways; step 0 is the base."""
        return [(int(self.accuracy("ood", layout, 1 - half).drop(0).idxmax()), half) for half in (0, 1)]

    def loss(self, name: str) -> pd.Series:
        """Loss of one set by step, at the steps that have a census."""
        rows = only(self.losses, set=name).set_index("step")["loss"]
        return rows[rows.index.isin(self.episodes["step"].unique())]

    @property
    def end(self) -> int:
        return int(self.episodes["step"].max())


def by_seed(tables: Tables) -> dict[int, Curves]:
    """The curves of every base seed; through `tables.once`, made one time."""
    return {seed: Curves.of(tables.of_seed(seed)) for seed in tables.seeds}


def accuracy(tables: Tables, split: str, measure: str = "within_five") -> pd.DataFrame:
    """Share of a split's hands that one of `MEASURES` counts."""
    rows = only(tables.episodes, split=split)
    return shares(rows, MEASURES[measure](rows))


def common_hands(tables: Tables, rule: str, task: str = "general_points") -> pd.DataFrame:
    """success@5 on the task's paired items (hands that both rules can solve), asked under one of the rules."""
    of = load_task(task)
    wanted = {item.id for split in of.paired for item in of.items(split) if item.rule == rule}
    rows = only(tables.episodes, item=wanted)
    return shares(rows, SOLVED["within_five"](rows))


def loss(tables: Tables, name: str) -> pd.DataFrame:
    """Cross-entropy of one set of expert answers."""
    return only(tables.losses, set=name)[["seed", "step", "loss"]].rename(columns={"loss": "value"})


def categories(tables: Tables, split: str, names: list[str]) -> pd.DataFrame:
    """Attempts by category: one row per step, one column per name, rows sum to 1."""
    rows = only(tables.categories, split=split, protocol="target")
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
