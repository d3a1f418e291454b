"""The page about larger models: what the paper measured, with intervals, and what the lab says to its rivals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlheals import models_page
from rlheals.figures import paper_points
from rlheals.markup import Table

ROOT = Path(__file__).resolve().parents[1]
CELL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")


def numbers(cell: str) -> list[float]:
    found = CELL.match(cell)
    assert found is not None, cell
    return [float(one) for one in found.groups()]


@pytest.mark.parametrize(("row", "key"), [(0, "stages_llama"), (1, "stages_qwen")])
def test_the_papers_levels_are_its_own_in_intervals_that_hold_them(row: int, key: str) -> None:
    table, about = models_page.paper_table()
    assert isinstance(table, Table)
    paper = paper_points()[key]
    assert table.rows[row][0] == paper["label"]
    shown = [numbers(cell) for cell in table.rows[row][1:]]
    for (value, low, high), stage in zip(shown, ("peak", "end", "rl"), strict=False):
        assert value == pytest.approx(paper["points"][f"ood_{stage}"] / 100, abs=0.5 / paper["hands"] + 5e-4)
        assert low < value < high
    peak, end, rl, lost, back = (value for value, _, _ in shown)
    assert (lost, back) == pytest.approx((peak - end, rl - end), abs=1.1e-3)
    assert "other seeds" in str(about)


def test_the_papers_hands_tell_llamas_fall_from_none_and_not_qwens() -> None:
    """Six hands of 234."""
    table = models_page.paper_table()[0]
    assert isinstance(table, Table)
    llama, qwen = (numbers(row[4]) for row in table.rows)
    assert llama[1] > 0
    assert qwen[1] < 0 < qwen[2]


def test_prompts_are_compared_where_both_studies_are_recorded(tmp_path: Path) -> None:
    table = models_page.prompts(ROOT / "results")[1]
    assert isinstance(table, Table)
    fixed, diverse, difference = (numbers(cell)[0] for cell in table.rows[2][1:])
    assert difference == pytest.approx(diverse - fixed, abs=1.1e-3)
    nothing = models_page.prompts(tmp_path)[1]
    assert isinstance(nothing, Table)
    assert {cell for row in nothing.rows for cell in row[1:]} == {"not measured"}
