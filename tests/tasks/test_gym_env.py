"""The Gymnasium adapter: the library's own checker, seeds, attempts, and the reference's unjudged sixth reply."""

from __future__ import annotations

import random
import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.gym_env import ENV_ID, TaskEnv


def hands(env: gymnasium.Env[Any, Any], count: int, seed: int | None = None) -> list[str]:
    first = env.reset(seed=seed)[1]["item"]
    return [first, *(env.reset()[1]["item"] for _ in range(count - 1))]


@pytest.mark.parametrize("options", [{"compat": "reference"}, {"attempts": 2}])
def test_passes_the_checker_without_a_warning(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(TaskEnv(**options), skip_render_check=True)


def test_seeds_decide_the_hands_and_nothing_else_does() -> None:
    env, other = TaskEnv(split="id"), TaskEnv(split="id")
    expected = hands(env, 20, seed=7)
    random.seed(1)
    other.reset(seed=8)
    other.step("1+1")
    assert hands(other, 20, seed=7) == expected
    assert hands(other, 20, seed=8) != expected
    assert len(set(expected)) > 15
    env = gymnasium.make(f"rlheals.tasks.gym_env:{ENV_ID}", split="held_out")
    assert env.reset(seed=0)[1]["split"] == "held_out"
    dealt = {env.reset()[1]["item"] for _ in range(6000)}
    assert dealt == {item.id for item in load_task("general_points").items("held_out")}


def test_a_solved_hand_terminates_and_the_last_failed_attempt_truncates() -> None:
    env = TaskEnv(split="id")
    env.reset(options={"item": "id/3-3-8-8"})
    observation, reward, terminated, truncated, info = env.step('{"formula": "8+3+8+3"}')
    assert (reward, terminated, truncated, observation["attempts_left"]) == (-1, False, False, 4)
    assert observation["feedback"]
    assert info["category"] == "no_solution"
    _, reward, terminated, truncated, info = env.step('{"formula": "8/(3-8/3)=24"}')
    assert (reward, terminated, truncated, info["solved"]) == (5, True, False, True)
    with pytest.raises(BadInput, match="reset"):
        env.step("8/(3-8/3)")
    env = TaskEnv(attempts=3)
    env.reset(seed=3)
    ends = [env.step("0")[1:4] for _ in range(3)]
    assert ends == [(-2, False, False), (-2, False, False), (-2, False, True)]
    with pytest.raises(BadInput, match="reset"):
        env.step("0")


def test_the_reference_takes_a_sixth_reply_and_does_not_judge_it() -> None:
    env = TaskEnv(split="id", compat="reference")
    env.reset(options={"item": "id/A-A-4-6"})
    assert [env.step("4*6*2/2")[1:4] for _ in range(5)] == [(-4, False, False)] * 5
    observation, reward, terminated, truncated, info = env.step("4*6*1*1")
    assert (reward, terminated, truncated, info["category"]) == (-1, False, True, "unjudged")
    assert observation["attempts_left"] == 0


def test_observations_stay_in_their_space_whatever_is_said() -> None:
    env = TaskEnv(split="ood", attempts=50, compat="reference")
    env.reset(seed=5)
    for reply in ("", "é" * 500, "9" * 5000, "((" * 5000, "\ud800", "1+\n", ")" * 5000, "7*" * 3000):
        observation = env.step(reply)[0]
        assert env.observation_space.contains(observation), reply[:20]


@pytest.mark.parametrize("attempts", [0, -1, 2.0, True, "5"])
def test_impossible_attempts_are_bad_input(attempts: Any) -> None:
    with pytest.raises(BadInput, match="attempts"):
        TaskEnv(attempts=attempts)


def test_bad_options_are_bad_input() -> None:
    env = TaskEnv(split="ood")
    with pytest.raises(BadInput, match="reset"):
        env.step("1")
    with pytest.raises(BadInput, match="'seed'"):
        env.reset(options={"seed": 3})
    with pytest.raises(BadInput, match="not in this split"):
        env.reset(options={"item": "id/A-A-A-8"})
    with pytest.raises(BadInput, match="split"):
        TaskEnv(split="test")
    env.reset()
    with pytest.raises(BadInput, match="text"):
        env.step(24)  # type: ignore[arg-type]
