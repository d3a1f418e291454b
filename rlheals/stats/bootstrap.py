"""One bound for the largest of several means, by a wild bootstrap over base seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlheals.errors import BadInput
from rlheals.stats.intervals import check_level

FloatArray = npt.NDArray[np.float64]


def largest_bound(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 8000, seed: int = 0
) -> tuple[float, FloatArray]:
    """Upper bounds for the means of several quantities, and for the largest of them, that hold together.

    values: (seeds, quantities), every quantity measured at every seed; at least two seeds.
    Returns (bound of the largest mean, one bound per quantity): mean_q + c s_q / sqrt(seeds), where c is the
    `level` quantile of the largest Student's t over the quantities in a wild bootstrap: the deviations of a
    whole seed from the means are multiplied by one of +-sqrt(1/2), +-1, +-sqrt(3/2) (all combinations when
    there are at most `resamples` of them), so that what the quantities share is kept.
    Raises BadInput for another shape, fewer than two seeds, a number that is not finite.
    Source: Webb 2023 (the weights, for few clusters); Romano and Wolf 2005 (the largest t).

    >>> bound, each = largest_bound([[0.01, 0.20], [0.03, 0.24], [0.02, 0.22], [0.03, 0.21], [0.01, 0.23]])
    >>> round(bound, 3) == round(float(each[1]), 3), bool(0.22 < bound < 0.26)
    (True, True)
    """
    check_level(level)
    if resamples < 100:
        raise BadInput(f"resamples: {resamples}, at least 100 are needed")
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise BadInput(f"largest_bound: shape {table.shape}; accepted: (2 or more seeds, quantities)")
    if not np.isfinite(table).all():
        raise BadInput("largest_bound: a value is not a finite number")
    n, mean = len(table), table.mean(axis=0)
    deviations = table - mean
    error = table.std(axis=0, ddof=1) / math.sqrt(n)
    varying = error > 1e-12 * np.maximum(1.0, np.abs(mean))
    weights = _webb_weights(n, resamples, seed)
    moved = weights @ deviations / n
    variance = np.maximum((weights**2 @ deviations**2 - n * moved**2) / (n - 1), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(variance > 0, moved / np.sqrt(variance / n), 0.0)[:, varying]
    reach = float(np.quantile(t.max(axis=1), level)) if varying.any() else 0.0
    bounds = mean + reach * np.where(varying, error, 0.0)
    return float(bounds.max()), bounds


def _webb_weights(seeds: int, resamples: int, seed: int) -> FloatArray:
    """Weights of a wild bootstrap, (draws, seeds): all combinations if they are few enough."""
    points = np.sqrt([0.5, 1.0, 1.5])
    points = np.concatenate([-points, points])
    if len(points) ** seeds <= resamples:
        return np.stack(np.meshgrid(*[points] * seeds, indexing="ij"), axis=-1).reshape(-1, seeds)
    return np.random.default_rng(seed).choice(points, size=(resamples, seeds))
