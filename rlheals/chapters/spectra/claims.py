"""Estimators of chapter 03: each takes one base seed and returns one number, so that "number > margin"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlheals.chapters.rows import only
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.runs import SFT, SpectraTables
from rlheals.study.claims import ChapterClaims, estimator
from rlheals.weights.linalg import ENDS
from rlheals.weights.spectra import CHANGE, START

GAUSSIAN = "gaussian"


@estimator("rotation")
def values_small(tables: SpectraTables, pair: str, below: float, by: str = "mean") -> float:
    """A limit minus the relative change of singular values."""
    return below - measured.value_change(tables, pair, by=by)


def _ratio(one: float, other: float) -> float:
    """Not a number where a change is so small that its null is 0."""
    return one / other if other else float("nan")


@estimator("rotation")
def values_below_null(tables: SpectraTables, pair: str, by: str = "mean") -> float:
    """1 - relative change of singular values / that of the Gaussian null."""
    return 1 - _ratio(*(measured.value_change(tables, pair, what, by) for what in (CHANGE, GAUSSIAN)))


@estimator("rotation")
def rotation_over_null(tables: SpectraTables, pair: str, part: int) -> float:
    """Mean angle / that of the Gaussian null - 1."""
    return (
        _ratio(measured.angle(tables, pair, CHANGE, part), measured.angle(tables, pair, GAUSSIAN, part)) - 1
    )


@estimator("rotation")
def both_ends_over_null(tables: SpectraTables, pair: str, part: int) -> float:
    """Mean angle / that of the Gaussian null - 1, at the end of the spectrum where that is smaller."""
    return min(
        _ratio(*(measured.angle(tables, pair, what, part, end) for what in (CHANGE, GAUSSIAN))) - 1
        for end in ENDS
    )


@estimator("rotation")
def ends_over_bulk(tables: SpectraTables, pair: str) -> float:
    """Energy of the change at the end of the spectrum where it is smaller / that in the bulk - 1."""
    energy = measured.end_energy(tables, pair)
    return _ratio(min(energy[end] for end in ENDS), energy["bulk"]) - 1


@estimator("rotation")
def tracks(tables: SpectraTables, predictor: str, given: Sequence[str] = ()) -> float:
    """Minus the correlation of a predictor with OOD accuracy over trajectories, each taken at matched |dW|.

    Without the branch that is trained on the OOD rule.
    """
    points = tables.once(measured.points)
    rows = measured.matched(points[points["branch"] != measured.TAUGHT_OOD])
    return -measured.correlation(rows, predictor, given)


@estimator("rotation")
def rotates_back(tables: SpectraTables, starts: Sequence[int]) -> float:
    """1 - angle to the peak after RL / before, mean over starts."""
    return _seen_from_peak(tables, starts, lambda start: measured.angle(tables, f"back-{start}", START))


@estimator("rotation")
def nearer_than_null(tables: SpectraTables, starts: Sequence[int]) -> float:
    """Angle to the peak after a Gaussian change of equal norm minus after RL, as a share of that before."""
    return _seen_from_peak(tables, starts, lambda start: measured.angle(tables, f"back-{start}", GAUSSIAN))


@estimator("rotation")
def nearer_than_sft(tables: SpectraTables, starts: Sequence[int]) -> float:
    """Angle to the peak after four times as many SFT steps minus after RL, as a share of that before."""
    return _seen_from_peak(tables, starts, lambda start: measured.angle(tables, f"on-{start}"))


def _seen_from_peak(tables: SpectraTables, starts: Sequence[int], other: Callable[[int], float]) -> float:
    shares = []
    for start in starts:
        before = measured.angle(tables, f"back-{start}", START)
        shares.append(_ratio(other(start) - measured.angle(tables, f"back-{start}"), before))
    return float(np.mean(shares))


def _by_seed(tables: SpectraTables) -> dict[int, SpectraTables]:
    return {seed: tables.of_seed(seed) for seed in tables.seeds}


CLAIMS = ChapterClaims(
    "rotation",
    _by_seed,
    lambda tables: only(tables.accuracy, branch=SFT),
    plan=("draws",),
)
