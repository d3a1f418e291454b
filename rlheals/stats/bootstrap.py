"""Bootstrap intervals for paired hands and for tables of seeds x decodes x hands.

Two remedies make them cover with few units, where the plain percentile bootstrap is too short:
the bootstrap variance of n units is a factor (n - 1)/n too small, and the normal quantile must be Student's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval, check_level, t_quantile

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Axis = Literal["seeds", "decodes", "hands"]
AXES: tuple[Axis, ...] = ("seeds", "decodes", "hands")

# numbers held at once while resampling; bounds memory (about 8 MB), fixed so that the draws are reproducible
_BLOCK_NUMBERS = 1_000_000


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Interval for mean(a) - mean(b) where both were measured on the same hands.

    a, b: equal shapes, (hands,) or (decodes, hands); numbers or booleans, none missing.
    (hands,): percentile interval of the mean difference over resampled hands, its two levels moved out to
    Phi(-+ t(n - 1) sqrt(n / (n - 1))) (Hesterberg 2015, "expanded percentile"); n at least 5.
    (decodes, hands): `nested_bootstrap` of the differences with both axes resampled.
    Covers the draw of the hands and of the attempts, not of the training seed.
    Raises BadInput for shapes that differ or are others, for numbers that are not finite, for too few hands.

    >>> before, after = [0, 0, 0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0, 0, 1]
    >>> str(paired_bootstrap(after, before))
    '0.40 [0.10, 0.80]'
    """
    check_level(level)
    _check_resamples(resamples)
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise BadInput(f"paired_bootstrap: shapes {first.shape} and {second.shape} differ, pairs are needed")
    if first.ndim not in (1, 2):
        raise BadInput(f"paired_bootstrap: shape {first.shape}, accepted are (hands,) and (decodes, hands)")
    difference = first - second
    if not np.isfinite(difference).all():
        raise BadInput(
            "paired_bootstrap: a value is not a finite number; leave out hands that lack a partner"
        )
    if difference.ndim == 2:
        return nested_bootstrap(
            difference[None], axes=("decodes", "hands"), level=level, resamples=resamples, seed=seed
        )
    n = len(difference)
    if n < 5:
        raise BadInput(f"paired_bootstrap: {n} hands, at least 5 are needed")
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [difference[rng.integers(n, size=(size, n))].mean(axis=1) for size in _blocks(resamples, n)]
    )
    outer = NormalDist().cdf(-t_quantile(0.5 + level / 2, n - 1) * math.sqrt(n / (n - 1)))
    low, high = np.quantile(means, [outer, 1 - outer])
    return Interval(
        float(difference.mean()), float(low), float(high), level, n, "paired bootstrap over hands"
    )


