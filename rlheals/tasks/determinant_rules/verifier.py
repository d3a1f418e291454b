"""Verdicts on a reply: its answer decides, and the products that it states tell which rule a wrong one follows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlheals.tasks.base import Verdict
from rlheals.tasks.determinant_rules.rules import ID_RULE, OOD_RULE, RULES, Rule
from rlheals.tasks.matrices import Matrix, fields_of

REWARDS = {
    "correct": 5.0,
    "wrong_rule": -1.0,
    "wrong_products": -1.0,
    "wrong_value": -1.0,
    "unreadable": -1.0,
}
FEEDBACK_WORDS = {
    "wrong_rule": "rule",
    "wrong_products": "products",
    "wrong_value": "value",
    "unreadable": "format",
}


def reply_of(products: Sequence[int], answer: int) -> str:
    """A reply as `judge` reads it."""
    return json.dumps({"products": list(products), "answer": answer})


def judge(matrix: Matrix, rule: Rule, reply: str) -> Verdict:
    """correct +5; wrong_rule -1: right under another rule (ID and OOD come first), with its products if any are stated;
    wrong_products -1: not those of this rule; wrong_value -1; unreadable -1. Source of the rewards: the reference's
    determinants.

    >>> judge(((1, 2), (3, 4)), OOD_RULE, '{"products": [4, 6], "answer": -2}').read_as
    'id'
    """
    fields = fields_of(reply)
    if "answer" not in fields:
        return _verdict("unreadable", "No answer can be read.")
    answer, stated = fields["answer"], fields.get("products")
    if answer == rule.value(matrix):
        return _verdict("correct", "The answer is right.")
    for other in (ID_RULE, OOD_RULE, *RULES):
        if answer == other.value(matrix) and stated in (None, list(other.products(matrix))):
            return _verdict("wrong_rule", "It would be right under another rule.", other.name)
    if stated in (None, list(rule.products(matrix))):
        return _verdict("wrong_value", "The products do not come to this answer.")
    return _verdict("wrong_products", "The products are not those that the rule names.")


def _verdict(category: str, feedback: str, read_as: str | None = None) -> Verdict:
    return Verdict(category == "correct", REWARDS[category], category, feedback, read_as)
