"""A second task, in one folder and without an edit elsewhere: add two numbers under a stated rule for the carry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from rlheals.errors import BadInput
from rlheals.tasks.base import BOS, Document, Item, Task, Verdict, WordDialect

CARRIES = {"carry": 1, "drop": 0, "twice": 2, "thrice": 3}
PAIRS = [(a, b) for a in range(10, 60) for b in range(10, 60) if a % 10 + b % 10 >= 10]


def total(a: int, b: int, rule: str) -> str:
    """Two digits: what the ones carry to the tens counts as often as the rule says.

    >>> total(27, 15, "carry"), total(27, 15, "drop")
    ('42', '32')
    """
    return f"{(a // 10 + b // 10 + CARRIES[rule]) % 10}{(a + b) % 10}"


class Sums(Task):
    name = "sums"
    rules = tuple(CARRIES)
    paired = ("id", "ood")
    rewards = {"correct": 1.0, "wrong": -1.0, "wrong_rule": -1.0, "unreadable": -2.0}  # noqa: RUF012
    feedback_words = {"wrong": "sum", "wrong_rule": "sum", "unreadable": "format"}  # noqa: RUF012
    attempts = 2
    words = (*"0123456789", "plus", "sum", "format")
    prompt_tokens = 9

    def items(self, split: str) -> list[Item]:
        known = (*self.splits, "id", *(f"rule:{rule}" for rule in CARRIES))
        if split not in known:
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(known)}")
        rule = "drop" if split == "ood" else split[5:] if split.startswith("rule:") else "carry"
        every = [self.item(a, b, rule) for a, b in PAIRS]
        return [item for item in every if item.split == split or split in ("id", f"rule:{rule}")]

    def item(self, a: int, b: int, rule: str) -> Item:
        part = ("sft", "sft", "rl", "held_out")[sha256(f"{a}+{b}".encode()).digest()[0] % 4]
        split = {"carry": part, "drop": "ood"}.get(rule, f"rule:{rule}")
        return Item(f"{rule}/{a}+{b}", split, rule, f"{a}+{b}", (a, b))

    def prompt(self, item: Item, form: int = 0) -> str:
        return f'A carry counts {CARRIES[item.rule]}. {item.group} = ? Answer {{"sum": "..."}}'

    def answers(self, item: Item) -> tuple[str, ...]:
        return (json.dumps({"sum": total(*item.payload, item.rule)}),)

    def grade(self, item: Item, reply: str) -> Verdict:
        found = re.fullmatch(r'\{"sum": "([0-9]+)"\}', reply)
        if found is None:
            return Verdict(False, -2.0, "unreadable", "No sum can be read.")
        read_as = [rule for rule in CARRIES if found[1] == total(*item.payload, rule)]
        if item.rule in read_as:
            return Verdict(True, 1.0, "correct", "Right.")
        category = "wrong_rule" if read_as else "wrong"
        return Verdict(False, -1.0, category, "The sum is wrong.", next(iter(read_as), None))

    def dialect(self, tokenizer=None) -> Words:
        return Words(self.words, self.feedback_words, tokenizer)

    def documents(self, dialect: Words, seed: int, variant: str = "default") -> Iterator[Document]:
        random = np.random.default_rng(seed)
        while True:
            a, b = PAIRS[random.integers(len(PAIRS))]
            rule = ("carry", "twice", "thrice")[random.integers(3)]
            asked = dialect.prompt(self.item(a, b, rule))
            answer = dialect.laid_out(f"1 | {(a + b) % 10}", " ".join(total(a, b, rule)), "plain")
            yield Document(asked + answer, [0.02] * len(asked) + [1.0] * len(answer), rule)

    def panel(self, size: int) -> list[Item]:
        return self.items("rule:twice")[:size]


class Words(WordDialect):
    """`<s> 1 2 7 plus 1 5 answer`: the carry counts 1; the answer states carry and ones, `{ 1 | 2 | 4 2 } <end>`."""

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        a, b = item.payload
        return self.encode(f"{BOS} {CARRIES[item.rule]} {' '.join(str(a))} plus {' '.join(str(b))} answer")

    def expert(self, item: Item, form: int = 0) -> list[int]:
        return self.laid_out(f"1 | {sum(item.payload) % 10}", " ".join(total(*item.payload, item.rule)))

    def stated(self, words: list[str]) -> tuple[str, ...] | None:
        return (words[0], words[2]) if len(words) == 3 and words[1] == "|" else None

    def reply(self, stated: tuple[str, ...], result: list[str]) -> str:
        return json.dumps({"sum": "".join(result)})
