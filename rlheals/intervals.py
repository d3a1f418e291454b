"""The interval that every number of the book carries, and the quantiles that intervals are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from rlheals.errors import BadInput


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval: `low <= true value <= high` in a share `level` of repetitions.

    n: number of independent units that carry the interval (seeds, decodes or hands; `method` says which).
    Raises BadInput for a number that is not finite, for low > high, and for n < 1.

    >>> accuracy = Interval(0.34, 0.31, 0.37, n=796, method="wilson")
    >>> str(accuracy)
    '0.34 [0.31, 0.37]'
    >>> f"{accuracy:.1%}"
    '34.0% [31.0%, 37.0%]'
    >>> 0.35 in accuracy
    True
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95
    n: int = 1
    method: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.estimate, self.low, self.high)):
            raise BadInput(
                f"interval: estimate {self.estimate}, low {self.low}, high {self.high} must be finite numbers"
            )
        if self.low > self.high:
            raise BadInput(f"interval: low {self.low} is above high {self.high}")
        if self.n < 1:
            raise BadInput(f"interval: n is {self.n}, at least 1 unit is needed")
        check_level(self.level)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        # "+ 0.0" and the round trip keep "-0.00" out of the text
        estimate, low, high = (_unsigned_zero(value, spec or ".2f") for value in self._values())
        return f"{estimate} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self, ".2f")

    def _values(self) -> tuple[float, float, float]:
        return self.estimate, self.low, self.high


def _unsigned_zero(value: float, spec: str) -> str:
    text = format(value, spec)
    is_zero = not any(digit in text for digit in "123456789")
    return format(0.0, spec) if is_zero and value < 0 else text


def check_level(level: float) -> None:
    """Raise BadInput unless 0 < level < 1."""
    if not 0 < level < 1:
        raise BadInput(f"level: {level} is not a confidence level, accepted are numbers between 0 and 1")


def normal_quantile(probability: float) -> float:
    """z with P(Z <= z) = probability for a standard normal Z.

    >>> round(normal_quantile(0.975), 4)
    1.96
    """
    check_level(probability)
    return NormalDist().inv_cdf(probability)


def _beta_continued_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), evaluated by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 100_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            c = 1.0 + numerator / c
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) for a, b > 0 and 0 <= x <= 1.

    I_x(a, b) = 1 - I_{1-x}(b, a), of which the side with the fast continued fraction is taken (DLMF 8.17).

    >>> incomplete_beta(1, 1, 0.25), round(incomplete_beta(2, 2, 0.25), 6)
    (0.25, 0.15625)
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise BadInput(f"incomplete_beta: a {a}, b {b}, x {x}; accepted are a > 0, b > 0, 0 <= x <= 1")
    if x in (0, 1):
        return float(x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_continued_fraction(a, b, x) / a
    return 1.0 - math.exp(log_front) * _beta_continued_fraction(b, a, 1.0 - x) / b


def _t_upper_tail(t: float, df: float) -> float:
    square = t * t
    if square < df:  # df / (df + t^2) is near 1 and would keep few digits of a small t
        return (1.0 - incomplete_beta(0.5, df / 2, square / (df + square))) / 2
    return incomplete_beta(df / 2, 0.5, df / (df + square)) / 2


@lru_cache(maxsize=1024)
def t_quantile(probability: float, df: float) -> float:
    """t with P(T <= t) = probability for Student's T with df > 0 degrees of freedom (not only whole numbers).

    Newton's method on the upper tail P(T > t) = I_{df/(df+t^2)}(df/2, 1/2) / 2.  The distribution function is
    concave for t > 0 and the start, the normal quantile, lies below the root: all steps go up, none too far.
    Agrees with published tables to their last digit (tests/test_stats.py).

    >>> round(t_quantile(0.975, 2), 3), round(t_quantile(0.975, 8), 3), round(t_quantile(0.025, 8), 3)
    (4.303, 2.306, -2.306)
    """
    check_level(probability)
    if not df > 0:
        raise BadInput(f"t_quantile: {df} degrees of freedom, more than 0 are needed")
    if probability < 0.5:
        return -t_quantile(1.0 - probability, df)
    if math.isinf(df) or df > 1e7 or probability == 0.5:
        return normal_quantile(probability)  # the two differ by less than 1e-6 of the value here
    upper = 1.0 - probability
    log_density_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    t = normal_quantile(probability)
    for _ in range(200):
        tail = _t_upper_tail(t, df)
        density = math.exp(log_density_scale - (df + 1) / 2 * math.log1p(t * t / df))
        step = (tail - upper) / density
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return t
