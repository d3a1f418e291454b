"""The one multi-turn loop: attempt, grade, feedback, up to five attempts; evaluation and RL both use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlheals.dialects import Dialect, Protocol_, Reply
from rlheals.engines import Engine, Generation, Sampling
from rlheals.tasks.base import Item, Task, Verdict


@dataclass(frozen=True)
class Attempt:
    """One answer with what the verifier said about it."""

    prompt: tuple[int, ...]
    generation: Generation
    reply: Reply
    verdict: Verdict


@dataclass
class Episode:
    """One item and its attempts, in order; the last one is solved or the attempts are used up."""

    item: Item
    key: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def solved_at(self) -> int:
        """1 for the first try, ..., 0 when no attempt solved the item."""
        return len(self.attempts) if self.attempts and self.attempts[-1].verdict.solved else 0

    def discounted_return(self, discount: float) -> float:
        """sum_t discount^t reward_t over the attempts, t from 0."""
        rewards = np.array([attempt.verdict.reward for attempt in self.attempts])
        return float((rewards * discount ** np.arange(len(rewards))).sum())


def rollout(
    engine: Engine,
    dialect: Dialect,
    task: Task,
    items: Sequence[Item],
    keys: Sequence[str],
    sampling: Sampling,
    attempts: int = 5,
    protocol: Protocol_ = "target",
    tick: Callable[[int], object] = lambda finished: None,
) -> list[Episode]:
    """Play one episode per (item, key); a finished episode leaves the batch.

    The key names the episode's stream of random numbers; two episodes of the same item need different keys.
    `tick(n)` is told whenever n further episodes have ended. Noise of attempt a is that of the key "key/a".
    """
    episodes = [Episode(item, key) for item, key in zip(items, keys, strict=True)]
    prompts = {index: dialect.prompt(episode.item) for index, episode in enumerate(episodes)}
    for number in range(attempts):
        asked = list(prompts)
        made = engine.generate(
            [prompts[index] for index in asked],
            [f"{episodes[index].key}/{number}" for index in asked],
            sampling,
        )
        for index, generation in zip(asked, made, strict=True):
            episode = episodes[index]
            reply = dialect.read(list(generation.tokens), protocol)
            verdict = task.grade(episode.item, reply.text)
            episode.attempts.append(Attempt(tuple(prompts[index]), generation, reply, verdict))
            if verdict.solved:
                del prompts[index]
            else:
                prompts[index] = prompts[index] + dialect.retry(list(generation.tokens), verdict)
        tick(len(asked) - len(prompts))
        if not prompts:
            break
    tick(len(prompts))
    return episodes
