"""The ladder: from which SFT checkpoints RL is started, how often, and with which controls. Part of a profile."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rlheals.rl import RLSettings
from rlheals.settings import Float, Int, Settings

CONTROLS: dict[str, dict[str, Any]] = {
    "rloo": {"algorithm": "rloo"},
    "ppo": {"algorithm": "ppo"},
    "rejection": {"algorithm": "rejection"},
    "per-attempt": {"credit": "attempt"},
    "one-attempt": {"attempts": 1},
    "shuffled-feedback": {"feedback": "shuffled"},
    "shuffled-reward": {"reward": "shuffled"},
    "ood-rule": {"splits": ["ood"]},
}
"""RL from the control start with one thing changed: what does the effect hang on?"""

LATE = "rl-hands"
"""Late starts again on RL-only hands alone: SFT has not memorised them, so rewards still differ."""


class Ladder(Settings):
    """Where RL starts, and what is compared with it.

    >>> Ladder().updates
    80
    """

    starts: tuple[Int, ...] = Field(
        (), description="SFT steps from which RL starts; none: no RL in this profile"
    )
    reader_starts: tuple[Int, ...] = Field(
        (), description="those of a reader's fresh run: early, middle, late"
    )
    runs: Int = Field(3, ge=1, le=9, description="RL seeds per start")
    decodes: Int = Field(4, ge=1, description="censuses of every start and of every RL result")
    control_start: Int | None = Field(
        None, description="SFT step from which the controls start; None: no controls"
    )
    controls: tuple[str, ...] = tuple(CONTROLS)
    late_starts: tuple[Int, ...] = Field((), description="started again on RL-only hands alone")
    temperatures: tuple[Float, ...] = Field(
        (0.3, 0.5, 0.85, 1.0),
        description="the control start decoded otherwise, to compare at matched entropy",
    )
    rl: RLSettings = RLSettings()

    @property
    def updates(self) -> int:
        return self.rl.updates

    @field_validator("controls")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in CONTROLS]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(CONTROLS)}")
        return names
