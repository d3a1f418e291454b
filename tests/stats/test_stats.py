"""Intervals and tests: published values, independent enumerations and laws (coverage: test_resampling.py)."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlheals.errors import BadInput
from rlheals.stats.intervals import (
    Interval,
    holm,
    larger_p,
    mcnemar,
    newcombe,
    simultaneous_level,
    t_interval,
    wilson,
)


class TestInterval:
    def test_text(self) -> None:
        difference = Interval(-0.001, -0.104, 0.1, n=3)
        assert str(difference) == "0.00 [-0.10, 0.10]"  # not -0.00
        assert f"{difference:+.2f}" == "+0.00 [-0.10, +0.10]"
        assert f"{difference:.3f}" == "-0.001 [-0.104, 0.100]"

    @pytest.mark.parametrize(
        ("numbers", "said"),
        [
            ({"estimate": math.nan}, "finite"),
            ({"high": math.inf}, "finite"),
            ({"low": 0.6}, "low 0.6, high 0.5, n 10: low must not be above high"),
            ({"n": 0}, "n 0: .* at least 1"),
            ({"level": 95}, "95 is not a confidence level"),
            ({"level": math.nan}, "not a confidence level"),
        ],
    )
    def test_bad_numbers(self, numbers: dict[str, Any], said: str) -> None:
        with pytest.raises(BadInput, match=said):
            Interval(**{"estimate": 0.4, "low": 0.3, "high": 0.5, "n": 10} | numbers)


class TestProportions:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score)
    @pytest.mark.parametrize(
        ("k", "n", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_wilson_published(self, k: int, n: int, low: float, high: float) -> None:
        interval = wilson(k, n)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
        assert interval.estimate == k / n

    @given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
    def test_wilson_ends_solve_the_score_equation(self, n: int, data: st.DataObject, level: float) -> None:
        k = data.draw(st.integers(0, n))
        interval = wilson(k, n, level)
        z = NormalDist().inv_cdf(0.5 + level / 2)
        assert 0 <= interval.low <= k / n <= interval.high <= 1
        for end in (interval.low, interval.high):
            # squared and multiplied out: at 0 and 1 the bound itself is the other solution
            assert n * (k / n - end) ** 2 == pytest.approx(z * z * end * (1 - end), abs=1e-9)

    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
    @pytest.mark.parametrize(
        ("k1", "n1", "k2", "n2", "low", "high"),
        [
            (56, 70, 48, 80, 0.0524, 0.3339),
            (9, 10, 3, 10, 0.1705, 0.8090),
            (6, 7, 2, 7, 0.0582, 0.8062),
            (5, 56, 0, 29, -0.0381, 0.1926),
            (0, 10, 0, 20, -0.1611, 0.2775),
            (0, 10, 0, 10, -0.2775, 0.2775),
            (10, 10, 0, 20, 0.6791, 1),
            (10, 10, 0, 10, 0.6075, 1),
        ],
    )
    def test_newcombe_published(self, k1: int, n1: int, k2: int, n2: int, low: float, high: float) -> None:
        interval = newcombe(k1, n1, k2, n2)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)

    @given(st.integers(1, 90), st.integers(1, 90), st.data())
    def test_newcombe_is_odd_and_bounded(self, n1: int, n2: int, data: st.DataObject) -> None:
        k1, k2 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n2))
        one, other = newcombe(k1, n1, k2, n2), newcombe(k2, n2, k1, n1)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
        assert -1 - 1e-12 <= one.low <= one.estimate <= one.high <= 1 + 1e-12

    @pytest.mark.parametrize(
        ("k", "n", "said"),
        [
            (3, 2, "successes: 3 is not a whole number of at least 0 and at most 2"),
            (-1, 2, "successes: -1"),
            (0, 0, "n: 0 is not a whole number of at least 1"),
            (0.5, 2, "successes: 0.5"),
            ("1", 2, "successes: '1'"),
        ],
    )
    def test_bad_counts(self, k: Any, n: int, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            wilson(k, n)
        with pytest.raises(BadInput):
            newcombe(1, 2, k, n)


class TestPaired:
    def test_mcnemar_against_all_sign_patterns(self) -> None:
        for n in range(1, 11):
            sums = [sum(signs) for signs in itertools.product((1, -1), repeat=n)]
            for b in range(n + 1):
                distance = abs(2 * b - n)
                extreme = sum(abs(total) >= distance for total in sums)
                assert mcnemar(b, n - b) == pytest.approx(float(Fraction(extreme, 2**n)), rel=1e-12), (
                    b,
                    n - b,
                )

    @given(st.lists(st.integers(0, 20).map(lambda step: step / 20), min_size=1, max_size=7))
    def test_holm_is_the_closure_of_bonferroni(self, pvalues: list[float]) -> None:
        hypotheses = range(len(pvalues))
        subsets = [s for size in range(1, len(pvalues) + 1) for s in itertools.combinations(hypotheses, size)]
        closure = [
            max(min(1.0, len(s) * min(pvalues[j] for j in s)) for s in subsets if i in s) for i in hypotheses
        ]
        assert holm(pvalues) == pytest.approx(closure)

    @pytest.mark.parametrize("bad", [[0.2, 1.1], [-0.1], [math.nan]])
    def test_holm_bad_input(self, bad: list[float]) -> None:
        with pytest.raises(BadInput, match="p-value"):
            holm(bad)

    @given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(0, 0.5))
    def test_the_one_sided_p_value_is_the_level_at_which_the_interval_touches_the_margin(
        self, values: list[float], margin: float
    ) -> None:
        p = larger_p(values, margin)
        if 1e-6 < p < 0.4999:
            assert t_interval(values, 1 - 2 * p).low == pytest.approx(margin, abs=1e-6)

    @pytest.mark.parametrize(("margin", "p"), [(0.1, 0.0), (0.2, 1.0), (0.3, 1.0)])
    def test_equal_values_are_above_a_margin_or_not(self, margin: float, p: float) -> None:
        assert larger_p([0.2, 0.2, 0.2], margin) == p

    def test_simultaneous_level(self) -> None:
        assert simultaneous_level(1) == 0.95
        assert (1 - simultaneous_level(7, 0.9)) * 7 == pytest.approx(0.1)
        with pytest.raises(BadInput, match="at least 1"):
            simultaneous_level(0)


class TestTInterval:
    # two-sided 95 % and 99 % points of Student's t as printed in the tables, e.g. NIST/SEMATECH 1.3.6.7.2
    @pytest.mark.parametrize(
        ("n", "at_95", "at_99"),
        [(2, 12.706, 63.657), (3, 4.303, 9.925), (5, 2.776, 4.604), (9, 2.306, 3.355), (31, 2.042, 2.750)],
    )
    def test_published_quantiles(self, n: int, at_95: float, at_99: float) -> None:
        values = np.linspace(-1, 1, n)
        error = values.std(ddof=1) / math.sqrt(n)
        for level, quantile in ((0.95, at_95), (0.99, at_99)):
            interval = t_interval(values, level)
            assert (interval.high / error, interval.n) == (pytest.approx(quantile, abs=5.1e-4), n)
            assert interval.low == pytest.approx(-interval.high)

    @given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(-2, 2), st.floats(-3, 3))
    def test_moves_with_the_values(self, values: list[float], scale: float, shift: float) -> None:
        plain, moved = t_interval(values), t_interval([scale * v + shift for v in values])
        ends = sorted((scale * plain.low + shift, scale * plain.high + shift))
        assert [moved.low, moved.high] == pytest.approx(ends, abs=1e-6)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ([0.3], r"shape \(1,\); accepted: one value per seed of two or more"),
            ([], "one value per seed of two or more"),
            ([0.3, math.nan], "value 1 is not a finite number"),
            ([[0.3, 0.2]], "one value per seed"),
        ],
    )
    def test_bad_input(self, values: Any, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            t_interval(values)
