"""GeneralPoints, the card game of 24: items per split, prompt, expert replies, grading."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import ClassVar

from rlheals.errors import BadInput
from rlheals.tasks.base import Item, Verdict
from rlheals.tasks.general_points.cards import (
    ID_RULE,
    OOD_RULE,
    Hand,
    Rule,
    as_hand,
    census,
    hands_solvable,
    split_of,
)
from rlheals.tasks.general_points.prompts import FORMS, answer, question
from rlheals.tasks.general_points.solver import canonical_solution, solutions, solvable
from rlheals.tasks.general_points.verifier import formula_of, judge, judge_as_reference

SPLITS = ("sft", "rl", "held_out", "id", "ood", "both_id", "both_ood")


class GeneralPoints:
    """The task of the paper; `compat="reference"` sums penalties and compares floats as the original does.

    >>> task = GeneralPoints()
    >>> item = task.item(("A", "J", "Q", "K"), OOD_RULE)
    >>> task.grade(item, task.answers(item)[0]).solved
    True
    """

    name: ClassVar[str] = "general_points"
    forms: ClassVar[int] = len(FORMS)
    options: ClassVar[tuple[str, ...]] = ("compat",)

    def __init__(self, compat: str | None = None) -> None:
        if compat not in (None, "reference"):
            raise BadInput(f"task {self.name}: compat = {compat!r:.40}; accepted: None, 'reference'")
        self.compat = compat

    def items(self, split: str) -> list[Item]:
        """The items of a split, in the order of `rlheals.tasks.general_points.cards.all_hands`.

        sft, rl, held_out: parts of the 1,236 ID hands (`split_of`); id: all of these; ood: the 796 OOD hands;
        both_id, both_ood: the 529 face-card hands solvable under both rules, under either of them;
        rule:NAME: as `items_for_rule`. Raises BadInput for other names.

        >>> [len(GeneralPoints().items(split)) for split in ("sft", "rl", "held_out", "id", "ood")]
        [712, 263, 261, 1236, 796]
        """
        if isinstance(split, str) and split.startswith("rule:"):
            return self.items_for_rule(Rule.parse(split.removeprefix("rule:")))
        if split not in SPLITS:
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(SPLITS)}, rule:NAME")
        return list(_items(split))

    def items_for_rule(self, rule: Rule) -> list[Item]:
        """The hands with a face card that are solvable under a rule.

        >>> len(GeneralPoints().items_for_rule(Rule(5, 7, 2)))
        890
        """
        return [_item(hand, rule) for hand in hands_solvable(rule, faces_only=True)]

    def item(self, hand: Sequence[str], rule: Rule) -> Item:
        """The item of a hand, whose cards may come in any order. Raises BadInput when it is not solvable."""
        ordered = as_hand(hand)
        if not solvable(rule.values(ordered)):
            raise BadInput(f"hand {' '.join(ordered)}: no formula makes 24 under rule {rule.name}")
        return _item(ordered, rule)

    def prompt(self, item: Item, form: int = 0) -> str:
        """The question: rule, cards, goal and the form of the answer."""
        return question(FORMS[form], item.hand, item.rule)

    def expert(self, item: Item, form: int = 0) -> str:
        """The canonical solution as a reply to the question in that form.

        >>> task = GeneralPoints()
        >>> task.expert(task.item(("8", "3", "8", "3"), ID_RULE))
        '{"cards": ["8", "8", "3", "3"], "number": [8, 8, 3, 3], "formula": "8/(3-8/3)=24"}'
        """
        values = item.rule.values(item.hand)
        return answer(FORMS[form], item.hand, values, canonical_solution(values))

    def answers(self, item: Item) -> tuple[str, ...]:
        """Expert replies, one per listed solution, the canonical one first.

        >>> task = GeneralPoints()
        >>> task.answers(task.item(("8", "3", "8", "3"), ID_RULE))
        ('{"cards": ["8", "8", "3", "3"], "number": [8, 8, 3, 3], "formula": "8/(3-8/3)=24"}',)
        """
        values = item.rule.values(item.hand)
        first = canonical_solution(values)
        formulas = (first, *(formula for formula in solutions(values) if formula != first))
        return tuple(answer(FORMS[0], item.hand, values, formula) for formula in formulas)

    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply: its formula field, or the reply itself when it is a bare formula.

        Rewards and categories: `rlheals.tasks.general_points.verifier.judge`, or `judge_as_reference` under compat.
        Raises BadInput when the reply is not text, and nothing else.

        >>> task = GeneralPoints()
        >>> task.grade(task.item(("8", "3", "8", "3"), ID_RULE), "8*3+8-3").feedback
        'The formula is not 24, but a solution can begin with 8.'
        """
        if not isinstance(reply, str):
            raise BadInput(f"item {item.id}: the reply is {type(reply).__name__}; text is accepted")
        reference = self.compat == "reference"
        formula = formula_of(reply, reference)
        return (judge_as_reference if reference else judge)(formula, item.hand, item.rule)


@cache
def _items(split: str) -> tuple[Item, ...]:
    if split.startswith("both_"):
        rule = ID_RULE if split == "both_id" else OOD_RULE
        return tuple(_item(hand, rule) for hand in census("both"))
    if split == "ood":
        return tuple(_item(hand, OOD_RULE) for hand in census("ood"))
    items = (_item(hand, ID_RULE) for hand in census("id"))
    return tuple(item for item in items if split in ("id", item.split))


@lru_cache(maxsize=65536)
def _item(hand: Hand, rule: Rule) -> Item:
    """One item per hand and rule, whatever split is asked for; the order shown depends on the hand only."""
    name = "-".join(hand)
    shown = sorted(range(4), key=lambda place: hashlib.sha256(f"{name}/{place}".encode()).digest())
    split = "ood" if rule == OOD_RULE else f"rule:{rule.name}"
    if rule == ID_RULE:
        split = split_of(rule.values(hand))
    return Item(f"{rule.name}/{name}", tuple(hand[place] for place in shown), rule, split)
