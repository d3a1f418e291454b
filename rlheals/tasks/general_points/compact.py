"""The lab's dialect of GeneralPoints: about fifty words; card 10 and number 10 are one token."""

from __future__ import annotations

import json
from itertools import permutations
from typing import ClassVar

from transformers import PreTrainedTokenizerFast

from rlheals.tasks.base import Item, Layout
from rlheals.tasks.compact import BOS, WordDialect
from rlheals.tasks.general_points.cards import FACES, Rule
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS, NUMBERS, OPERATORS, WORDS
from rlheals.tasks.general_points.solver import canonical_solution

FACE_ORDERS = tuple(permutations(FACES))


class Compact(WordDialect):
    """Question ``<s> J 11 Q 12 K 13 cards J 3 5 A answer``; plain answer ``11 3 5 1 so ( ... ) = 24 <end>``; target
    answer ``{ 11 3 5 1 | ( ... ) = 24 } <end>``; feedback ``wrong numbers answer``.

    Forms: J, Q and K in any order, the rule before the cards or after them.
    """

    forms: ClassVar[int] = 2 * len(FACE_ORDERS)

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        super().__init__(WORDS, FEEDBACK_WORDS, tokenizer)

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(item.payload.hand, item.payload.rule, form)

    def question(self, hand: tuple[str, ...], rule: Rule, form: int = 0) -> list[int]:
        """Tokens of the question about any cards."""
        rule_last, order = divmod(form, len(FACE_ORDERS))
        values = {"J": rule.jack, "Q": rule.queen, "K": rule.king}
        facts = [" ".join(f"{face} {values[face]}" for face in FACE_ORDERS[order]), f"cards {' '.join(hand)}"]
        return self.encode(" ".join((BOS, *(reversed(facts) if rule_last else facts), "answer")))

    def expert(self, item: Item, form: int = 0) -> list[int]:
        values = item.payload.values
        return self.answer(values, canonical_solution(values))

    def answer(self, values: tuple[int, ...], formula: str, layout: Layout = "target") -> list[int]:
        """Tokens of an answer with its values, formula (without "= 24") and end token.

        >>> d = Compact(); " ".join(d.words(d.answer((10, 3, 5, 1), "(10-3+1)*5")))
        '{ 10 3 5 1 | ( 10 - 3 + 1 ) * 5 = 24 } <end>'
        """
        return self.laid_out(" ".join(map(str, values)), f"{spaced(formula)} = 24", layout)

    def stated(self, words: list[str]) -> tuple[int, ...] | None:
        return tuple(map(int, words)) if all(word in NUMBERS for word in words) else None

    def reply(self, stated: tuple[int, ...], result: list[str]) -> str:
        return json.dumps({"number": list(stated), "formula": joined(result)})


def joined(words: list[str]) -> str:
    """Formula words as text, with a space only where two numbers would otherwise run together.

    >>> joined(["(", "10", "-", "3", ")", "4", "1"])
    '(10-3)4 1'
    """
    text = ""
    for word in words:
        text += f" {word}" if text[-1:].isdigit() and word[:1].isdigit() else word
    return text


def spaced(formula: str) -> str:
    """A formula with a space around every token.

    >>> spaced("(10-3+1)*5")
    '( 10 - 3 + 1 ) * 5'
    """
    for sign in OPERATORS:
        formula = formula.replace(sign, f" {sign} ")
    return " ".join(formula.split())
