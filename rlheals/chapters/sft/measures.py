"""What the figures of chapter 01 show, as tables: one value per base seed and SFT step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rlheals.chapters.rows import halved, only, pass_at, shares
from rlheals.errors import BadInput
from rlheals.study.tables import Tables
from rlheals.tasks import load_task

Measure = Callable[[pd.DataFrame], pd.Series]
"""From episodes to hits, one per hand: True, False, or missing where a hand does not count."""


def revision(episodes: pd.DataFrame) -> pd.Series:
    """Solved later, among the hands whose first attempt failed."""
    return (episodes["solved_at"] > 1).where(episodes["solved_at"] != 1)


def readable(episodes: pd.DataFrame) -> pd.Series:
    """Whether the first attempt could be read."""
    return ~episodes["first"].isin(UNREADABLE)


def rule_read(episodes: pd.DataFrame) -> pd.Series:
    """Whether it states what the rule makes of the question; missing for tasks whose answers do not state that, where
    every readable answer counts for the result."""
    known = [column for column in RULE_READ if column in episodes]
    return episodes[known[0]] if known else pd.Series(np.nan, episodes.index)


UNREADABLE = ("illegal_formula", "illegal", "unreadable")
"""Verdicts of all tasks on a reply that is no answer."""
RULE_READ = ("first_values_right", "first_direction_right", "first_products_right")
"""Columns of tasks that say whether the first attempt read the rule right; a task has one of them, or none."""
TRIES = re.compile(r"(pass|success|feedback)@([1-9])( either)?")
"""Names of measures of k tries: `share`."""
PARTS: dict[str, Measure] = {
    "format: readable": lambda e: readable(e).where(e["first"] != ""),
    "rule: read right, if readable": lambda e: rule_read(e).where(readable(e)),
    "result: right, if the rule is": lambda e: (e["first"] == "correct").where(
        rule_read(e).astype(bool) & readable(e)
    ),
    "revision: solved later, if failed": revision,
}
"""What goes right, each among the hands that got to it."""
MEASURES: dict[str, Measure] = {
    **PARTS, "revision": revision, "unreadable": lambda e: ~readable(e),
}  # fmt: skip
"""Those that are not about a number of tries."""


def share(episodes: pd.DataFrame, measure: str, by: Sequence[str] = ("seed", "step")) -> pd.DataFrame:
    """Share of hands by group that a measure counts, all sampling seeds together: columns by..., value, n.

    measure: one of `MEASURES`, or for k tries
    success@k     solved in the first k attempts of an episode, with feedback between them
    pass@k        solved by one of k first attempts, without feedback (`rows.pass_at`)
    feedback@k    success@k - pass@k: what feedback adds at equal numbers of attempts
    and with " either" behind it format-agnostic. A group with too few sampling seeds for pass@k is not there.
    Raises BadInput for another name.
    """
    if measure in MEASURES:
        return shares(episodes, MEASURES[measure](episodes), by)
    if not (named := TRIES.fullmatch(measure)):
        known = ", ".join(["pass@k", "success@k", "feedback@k (with ' either')", *MEASURES])
        raise BadInput(f"measure {measure!r}; accepted: {known}")
    kind, k, column = named[1], int(named[2]), "solved_at_either" if named[3] else "solved_at"
    solved = shares(episodes, episodes[column].between(1, k), by)
    if kind == "success" or (kind == "pass" and k == 1):
        return solved
    drawn = pass_at(episodes, k, by, column)
    if kind == "pass":
        return drawn
    both = drawn.merge(solved, on=list(by), suffixes=("", "_solved"))
    return both.assign(value=both["value_solved"] - both["value"])[drawn.columns]


@dataclass(frozen=True)
class Curves:
    """One base seed's measurements, ready for the estimators."""

    episodes: pd.DataFrame
    losses: pd.DataFrame
    known: dict[tuple[str, str, int | None], pd.Series] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What has been asked for, by split, measure and half."""

    @classmethod
    def of(cls, tables: Tables) -> Curves:
        return cls(halved(tables.episodes), tables.losses)

    def accuracy(self, split: str, measure: str = "success@5", half: int | None = None) -> pd.Series:
        """A measure by step, all sampling seeds together; `half` restricts it to one half of the hands."""
        if (asked := (split, measure, half)) not in self.known:
            rows = only(self.episodes, split=split, **({} if half is None else {"half": half}))
            self.known[asked] = share(rows, measure, ["step"]).set_index("step")["value"]
        return self.known[asked].copy()

    def peaks(self, measure: str = "success@5") -> list[tuple[int, int]]:
        """(step of the OOD peak as chosen on one half of the hands, the other half), both ways; step 0 is the base.

        Raises BadInput where a half has no hands.
        """
        halves = [(self.accuracy("ood", measure, 1 - half).drop(0, errors="ignore"), half) for half in (0, 1)]
        if any(found.empty for found, _ in halves):
            raise BadInput(
                "all OOD hands are in one half, so none are left to choose the peak on; evaluate more hands"
            )
        return [(int(found.idxmax()), half) for found, half in halves]

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


def accuracy(tables: Tables, split: str, measure: str = "success@5") -> pd.DataFrame:
    """Share of a split's hands that a measure counts."""
    return share(only(tables.episodes, split=split), measure)


def common_hands(tables: Tables, rule: str, task: str = "general_points") -> pd.DataFrame:
    """success@5 on the task's paired items (hands that both rules can solve), asked under one of the rules."""
    of = load_task(task)
    wanted = {item.id for split in of.paired for item in of.items(split) if item.rule == rule}
    rows = only(tables.episodes, item=wanted)
    return share(rows, "success@5")


def loss(tables: Tables, name: str) -> pd.DataFrame:
    """Cross-entropy of one set of expert answers."""
    return only(tables.losses, set=name)[["seed", "step", "loss"]].rename(columns={"loss": "value"})


def verdict(tables: Tables, split: str, name: str) -> pd.DataFrame:
    """Share of all attempts that the verifier gave this verdict; "partial" counts as "no_solution"."""
    rows = only(tables.categories, split=split, protocol="target")
    given = rows["category"].astype(str).replace("partial", "no_solution") == name
    sums = (
        rows.assign(given=rows["attempts"].where(given, 0))
        .groupby(["seed", "step"])[["given", "attempts"]]
        .sum()
    )
    return (sums["given"] / sums["attempts"]).rename("value").reset_index()


def rule_trials(tables: Tables, task: str = "general_points") -> pd.DataFrame:
    """Accuracy by (seed, step, rule, distance), the distance being the task's: how far a rule is from the ID rule."""
    distance = load_task(task).rule_distance
    rules = tables.rules.assign(distance=[distance(name) for name in tables.rules["rule"]])
    return shares(rules, rules["solved_at"] > 0, by=("seed", "step", "rule", "distance"))


def base_level(curves: Curves) -> float:
    """OOD accuracy of the base, format-agnostic."""
    return float(curves.accuracy("ood", "success@5 either")[0])


def peak_level(curves: Curves) -> float:
    """OOD accuracy at the peak, chosen on one half of the hands and measured on the other, both ways."""
    return float(np.mean([curves.accuracy("ood", half=half)[step] for step, half in curves.peaks()]))


def end_level(curves: Curves) -> float:
    """OOD accuracy of the last checkpoint."""
    return float(curves.accuracy("ood")[curves.end])
