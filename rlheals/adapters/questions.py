"""What the frameworks share: questions by name and seed, and an episode that is fed one reply after the other."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.base import Item, Task, Verdict

GAMMA = 0.9
"""Discount per attempt, as in RL here."""


class Questions:
    """Items of a task's split in an order that follows from the seed; count: only the first so many.

    attempts: at an item; None: the task's own number. options: those of the task.
    Raises BadInput for an unknown task, split or option, and for counts below 1.

    >>> given = Questions("general_points", split="ood", attempts=2)
    >>> episode = given.episode("ood/2-8-Q-K")
    >>> episode.answer("2+8+10+10")
    "That attempt failed: 10 is not among the hand's values; 12, 13 are not used."
    >>> episode.answer("(13+2-12)*8"), episode.solved_at, episode.reward
    (None, 2, 2.5)
    """

    def __init__(
        self,
        task: str = "general_points",
        split: str = "rl",
        seed: int = 0,
        count: int | None = None,
        attempts: int | None = None,
        gamma: float = GAMMA,
        **options: Any,
    ) -> None:
        self.task: Task = load_task(task, **options)
        self.gamma, self.attempts = gamma, self.task.attempts if attempts is None else attempts
        for name, number in (("attempts", self.attempts), ("count", 1 if count is None else count)):
            if type(number) is not int or number < 1:
                raise BadInput(f"{name} = {number!r:.40}; a whole number of at least 1 is accepted")
        items = list(self.task.items(split))
        random.Random(seed).shuffle(items)
        self.items = {item.id: item for item in items[:count]}

    def episode(self, ident: str) -> Episode:
        """A new episode of the item of that id."""
        if ident not in self.items:
            raise BadInput(f"item {ident!r:.60} is not among these questions")
        return Episode(self.task, self.items[ident], self.attempts, self.gamma)


@dataclass
class Episode:
    """One item and the verdicts on the replies so far; over when one solved it or no attempt is left."""

    task: Task
    item: Item
    attempts: int
    gamma: float = GAMMA
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def solved_at(self) -> int:
        """1 for the first attempt, ..., 0 when none solved the item."""
        return len(self.verdicts) if self.verdicts and self.verdicts[-1].solved else 0

    @property
    def over(self) -> bool:
        return self.solved_at > 0 or len(self.verdicts) == self.attempts

    @property
    def reward(self) -> float:
        """sum_t gamma^t reward_t over the attempts so far (t from 0)."""
        return sum(self.gamma**t * verdict.reward for t, verdict in enumerate(self.verdicts))

    def answer(self, reply: str) -> str | None:
        """Judge a reply: what the model is told before the next attempt, None when the episode is over."""
        if self.over:
            raise BadInput("the episode is over")
        self.verdicts.append(self.task.grade(self.item, reply))
        return None if self.over else f"That attempt failed: {self.verdicts[-1].feedback}"

    def finish(self) -> float:
        """The reward, with attempts that were not made as empty replies: otherwise giving up would pay."""
        while not self.over:
            self.answer("")
        return self.reward
