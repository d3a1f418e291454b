"""The lab's dialect of GeneralPoints, about fifty words, and its pretraining documents.

Card 10 and number 10 are one token. Documents have many rules for the face cards, never those of `UNSEEN`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations_with_replacement, permutations

import numpy as np
from transformers import PreTrainedTokenizerFast

from rlheals.tasks.base import BOS, Document, Item, Layout, Variant, WordDialect
from rlheals.tasks.general_points.cards import FACES, ID_RULE, LABELS, UNSEEN, Rule, has_face, split_of
from rlheals.tasks.general_points.formula import FormulaError, evaluate
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS, NUMBERS, OPERATORS, WORDS
from rlheals.tasks.general_points.solver import canonical_solution, solvable

FACE_ORDERS = tuple(permutations(FACES))
ID_SHARE = 0.25
WRONG_SHARE = 0.45
MOST_WRONG = 4
MISREAD_SHARE = 0.6
TARGET_LAYOUT_SHARE = 0.08
SIDE_WEIGHT = 0.02


class Compact(WordDialect):
    """Question ``<s> J 11 Q 12 K 13 cards J 3 5 A answer``; plain answer ``11 3 5 1 so ( ... ) = 24 <end>``; target
    answer ``{ 11 3 5 1 | ( ... ) = 24 } <end>``; feedback ``wrong numbers answer``.

    Forms: J, Q and K in any order, the rule before the cards or after them.
    """

    forms = 2 * len(FACE_ORDERS)

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


# Pretraining documents ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def expert_formula(values: tuple[int, ...]) -> str | None:
    """The canonical solution of a sorted multiset of values, None if it has none."""
    return canonical_solution(values) if solvable(values) else None


@lru_cache(maxsize=1)
def held_out() -> frozenset[tuple[int, ...]]:
    """Value multisets (1..10) that neither SFT nor RL may see; `strict` pretraining does not see them either."""
    multisets = combinations_with_replacement(range(1, 11), 4)
    return frozenset(v for v in multisets if solvable(v) and split_of(v) == "held_out")


class Corpus:
    """An endless stream of documents, which depends on the seed only; their payload is the values of the hand."""

    def __init__(self, dialect: Compact, seed: int, variant: Variant = "default") -> None:
        self.dialect = dialect
        self.random = np.random.default_rng([seed, 1])
        self.banned = held_out() if variant == "strict" else frozenset()
        self.id_share = 0.0 if variant == "new_rules" else ID_SHARE
        self.unseen = (ID_RULE, *UNSEEN) if variant == "new_rules" else UNSEEN
        self._feedback = {kind: dialect.encode(f"wrong {kind} answer") for kind in ("numbers", "value")}

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self.document()

    def document(self) -> Document:
        """A rule, a hand, perhaps some wrong attempts with the verifier's feedback, and a correct answer."""
        random = self.random
        rule = self._rule()
        hand = self._hand(rule)
        values = rule.values(hand)
        formula = expert_formula(tuple(sorted(values)))
        assert formula is not None
        layout: Layout = "target" if random.random() < TARGET_LAYOUT_SHARE else "plain"
        tokens = self.dialect.question(hand, rule)
        weights = [SIDE_WEIGHT] * len(tokens)
        for _ in range(MOST_WRONG):
            if random.random() >= WRONG_SHARE:
                break
            attempt = self._wrong(hand, rule, values, formula, layout)
            tokens += attempt
            weights += [SIDE_WEIGHT] * len(attempt)
        answer = self.dialect.answer(values, formula, layout)
        return Document(tokens + answer, weights + [1.0] * len(answer), rule.name, values)

    def _rule(self) -> Rule:
        """The ID rule in one document of four, else random values; unseen rules are drawn again."""
        if self.random.random() < self.id_share:
            return ID_RULE
        while True:
            rule = Rule(*(int(v) for v in self.random.integers(1, 14, 3)))
            if rule not in self.unseen:
                return rule

    def _hand(self, rule: Rule) -> tuple[str, str, str, str]:
        """Four cards, solvable under the rule; every second hand is made to hold a face card."""
        forced = self.random.random() < 0.5
        while True:
            ranks = self.random.integers(0, 13, 4)
            if forced:
                ranks[self.random.integers(4)] = 10 + self.random.integers(3)
            hand = tuple(LABELS[rank] for rank in ranks)
            values = tuple(sorted(rule.values(hand)))
            if values not in self.banned and expert_formula(values) is not None:
                return hand  # type: ignore[return-value]

    def _wrong(
        self, hand: tuple[str, ...], rule: Rule, values: tuple[int, ...], formula: str, layout: Layout
    ) -> list[int]:
        """A wrong attempt with its feedback: values misread (60 %), or one operator changed (40 %)."""
        while True:
            if self.random.random() < MISREAD_SHARE:
                wrong = self._misread(hand, values)
                multiset = tuple(sorted(wrong))
                made = expert_formula(multiset)
                if multiset in self.banned or made is None or multiset == tuple(sorted(values)):
                    continue
                return self.dialect.answer(wrong, made, layout) + self._feedback["numbers"]
            made = self._one_operator_changed(formula)
            if made is not None:
                return self.dialect.answer(values, made, layout) + self._feedback["value"]

    def _misread(self, hand: tuple[str, ...], values: tuple[int, ...]) -> tuple[int, ...]:
        if has_face(hand) and self.random.random() < 0.5:
            return self._rule().values(hand)
        place, value = self.random.integers(4), int(self.random.integers(1, 14))
        return tuple(value if index == place else v for index, v in enumerate(values))

    def _one_operator_changed(self, formula: str) -> str | None:
        places = [index for index, sign in enumerate(formula) if sign in "+-*/"]
        place = places[self.random.integers(len(places))]
        sign = "+-*/"[self.random.integers(4)]
        changed = formula[:place] + sign + formula[place + 1 :]
        try:
            return changed if evaluate(changed) != 24 else None
        except FormulaError:
            return changed
