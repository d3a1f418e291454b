"""Intervals, tests and corrections for multiple tests; the resampling methods are in `resampling`.

What covers what (95 % intervals, simulated in tests/test_resampling.py and, longer, benchmarks/bench_coverage.py):

| question | function | unit that varies |
| --- | --- | --- |
| one model, one decode: is 0.34 exact? | `wilson` | attempts at hands |
| two independent samples of hands | `newcombe` | attempts at hands |
| two models on the same hands | `paired_bootstrap`, `mcnemar` | hands (and decodes) |
| **a claim** about what training does | `t_interval`, `larger_p` and `holm` | base seeds |
| the largest of several, whichever it is | `largest_bound` | base seeds |
| a descriptive band, any statistic | `nested_bootstrap` | seeds, decodes, hands |
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from rlheals.errors import BadInput
from rlheals.intervals import Interval, check_level, normal_quantile, t_quantile
from rlheals.resampling import largest_bound, nested_bootstrap, paired_bootstrap

__all__ = [
    "Interval",
    "holm",
    "larger_p",
    "largest_bound",
    "mcnemar",
    "nested_bootstrap",
    "newcombe",
    "normal_quantile",
    "paired_bootstrap",
    "simultaneous_level",
    "t_interval",
    "t_quantile",
    "wilson",
]


def _count(value: SupportsIndex, name: str, *, at_least: int = 0, at_most: int | None = None) -> int:
    accepted = f"a whole number of at least {at_least}" + (
        "" if at_most is None else f" and at most {at_most}"
    )
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
    It carries the noise of one attempt per hand only: not the training seed's.  Coverage, averaged over p,
    is 95.0 to 95.4 % from n = 10 on; at single p it dips (93 % at n = 796, 86 % at n = 10, near 0 or 1).
    Raises BadInput unless 0 <= successes <= n, n >= 1, 0 < level < 1.  Source: Wilson 1927.

    >>> str(wilson(41, 234))
    '0.18 [0.13, 0.23]'
    >>> wilson(0, 10).low, round(wilson(0, 10).high, 4)
    (0.0, 0.2775)
    """
    n = _count(n, "wilson: n", at_least=1)
    k = _count(successes, "wilson: successes", at_most=n)
    check_level(level)
    z = normal_quantile(0.5 + level / 2)
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Interval(k / n, low, high, level, n, "wilson over attempts")


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


def mcnemar(b: SupportsIndex, c: SupportsIndex) -> float:
    """McNemar's exact two-sided p-value from the pairs that differ.

    b: pairs where only the first solves; c: only the second.
    p = min(1, 2 P(X <= min(b, c))) with X ~ Binomial(b + c, 1/2), in whole numbers until the last division.
    b = c = 0 gives 1.  Raises BadInput for negative or fractional counts.  Source: McNemar 1947, exact form.

    >>> mcnemar(0, 5), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    b, c = _count(b, "mcnemar: b"), _count(c, "mcnemar: c")
    n = b + c
    ways, term = 0, 1
    for i in range(min(b, c) + 1):
        ways += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * ways / 2**n)


def holm(pvalues: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the order given: reject where adjusted <= alpha.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_(j)); the family-wise error rate
    stays below alpha under any dependence.  Raises BadInput unless all lie in [0, 1].  Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    >>> holm([])
    ()
    """
    given = [float(p) for p in pvalues]
    for place, p in enumerate(given):
        if not 0 <= p <= 1:
            raise BadInput(f"holm: p-value {place} is {p}, accepted are numbers from 0 to 1")
    adjusted = [0.0] * len(given)
    running = 0.0
    for rank, place in enumerate(sorted(range(len(given)), key=given.__getitem__)):
        running = max(running, min(1.0, (len(given) - rank) * given[place]))
        adjusted[place] = running
    return tuple(adjusted)


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
    return float(student.sf((mean - margin) / error, len(values) - 1))


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
    a census (a fixed population, no sample), so what varies between the values is training and decoding, and
    their spread carries both.  Exact for normal values.  Equal values give an interval of width 0: the spread
    is then below the resolution of the measurement, which this interval does not know.
    Raises BadInput for fewer than two seeds, for values that are not finite, for another shape.

    >>> str(t_interval([0.21, 0.25, 0.23]))
    '0.23 [0.18, 0.28]'
    """
    check_level(level)
    values = np.asarray(per_seed_values, dtype=float)
    if values.ndim != 1:
        raise BadInput(f"t_interval: values of shape {values.shape}, accepted is one value per seed, (n,)")
    n = len(values)
    if n < 2:
        raise BadInput(
            f"t_interval: {n} seed(s) given, at least two seeds are needed for an interval over seeds"
        )
    if not np.isfinite(values).all():
        raise BadInput(f"t_interval: value {int(np.argmin(np.isfinite(values)))} is not a finite number")
    mean = float(values.mean())
    half = t_quantile(0.5 + level / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n, "t over seeds")
