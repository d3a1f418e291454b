"""Verdicts: every ordering of low, high, 0 and margin, and the laws for all; shares of a loss; power."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval, of_ratio, smallest_shown, t_interval
from rlheals.stats.verdicts import VERDICTS, Verdict, verdict

MARGIN = 0.05
# one place in each region that 0 and the margin cut the line into, and the two cuts themselves
PLACES = {"below": -0.02, "0": 0.0, "between": 0.03, "margin": MARGIN, "above": 0.08}
ORDERINGS: dict[tuple[str, str], Verdict] = dict(
    zip(
        itertools.combinations_with_replacement(PLACES, 2),
        [*["not here"] * 4, "open", *["not here"] * 3, "open", *["holds in part"] * 5, "holds"],
        strict=True,
    )
)
# with margin 0 the cuts "0" and "margin" are one
AT_ZERO: dict[tuple[str, str], Verdict] = dict(
    zip(
        itertools.combinations_with_replacement(["below", "0", "above"], 2),
        ["not here", "not here", "open", "not here", "open", "holds"],
        strict=True,
    )
)
BETTER = {name: len(VERDICTS) - place for place, name in enumerate(VERDICTS)}


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


@pytest.mark.parametrize(("low", "high"), ORDERINGS)
def test_every_ordering(low: str, high: str) -> None:
    # two places in one region: the wider of them as well, with a little room on both sides where there is any
    room = 0.01 if low == high and low in ("below", "between", "above") else 0.0
    assert verdict(interval(PLACES[low], PLACES[high]), MARGIN) == ORDERINGS[low, high]
    assert verdict(interval(PLACES[low] - room, PLACES[high] + room), MARGIN) == ORDERINGS[low, high]
    if (low, high) in AT_ZERO:
        assert verdict(interval(PLACES[low], PLACES[high]), 0) == AT_ZERO[low, high]


@pytest.mark.parametrize("margin", [0.0, 0.05, 1.0])
def test_one_step_of_floating_point_across_a_cut_decides(margin: float) -> None:
    above, below = math.nextafter(margin, 9), math.nextafter(margin, -9)
    assert verdict(interval(margin, 2), margin) != "holds"
    assert verdict(interval(above, 2), margin) == "holds"
    assert verdict(interval(-1, margin), margin) == "not here"
    assert verdict(interval(-1, above), margin) == "open"
    assert verdict(interval(-1, below), margin) == "not here"


# coarse grids, so that ties with 0 and with the margin are met often
grid = st.integers(-12, 12).map(lambda step: step / 8)
margins = st.integers(0, 8).map(lambda step: step / 8)
ends = st.tuples(grid, grid).map(sorted)


@given(ends, margins, st.integers(0, 16).map(lambda step: step / 8))
def test_shifting_up_never_worsens(ends: list[float], margin: float, shift: float) -> None:
    low, high = ends
    before = verdict(interval(low, high), margin)
    after = verdict(interval(low + shift, high + shift), margin)
    assert BETTER[after] >= BETTER[before]


@given(ends, margins, margins)
def test_a_larger_margin_never_improves_beyond_what_the_direction_gives(
    ends: list[float], margin: float, more: float
) -> None:
    small, large = (verdict(interval(*ends), m) for m in (margin, margin + more))
    assert BETTER[large] <= BETTER[small]


@given(st.lists(grid, min_size=4, max_size=4).map(sorted), margins)
def test_a_narrower_interval_inside_refines(points: list[float], margin: float) -> None:
    wide = verdict(interval(points[0], points[3]), margin)
    narrow = verdict(interval(points[1], points[2]), margin)
    possible: dict[Verdict, set[Verdict]] = {
        "holds": {"holds"},
        "holds in part": {"holds", "holds in part"},
        "not here": {"not here", "holds in part"},
        "open": set(VERDICTS),
    }
    assert narrow in possible[wide]


@given(ends, margins)
def test_the_estimate_does_not_matter(ends: list[float], margin: float) -> None:
    low, high = ends
    assert verdict(Interval(low, low, high), margin) == verdict(Interval(high, low, high, n=9), margin)


@pytest.mark.parametrize("margin", [-0.01, math.nan, math.inf, -math.inf])
def test_bad_margins(margin: float) -> None:
    with pytest.raises(BadInput, match="margin"):
        verdict(interval(0, 1), margin)


# Shares and power ----------------------------------------------------------------------------------------------------


def test_the_mean_is_the_ratio_of_sums_whatever_the_order_of_seeds_and_the_unit() -> None:
    over, under = [0.00, 0.30, 0.00], [0.01, 0.60, 0.01]
    assert of_ratio(over, under).mean() == pytest.approx(0.30 / 0.62)
    assert of_ratio([0.1, 0.2], [0.2, 0.4]).tolist() == pytest.approx([0.5, 0.5]), "no spread in the share"
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
