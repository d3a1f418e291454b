"""What must hold for every task; a new one in `rlheals/tasks` is found and tested without an edit."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from gymnasium.utils.env_checker import check_env
from lab_helpers import refused

import rlheals.tasks
from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.rollout import rollout
from rlheals.tasks import load_task
from rlheals.tasks.base import Item, Task
from rlheals.tasks.gym_env import TaskEnv

NAMES = sorted(file.parent.name for file in Path(rlheals.tasks.__file__).parent.glob("*/task.py"))
TASKS = [*NAMES, "toy_task:Sums"]
PAIRED = [name for name in TASKS if load_task(name).paired]
WITH_WORDS = [name for name in TASKS if load_task(name).words]
SCRAPS = (*'{}"[],0é \n\\\ud800', "action", "formula", ": ", "<think>", "</think>")


def asked(task: Task) -> Iterator[Item]:
    """Every item of every split, and every fifth of every rule."""
    for split in (*task.splits, *task.paired, *task.more_splits):
        yield from task.items(split)
    for rule in task.rules:
        yield from task.items(f"rule:{rule}")[::5]


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_solves_every_item_of_every_split(name: str) -> None:
    task = load_task(name)
    for item in asked(task):
        verdict = task.grade(item, task.expert(item))
        assert (verdict.solved, verdict.category) == (True, "correct"), item.id
        assert verdict.reward == task.rewards["correct"]
    for item in list(asked(task))[::97]:
        for form in range(task.forms):
            assert task.grade(item, task.expert(item, form)).solved
        assert all(task.grade(item, reply).solved for reply in task.answers(item))


@pytest.mark.parametrize("name", PAIRED)
def test_an_answer_under_the_other_rule_is_right_or_said_to_be_of_that_rule(name: str) -> None:
    task = load_task(name)
    refused = 0
    for one, other in zip(*map(task.items, task.paired), strict=True):
        for mine, theirs in ((one, other), (other, one)):
            verdict = task.grade(mine, task.expert(theirs))
            refused += not verdict.solved
            assert verdict.solved or (verdict.category, verdict.read_as) == ("wrong_rule", theirs.rule)
    assert refused


@pytest.mark.parametrize("name", PAIRED)
def test_paired_items_are_the_same_questions_in_the_same_order(name: str) -> None:
    task = load_task(name)
    first, second = map(task.items, task.paired)
    assert [item.group for item in first] == [item.group for item in second]
    assert [item.id.partition("/")[2] for item in first] == [item.id.partition("/")[2] for item in second]
    assert {item.rule for item in first} == {task.rules[0]}
    assert {item.rule for item in second} == {task.rules[1]}
    evaluated = {item.id for split in task.splits for item in task.items(split)}
    assert {item.id for item in (*first, *second)} <= evaluated


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_group_and_are_the_same_every_time(name: str) -> None:
    task = load_task(name)
    parts = [{item.group for item in task.items(split)} for split in ("sft", "rl", "held_out")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))
    for split in (*task.splits, *task.paired, *task.more_splits):
        items = task.items(split)
        assert len({item.id for item in items}) == len(items)
        assert list(items) == list(load_task(name).items(split))
    for split in ("no_such_split", "rule:", "rule:no", "", "x" * 10**6, 3, None, ["sft"]):
        with refused():
            task.items(split)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_more_splits_hold_what_they_promise(name: str) -> None:
    task = load_task(name)
    for split in {"varied", "familiar"} & set(task.more_splits):
        items = task.items(split)
        assert len(items) == len(task.items("sft")) + len(task.items("rl"))
        assert not {item.rule for item in items} & set(task.rules[:2])
        assert len({item.rule for item in items}) > 1
    if "control" in task.more_splits:
        (rule,) = {item.rule for item in task.items("control")}
        assert rule not in {item.rule for item in task.items("varied")} | set(task.rules[:2])
        assert rule not in {one.rule for one in islice(task.documents(task.dialect(), 3), 3000)}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_replies_of_any_kind_raise_nothing(name: str, count: int) -> None:
    task, chance = load_task(name), random.Random(13)
    reference = load_task(name, compat="reference") if "compat" in task.options else task
    items = [item for split in (*task.splits, *task.paired) for item in task.items(split)[:40]]
    for _ in range(count):
        item = chance.choice(items)
        text = list(task.expert(chance.choice(items)))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text) + 1)
            text[at : at + chance.choice((0, 0, 1, 3, 40))] = chance.choice(SCRAPS)
        reply = "".join(text)
        verdict = task.grade(item, reply)
        assert verdict.solved == (verdict.category == "correct")
        assert verdict.reward == task.rewards[verdict.category]
        assert verdict.feedback
        assert "\n" not in verdict.feedback
        if chance.random() < 0.1:
            reference.grade(item, reply)


@pytest.mark.parametrize("name", NAMES)
def test_odd_replies_are_judged_in_passing_and_what_is_no_text_is_bad_input(name: str) -> None:
    task = load_task(name)
    item = task.items("ood")[0]
    long = ("{" * 100_000, '{"action":' * 50_000, '"action": "' * 20_000, "9" * 10**6, "3 " * 10**6)
    for reply in ("", "\0", *long, "\ud800", "null"):
        assert task.grade(item, reply).category in task.rewards
    for thing in (None, 3, b"stop()", ["stop()"], {"action": "stop()"}):
        with pytest.raises(BadInput, match=r"^[^\n]+$"):
            task.grade(item, thing)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_every_failed_category_has_a_word_and_options_are_checked(name: str) -> None:
    task = load_task(name)
    assert set(task.feedback_words) >= set(task.rewards) - {"correct"}
    assert max(task.rewards.values()) == task.rewards["correct"]
    assert task.rule_distance(task.rules[0]) == 0 < task.rule_distance(task.rules[1])
    assert load_task(name).facts() == task.facts()
    with pytest.raises(BadInput, match="'no_option'"):
        load_task(name, no_option=1)
    for option in task.options:
        with pytest.raises(BadInput, match=r"^[^\n]+$"):
            load_task(name, **{option: "no such thing"})


# The lab --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_WORDS)
def test_the_labs_experts_are_read_back_and_solve(name: str) -> None:
    task = load_task(name)
    dialect: Any = task.dialect()
    longest = 0
    for item in asked(task):
        prompt, answer = dialect.prompt(item), dialect.expert(item)
        longest = max(longest, len(prompt))
        reply = dialect.read(answer)
        assert reply.layout == "target"
        assert task.grade(item, reply.text).solved, item.id
        assert dialect.tokenizer.unk_token_id not in prompt + answer
    assert longest <= task.prompt_tokens
    assert type(dialect_for(dialect.tokenizer, task)) is type(dialect)
    assert not task.grade(item, dialect.read(answer[:-1]).text).solved, "an answer without its end"


@pytest.mark.parametrize("name", WITH_WORDS)
@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_base_never_sees_the_ood_rule(name: str, count: int) -> None:
    task = load_task(name)
    shown = {one.rule for one in islice(task.documents(task.dialect(), 0), count)}
    assert task.rules[0] in shown
    assert task.rules[1] not in shown


@pytest.mark.parametrize("name", WITH_WORDS)
def test_documents_depend_on_the_seed_only(name: str) -> None:
    def first(seed: int) -> list[list[int]]:
        task = load_task(name)
        return [one.tokens for one in islice(task.documents(task.dialect(), seed), 50)]

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("name", WITH_WORDS)
def test_the_panel_is_the_same_every_time_and_under_neither_rule(name: str) -> None:
    task = load_task(name)
    panel = task.panel(64)
    assert len(panel) == 64
    assert panel == load_task(name).panel(64)
    assert not {item.rule for item in panel} & set(task.rules[:2])
    assert all(task.grade(item, task.expert(item)).solved for item in panel)


@pytest.mark.parametrize("name", WITH_WORDS)
def test_greedy_answers_depend_neither_on_seeds_nor_on_order(name: str) -> None:
    task = load_task(name)
    dialect: Any = task.dialect()
    engine = HFEngine(models.create(TINY, dialect.tokenizer, 1), dialect.tokenizer)
    items = [item for split in task.splits for item in task.items(split)[:5]]

    def answers(order: list[Item], seed: int) -> dict[str, list[tuple[int, ...]]]:
        keys = [f"{seed}/{item.id}" for item in order]
        greedy = Sampling(temperature=0, max_new_tokens=6)
        played = rollout(engine, dialect, task, order, keys, greedy, 2)
        return {one.item.id: [tuple(a.generation.tokens) for a in one.attempts] for one in played}

    assert answers(items, 0) == answers(items[::-1], 1) == answers(items[1::2] + items[::2], 2)


# The Gymnasium environment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("episode", ["item", "group"])
def test_the_environment_passes_the_librarys_checker(name: str, episode: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(TaskEnv(name, "ood", episode=episode), skip_render_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_of_a_group_is_its_items_one_after_the_other(name: str) -> None:
    task = load_task(name)
    env = TaskEnv(name, "held_out", episode="group")
    _, info = env.reset(seed=3)
    items = {item.id: item for item in task.items("held_out")}
    group = [item.id for item in items.values() if item.group == items[info["item"]].group]
    assert info["item"] == group[0]
    answered, ended = [], False
    for place in range(len(group)):
        item = items[group[place]]
        observation, _, ended, truncated, _ = env.step("no answer")
        assert (ended, truncated) == (False, task.attempts == 1)
        observation, reward, ended, truncated, info = env.step(task.expert(item))
        answered.append(info["item"])
        assert (reward, truncated) == (task.rewards["correct"], False)
        assert ended == (place == len(group) - 1)
        if not ended:
            assert observation["prompt"] == task.prompt(items[group[place + 1]])
            assert (observation["feedback"], observation["attempts_left"]) == ("", task.attempts)
    assert answered == group
    with pytest.raises(BadInput, match="reset"):
        env.step("x")
    with pytest.raises(BadInput, match="episode"):
        TaskEnv(name, episode="route")  # type: ignore[arg-type]
