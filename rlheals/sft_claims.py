"""Estimators of chapter 01: each takes one base seed's curves and returns one number, so that "number > margin"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlheals.claims import FIRST, ChapterClaims, Claim, ClaimsFile, half_of, unrecorded
from rlheals.tables import Tables

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
        """Within-five accuracy by step, all decodes together; `half` restricts it to one half of the hands."""
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


def rise(curves: Curves, layout: str) -> float:
    """OOD accuracy at the peak minus that of the base, cross-fitted."""
    gains = []
    for step, half in curves.peaks(layout):
        accuracy = curves.accuracy("ood", layout, half)
        gains.append(accuracy[step] - accuracy[0])
    return float(np.mean(gains))


def fall(curves: Curves, layout: str) -> float:
    """OOD accuracy at the peak minus that of the last checkpoint, cross-fitted."""
    drops = []
    for step, half in curves.peaks(layout):
        accuracy = curves.accuracy("ood", layout, half)
        drops.append(accuracy[step] - accuracy[curves.end])
    return float(np.mean(drops))


def id_gain(curves: Curves, split: str) -> float:
    """ID accuracy of a split at the last checkpoint minus that at the OOD peak (mean over both choices of the peak)."""
    accuracy = curves.accuracy(split)
    return float(np.mean([accuracy[curves.end] - accuracy[step] for step, _ in curves.peaks()]))


def loss_drop(curves: Curves, set: str) -> float:
    """1 - loss at the last checkpoint / loss at the OOD peak (mean over both choices of the peak)."""
    loss = curves.loss(set)
    return float(np.mean([1 - loss[curves.end] / loss[step] for step, _ in curves.peaks()]))


def loss_regret(curves: Curves, set: str) -> float:
    """OOD accuracy at the peak minus that of the checkpoint (after the base) with the lowest loss, cross-fitted."""
    lowest = int(curves.loss(set).drop(0).idxmin())
    drops = []
    for step, half in curves.peaks():
        accuracy = curves.accuracy("ood", half=half)
        drops.append(accuracy[step] - accuracy[lowest])
    return float(np.mean(drops))


def format_lead(curves: Curves, share: float) -> float:
    """log2(OOD peak / first step at which the share of unreadable first tries on OOD hands is below `share`).

    Whether the share rises again later does not count. If it is never below: minus infinity would not average, so
    the last step is taken as the first one below.
    """
    rows = curves.episodes[curves.episodes["split"] == "ood"]
    errors = (rows["first"] == "illegal_formula").groupby(rows["step"]).mean().drop(0)
    below = errors[errors < share]
    first = int(below.index.min()) if len(below) else curves.end
    return float(np.mean([math.log2(step / first) for step, _ in curves.peaks()]))


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (rise, fall, id_gain, loss_drop, loss_regret, format_lead)
}


class SFTClaim(Claim):
    """A claim of chapter 01."""

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        return ESTIMATORS


class SFTFile(ClaimsFile):
    """The part of `claims.yaml` about chapter 01."""

    claims: tuple[SFTClaim, ...]


def estimates(claim: Claim, tables: Tables) -> dict[int, float]:
    """The claim's number for every base seed in the tables."""
    run = ESTIMATORS[claim.estimator]
    return {seed: run(curves, **claim.options) for seed, curves in tables.once(by_seed).items()}


def by_seed(tables: Tables) -> dict[int, Curves]:
    """The curves of every base seed; through `tables.once`, made one time."""
    return {seed: Curves.of(tables.of_seed(seed)) for seed in tables.seeds}


def missing(tables: Tables, claims: SFTFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    return unrecorded(claims, tables.episodes, lambda claim: tables.seeds)


CLAIMS = ChapterClaims(FIRST, SFTFile, estimates, missing)
