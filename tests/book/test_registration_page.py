"""The page on registration says of every part what commits and manifests say, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlheals.book import registration as page
from rlheals.chapters.registry import CHAPTERS
from rlheals.display.markup import Table
from rlheals.study import registration
from rlheals.study.registration import Order, from_data

ROOT = Path(__file__).parents[2]


def test_every_part_and_every_version_has_a_line() -> None:
    known, _ = registration.versions()
    *_, orders, listed = page.blocks(ROOT / "results")
    assert isinstance(orders, Table)
    assert isinstance(listed, Table)
    assert [row[0] for row in orders.rows] == [one.title for one in CHAPTERS.values()]
    assert all(row[-1] for row in orders.rows)
    assert [row[0] for row in listed.rows] == [f"`{one.commit[:7]}`" for one in known]
    assert [row[-1] for row in listed.rows] == [one.subject for one in known]
    assert listed.rows[0][3] == CHAPTERS["sft"].title
    assert all(row[1] for row in orders.rows), "what is not recorded is registered too"


def test_claims_that_are_no_listed_version_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = from_data()
    for some, said in ((known, "From git."), (known[:3], "From git.")):
        monkeypatch.setattr(page, "versions", lambda some=some, said=said: (some, said))
        changed = any("is none of these versions" in str(block) for block in page.blocks(ROOT / "results"))
        assert changed == (len(some) == 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "all 1,200 runs began after"),
        ({"before": 3}, r"**3 of 1,200 runs began before"),
        ({"unknown": "ab" * 32}, "abababababab, which is none of these"),
        ({"runs": 0}, "nothing is recorded yet"),
    ],
)
def test_the_order_is_told_in_words(changes: dict, said: str) -> None:
    whole = Order("sft", from_data()[0], "", 1200, "2026-11-29T19:50:00Z", 0)
    assert said in page.verdict(replace(whole, **changes))
