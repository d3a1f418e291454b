"""Estimators of chapter 02: each takes one base seed's measurements and returns one number, so that "number > margin".

A gain is OOD accuracy after RL minus that of its start, hand by hand on the same sampling noise, averaged over RL
seeds and decodes. Where the best of several starts is meant, it is chosen on one half of the hands and measured on
the other, both ways, so that the choice does not flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from rlheals.claims import ChapterClaims, Claim, ClaimsFile, StudyPlan, finite, half_of
from rlheals.recovery import MAIN, RecoveryTables

MEASURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "within_five": lambda rows: rows["solved_at"] > 0,
    "first_try": lambda rows: rows["solved_at"] == 1,
    "either": lambda rows: rows["solved_at_either"] > 0,
    "revision": lambda rows: (rows["solved_at"] > 1).where(rows["solved_at"] != 1),
}
"""Solved at all; in the first attempt; in either layout; later, among those whose first attempt failed."""


@dataclass(frozen=True)
class Accuracies:
    """One base seed's accuracies: before and after RL, by control, start and half of the hands."""

    table: pd.DataFrame

    @classmethod
    def of(cls, tables: RecoveryTables, seed: int) -> Accuracies:
        rows = tables.episodes[tables.episodes["seed"] == seed]
        halves = {item: half_of(str(item)) for item in rows["item"].unique()}
        rows = rows.assign(half=rows["item"].map(halves).astype(int))
        keys = ["control", "start", "run", "split", "half"]
        frames = []
        for name, measure in MEASURES.items():
            hits = measure(rows).astype("float64")
            grouped = hits.groupby([rows[key] for key in keys], observed=True).agg(["sum", "count"])
            frames.append(grouped.reset_index().assign(measure=name))
        return cls(pd.concat(frames, ignore_index=True))

    @classmethod
    def by_seed(cls, tables: RecoveryTables) -> dict[int, Accuracies]:
        """Those of every base seed."""
        return tables.once(_by_seed)

    def accuracy(
        self,
        start: int,
        after: bool,
        *,
        split: str = "ood",
        measure: str = "within_five",
        control: str = MAIN,
        half: int | None = None,
    ) -> float:
        """Share of hands solved by a start (after=False) or by RL from it, all runs and decodes together.

        Not a number where nothing was measured.
        """
        table = self.table
        chosen = (
            (table["control"] == control)
            & (table["start"] == start)
            & (table["split"] == split)
            & (table["measure"] == measure)
            & ((table["run"] >= 0) == after)
        )
        if half is not None:
            chosen &= table["half"] == half
        count = table.loc[chosen, "count"].sum()
        return float(table.loc[chosen, "sum"].sum() / count) if count else float("nan")

    def gain(self, start: int, **options: str) -> float:
        """Accuracy after RL from a start minus before."""
        return self.accuracy(start, True, **options) - self.accuracy(start, False, **options)  # type: ignore[arg-type]

    @property
    def starts(self) -> list[int]:
        mine = self.table[(self.table["control"] == MAIN) & (self.table["run"] >= 0)]
        return sorted(int(start) for start in mine["start"].unique())

    def best(self, after: bool) -> float:
        """Highest OOD accuracy over the starts, before or after RL, cross-fitted."""
        found = []
        for half in (0, 1):
            chosen = max(self.starts, key=lambda start: self.accuracy(start, after, half=1 - half))
            found.append(self.accuracy(chosen, after, half=half))
        return float(np.mean(found))


def _by_seed(tables: RecoveryTables) -> dict[int, Accuracies]:
    return {seed: Accuracies.of(tables, seed) for seed in tables.seeds}


def gain(measured: Accuracies, starts: Sequence[int], measure: str = "within_five") -> float:
    """Mean gain over some starts."""
    return float(np.mean([measured.gain(start, measure=measure) for start in starts]))


def no_gain(measured: Accuracies, starts: Sequence[int], tolerance: float) -> float:
    """Tolerance minus the mean gain over some starts."""
    return tolerance - gain(measured, starts)


def below_peak(measured: Accuracies, tolerance: float) -> float:
    """Peak of the starts, plus a tolerance, minus the best result of RL."""
    return measured.best(after=False) + tolerance - measured.best(after=True)


def id_rule(measured: Accuracies, low: float, high: float, gained: float) -> float:
    """Balanced accuracy, less one half, of "RL gains if the start's ID accuracy lies between low and high".

    A base seed where all starts gain, or none, cannot speak for the rule: 0.
    """
    said = np.array(
        [low <= measured.accuracy(start, False, split="sft") <= high for start in measured.starts]
    )
    is_so = np.array([measured.gain(start) > gained for start in measured.starts])
    if is_so.all() or not is_so.any():
        return 0.0
    return float((said[is_so].mean() + (~said[~is_so]).mean()) / 2 - 0.5)


def over_control(measured: Accuracies, control: str, start: int) -> float:
    """OOD accuracy after RL from a start minus that after the control from the same start."""
    return measured.accuracy(start, True) - measured.accuracy(start, True, control=control)


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (gain, no_gain, below_peak, id_rule, over_control)
}


class RecoveryClaim(Claim):
    """A claim of chapter 02."""

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        return ESTIMATORS


class RecoveryStudy(StudyPlan):
    """Which runs decide about chapter 02."""

    runs: int = Field(ge=1)


class RecoveryFile(ClaimsFile):
    """The part of `claims.yaml` about chapter 02."""

    study: RecoveryStudy
    claims: tuple[RecoveryClaim, ...]


def estimates(claim: Claim, tables: RecoveryTables) -> dict[int, float]:
    """The claim's number for every base seed that has what it needs."""
    run, measured = ESTIMATORS[claim.estimator], Accuracies.by_seed(tables)
    return finite(tables.seeds, lambda seed: run(measured[seed], **claim.options))


def missing(tables: RecoveryTables, claims: RecoveryFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    plan, found = claims.study, []
    rows = tables.episodes
    controls = {claim.options["control"] for claim in claims.claims if "control" in claim.options}
    for seed in plan.seeds:
        mine = rows[rows["seed"] == seed]
        main = mine[mine["control"] == MAIN]
        runs = set(main.loc[main["run"] >= 0, "run"])
        if len(runs) < plan.runs:
            found.append(f"base seed {seed}: {len(runs)} of {plan.runs} RL seeds")
        elif main["decode"].nunique() < plan.decodes:
            found.append(f"base seed {seed}: {main['decode'].nunique()} of {plan.decodes} decodes")
        if lacking := sorted(controls - set(mine["control"])):
            found.append(f"base seed {seed}: controls {', '.join(lacking)}")
    return found


CLAIMS = ChapterClaims("recovery", RecoveryFile, estimates, missing)