def nested_bootstrap(
    values: npt.ArrayLike,
    statistic: Callable[[FloatArray], float] | None = None,
    *,
    axes: Sequence[Axis] = ("seeds",),
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval for a statistic of a table: estimate +- t(df) x bootstrap standard error.

    values: (seeds, decodes, hands), nan = not measured.  Decode d of one seed has nothing to do with
    decode d of another (nested); hand h is the same hand everywhere (crossed).
    statistic: table -> number; None: the mean of what was measured (same result as np.nanmean, faster).
    axes: what counts as drawn at random; the rest is held fixed.

    * "seeds": whole seeds are resampled.  Their spread already holds the noise of their decodes, so "decodes"
      beside "seeds" changes nothing (resampling both would count the noise twice).  df = seeds - 1.
      For the mean of a complete table this is `t_interval`.
    * "decodes" alone: within each seed; holds for these trained models only.  df = seeds (decodes - 1).
    * "hands": as drawn from a larger set of hands.  df = hands - 1.
    * "hands" with one of the others: R rows (seeds, or decodes per seed) and H hands are resampled, each
      alone and both together.  A = var*(T(rows)) R/(R - 1), B = var*(T(hands)) H/(H - 1), and
      E = var*(T(rows, hands) - T(rows) - T(hands)) R/(R - 1) H/(H - 1).  A and B both hold the noise E of the
      single cells, which is counted once: half width^2 = t(rows)^2 A + t(hands)^2 max(B - E, 0).

    n/(n - 1) and t are the remedy for few clusters.  The 95 % interval of a mean covers 95 % over 3, 5 or 9
    seeds or over decodes, 96 to 97 % over 3 seeds and hands (up to 98 % when the seeds hardly differ); plain
    percentiles cover 73, 84 and 89 % at 3, 5 and 9 seeds (benchmarks/bench_coverage.py).
    Raises BadInput for another shape, an axis with fewer than two units, an empty seed (or decode, when these
    are resampled), a statistic that is not a finite number.
    Source: Cameron, Gelbach, Miller 2011 (A + B - E); Howe 1974 (each part with its own t; one t by
    Satterthwaite's formula covers 92 % at 3 seeds); Davison and Hinkley 1997, 3.8 (only the top level).

    >>> table = np.array([[[1, 0, 0, 1]], [[1, 1, 0, 1]], [[1, 0, 0, 0]]])
    >>> str(nested_bootstrap(table, resamples=20000))
    '0.50 [-0.12, 1.12]'
    """
    check_level(level)
    _check_resamples(resamples)
    table = np.asarray(values, dtype=float)
    rows_axis, over_hands = _check_table(table, axes)
    seeds, decodes, hands = table.shape
    estimate = float(np.nanmean(table) if statistic is None else statistic(table))
    if not math.isfinite(estimate):
        raise BadInput(f"nested_bootstrap: the statistic of the whole table is {estimate}")

    evaluate = _mean_of_resamples if statistic is None else _statistic_of_resamples(statistic)
    flat = table.reshape(seeds * decodes, hands)
    drawn = [
        evaluate(flat, table.shape, rows, columns)
        for rows, columns in _draws(table.shape, rows_axis, over_hands, resamples, seed)
    ]
    by_rows, by_hands, by_both = np.concatenate(drawn, axis=1)
    if not (np.isfinite(by_rows).all() and np.isfinite(by_hands).all() and np.isfinite(by_both).all()):
        raise BadInput("nested_bootstrap: the statistic of a resampled table is not a finite number")

    units = {"seeds": seeds, "decodes": decodes, None: 1}[rows_axis]
    row_df = (units - 1) * (seeds if rows_axis == "decodes" else 1)
    row_factor = units / (units - 1) if units > 1 else 0.0
    hand_factor = hands / (hands - 1) if over_hands else 0.0
    row_part = float(by_rows.var()) * row_factor
    hand_part = float(by_hands.var()) * hand_factor
    cell_part = float((by_both - by_rows - by_hands + estimate).var()) * row_factor * hand_factor
    tail = 0.5 + level / 2
    half_squared = t_quantile(tail, row_df) ** 2 * row_part if row_factor else 0.0
    if over_hands:
        half_squared += t_quantile(tail, hands - 1) ** 2 * max(hand_part - cell_part, 0.0)
    half = math.sqrt(half_squared)
    n = {"seeds": seeds, "decodes": seeds * decodes, None: hands}[rows_axis]
    resampled = " and ".join(name for name in (rows_axis, "hands" if over_hands else None) if name)
    return Interval(
        estimate,
        estimate - half,
        estimate + half,
        level,
        n,
        f"bootstrap standard error and t over {resampled}",
    )


def largest_bound(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 8000, seed: int = 0
) -> tuple[float, FloatArray]:
    """Upper bounds for the means of several quantities, and for the largest of them, that hold together.

    values: (seeds, quantities), every quantity measured at every seed; at least two seeds.
    Returns (bound of the largest mean, one bound per quantity): mean_q + c s_q / sqrt(seeds), where c is the
    `level` quantile of the largest Student's t over the quantities in a wild bootstrap: the deviations of a
    whole seed from the means are multiplied by one of +-sqrt(1/2), +-1, +-sqrt(3/2) (all combinations are
    gone through when there are at most `resamples` of them), so that what the quantities share is kept.
    Choosing the largest among noisy means needs no remedy: the bound is there for all of them.
    Raises BadInput for another shape, fewer than two seeds, a number that is not finite.
    Source: Webb 2023 (the weights, for few clusters); Romano and Wolf 2005 (the largest t).

    >>> bound, each = largest_bound([[0.01, 0.20], [0.03, 0.24], [0.02, 0.22], [0.03, 0.21], [0.01, 0.23]])
    >>> round(bound, 3) == round(float(each[1]), 3), bool(0.22 < bound < 0.26)
    (True, True)
    """
    check_level(level)
    _check_resamples(resamples)
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise BadInput(f"largest_bound: shape {table.shape}, accepted is (2 or more seeds, quantities)")
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


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise BadInput(f"resamples: {resamples}, at least 100 are needed")


def _check_table(table: FloatArray, axes: Sequence[Axis]) -> tuple[Axis | None, bool]:
    """Which row axis is resampled (or None) and whether hands are; BadInput if the table cannot carry it."""
    if table.ndim != 3 or table.size == 0:
        raise BadInput(
            f"nested_bootstrap: shape {table.shape}, accepted is (seeds, decodes, hands), none empty"
        )
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes or isinstance(axes, str):
        raise BadInput(f"nested_bootstrap: axes {axes!r}, accepted is a tuple of one or more of {AXES}")
    if np.isinf(table).any():
        raise BadInput("nested_bootstrap: the table holds an infinite value")
    rows_axis: Axis | None = "seeds" if "seeds" in axes else "decodes" if "decodes" in axes else None
    over_hands = "hands" in axes
    for axis in [*([rows_axis] if rows_axis else []), *(["hands"] if over_hands else [])]:
        size = table.shape[AXES.index(axis)]
        if size < 2:
            raise BadInput(
                f"nested_bootstrap: {size} of {axis}, at least two {axis} are needed to resample them"
            )
    measured = ~np.isnan(table)
    if not measured.any(axis=(1, 2)).all():
        raise BadInput(f"nested_bootstrap: seed {int(np.argmin(measured.any(axis=(1, 2))))} holds no value")
    if rows_axis == "decodes" and not measured.any(axis=2).all():
        raise BadInput("nested_bootstrap: a decode holds no value; give complete decodes, or resample seeds")
    return rows_axis, over_hands


def _blocks(resamples: int, numbers_each: int) -> Iterator[int]:
    block = max(1, min(resamples, _BLOCK_NUMBERS // max(1, numbers_each)))
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _draws(
    shape: tuple[int, ...], rows_axis: Axis | None, over_hands: bool, resamples: int, seed: int
) -> Iterator[tuple[IntArray | None, IntArray | None]]:
    """Blocks of (row indices (block, seeds x decodes), hand indices (block, hands)); None: held fixed."""
    seeds, decodes, hands = shape
    rng = np.random.default_rng(seed)
    for size in _blocks(resamples, seeds * decodes + hands):
        rows: IntArray | None = None
        if rows_axis == "seeds":
            chosen = rng.integers(seeds, size=(size, seeds, 1))
            rows = (chosen * decodes + np.arange(decodes)).reshape(size, -1)
        elif rows_axis == "decodes":
            inside = rng.integers(decodes, size=(size, seeds, decodes))
            rows = (np.arange(seeds)[:, None] * decodes + inside).reshape(size, -1)
        yield rows, rng.integers(hands, size=(size, hands)) if over_hands else None


def _mean_of_resamples(
    flat: FloatArray, shape: tuple[int, ...], rows: IntArray | None, columns: IntArray | None
) -> FloatArray:
    """(3, block): the mean over measured cells with rows resampled, with hands resampled, with both."""
    measured = (~np.isnan(flat)).astype(float)
    parts = []
    for numbers in (np.nan_to_num(flat), measured):
        overall, per_hand = np.array([[numbers.sum()]]), numbers.sum(axis=0)[None]
        by_rows, weighted = overall, per_hand
        if rows is not None:
            block, count = rows.shape
            offsets = np.arange(block)[:, None] * count
            weights = np.bincount((rows + offsets).ravel(), minlength=block * count).reshape(block, count)
            weighted = weights.astype(float) @ numbers
            by_rows = weighted.sum(axis=1, keepdims=True)
        by_hands, by_both = overall, by_rows
        if columns is not None:
            by_hands = per_hand[0][columns].sum(axis=1, keepdims=True)
            by_both = np.take_along_axis(np.broadcast_to(weighted, columns.shape), columns, axis=1).sum(
                axis=1, keepdims=True
            )
        parts.append([by_rows, by_hands, by_both])
    block = len(rows) if rows is not None else len(columns) if columns is not None else 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [np.broadcast_to((top / bottom)[:, 0], (block,)) for top, bottom in zip(*parts, strict=True)]
        )


def _statistic_of_resamples(
    statistic: Callable[[FloatArray], float],
) -> Callable[[FloatArray, tuple[int, ...], IntArray | None, IntArray | None], FloatArray]:
    def evaluate(
        flat: FloatArray, shape: tuple[int, ...], rows: IntArray | None, columns: IntArray | None
    ) -> FloatArray:
        whole = float(statistic(flat.reshape(shape)))
        block = len(rows) if rows is not None else len(columns) if columns is not None else 1
        result = np.full((3, block), whole)
        for place in range(block):
            picked = flat if rows is None else flat[rows[place]]
            if rows is not None:
                result[[0, 2], place] = float(statistic(picked.reshape(shape)))
            if columns is not None:
                result[1, place] = float(statistic(flat[:, columns[place]].reshape(shape)))
                result[2, place] = (
                    result[1, place]
                    if rows is None
                    else float(statistic(picked[:, columns[place]].reshape(shape)))
                )
        return result

    return evaluate
