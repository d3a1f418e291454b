"""How often each 95 % interval of the package covers, and the laws of the bound for the largest of several means."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlheals.errors import BadInput
from rlheals.stats.bootstrap import largest_bound
from rlheals.stats.intervals import t_interval

# The simulated designs live with the benchmark, which runs them longer.
designs = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/bench_coverage.py")))


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
    def test_the_simulation_sees_an_interval_that_is_too_short(self, name: str) -> None:
        truth, draw = designs.TOO_SHORT[name]
        assert designs.simulated_coverage(truth, draw, repetitions=500, seed=0) < 0.92


class TestLargest:
    table = np.random.default_rng(3).normal(size=(5, 4)) + np.arange(4) / 4

    def test_its_laws(self) -> None:
        """It moves and stretches with the values; more quantities cost reach, copies of one cost nothing."""
        bound, each = largest_bound(self.table)
        moved, each_moved = largest_bound(2 * self.table + 7)
        assert moved == pytest.approx(2 * bound + 7)
        assert each_moved == pytest.approx(2 * each + 7)
        assert bound == each.max()
        assert (each > self.table.mean(axis=0)).all()
        one, _ = largest_bound(self.table[:, :1])
        copies, _ = largest_bound(np.repeat(self.table[:, :1], 6, axis=1))
        assert each[0] > one
        assert copies == pytest.approx(one)
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
            students = t_interval(values, 0.9).high
            ratios.append((largest_bound(values[:, None])[0] - values.mean()) / (students - values.mean()))
        assert np.median(ratios) == pytest.approx(1, abs=0.15)

    @pytest.mark.parametrize(
        "values", [[[1.0, 2.0]], [1.0, 2.0], np.zeros((3, 0)), [[1.0, np.nan], [0.0, 0.0]], [[np.inf], [0.0]]]
    )
    def test_what_cannot_carry_a_bound_is_refused(self, values: Any) -> None:
        with pytest.raises(BadInput, match="largest_bound"):
            largest_bound(values)
