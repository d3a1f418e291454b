"""Shares of a loss over base seeds, and the power of an interval: exact cases, invariances, simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval, of_ratio, smallest_shown, t_interval
from rlheals.stats.verdicts import verdict


def test_the_mean_is_the_ratio_of_sums_and_not_the_mean_of_ratios() -> None:
    over, under = [0.00, 0.30, 0.00], [0.01, 0.60, 0.01]
    assert of_ratio(over, under).mean() == pytest.approx(0.30 / 0.62)
    assert of_ratio([0.1, 0.2], [0.2, 0.4]).tolist() == pytest.approx([0.5, 0.5]), "no spread in the share"


def test_order_of_seeds_and_unit_do_not_matter() -> None:
    over, under = np.array([0.02, 0.05, -0.01, 0.03]), np.array([0.1, 0.2, 0.05, 0.15])
    wanted = sorted(of_ratio(over, under))
    for order in itertools.permutations(range(4)):
        assert sorted(of_ratio(100 * over[list(order)], 100 * under[list(order)])) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("over", "under", "said"),
    [
        ([0.1, 0.1], [0.1, -0.1], "nothing to have a share of"),
        ([0.1], [0.0], "nothing to have a share of"),
        ([0.1, 0.1], [np.nan, 0.1], "nothing to have a share of"),
        ([0.1, 0.1], [0.1], "shapes"),
    ],
)
def test_a_share_of_nothing_is_refused(over: list[float], under: list[float], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        of_ratio(over, under)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.54])
@pytest.mark.parametrize(("loss", "spread"), [(0.1, 0.02), (0.1, 0.05), (0.05, 0.02)])
@pytest.mark.parametrize("seeds", [5, 8])
def test_the_interval_covers_the_true_share(share: float, loss: float, spread: float, seeds: int) -> None:
    """Losses and gains vary between seeds, and the start's sampling noise enters both."""
    random, hits, draws = np.random.default_rng(3), 0, 2000
    for _ in range(draws):
        noise = 0.01 * random.normal(size=seeds)
        lost = loss + spread * random.normal(size=seeds)
        gained = share * lost + 0.015 * random.normal(size=seeds) - noise
        hits += share in t_interval(of_ratio(gained, lost - noise))
    assert 0.935 < hits / draws < 0.985


@pytest.mark.parametrize(("seeds", "sd", "margin"), [(5, 0.0118, 0.02), (8, 0.03, 0.0), (3, 0.2, 0.25)])
def test_the_smallest_effect_is_called_in_four_of_five_studies(seeds: int, sd: float, margin: float) -> None:
    effect = smallest_shown(sd, seeds, margin)
    random, draws = np.random.default_rng(5), 4000
    studies = effect + sd * random.normal(size=(draws, seeds))
    called = sum(verdict(t_interval(study), margin) == "holds" for study in studies)
    assert called / draws == pytest.approx(0.8, abs=0.025)


def test_more_seeds_and_less_spread_show_smaller_effects() -> None:
    assert smallest_shown(0.02, 8, 0.1) < smallest_shown(0.02, 5, 0.1) < smallest_shown(0.04, 5, 0.1)
    assert smallest_shown(0.0, 5, 0.1) == 0.1
    assert smallest_shown(0.02, 5, 0.1, power=0.5) < smallest_shown(0.02, 5, 0.1, power=0.9)


@pytest.mark.parametrize(("sd", "seeds", "power"), [(-1, 5, 0.8), (np.nan, 5, 0.8), (1, 1, 0.8), (1, 5, 1.0)])
def test_power_of_nothing_is_refused(sd: float, seeds: int, power: float) -> None:
    with pytest.raises(BadInput, match="smallest_shown"):
        smallest_shown(sd, seeds, 0.1, power=power)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.3, 0.9, "holds"),
        (0.1, 0.2, "not here"),
        (-0.1, 0.25, "not here"),
        (0.1, 0.3, "open"),
        (0.25, 0.9, "open"),
    ],
)
def test_a_limit_leaves_nothing_that_holds_in_part(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high), 0.25, partly=False) == said
