"""The nested bootstrap against closed forms, and how often each 95 % interval of the package covers."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rlheals.errors import BadInput
from rlheals.stats.bootstrap import Axis, largest_bound, nested_bootstrap
from rlheals.stats.intervals import t_interval, t_quantile


def load_designs() -> ModuleType:
    """The simulated designs live with the benchmark, which runs them longer."""
    path = Path(__file__).parents[2] / "benchmarks" / "bench_coverage.py"
    spec = importlib.util.spec_from_file_location("bench_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_coverage"] = module
    spec.loader.exec_module(module)
    return module


designs = load_designs()


class TestNested:
    table = (np.random.default_rng(2).random((4, 3, 50)) < 0.3).astype(float)

    def test_over_seeds_the_mean_is_the_t_interval(self) -> None:
        exact = t_interval(self.table.mean(axis=(1, 2)))
        drawn = nested_bootstrap(self.table, resamples=40_000)
        assert (drawn.low, drawn.high) == pytest.approx(
            (exact.low, exact.high), abs=0.02 * (exact.high - exact.low)
        )
        assert drawn.n == exact.n == 4

    def test_decodes_beside_seeds_change_nothing(self) -> None:
        assert nested_bootstrap(self.table, axes=("seeds", "decodes")) == nested_bootstrap(self.table)

    @pytest.mark.parametrize(
        "axes", [("seeds",), ("decodes",), ("hands",), ("seeds", "hands"), ("decodes", "hands")]
    )
    def test_the_fast_mean_is_the_mean(self, axes: Any) -> None:
        table = self.table.copy()
        table[0, 1, ::3] = np.nan
        table[2, :, 7] = np.nan
        fast = nested_bootstrap(table, axes=axes, resamples=200)
        slow = nested_bootstrap(table, lambda x: float(np.nanmean(x)), axes=axes, resamples=200)
        assert (fast.estimate, fast.low, fast.high) == pytest.approx((slow.estimate, slow.low, slow.high))
        assert (fast.n, fast.method) == (slow.n, slow.method)

    def test_over_hands_the_mean_is_the_t_interval_over_hand_means(self) -> None:
        exact = t_interval(self.table.mean(axis=(0, 1)))
        drawn = nested_bootstrap(self.table, axes=("hands",), resamples=40_000)
        assert (drawn.low, drawn.high) == pytest.approx(
            (exact.low, exact.high), abs=0.02 * (exact.high - exact.low)
        )

    def test_over_both_the_analysis_of_variance(self) -> None:
        """Half width^2 = t_R^2 A + t_H^2 (B - E) with the textbook mean squares of a two-way table."""
        cells = self.table.mean(axis=1)
        seeds, hands = cells.shape
        row, column, whole = cells.mean(axis=1), cells.mean(axis=0), cells.mean()
        a = ((row - whole) ** 2).sum() / seeds / (seeds - 1)
        b = ((column - whole) ** 2).sum() / hands / (hands - 1)
        residual = cells - row[:, None] - column + whole
        e = (residual**2).sum() / seeds / hands / (seeds - 1) / (hands - 1)
        half = math.sqrt(
            t_quantile(0.975, seeds - 1) ** 2 * a + t_quantile(0.975, hands - 1) ** 2 * max(b - e, 0)
        )
        drawn = nested_bootstrap(self.table, axes=("seeds", "hands"), resamples=40_000)
        assert (drawn.high - drawn.low) / 2 == pytest.approx(half, rel=0.03)

    def test_decodes_are_resampled_within_their_seed(self) -> None:
        """Seeds far apart, decodes alike: with the trained models held fixed nothing is left to vary."""
        table = np.broadcast_to(np.array([0.0, 0.5, 1.0])[:, None, None], (3, 4, 10))
        assert nested_bootstrap(table, axes=("decodes",)).high == pytest.approx(0.5)
        assert nested_bootstrap(table, axes=("seeds",)).high > 1

    def test_over_decodes_the_pooled_spread_within_seeds(self) -> None:
        rates = self.table.mean(axis=2)
        seeds, decodes = rates.shape
        error = math.sqrt(rates.var(axis=1, ddof=1).mean() / (seeds * decodes))
        drawn = nested_bootstrap(self.table, axes=("decodes",), resamples=40_000)
        expected = t_quantile(0.975, seeds * (decodes - 1)) * error
        assert (drawn.high - drawn.low) / 2 == pytest.approx(expected, rel=0.02)

    def test_a_statistic_that_is_no_mean(self) -> None:
        """The log of a mean is smooth, so its interval must be near the delta method's."""
        table = self.table + 1
        plain = nested_bootstrap(table, resamples=4000)
        logged = nested_bootstrap(table, lambda x: math.log(x.mean()), resamples=4000)
        assert logged.estimate == math.log(plain.estimate)
        expected = (plain.high - plain.low) / plain.estimate
        assert logged.high - logged.low == pytest.approx(expected, rel=0.02)

    def test_reproducible_across_block_boundaries(self) -> None:
        table = (np.random.default_rng(3).random((3, 2, 2000)) < 0.2).astype(float)  # several blocks
        axes: tuple[Axis, ...] = ("seeds", "hands")
        first = nested_bootstrap(table, axes=axes, resamples=1500, seed=5)
        assert first == nested_bootstrap(table, axes=axes, resamples=1500, seed=5)
        assert first != nested_bootstrap(table, axes=axes, resamples=1500, seed=6)

    @pytest.mark.parametrize(
        ("values", "options", "said"),
        [
            (np.ones((3, 4)), {}, r"shape \(3, 4\)"),
            (np.ones((0, 2, 4)), {}, "none empty"),
            (np.ones((1, 3, 4)), {}, "1 of seeds, at least two seeds"),
            (np.ones((3, 1, 4)), {"axes": ("decodes",)}, "at least two decodes"),
            (np.ones((3, 1, 1)), {"axes": ("seeds", "hands")}, "at least two hands"),
            (np.ones((3, 2, 4)), {"axes": ()}, "axes"),
            (np.ones((3, 2, 4)), {"axes": "seeds"}, "axes"),
            (np.ones((3, 2, 4)), {"axes": ("seed",)}, "accepted is a tuple"),
            (np.ones((3, 2, 4)), {"resamples": 10}, "at least 100"),
            (
                np.ones((3, 2, 4)),
                {"statistic": lambda x: math.nan},
                "the statistic of the whole table is nan",
            ),
            (np.full((3, 2, 4), np.inf), {}, "infinite"),
            (np.array([[[1.0]], [[np.nan]]]), {}, "seed 1 holds no value"),
            (np.array([[[1.0], [np.nan]]]), {"axes": ("decodes",)}, "a decode holds no value"),
        ],
    )
    def test_bad_input(self, values: Any, options: dict[str, Any], said: str) -> None:
        with pytest.raises(BadInput, match=said):
            nested_bootstrap(values, **options)


