"""A number of a 2x2 matrix under a stated rule: the determinant for training, the permanent as OOD."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from rlheals.errors import BadInput
from rlheals.tasks.base import Document, Item, Reply, Task, Variant, Verdict
from rlheals.tasks.determinant_rules.rules import (
    COMBINATIONS,
    CONTROL_RULE,
    ENTRIES,
    ID_RULE,
    NUMBERS,
    OOD_RULE,
    OTHER_RULES,
    SIGNS,
    Rule,
    all_matrices,
    matrices_for,
)
from rlheals.tasks.determinant_rules.verifier import FEEDBACK_WORDS, REWARDS, judge, reply_of
from rlheals.tasks.guesses import blind
from rlheals.tasks.matrices import Matrix, as_matrix, facts, part_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from rlheals.tasks.determinant_rules.compact import Compact

WORDS = (
    *NUMBERS,
    *ENTRIES,
    *SIGNS.values(),
    "of",
    *FEEDBACK_WORDS.values(),
)


class DeterminantRules(Task):
    """Twelve rules, all of the same words; ten of them may be seen before, `ood` and `control` never.

    Two attempts: whoever has the right products and guesses how to combine them is right at one try of four.

    >>> task = DeterminantRules()
    >>> item = task.item(((1, 2), (3, 4)), OOD_RULE)
    >>> task.grade(item, '{"products": [4, 6], "answer": -2}').read_as
    'id'
    """

    name = "determinant_rules"
    called = ("matrix", "matrices")
    rules = (ID_RULE.name, OOD_RULE.name, *(rule.name for rule in OTHER_RULES))
    more_splits = ("varied", "control")
    paired = ("id", "ood")
    rewards = REWARDS
    feedback_words = FEEDBACK_WORDS
    attempts = 2
    words = WORDS
    prompt_tokens = 18
    answer_tokens = 20

    def items(self, split: str) -> list[Item]:
        """The items of a split, in the order of the matrices' hash; where the ID rule's answer is that of the item's
        rule, there is none.

        sft, rl, held_out: parts of `id` (`part_of`); ood: the same matrices under the OOD rule; control: those under
        `CONTROL_RULE`; varied: as many as sft and rl have, each under a random rule that is neither ID nor unseen, of
        matrices that are not held out; rule:NAME: those under a rule. BadInput for other splits.

        >>> [len(DeterminantRules().items(split)) for split in ("id", "ood")]
        [5184, 5184]
        """
        known = (*self.splits, *self.more_splits, "id")
        if not isinstance(split, str) or not (split in known or split.startswith("rule:")):
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(known)}, rule:NAME")
        return list(_items(split))

    def item(self, matrix: Sequence[Sequence[int]], rule: Rule) -> Item:
        """The question about a matrix. Raises BadInput unless it is 2x2 with whole numbers from -4 to 4."""
        rows = as_matrix(matrix)
        if rows not in _known():
            raise BadInput(
                f"matrix {json.dumps(rows):.40}: two rows of two numbers from -4 to 4 are accepted"
            )
        return _item(rows, rule)

    def prompt(self, item: Item, form: int = 0) -> str:
        """Rule, matrix, and the form of the answer."""
        rule = Rule.parse(item.rule)
        first, second = (pair.replace(" ", " times ") for pair in rule.pairs)
        (a, b), (c, d) = item.payload
        return (
            f"A matrix has the rows [a, b] = [{a}, {b}] and [c, d] = [{c}, {d}].\n"
            f"Let x be {first}, and y be {second}. Compute {rule.combination}.\n"
            'Answer with one JSON object: {"products": [x, y], "answer": [a whole number]}'
        )

    def answers(self, item: Item) -> tuple[str, ...]:
        """The one expert reply."""
        return (reply_as(Rule.parse(item.rule), item),)

    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply: `verifier.judge`."""
        if not isinstance(reply, str):
            raise BadInput(f"item {item.id}: the reply is {type(reply).__name__}; text is accepted")
        return judge(item.payload, Rule.parse(item.rule), reply)

    def reply_columns(self, item: Item, reply: Reply) -> dict[str, Any]:
        """Whether signs and products that a reply states are those of the item's rule."""
        rule, stated = Rule.parse(item.rule), reply.stated
        right = (stated[0::4], stated[3::4]) == (rule.signs, rule.products(item.payload))
        return {"products_right": right}

    def rule_distance(self, rule: str) -> float:
        """How many of its two parts a rule does not share with the ID rule.

        >>> DeterminantRules().rule_distance("ood"), DeterminantRules().rule_distance("ac,bd,y-x")
        (1.0, 2.0)
        """
        read = Rule.parse(rule)
        return float((read.pairing != ID_RULE.pairing) + (read.combination != ID_RULE.combination))

    def chance(self) -> dict[str, float]:
        """Also the ID rule's answer, and right products in each of the four combinations equally often."""
        asked = {split: self.items(split) for split in ("held_out", "ood", "control")}
        scores = blind(
            _solved(self.items("sft")),
            {split: _solved(items) for split, items in asked.items()},
            self.attempts,
        )
        for split, items in asked.items():
            pairing = Rule.parse(items[0].rule).pairing
            rules = {"the ID rule": [ID_RULE], "right products": [Rule(pairing, how) for how in COMBINATIONS]}
            for policy, followed in rules.items():
                right = [self.grade(item, reply_as(rule, item)).solved for item in items for rule in followed]
                scores[f"{policy} on {split}"] = sum(right) / len(right)
        return scores

    def facts(self) -> tuple[str, ...]:
        return facts(self, (*self.splits, *self.more_splits), self.chance())

    def dialect(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Compact:
        from rlheals.tasks.determinant_rules.compact import Compact

        return Compact(self.words, self.feedback_words, tokenizer)

    def documents(self, dialect: Compact, seed: int, variant: Variant = "default") -> Iterator[Document]:
        from rlheals.tasks.determinant_rules.compact import Corpus

        return iter(Corpus(dialect, seed, variant))

    def panel(self, size: int) -> list[Item]:
        """Matrices under the rules that are neither ID nor unseen, in turn, always the same."""
        asked = [matrices_for(rule) for rule in OTHER_RULES]
        places = (divmod(index, len(OTHER_RULES)) for index in range(size))
        return [_item(asked[which][row % len(asked[which])], OTHER_RULES[which]) for row, which in places]


TASK = DeterminantRules


def reply_as(rule: Rule, item: Item) -> str:
    """What would be right under a rule."""
    return reply_of(rule.products(item.payload), rule.value(item.payload))


def _solved(items: list[Item]) -> tuple[list[Matrix], list[int]]:
    return [item.payload for item in items], [Rule.parse(item.rule).value(item.payload) for item in items]


@cache
def _known() -> frozenset[Matrix]:
    return frozenset(all_matrices())


@cache
def _item(matrix: Matrix, rule: Rule, split: str = "") -> Item:
    named = {OOD_RULE: "ood", CONTROL_RULE: "control", ID_RULE: part_of(matrix)}
    entries = ",".join(str(entry) for row in matrix for entry in row)
    own = split or named.get(rule, f"rule:{rule.name}")
    return Item(f"{rule.name}/{entries}", own, rule.name, entries, matrix)


@cache
def _items(split: str) -> tuple[Item, ...]:
    if split == "varied":
        return _varied(len(_items("sft")) + len(_items("rl")))
    named = {"ood": OOD_RULE, "control": CONTROL_RULE}
    rule = Rule.parse(split.removeprefix("rule:")) if split.startswith("rule:") else named.get(split, ID_RULE)
    items = (_item(matrix, rule) for matrix in matrices_for(rule))
    return tuple(item for item in items if split not in ("sft", "rl", "held_out") or item.split == split)


def _varied(count: int) -> tuple[Item, ...]:
    import numpy as np

    random, found = np.random.default_rng(25), dict[str, Item]()
    while len(found) < count:
        rule = OTHER_RULES[random.integers(len(OTHER_RULES))]
        matrix = matrices_for(rule)[random.integers(len(matrices_for(rule)))]
        if part_of(matrix) != "held_out":
            item = _item(matrix, rule, "varied")
            found[item.id] = item
    return tuple(found.values())
