"""What a task is: items with prompts and expert answers, and a verifier that grades replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from rlheals.tasks.general_points.cards import Rule


@dataclass(frozen=True)
class Item:
    """One question: a hand under a rule.

    id: rule and sorted hand, such as `id/A-5-J-K`; hand: the labels in the order in which they are shown;
    split: `sft`, `rl` or `held_out` under the ID rule, `ood` under the OOD rule, else `rule:` and its name.
    """

    id: str
    hand: tuple[str, ...]
    rule: Rule
    split: str


@dataclass(frozen=True)
class Verdict:
    """What the verifier says about one reply.

    reward: in the units of the reference environment (+5 is solved); category: one word for the outcome;
    feedback: one sentence for the next attempt; read_as: the rule under which a formula that uses other
    numbers would be right, else None.
    """

    solved: bool
    reward: float
    category: str
    feedback: str
    read_as: str | None = None


class Task(Protocol):
    """Items, prompts, expert replies and a verifier; everything else is written against these."""

    name: ClassVar[str]
    forms: ClassVar[int]
    """In how many ways a question can be put; 0 is the usual one."""

    def items(self, split: str) -> Sequence[Item]:
        """The items of a split, in a fixed order. Raises BadInput for an unknown split."""
        ...

    def prompt(self, item: Item, form: int = 0) -> str:
        """The question as text."""
        ...

    def expert(self, item: Item, form: int = 0) -> str:
        """The reply to imitate, as the question in that form asks for it."""
        ...

    def answers(self, item: Item) -> tuple[str, ...]:
        """Expert replies, the simplest first."""
        ...

    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply. Raises BadInput when it is not text, and nothing else for any text."""
        ...
