"""Confidence intervals, tests, and Holm's correction for several tests.

What covers what (95 % intervals; coverage simulated in tests/stats and, longer, in benchmarks/bench_coverage.py):

| question | function | unit that varies |
| --- | --- | --- |
| one model, one sampling seed: is 0.34 exact? | `wilson` | attempts at hands |
| two independent samples of hands | `newcombe` | attempts at hands |
| two models on the same hands | `mcnemar` | hands |
| **a claim** about what training does | `t_interval`, `larger_p` and `holm` | base seeds |
| a share of a loss: a ratio of sums over base seeds | `t_interval` of `of_ratio` | base seeds |
| the largest of several, whichever it is | `bootstrap.largest_bound` | base seeds |
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
import scipy  # its parts take a second to import and load when they are first used

from rlheals.errors import BadInput


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval: `low <= true value <= high` in a share `level` of repetitions.

    n: number of independent units that carry the interval (seeds, sampling seeds or hands; `method` says which).
    Raises BadInput for a number that is not finite, for low > high, and for n < 1.

    >>> accuracy = Interval(0.34, 0.31, 0.37, n=796, method="wilson")
    >>> str(accuracy)
    '0.34 [0.31, 0.37]'
    >>> f"{accuracy:.1%}"
    '34.0% [31.0%, 37.0%]'
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95
    n: int = 1
    method: str = ""

    def __post_init__(self) -> None:
        numbers = f"interval: estimate {self.estimate}, low {self.low}, high {self.high}, n {self.n}"
        if not all(math.isfinite(value) for value in (self.estimate, self.low, self.high)):
            raise BadInput(f"{numbers}: must be finite numbers")
        if self.low > self.high or self.n < 1:
            raise BadInput(f"{numbers}: low must not be above high, and n at least 1")
        check_level(self.level)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        sign = spec[: spec[0] in "+- "]
        plain = f"{sign}z{spec[len(sign) :]}"  # z: no -0.00
        return f"{self.estimate:{plain}} [{self.low:{plain}}, {self.high:{plain}}]"

    def __str__(self) -> str:
        return format(self, ".2f")


def check_level(level: float) -> None:
    """Raise BadInput unless 0 < level < 1."""
    if not 0 < level < 1:
        raise BadInput(f"level: {level} is not a confidence level; accepted: numbers between 0 and 1")


def _count(value: SupportsIndex, name: str, *, at_least: int = 0, at_most: int | None = None) -> int:
    limit = "" if at_most is None else f" and at most {at_most}"
    accepted = f"a whole number of at least {at_least}{limit}"
    try:
        count = operator.index(value)
    except TypeError:
        raise BadInput(f"{name}: {value!r} is not {accepted}") from None
    if count < at_least or (at_most is not None and count > at_most):
        raise BadInput(f"{name}: {count} is not {accepted}")
    return count


def wilson(successes: SupportsIndex, n: SupportsIndex, level: float = 0.95) -> Interval:
    """Wilson's score interval for the proportion successes / n.

    The p with |k/n - p| <= z sqrt(p (1 - p) / n).  Within [0, 1], and of positive width at k = 0 and k = n.
    It carries the noise of one attempt per hand only.  Coverage, averaged over p, is 95.0 to 95.4 % from n = 10 on.
    Raises BadInput unless 0 <= successes <= n, n >= 1, 0 < level < 1.  Source: Wilson 1927.

    >>> str(wilson(41, 234))
    '0.18 [0.13, 0.23]'
    >>> wilson(0, 10).low, round(wilson(0, 10).high, 4)
    (0.0, 0.2775)
    """
    n = _count(n, "wilson: n", at_least=1)
    k = _count(successes, "wilson: successes", at_most=n)
    check_level(level)
    found = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    # rounding may leave an end beside 0 or 1 where it is exactly that
    low, high = 0.0 if k == 0 else found.low, 1.0 if k == n else found.high
    return Interval(k / n, float(low), float(high), level, n, "wilson over attempts")


def newcombe(
    k1: SupportsIndex, n1: SupportsIndex, k2: SupportsIndex, n2: SupportsIndex, level: float = 0.95
) -> Interval:
    """Newcombe's hybrid score interval for the difference k1/n1 - k2/n2 of independent proportions.

    low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2), high = d + sqrt((u1 - p1)^2 + (p2 - l2)^2), l, u of `wilson`.
    Not for the same hands under two models: they are not independent.
    Raises BadInput as `wilson`.  Source: Newcombe 1998, method 10.

    >>> str(newcombe(56, 70, 48, 80))  # worked example (a) of the paper: .0524 to .3339
    '0.20 [0.05, 0.33]'
    """
    first, second = wilson(k1, n1, level), wilson(k2, n2, level)
    difference = first.estimate - second.estimate
    low = difference - math.hypot(first.estimate - first.low, second.high - second.estimate)
    high = difference + math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(difference, low, high, level, first.n + second.n, "newcombe over attempts")


def newcombe_paired(
    both: SupportsIndex,
    first: SupportsIndex,
    second: SupportsIndex,
    neither: SupportsIndex,
    level: float = 0.95,
) -> Interval:
    """Newcombe's score interval for the difference of two proportions of the same items.

    both, neither: items that both solve, or neither; first, second: that only one solves. As `newcombe`, less what the
    two have in common: low = d - sqrt(x^2 - 2 r x y + y^2), x = p1 - l1, y = u2 - p2, and high alike, where r is the
    correlation of the two, its numerator reduced by n / 2 where it is positive.
    Raises BadInput for negative or fractional counts, or none at all.  Source: Newcombe 1998b, method 10.

    >>> found = newcombe_paired(20, 10, 2, 8)
    >>> found.estimate, found.low < 0.2 < found.high
    (0.2, True)
    """
    a, b, c, d = (
        _count(value, f"newcombe_paired: {name}")
        for name, value in (("both", both), ("first", first), ("second", second), ("neither", neither))
    )
    n = a + b + c + d
    one, other = wilson(a + b, n, level), wilson(a + c, n, level)
    common, spread = a * d - b * c, math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    r = (max(common - n / 2, 0.0) if common > 0 else common) / spread if spread else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * r * x * y + y * y))

    difference = (b - c) / n
    low = difference - reach(one.estimate - one.low, other.high - other.estimate)
    high = difference + reach(one.high - one.estimate, other.estimate - other.low)
    return Interval(difference, low, high, level, n, "newcombe over pairs")


def mcnemar(b: SupportsIndex, c: SupportsIndex) -> float:
    """McNemar's exact two-sided p-value from the pairs that differ.

    b: pairs where only the first solves; c: only the second.
    p = min(1, 2 P(X <= min(b, c))) with X ~ Binomial(b + c, 1/2); b = c = 0 gives 1.
    Raises BadInput for negative or fractional counts.  Source: McNemar 1947, exact form.

    >>> round(mcnemar(0, 5), 6), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    b, c = _count(b, "mcnemar: b"), _count(c, "mcnemar: c")
    return float(scipy.stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def holm(pvalues: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the order given: reject where adjusted <= alpha.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_(j)); the family-wise error rate
    stays below alpha under any dependence.  Raises BadInput unless all lie in [0, 1].  Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    >>> holm([])
    ()
    """
    given = np.asarray(pvalues, dtype=float)
    for place, p in enumerate(given):
        if not 0 <= p <= 1:
            raise BadInput(f"holm: p-value {place} is {p}; accepted: numbers from 0 to 1")
    order = np.argsort(given, kind="stable")
    scaled = np.minimum(1.0, (len(given) - np.arange(len(given))) * given[order])
    adjusted = np.empty(len(given))
    adjusted[order] = np.maximum.accumulate(scaled)
    return tuple(map(float, adjusted))


def larger_p(per_seed_values: Sequence[float] | npt.NDArray[np.float64], margin: float) -> float:
    """One-sided p-value of the t test that the mean over base seeds is larger than a margin.

    P(T > (mean - margin) / (s / sqrt(n))), n - 1 degrees of freedom; per_seed_values: (n,).  Equal values give 0
    where they lie above the margin and 1 elsewhere.  Raises BadInput as `t_interval`.  Source: Student 1908.

    >>> round(larger_p([0.21, 0.25, 0.23], margin=0.2), 4)
    0.0608
    """
    mean = t_interval(per_seed_values).estimate  # refuses what is no (n,) of finite numbers
    values = np.asarray(per_seed_values, dtype=float)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if values.min() == values.max() or error == 0:  # rounding gives equal values a spread, and tiny ones none
        return float(values[0] <= margin)
    return float(scipy.stats.t.sf((mean - margin) / error, len(values) - 1))


def simultaneous_level(count: SupportsIndex, level: float = 0.95) -> float:
    """The level at which each of `count` intervals is to be made so that all hold together at `level`.

    1 - (1 - level) / count (Bonferroni; any dependence).  Raises BadInput unless count >= 1, 0 < level < 1.

    >>> round(simultaneous_level(5), 4)
    0.99
    """
    check_level(level)
    return 1.0 - (1.0 - level) / _count(count, "simultaneous_level: count", at_least=1)


def t_interval(per_seed_values: Sequence[float] | npt.NDArray[np.float64], level: float = 0.95) -> Interval:
    """Student's t interval for the mean over base seeds: the interval of every claim.

    mean +- t(0.5 + level/2, n - 1) s / sqrt(n), s with n - 1.  One value per base seed, (n,).  The hands are
    a census, so the spread between values is that of training and sampling.  Exact for normal values; equal
    values give an interval of width 0.
    Raises BadInput for fewer than two seeds, for values that are not finite, for another shape.

    >>> str(t_interval([0.21, 0.25, 0.23]))
    '0.23 [0.18, 0.28]'
    """
    check_level(level)
    values = np.asarray(per_seed_values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise BadInput(f"t_interval: shape {values.shape}; accepted: one value per seed of two or more, (n,)")
    if not np.isfinite(values).all():
        raise BadInput(f"t_interval: value {int(np.argmin(np.isfinite(values)))} is not a finite number")
    n, mean = len(values), float(values.mean())
    half = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n, "t over seeds")


def of_ratio(over: Sequence[float], under: Sequence[float]) -> npt.NDArray[np.float64]:
    """One value per base seed whose mean is sum(over) / sum(under), for `t_interval` and `larger_p`: (n,).

    H + (over_i - H under_i) / mean(under) with H the ratio: the influence of each seed (infinitesimal jackknife).
    A mean of ratios by seed would let a seed that lost almost nothing decide, and resampling five seeds gives
    intervals that are too narrow.  Simulated coverage of the t interval with five seeds is 95 to 96 %, also where
    the denominators vary by half their mean (tests/stats).
    Raises BadInput for two lengths, and where sum(under) is not above 0: there is nothing to have a share of.
    Source: Jaeckel 1972.

    >>> of_ratio([0.1, 0.2, 0.3], [0.4, 0.4, 0.4]).round(2).tolist()
    [0.25, 0.5, 0.75]
    """
    part, whole = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if part.shape != whole.shape or part.ndim != 1:
        raise BadInput(f"of_ratio: shapes {part.shape} and {whole.shape}; accepted: (n,) for both")
    if not whole.sum() > 0:
        raise BadInput("of_ratio: nothing to have a share of, the denominators do not sum to more than 0")
    ratio = part.sum() / whole.sum()
    return ratio + (part - ratio * whole) / whole.mean()


def smallest_shown(
    sd: float, seeds: SupportsIndex, margin: float, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest true effect whose t interval lies above a margin with a given probability.

    sd: between-seed standard deviation of the effect, in its unit.  The effect is margin + d sd / sqrt(n), with d the
    noncentrality at which Student's noncentral t exceeds t(0.5 + level/2, n - 1) with probability `power`.
    Raises BadInput for fewer than two seeds, a negative sd, a power outside of (0, 1).

    >>> round(smallest_shown(0.0118, 5, 0.02), 3)
    0.04
    """
    n = _count(seeds, "smallest_shown: seeds", at_least=2)
    check_level(level)
    if not (math.isfinite(sd) and sd >= 0 and math.isfinite(margin) and 0 < power < 1):
        raise BadInput(f"smallest_shown: sd {sd}, margin {margin}, power {power}: out of range")
    cut = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1))

    def lacking(shift: float) -> float:
        return float(scipy.stats.nct.sf(cut, n - 1, shift)) - power

    return margin + sd / math.sqrt(n) * float(scipy.optimize.brentq(lacking, -10.0, cut + 10.0))
