"""The multi-turn loop, with an engine that follows a script."""

from __future__ import annotations

import random

import pytest
from lab_helpers import FakeEngine

from rlheals.engines.hf import HFEngine, Sampling
from rlheals.evaluation.rollout import rollout
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS
from rlheals.tasks.general_points.solver import canonical_solution
from rlheals.tasks.general_points.task import GeneralPoints

SAMPLING = Sampling()


@pytest.fixture(scope="module")
def items(task: GeneralPoints) -> list[Item]:
    chosen = random.Random(1).sample(task.items("ood"), 40)
    return [item for item in chosen if sum(item.payload.values) != 24][:30]


class Script:
    """Right at attempt `at[key]` (from 1; 0: never) and before that wrong in one of five ways."""

    def __init__(self, dialect: Compact, items: list[Item], keys: list[str], at: list[int]) -> None:
        self.dialect = dialect
        self.items = dict(zip(keys, items, strict=True))
        self.at = dict(zip(keys, at, strict=True))

    def __call__(self, key: str, attempt: int) -> list[int]:
        item = self.items[key]
        values = item.payload.values
        if attempt + 1 == self.at[key]:
            return self.dialect.answer(values, canonical_solution(values))
        return (
            self.dialect.encode("{ 1 | 1 = 24 } <end>"),
            self.dialect.encode("so so so"),
            self.dialect.answer(values, "+".join(map(str, values))),
            self.dialect.encode("<end>"),
            self.dialect.answer(values, canonical_solution(values), "plain"),
        )[attempt % 5]


def play(dialect: Compact, task: GeneralPoints, items: list[Item], at: list[int], **options):
    keys = [f"key {number}" for number in range(len(items))]
    engine = FakeEngine(dialect.tokenizer, Script(dialect, items, keys, at))
    return engine, rollout(engine, dialect, task, items, keys, SAMPLING, **options)


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_an_episode_ends_when_solved_or_when_the_attempts_are_used_up(
    dialect: Compact, task: GeneralPoints, items: list[Item], attempts: int
) -> None:
    at = [number % 7 for number in range(len(items))]  # 0: never; 6: never in time
    engine, episodes = play(dialect, task, items, at, attempts=attempts)
    for episode, item, wanted in zip(episodes, items, at, strict=True):
        solved = wanted if 0 < wanted <= attempts else 0
        assert episode.item == item
        assert episode.solved_at == solved
        assert len(episode.attempts) == (solved or attempts)
        assert [a.verdict.solved for a in episode.attempts[:-1]] == [False] * (len(episode.attempts) - 1)
    assert len(engine.calls) == attempts
    for number, call in enumerate(engine.calls):
        playing = [f"key {i}" for i, wanted in enumerate(at) if wanted == 0 or wanted > number]
        assert [key for _, key in call] == [f"{key}/{number}" for key in playing]


def test_a_prompt_holds_every_earlier_attempt_with_the_feedback_on_it_in_order(
    dialect: Compact, task: GeneralPoints, items: list[Item]
) -> None:
    engine, episodes = play(dialect, task, items, [0] * len(items))
    for index, episode in enumerate(episodes):
        prompt = dialect.prompt(episode.item)
        for number, attempt in enumerate(episode.attempts):
            assert list(attempt.prompt) == prompt == engine.calls[number][index][0]
            verdict = task.grade(episode.item, dialect.read(list(attempt.generation.tokens)).text)
            assert attempt.verdict == verdict
            word = FEEDBACK_WORDS[verdict.category]
            prompt = prompt + list(attempt.generation.tokens) + dialect.encode(f"wrong {word} answer")
    said = {attempt.verdict.category for episode in episodes for attempt in episode.attempts}
    assert said >= {"illegal_formula", "wrong_number", "no_solution"}


def test_the_protocol_decides_whether_a_plain_answer_ends_the_episode(
    dialect: Compact, task: GeneralPoints, items: list[Item]
) -> None:
    _, strict = play(dialect, task, items, [0] * len(items), protocol="target")
    _, lenient = play(dialect, task, items, [0] * len(items), protocol="either")
    assert {episode.solved_at for episode in strict} == {0}
    assert {episode.solved_at for episode in lenient} == {5}
    assert all(e.attempts[-1].reply.layout == "plain" for e in lenient)


def test_progress_adds_up_to_all_episodes(dialect: Compact, task: GeneralPoints, items: list[Item]) -> None:
    at = [number % 4 for number in range(len(items))]
    told: list[int] = []
    play(dialect, task, items, at, tick=told.append)
    assert sum(told) == len(items)
    assert told[:3] == [at.count(1), at.count(2), at.count(3)]
    assert play(dialect, task, [], [])[1] == []


def test_the_same_hands_give_the_same_episodes_alone_and_together(
    base, dialect: Compact, task, items
) -> None:
    """With a real model: what is asked beside an episode, and when others leave, changes nothing in it."""
    engine = HFEngine(base, dialect.tokenizer, rows=16)
    keys = [f"1/{item.id}" for item in items]
    together = rollout(engine, dialect, task, items, keys, SAMPLING, protocol="either")
    assert len({episode.solved_at for episode in together}) >= 4
    for index in (0, 7, 29):
        (alone,) = rollout(engine, dialect, task, [items[index]], [keys[index]], SAMPLING, protocol="either")
        assert [a.generation.tokens for a in alone.attempts] == [
            a.generation.tokens for a in together[index].attempts
        ]
        assert alone.solved_at == together[index].solved_at
    other = rollout(engine, dialect, task, items, [f"2/{item.id}" for item in items], SAMPLING)
    assert [e.attempts[0].generation.tokens for e in other] != [
        e.attempts[0].generation.tokens for e in together
    ]