class TestCoverage:
    """95 % intervals contain the truth in 93 to 97 % of repetitions; the standard error at 1500 is 0.6 %."""

    @pytest.mark.parametrize("n", [10, 48, 234])
    def test_wilson_exactly(self, n: int) -> None:
        assert 0.93 <= designs.wilson_coverage(n).mean() <= 0.97

    def test_newcombe_exactly(self) -> None:
        coverage = designs.newcombe_coverage(20, 30)
        assert 0.93 <= coverage.mean() <= 0.97
        assert ((coverage > 0.93) & (coverage < 0.97)).mean() > 0.9

    @pytest.mark.parametrize("name", designs.SIMULATED)
    def test_simulated(self, name: str) -> None:
        truth, draw = designs.SIMULATED[name]
        assert 0.93 <= designs.simulated_coverage(truth, draw, repetitions=1500, seed=0) <= 0.97

    @pytest.mark.parametrize("name", designs.TOO_SHORT)
    def test_the_simulation_sees_what_the_remedy_is_for(self, name: str) -> None:
        truth, draw = designs.TOO_SHORT[name]
        assert designs.simulated_coverage(truth, draw, repetitions=500, seed=0) < 0.92


class TestLargest:
    table = np.random.default_rng(3).normal(size=(5, 4)) + np.arange(4) / 4

    def test_it_moves_and_stretches_with_the_values(self) -> None:
        bound, each = largest_bound(self.table)
        moved, each_moved = largest_bound(2 * self.table + 7)
        assert moved == pytest.approx(2 * bound + 7)
        assert each_moved == pytest.approx(2 * each + 7)

    def test_it_is_the_largest_of_the_bounds_and_each_lies_above_its_mean(self) -> None:
        bound, each = largest_bound(self.table)
        assert bound == each.max()
        assert (each > self.table.mean(axis=0)).all()

    def test_more_quantities_cost_reach_and_copies_of_one_cost_nothing(self) -> None:
        one, _ = largest_bound(self.table[:, :1])
        _, each = largest_bound(self.table)
        copies, _ = largest_bound(np.repeat(self.table[:, :1], 6, axis=1))
        assert each[0] > one
        assert copies == pytest.approx(one)

    def test_what_does_not_vary_is_its_own_bound(self) -> None:
        steady = np.column_stack([np.full(5, 0.9), self.table[:, 0] - 9])
        assert largest_bound(steady)[0] == pytest.approx(0.9)
        assert largest_bound(np.full((3, 2), 0.1))[0] == pytest.approx(0.1)

    def test_many_seeds_are_drawn_the_same_way_every_time(self) -> None:
        table = np.random.default_rng(4).normal(size=(12, 3))
        assert largest_bound(table)[0] == largest_bound(table)[0]
        assert largest_bound(table)[0] == pytest.approx(largest_bound(table, seed=1)[0], rel=0.02)

    @pytest.mark.parametrize("shared", [0.0, 0.9])
    def test_it_lies_above_all_true_means_often_enough(self, shared: float) -> None:
        """Eight quantities of five seeds; each bound above its own mean, all together, in 95 % (less four errors)."""
        random, rounds, held = np.random.default_rng(5), 400, 0
        truth = np.linspace(0, 0.3, 8)
        for _ in range(rounds):
            common, own = random.normal(size=(5, 1)), random.normal(size=(5, 8))
            _, each = largest_bound(truth + math.sqrt(shared) * common + math.sqrt(1 - shared) * own)
            held += bool((each >= truth).all())
        assert held / rounds > 0.95 - 4 * math.sqrt(0.95 * 0.05 / rounds)

    def test_for_one_quantity_it_is_about_students_bound(self) -> None:
        random = np.random.default_rng(6)
        ratios = []
        for _ in range(200):
            values = random.normal(size=5)
            half = t_quantile(0.95, 4) * values.std(ddof=1) / math.sqrt(5)
            ratios.append((largest_bound(values[:, None])[0] - values.mean()) / half)
        assert np.median(ratios) == pytest.approx(1, abs=0.15)

    @pytest.mark.parametrize(
        "values", [[[1.0, 2.0]], [1.0, 2.0], np.zeros((3, 0)), [[1.0, np.nan], [0.0, 0.0]], [[np.inf], [0.0]]]
    )
    def test_what_cannot_carry_a_bound_is_refused(self, values: Any) -> None:
        with pytest.raises(BadInput, match="largest_bound"):
            largest_bound(values)
