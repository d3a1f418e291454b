"""How GeneralPoints is put into words: 16 forms of the question for language models, one of few words for small models,
and the words of the lab.

The task, its numbers and its verdicts are the same in all forms: wording, place of the rule, order of the fields. Form
0 is the usual one; with all 16 a model cannot learn the question by heart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from rlheals.tasks.general_points.cards import LABELS, Rule

NUMBERS = tuple(str(n) for n in (*range(1, 14), 24))
OPERATORS = ("+", "-", "*", "/", "(", ")", "=")
WORDS = (
    *(*LABELS, *NUMBERS, *OPERATORS),
    *("cards", "answer", "so", "{", "|", "}", "wrong", "format", "numbers", "value"),
)
"""The lab's words; their order is that of the tokens of every lab model."""
FEEDBACK_WORDS = {
    "illegal_formula": "format",
    "wrong_number": "numbers",
    "wrong_rule": "numbers",
    "aggregated": "numbers",
    "no_solution": "value",
    "partial": "value",
}


class Wording(NamedTuple):
    """Sentences with {cards} and {jack}, {queen}, {king} to fill in."""

    cards: str
    rule: str
    goal: str
    answer: str


class Form(NamedTuple):
    """One way: the sentences and their order, the answer's fields in order."""

    wording: Wording
    order: tuple[str, ...]
    fields: tuple[str, ...]


WORDINGS = (
    Wording(
        "You are given four playing cards: {cards}.",
        "An ace counts 1, a number card counts its number; of the face cards J counts {jack}, Q {queen} and K {king}.",
        "Make 24 from the values of the four cards with + - * / and brackets. "
        "Use the value of every card exactly once.",
        "Answer with one JSON object that has these three fields:",
    ),
    Wording(
        "These four cards lie on the table: {cards}.",
        "Card values: A is 1, 2 to 10 are what they show, J is {jack}, Q is {queen}, K is {king}.",
        "Write a formula that equals 24. Each card's value appears in it once and only once; "
        "the signs + - * / and brackets are allowed.",
        "Reply with a JSON object and nothing else, in this form:",
    ),
    Wording(
        "Your hand is {cards}.",
        "In this game J has the value {jack}, Q the value {queen} and K the value {king}; an ace has 1, "
        "and every other card its number.",
        "Combine the four values, each of them once, to exactly 24; add, subtract, multiply, divide, "
        "and put brackets where you need them.",
        "Give your answer as JSON with three fields, in this order:",
    ),
    Wording(
        "Cards: {cards}.",
        "Values: A=1, J={jack}, Q={queen}, K={king}, number cards as printed.",
        "Goal: reach 24. Operators: + - * / and ( ). Every value exactly once.",
        "Output, as JSON:",
    ),
)
SHORT = Wording(
    "Cards: {cards}",
    "J={jack}, Q={queen}, K={king}, A=1.",
    "Make 24 with + - * / ( ), using the value of each card once.",
    'Answer: {{"number": [values], "formula": "...=24"}}',
)
ORDERS = (("cards", "rule", "goal", "answer", "blanks"), ("rule", "cards", "goal", "answer", "blanks"))
FIELDS = (("cards", "number", "formula"), ("number", "cards", "formula"))
BLANKS = {
    "cards": "[the four labels]",
    "number": "[their four values]",
    "formula": '"an equation that ends in =24"',
}
LONG_FORMS = tuple(Form(*parts) for parts in product(WORDINGS, ORDERS, FIELDS))
SHORT_FORM = Form(SHORT, ("goal", "answer", "rule", "cards"), ("number", "formula"))
"""What all questions share comes first, so that it is read once; the answer has what is graded and no more."""
FORMS = (*LONG_FORMS, SHORT_FORM)


def question(form: Form, hand: Sequence[str], rule: Rule) -> str:
    """The question as text: hand, rule, goal, and the fields of the answer with a blank for each."""
    named = {"cards": ", ".join(hand), "jack": rule.jack, "queen": rule.queen, "king": rule.king}
    parts = {part: text.format_map(named) for part, text in form.wording._asdict().items()}
    blanks = ", ".join(f'"{field}": {BLANKS[field]}' for field in form.fields)
    parts["blanks"] = f"{{{blanks}}}"
    return "\n".join(parts[part] for part in form.order)


def answer(form: Form, hand: Sequence[str], values: Sequence[int], formula: str) -> str:
    """The answer as JSON, its fields in the order that the form asks for.

    >>> answer(FORMS[1], ["8", "3", "8", "3"], [8, 3, 8, 3], "8/(3-8/3)")
    '{"number": [8, 3, 8, 3], "cards": ["8", "3", "8", "3"], "formula": "8/(3-8/3)=24"}'
    """
    filled = {"cards": list(hand), "number": list(values), "formula": f"{formula}=24"}
    return json.dumps({field: filled[field] for field in form.fields})
