"""Any task as a Gymnasium environment: an action is a reply, an episode one item with several attempts, or a group of
items one after the other.

gymnasium.make("rlheals.tasks.gym_env:rlheals/Task-v0", task="general_points", split="ood")
gymnasium.make("rlheals.tasks.gym_env:rlheals/Task-v0", task="navigation", split="ood", episode="group")
"""

from __future__ import annotations

import string
from itertools import pairwise
from typing import Any, Literal, get_args

import gymnasium
from gymnasium import spaces

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.base import Item, Verdict

ENV_ID = "rlheals/Task-v0"
CHARSET = frozenset(string.ascii_letters + string.digits + string.punctuation + " \n")

Observation = dict[str, Any]
Length = Literal["item", "group"]
"""Of an episode: one item, or those of its group that follow it in the split, such as the nodes of a route."""


class TaskEnv(gymnasium.Env[Observation, str]):
    """One item per episode, drawn uniformly from a split with the seed given to `reset`; or one group, from its first
    item on.

    attempts: at an item; None: the task's own number. episode: see `Length`. options: those of the task.
    Observation: `prompt` (text), `feedback` (text on the last attempt, empty before the first) and
    `attempts_left` (0..attempts). Action: the reply, any text. Reward: `Verdict.reward`. Terminated when
    solved, of a group all of it; truncated with the last failed attempt, or, in a task with `unjudged`, with one more
    reply.
    Raises BadInput for settings, actions or reset options that cannot be used.

    >>> env = TaskEnv(split="ood")
    >>> observation, info = env.reset(seed=0, options={"item": "ood/2-8-Q-K"})
    >>> env.step("2+8+10+10")[1:4]
    (-2.0, False, False)
    >>> env.step("(13+2-12)*8")[1:4]
    (5.0, True, False)
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (the shape Gymnasium prescribes)

    def __init__(
        self,
        task: str = "general_points",
        split: str = "sft",
        attempts: int | None = None,
        episode: Length = "item",
        **options: Any,
    ) -> None:
        self.task = load_task(task, **options)
        self.items = self.task.items(split)
        self.attempts = self.task.attempts if attempts is None else attempts
        if type(self.attempts) is not int or self.attempts < 1:
            raise BadInput(f"attempts = {attempts!r:.40}; a whole number of at least 1 is accepted")
        if episode not in get_args(Length):
            raise BadInput(f"episode = {episode!r:.40}; accepted: {', '.join(get_args(Length))}")
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            groups.setdefault(item.group if episode == "group" else item.id, []).append(item)
        self._firsts = [group[0] for group in groups.values()]
        self._next = {one.id: other for group in groups.values() for one, other in pairwise(group)}
        self.observation_space = spaces.Dict(
            {
                "prompt": spaces.Text(4096, min_length=1, charset=CHARSET),
                "feedback": spaces.Text(2048, min_length=0, charset=CHARSET),
                "attempts_left": spaces.Discrete(self.attempts + 1),
            }
        )
        self.action_space = spaces.Text(2048, min_length=0, charset=CHARSET)
        self._item: Item | None = None
        self._left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw an item of the split, or the first of a group, or take `options={"item": ID}`."""
        super().reset(seed=seed)
        if unknown := sorted(set(options or {}) - {"item"}):
            raise BadInput(f"reset option {unknown[0]!r:.40} is not known; accepted: 'item'")
        if options:
            found = [item for item in self.items if item.id == options["item"]]
            if not found:
                raise BadInput(f"item {options['item']!r:.60} is not in this split")
            item = found[0]
        else:
            item = self._firsts[int(self.np_random.integers(len(self._firsts)))]
        self._item, self._left = item, self.attempts
        return self._observation(item, ""), _info(item)

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Judge one reply: observation, reward, terminated, truncated, info with the verdict's fields.

        Where another item follows, the observation is of that one, and the info of the one before."""
        item, unjudged = self._item, self.task.unjudged
        if item is None:
            raise BadInput("the episode has not begun or is over; call reset")
        if self._left:
            verdict = self.task.grade(item, action)
            self._left -= 1
            truncated = not verdict.solved and self._left == 0 and unjudged is None
        else:
            verdict, truncated = Verdict(False, unjudged, "unjudged", "No attempt is left."), True
        info = {**_info(item), "category": verdict.category, "solved": verdict.solved}
        following = self._next.get(item.id) if verdict.solved else None
        if following is not None:
            self._item, self._left = following, self.attempts
            return self._observation(following, ""), verdict.reward, False, False, info
        if verdict.solved or truncated:
            self._item = None
        told = self._observation(item, verdict.feedback)
        return told, verdict.reward, verdict.solved, truncated, info

    def _observation(self, item: Item, feedback: str) -> Observation:
        return {"prompt": self.task.prompt(item), "feedback": feedback, "attempts_left": self._left}


def _info(item: Item) -> dict[str, Any]:
    return {"item": item.id, "rule": item.rule, "split": item.split}


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="rlheals.tasks.gym_env:TaskEnv")
