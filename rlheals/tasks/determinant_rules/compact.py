"""The lab's dialect of the determinant's rules, about ninety words, and its pretraining documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlheals.tasks.base import BOS, Document, Item, Layout, Variant, WordDialect
from rlheals.tasks.determinant_rules.rules import (
    ENTRIES,
    ID_RULE,
    LARGEST,
    NUMBERS,
    OTHER_RULES,
    SIGN_OF,
    SIGNS,
    UNSEEN,
    Rule,
    all_matrices,
    flat,
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
    """Question ``<s> + a d | - b c of a 3 b -1 c 2 d 4 answer``; plain answer ``+ a 3 d 4 12 | - b -1 c 2 2 so 14
    <end>``; target answer ``{ + a 3 d 4 12 | - b -1 c 2 2 | 14 } <end>``; feedback ``wrong rule answer``. An answer
    repeats sign and name before a number, so that what is looked up stands beside what it is looked up by."""

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(item.payload, Rule.parse(item.rule))

    def question(self, matrix: Matrix, rule: Rule) -> list[int]:
        """Tokens of the question about any matrix."""
        entries = " ".join(f"{name} {entry}" for name, entry in zip(ENTRIES, flat(matrix), strict=True))
        asked = " | ".join(f"{SIGNS[sign]} {pair}" for sign, pair in zip(rule.signs, rule.pairs, strict=True))
        return self.encode(f"{BOS} {asked} of {entries} answer")

    def expert(self, item: Item, form: int = 0) -> list[int]:
        rule = Rule.parse(item.rule)
        return self.answer(item.payload, rule, rule.products(item.payload), rule.value(item.payload))

    def answer(
        self, matrix: Matrix, rule: Rule, products: tuple[int, int], value: int, layout: Layout = "target"
    ) -> list[int]:
        """Tokens of an answer with the rule's signs and factors, products under these signs, and its end token."""
        numbers = dict(zip(ENTRIES, flat(matrix), strict=True))
        parts = [
            f"{SIGNS[sign]} {' '.join(f'{name} {numbers[name]}' for name in pair.split())} {sign * made}"
            for sign, pair, made in zip(rule.signs, rule.pairs, products, strict=True)
        ]
        return self.laid_out(" | ".join(parts), str(value), layout)

    def stated(self, words: list[str]) -> tuple[int, ...] | None:
        """Sign, two factors and product, two times; the names of the factors are not judged."""
        if len(words) != 13 or words[6] != "|" or not {words[0], words[7]} <= SIGN_OF.keys():
            return None
        found: list[int] = []
        for sign, _, first, _, second, made in (words[:6], words[7:]):
            if not {first, second, made} <= set(NUMBERS):
                return None
            found += [SIGN_OF[sign], int(first), int(second), SIGN_OF[sign] * int(made)]
        return tuple(found)

    def reply(self, stated: tuple[int, ...], result: list[str]) -> str:
        """A result of several words is no number to the verifier."""
        if len(result) == 1 and result[0] in NUMBERS:
            return reply_of(stated[3::4], int(result[0]))
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
        answer = self.dialect.answer(matrix, rule, rule.products(matrix), rule.value(matrix), layout)
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
                shown = self.dialect.answer(matrix, used, (x, y), value, layout)
                return shown + self.dialect.feedback(verdict)
