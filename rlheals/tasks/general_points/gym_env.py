"""GeneralPoints as a Gymnasium environment: an action is a reply, an episode one hand with several attempts.

gymnasium.make("rlheals.tasks.general_points.gym_env:rlheals/GeneralPoints-v0", split="ood")
"""

from __future__ import annotations

import string
from typing import Any

import gymnasium
from gymnasium import spaces

from rlheals.errors import BadInput
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.cards import parse_hand
from rlheals.tasks.general_points.task import GeneralPoints

ENV_ID = "rlheals/GeneralPoints-v0"
UNJUDGED_REWARD = -1.0
CHARSET = frozenset(string.ascii_letters + string.digits + string.punctuation + " \n")

Observation = dict[str, Any]


class GeneralPointsEnv(gymnasium.Env[Observation, str]):
    """One hand per episode, drawn uniformly from a split with the seed given to `reset`.

    Observation: `prompt` (text), `feedback` (text on the last attempt, empty before the first) and
    `attempts_left` (0..attempts). Action: the reply, any text. Reward: `Verdict.reward`. Terminated when
    solved; truncated with the last failed attempt. Under `compat="reference"` one more reply is taken after
    the last judged one: it is not judged, earns -1 and truncates.
    Raises BadInput for settings, actions or reset options that cannot be used.

    >>> env = GeneralPointsEnv(split="ood")
    >>> observation, info = env.reset(seed=0, options={"hand": "2 8 Q K"})
    >>> env.step("2+8+10+10")[1:4]
    (-2.0, False, False)
    >>> env.step("(13+2-12)*8")[1:4]
    (5.0, True, False)
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (the shape Gymnasium prescribes)

    def __init__(self, split: str = "id", attempts: int = 5, compat: str | None = None) -> None:
        if type(attempts) is not int or attempts < 1:
            raise BadInput(f"attempts = {attempts!r:.40}; a whole number of at least 1 is accepted")
        self.task = GeneralPoints(compat)
        self.items = self.task.items(split)
        self.attempts = attempts
        self.observation_space = spaces.Dict(
            {
                "prompt": spaces.Text(1024, min_length=1, charset=CHARSET),
                "feedback": spaces.Text(2048, min_length=0, charset=CHARSET),
                "attempts_left": spaces.Discrete(attempts + 1),
            }
        )
        self.action_space = spaces.Text(2048, min_length=0, charset=CHARSET)
        self._item: Item | None = None
        self._left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Deal a hand of the split, or `options={"hand": "A 5 J K"}`."""
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"hand"})
        if unknown:
            raise BadInput(f"reset option {unknown[0]!r:.40} is not known; accepted: 'hand'")
        if options and "hand" in options:
            item = self._find(options["hand"])
        else:
            item = self.items[int(self.np_random.integers(len(self.items)))]
        self._item, self._left = item, self.attempts
        return self._observation(""), self._info(item)

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Judge one reply: observation, reward, terminated, truncated, info with the verdict's fields."""
        item = self._item
        if item is None:
            raise BadInput("the episode has not begun or is over; call reset")
        reference = self.task.compat == "reference"
        if reference and self._left == 0:
            self._item = None
            info = {**self._info(item), "category": "unjudged", "solved": False}
            return self._observation("No attempt is left.", item), UNJUDGED_REWARD, False, True, info
        verdict = self.task.grade(item, action)
        self._left -= 1
        truncated = not verdict.solved and self._left == 0 and not reference
        if verdict.solved or truncated:
            self._item = None
        info = {**self._info(item), "category": verdict.category, "solved": verdict.solved}
        return self._observation(verdict.feedback, item), verdict.reward, verdict.solved, truncated, info

    def _find(self, text: str) -> Item:
        wanted = parse_hand(text)
        for item in self.items:
            if tuple(sorted(item.hand)) == tuple(sorted(wanted)):
                return item
        raise BadInput(f"hand {' '.join(wanted)} is not in this split")

    def _observation(self, feedback: str, item: Item | None = None) -> Observation:
        item = item or self._item
        assert item is not None
        return {"prompt": self.task.prompt(item), "feedback": feedback, "attempts_left": self._left}

    def _info(self, item: Item) -> dict[str, Any]:
        return {"item": item.id, "rule": item.rule.name, "split": item.split}


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="rlheals.tasks.general_points.gym_env:GeneralPointsEnv")
