"""The one multi-turn loop: attempt, grade, feedback, next attempt; evaluation and RL both use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rlheals.engines.hf import Engine, Generation, Past, Sampling, uniforms
from rlheals.evaluation.dialects import Prompts
from rlheals.tasks.base import Dialect, Item, Protocol_, Reply, Task, Verdict

Feedback = Literal["verifier", "shuffled", "none"]


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
        """1 for the first attempt, ..., 0 when no attempt solved the item."""
        return len(self.attempts) if self.attempts and self.attempts[-1].verdict.solved else 0


def rollout(
    engine: Engine,
    dialect: Dialect,
    task: Task,
    items: Sequence[Item],
    keys: Sequence[str],
    sampling: Sampling,
    attempts: int | None = None,
    protocol: Protocol_ = "target",
    tick: Callable[[int], object] = lambda finished: None,
    begun: Sequence[Sequence[Attempt]] | None = None,
    feedback: Feedback = "verifier",
    prompts: Prompts = "fixed",
) -> list[Episode]:
    """Play one episode per (item, key); a finished episode leaves the batch.

    The key names the episode's stream of random numbers; two episodes of the same item need different keys.
    `tick(n)` is told whenever n further episodes have ended. Noise of attempt a is that of the key "key/a".
    attempts: of an episode at most; None: the task's own number.
    begun: attempts that episodes begin with; they are played on from there.
    feedback: "shuffled" tells the model a complaint drawn at random instead of the verifier's; "none" asks the same
    question again, without the attempts before.
    prompts: the forms of the questions; "diverse": an episode's follows from its key. (A short form is the dialect's.)
    """
    attempts = attempts or task.attempts
    begun = [()] * len(items) if begun is None else begun
    episodes = [Episode(*start) for start in zip(items, keys, map(list, begun), strict=True)]
    contexts = {
        index: _prompt(dialect, episode, prompts)
        for index, episode in enumerate(episodes)
        if not episode.solved_at and len(episode.attempts) < attempts
    }
    pasts: dict[int, Past | None] = dict.fromkeys(contexts)
    if len(contexts) < len(episodes):
        tick(len(episodes) - len(contexts))
    while contexts:
        asked = list(contexts)
        made = engine.generate(
            [contexts[index] for index in asked],
            [f"{episodes[index].key}/{len(episodes[index].attempts)}" for index in asked],
            sampling,
            [pasts[index] for index in asked],
            dialect.beginning,
        )
        for index, generation in zip(asked, made, strict=True):
            episode = episodes[index]
            reply = dialect.read(list(generation.tokens), protocol)
            verdict = task.grade(episode.item, reply.text)
            kept = replace(generation, past=None)
            episode.attempts.append(Attempt(tuple(contexts[index]), kept, reply, verdict))
            if verdict.solved or len(episode.attempts) == attempts:
                del contexts[index], pasts[index]
            elif feedback != "none":
                key = f"{episode.key}/{len(episode.attempts)}"
                told = _another(task, key) if feedback == "shuffled" else verdict
                contexts[index] += dialect.retry(list(generation.tokens), told)
                pasts[index] = generation.past
        tick(len(asked) - len(contexts))
    return episodes


def _prompt(dialect: Dialect, episode: Episode, prompts: Prompts) -> list[int]:
    """The prompt of an episode's next attempt."""
    if not episode.attempts:
        return list(dialect.prompt(episode.item, form_of(dialect, prompts, episode.key)))
    last = episode.attempts[-1]
    return [*last.prompt, *dialect.retry(list(last.generation.tokens), last.verdict)]


def form_of(dialect: Dialect, prompts: Prompts, key: str) -> int:
    """The form in which an episode's question is put: it depends on the episode's key only."""
    return 0 if prompts != "diverse" else int(uniforms(f"{key}/form", 1)[0] * dialect.forms)


def _another(task: Task, key: str) -> Verdict:
    """A verdict that has nothing to do with the answer; it depends on the attempt's key only."""
    kinds = sorted(task.feedback_words)
    kind = kinds[int(uniforms(f"{key}/feedback", 1)[0] * len(kinds))]
    return Verdict(False, 0.0, kind, kind.replace("_", " "))
