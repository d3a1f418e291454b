"""Hands as plain data: the census, and the verdict on one answer to any hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rlheals.tasks import load_task
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.cards import (
    ID_RULE,
    OOD_RULE,
    SHARES,
    Rule,
    all_hands,
    census,
    parse_hand,
    split_of,
)
from rlheals.tasks.general_points.solver import canonical_solution, solvable


def census_counts() -> dict[str, int]:
    """How many hands there are, by set and by part of the ID split.

    >>> census_counts()["both"]
    529
    """
    hands = census("id")
    parts = [split_of(ID_RULE.values(hand)) for hand in hands]
    return {
        "all": len(all_hands()),
        "id": len(hands),
        **{part: parts.count(part) for part in SHARES},
        "ood": len(census("ood")),
        "both": len(census("both")),
    }


def census_hands(name: str) -> dict[str, Any]:
    """Every hand of a set (`cards.census`); for "both" the values and the solution are those under the OOD rule.

    >>> census_hands("ood")["hands"][0]
    {'hand': ['A', 'A', 'A', 'J'], 'values': [1, 1, 1, 11], 'solution': '(1+1)*(1+11)'}
    """
    hands = census(name)
    rule = OOD_RULE if name == "both" else Rule.parse(name)
    rows = [
        {
            "hand": list(hand),
            "values": list(rule.values(hand)),
            "solution": canonical_solution(rule.values(hand)),
        }
        for hand in hands
    ]
    return {"census": name, "rule": rule.name, "count": len(rows), "hands": rows}


def graded(hand: str, answer: str, rule: str, compat: str | None = None) -> dict[str, Any]:
    """The verdict on an answer to any hand, also one that no formula solves; then `solvable` is False.

    >>> graded("3 3 8 8", "8/(3-8/3)", "id")["solved"]
    True
    """
    task, labels, values_of = load_task("general_points", compat=compat), parse_hand(hand), Rule.parse(rule)
    values = values_of.values(labels)
    item = Item(f"{values_of.name}/{'-'.join(labels)}", labels, values_of, "")
    verdict = task.grade(item, answer)
    about = {
        "hand": list(labels),
        "rule": values_of.name,
        "values": list(values),
        "solvable": solvable(values),
    }
    return about | asdict(verdict)
