"""How estimates are drawn: filled or open, with their intervals, and nothing for what was not measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlheals.chapters.expected import expected
from rlheals.display import looks
from rlheals.display.looks import OOD, Look
from rlheals.display.panels import Panels, estimates, forest_row
from rlheals.display.style import with_intervals

TABLE = pd.DataFrame({"value": [0.2, 0.5], "low": [0.1, np.nan], "high": [0.3, np.nan]})


@pytest.mark.parametrize("form", ["dots", "line", "band"])
@pytest.mark.parametrize("hollow", [False, True])
def test_recorded_estimates_are_filled_and_fresh_ones_open(form, hollow: bool) -> None:
    (axis,) = Panels().axes
    estimates(axis, [1, 2], TABLE, OOD, form, hollow=hollow)
    line = axis.lines[0]
    assert np.array_equal(line.get_ydata(), TABLE["value"])
    if form == "band" and not hollow:
        (band,) = axis.collections
        ends = band.get_paths()[0].vertices[:, 1]
        assert (ends.min(), ends.max()) == (0.1, 0.5), "a missing interval is none"
    else:
        assert line.get_markerfacecolor() == ("white" if hollow else OOD.color)
        segments = axis.collections[0].get_segments()
        assert [tuple(one[:, 1]) for one in segments] == [
            pytest.approx((0.1, 0.3)),
            pytest.approx((0.5, 0.5)),
        ]


def test_a_row_of_a_forest_leaves_out_what_was_not_measured() -> None:
    (axis,) = Panels().axes
    row = forest_row(axis, 0, [0.1, np.nan, 0.3], OOD)
    assert row["value"].tolist() == [pytest.approx(0.2)]
    assert row["seeds"].tolist() == [2]
    assert not len(forest_row(axis, 0, [np.nan], OOD))


def test_a_legend_names_everything_once() -> None:
    panels = Panels(2)
    for axis in panels.axes:
        estimates(axis, [1, 2], TABLE, OOD, label=OOD.label)
    panels.legend(below=2)
    (legend,) = panels.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [OOD.label]


def test_few_marks_have_their_names_beside_them_in_the_panel() -> None:
    panels = Panels()
    (axis,) = panels.axes
    for look, at in ((OOD, 0.2), (looks.ID, 0.8)):
        axis.plot([0, 1], [at, at], label=look.label)
    panels.legend(axis)
    panels.write_names()
    assert axis.get_legend() is None
    heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert 0 < heights["OOD"] < 0.3 < 0.7 < heights[looks.ID.label] < 1


def test_intervals_and_expectations_by_two_keys_are_those_of_each_group() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        [(seed, kind, step, random.normal()) for seed in range(5) for kind in "ab" for step in (1, 2)],
        columns=["seed", "kind", "step", "value"],
    )
    fresh = rows[rows["seed"] == 0]
    both = expected(rows, fresh, ["kind", "step"])
    table = with_intervals(rows, ["kind", "step"])
    for kind in "ab":
        alone = expected(rows[rows["kind"] == kind], fresh[fresh["kind"] == kind])
        assert np.array_equal(both.loc[kind], alone)
        mine = with_intervals(rows[rows["kind"] == kind])
        assert np.array_equal(table.loc[table["kind"] == kind, ["low", "high"]], mine[["low", "high"]])


def test_every_table_of_looks_tells_its_entries_apart_by_colour_or_mark() -> None:
    tables = {
        name: one for name, one in vars(looks).items() if isinstance(one, dict) and not name.startswith("_")
    }
    for name, table in tables.items():
        found = [one for one in table.values() if isinstance(one, Look)]
        assert len({(one.color, one.marker, one.line) for one in found}) == len(found), name
