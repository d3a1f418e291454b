"""Estimators of chapter 01: each takes one base seed's curves and returns one number, so that "number > margin".

The peak is chosen on one half of the OOD hands and measured on the other, both ways (cross-fitted).
"""

from __future__ import annotations

import math

import numpy as np

from rlheals.chapters.rows import only
from rlheals.chapters.sft.measures import Curves, by_seed
from rlheals.study.claims import ChapterClaims, estimator


def _peak_over(curves: Curves, step: int, measure: str = "success@5") -> float:
    """OOD accuracy at the peak minus that at another step, cross-fitted."""
    halves = [(at, curves.accuracy("ood", measure, half)) for at, half in curves.peaks(measure)]
    return float(np.mean([accuracy[at] - accuracy[step] for at, accuracy in halves]))


@estimator("sft")
def rise(curves: Curves, measure: str) -> float:
    """OOD accuracy at the peak minus that of the base."""
    return _peak_over(curves, 0, measure)


@estimator("sft")
def fall(curves: Curves, measure: str) -> float:
    """OOD accuracy at the peak minus that of the last checkpoint."""
    return _peak_over(curves, curves.end, measure)


@estimator("sft")
def feedback_lacks(curves: Curves, k: int) -> float:
    """pass@k - success@k on OOD hands, format-agnostic, at the peak of success@5 (mean over both choices of it)."""
    added = curves.accuracy("ood", f"feedback@{k} either")
    return -float(np.mean([added.get(step, np.nan) for step, _ in curves.peaks()]))


@estimator("sft")
def id_gain(curves: Curves, split: str) -> float:
    """ID accuracy of a split at the last checkpoint minus that at the OOD peak (mean over both choices of the peak)."""
    accuracy = curves.accuracy(split)
    return float(np.mean([accuracy[curves.end] - accuracy[step] for step, _ in curves.peaks()]))


@estimator("sft")
def loss_drop(curves: Curves, set: str) -> float:
    """1 - loss at the last checkpoint / loss at the OOD peak (mean over both choices of the peak)."""
    loss = curves.loss(set)
    return float(np.mean([1 - loss[curves.end] / loss[step] for step, _ in curves.peaks()]))


@estimator("sft")
def loss_regret(curves: Curves, set: str) -> float:
    """OOD accuracy at the peak minus that of the checkpoint (after the base) with the lowest loss."""
    return _peak_over(curves, int(curves.loss(set).drop(0).idxmin()))


@estimator("sft")
def format_lead(curves: Curves, share: float) -> float:
    """log2(OOD peak / first step at which the share of unreadable first attempts on OOD hands is below `share`).

    Whether the share rises again later does not count. If it is never below: minus infinity would not average, so
    the last step is taken as the first one below.
    """
    rows = only(curves.episodes, split="ood")
    errors = (rows["first"] == "illegal_formula").groupby(rows["step"]).mean().drop(0)
    below = errors[errors < share]
    first = int(below.index.min()) if len(below) else curves.end
    return float(np.mean([math.log2(step / first) for step, _ in curves.peaks()]))


CLAIMS = ChapterClaims("sft", by_seed, lambda tables: tables.episodes)
