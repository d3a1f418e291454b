"""Hands as plain data: the census, the verdict on one answer to any hand, and facts that every machine reproduces."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict
from typing import Any

from rlheals.tasks import load_task
from rlheals.tasks.base import Task
from rlheals.tasks.general_points.cards import (
    ID_RULE,
    OOD_RULE,
    SHARES,
    Hand,
    Rule,
    all_hands,
    census,
    item_of,
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
    task, item = load_task("general_points", compat=compat), item_of(parse_hand(hand), Rule.parse(rule))
    values = item.payload.values
    about = {"hand": list(item.payload.hand), "rule": item.rule, "values": list(values)}
    return about | {"solvable": solvable(values)} | asdict(task.grade(item, answer))


GRADED_HANDS = 25


def facts(task: Task) -> tuple[str, ...]:
    """Counts of hands and items, and 200 graded replies with the digest of their verdicts."""
    counts = census_counts()
    lines = [
        f"hands: {counts['all']}; solvable under the ID rule {counts['id']}, with a face card under the OOD rule "
        f"{counts['ood']}, with a face card under both {counts['both']}",
        f"splits: sft {counts['sft']}, rl {counts['rl']}, held-out {counts['held_out']}",
    ]
    digest = hashlib.sha256()
    for name, rule in (("ID", ID_RULE), ("OOD", OOD_RULE)):
        verdicts = []
        for hand in census("both")[::21][:GRADED_HANDS]:
            for reply in replies(hand):
                verdict = task.grade(item_of(hand, rule), reply)
                verdicts.append(verdict)
                row = (name, *hand, reply, verdict.category, f"{verdict.reward:+.1f}", verdict.read_as or "")
                digest.update(("\t".join(row) + "\n").encode())
        categories = sorted(Counter(verdict.category for verdict in verdicts).items())
        lines.append(
            f"{len(verdicts)} replies graded under the {name} rule: "
            + ", ".join(f"{category} {count}" for category, count in categories)
            + f"; sum of rewards {sum(verdict.reward for verdict in verdicts):+.0f}"
        )
    return (*lines, f"digest of these verdicts: {digest.hexdigest()[:16]}")


def replies(hand: Hand) -> list[str]:
    """Right under the ID rule, right under the OOD rule, the latter with an operator changed, and cut short."""
    under_id, under_ood = (canonical_solution(rule.values(hand)) for rule in (ID_RULE, OOD_RULE))
    swapped = under_ood.translate(str.maketrans("+-*/", "-+/*"))
    return [f"{under_id}=24", f'{{"formula": "{under_ood}=24"}}', swapped, under_ood[:-1]]
