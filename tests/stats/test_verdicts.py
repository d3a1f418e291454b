"""Verdicts: every ordering of low, high, 0 and margin, and the laws for all."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval
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
