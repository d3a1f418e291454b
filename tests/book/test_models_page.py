"""The page about larger models: what the lab says to a rival."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlheals.book import models as models_page
from rlheals.display.markup import Table

ROOT = Path(__file__).resolve().parents[2]
CELL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")


def numbers(cell: str) -> list[float]:
    found = CELL.match(cell)
    assert found is not None, cell
    return [float(one) for one in found.groups()]


def test_prompts_are_compared_where_both_studies_are_recorded(tmp_path: Path) -> None:
    table = models_page.prompts(ROOT / "results")[1]
    assert isinstance(table, Table)
    fixed, diverse, difference = (numbers(cell)[0] for cell in table.rows[2][1:])
    assert difference == pytest.approx(diverse - fixed, abs=1.1e-3)
    nothing = models_page.prompts(tmp_path)[1]
    assert isinstance(nothing, Table)
    assert {cell for row in nothing.rows for cell in row[1:]} == {"not measured"}
