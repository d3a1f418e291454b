"""The lab's dialect of the determinant's rules, about ninety words, and its pretraining documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlheals.tasks.base import BOS, Document, Item, Layout, Variant, WordDialect
from rlheals.tasks.determinant_rules.rules import (
    ID_RULE,
    LARGEST,
    NUMBERS,
    OTHER_RULES,
    UNSEEN,
    Factors,
    Rule,
    all_matrices,
)
from rlheals.tasks.determinant_rules.verifier import judge, reply_of
from rlheals.tasks.matrices import Matrix, part_of

ID_SHARE = 0.25
WRONG_SHARE = 0.45
MOST_WRONG = 4
OTHER_RULE_SHARE = 0.6
WRONG_PRODUCT = 0.8
TARGET_LAYOUT_SHARE = 0.08
SIDE_WEIGHT = 0.02


class Compact(WordDialect):
    """Question ``<s> ad bc x-y of 3 -1 2 4 answer``; plain answer ``3 4 12 | -1 2 -2 so 14 <end>``; target answer
    ``{ 3 4 12 | -1 2 -2 | 14 } <end>``; feedback ``wrong rule answer``. Factors are repeated
    before their product, so that what is looked up stands side by side."""

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(item.payload, Rule.parse(item.rule))

    def question(self, matrix: Matrix, rule: Rule) -> list[int]:
        """Tokens of the question about any matrix."""
        entries = " ".join(str(entry) for row in matrix for entry in row)
        return self.encode(f"{BOS} {rule.pairing} {rule.combination} of {entries} answer")

    def expert(self, item: Item, form: int = 0) -> list[int]:
        rule = Rule.parse(item.rule)
        return self.answer(rule.factors(item.payload), rule.products(item.payload), rule.value(item.payload))

    def answer(
        self, factors: Factors, products: tuple[int, int], value: int, layout: Layout = "target"
    ) -> list[int]:
        """Tokens of an answer with its factors, products and end token."""
        parts = (f"{i} {j} {made}" for (i, j), made in zip(factors, products, strict=True))
        return self.laid_out(" | ".join(parts), str(value), layout)

    def stated(self, words: list[str]) -> tuple[int, ...] | None:
        """Two factors and a product, two times."""
        numbers = words[:3] + words[4:]
        if len(words) != 7 or words[3] != "|" or not set(numbers) <= set(NUMBERS):
            return None
        return tuple(map(int, numbers))

    def reply(self, stated: tuple[int, ...], result: list[str]) -> str:
        """A result of several words is no number to the verifier."""
        if len(result) == 1 and result[0] in NUMBERS:
            return reply_of(stated[2::3], int(result[0]))
        return " ".join(result)


class Corpus:
    """An endless stream of documents, which depends on the seed only; their payload is the matrix.

    strict, new_rules: matrices whose ID items are held out do not occur.
    """

    def __init__(self, dialect: Compact, seed: int, variant: Variant = "default") -> None:
        self.dialect = dialect
        self.random = np.random.default_rng([seed, 1])
        self.matrices = [m for m in all_matrices() if variant == "default" or part_of(m) != "held_out"]
        self.id_share = 0.0 if variant == "new_rules" else ID_SHARE
        self.unseen = (ID_RULE, *UNSEEN) if variant == "new_rules" else UNSEEN

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self.document()

    def document(self) -> Document:
        """A rule, a matrix, perhaps some wrong attempts with the verifier's feedback, and a correct answer."""
        random = self.random
        matrix, rule = self.matrices[random.integers(len(self.matrices))], self._rule()
        layout: Layout = "target" if random.random() < TARGET_LAYOUT_SHARE else "plain"
        tokens = self.dialect.question(matrix, rule)
        for _ in range(MOST_WRONG):
            if random.random() >= WRONG_SHARE:
                break
            tokens += self._wrong(matrix, rule, layout)
        answer = self.dialect.answer(rule.factors(matrix), rule.products(matrix), rule.value(matrix), layout)
        weights = [SIDE_WEIGHT] * len(tokens) + [1.0] * len(answer)
        return Document(tokens + answer, weights, rule.name, matrix)

    def _rule(self) -> Rule:
        """The ID rule in one document of four, else one of the others, none of them unseen."""
        if self.random.random() < self.id_share:
            return ID_RULE
        return OTHER_RULES[self.random.integers(len(OTHER_RULES))]

    def _wrong(self, matrix: Matrix, rule: Rule, layout: Layout) -> list[int]:
        """A wrong attempt with its feedback: another rule (60 %), a wrong sum or a wrong product; no unseen rule's."""
        random = self.random
        while True:
            kind, slip = random.random(), int(random.integers(-LARGEST, LARGEST + 1))
            used = self._rule() if kind < OTHER_RULE_SHARE else rule
            x, y = used.products(matrix)
            if kind >= WRONG_PRODUCT:
                x, y = (slip * LARGEST, y) if random.random() < 0.5 else (x, slip * LARGEST)
            value = used.combined(x, y) + (slip if OTHER_RULE_SHARE <= kind < WRONG_PRODUCT else 0)
            verdict = judge(matrix, rule, reply_of((x, y), value))
            unseen = [
                other
                for other in self.unseen
                if (*other.products(matrix), other.value(matrix)) == (x, y, value)
            ]
            if not verdict.solved and not unseen and str(value) in NUMBERS:
                shown = self.dialect.answer(used.factors(matrix), (x, y), value, layout)
                return shown + self.dialect.feedback(verdict)
