"""Parts of a profile: RL start checkpoints and controls, SFT variants compared in chapter 03, regularised SFT."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, field_validator

from rlheals.errors import BadInput
from rlheals.settings import Float, Int, Settings
from rlheals.training.protected import Kind
from rlheals.training.rl.settings import RLSettings
from rlheals.weights.selection import number_text
from rlheals.weights.spectra import NullName

CONTROLS: dict[str, dict[str, Any]] = {
    "rloo": {"algorithm": "rloo"},
    "ppo": {"algorithm": "ppo"},
    "rejection": {"algorithm": "expert_iteration"},
    "per-attempt": {"advantage_estimator": "attempt"},
    "one-attempt": {"attempts": 1},
    "shuffled-feedback": {"feedback": "shuffled"},
    "shuffled-reward": {"reward": "shuffled"},
    "ood-rule": {"splits": ["ood"]},
}
"""RL from the control start with one thing changed: what does the effect depend on?"""

LATE = "rl-hands"
"""Late starts again on RL-only hands alone: SFT has not memorised them, so rewards still differ."""


def known_names(accepted: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in accepted]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(accepted)}")
    if len(set(names)) < len(names):
        raise ValueError("a list of different names is accepted")
    return names


Controls = Annotated[tuple[str, ...], AfterValidator(partial(known_names, CONTROLS))]


class RLStarts(Settings):
    """Where RL starts, and what is compared with it.

    >>> RLStarts().iterations
    80
    """

    starts: tuple[Int, ...] = Field(
        (), description="SFT steps from which RL starts; none: no RL in this profile"
    )
    reader_starts: tuple[Int, ...] = Field(
        (), description="`starts` of a reader's fresh run: early, middle, late"
    )
    runs: Int = Field(3, ge=1, le=9, description="RL seeds per start")
    decodes: Int = Field(4, ge=1, description="censuses of every start and of every model after RL")
    control_start: Int | None = Field(
        None, description="SFT step from which the controls start; None: no controls"
    )
    controls: Controls = tuple(CONTROLS)
    late_starts: tuple[Int, ...] = Field(
        (), description="starts from which RL is also trained on RL-only hands alone"
    )
    temperatures: tuple[Float, ...] = Field(
        (0.3, 0.5, 0.85, 1.0),
        description="of evaluations of the control start, to compare at equal entropy",
    )
    rl: RLSettings = RLSettings()

    @property
    def iterations(self) -> int:
        return self.rl.iterations


class WarmUp(Settings):
    """SFT of a language model before the study, with the settings of its SFT: its result is the base.

    >>> WarmUp(steps=40).splits
    ('varied',)
    """

    steps: Int = Field(ge=1, description="of SFT")
    splits: tuple[str, ...] = Field(
        ("varied",), description="whose expert answers it imitates, never the OOD rule's"
    )

    @field_validator("splits")
    @classmethod
    def _without_the_ood_rule(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        if told := [split for split in splits if "ood" in split]:
            raise ValueError(f"{told[0]!r} would teach the OOD rule")
        return splits


BRANCHES: dict[str, dict[str, Any]] = {
    "lr-1e-4": {"learning_rate": 1e-4},
    "lr-1e-3": {"learning_rate": 1e-3},
    "decay-0.3": {"weight_decay": 0.3},
    "batch-16": {"batch": 16},
    "lora-16": {"lora_rank": 16, "learning_rate": 2e-3},
}
"""SFT variants compared in chapter 03: the same base, one setting changed (and for LoRA the rate that it needs)."""

Branches = Annotated[tuple[str, ...], AfterValidator(partial(known_names, BRANCHES))]


class Rotation(Settings):
    """What is measured of the weights, and along which branches.

    >>> Rotation().branches
    ()
    """

    steps: tuple[Int, ...] = Field((), description="SFT steps whose weights and accuracies are compared")
    branches: Branches = Field((), description="SFT with one setting changed")
    branch_steps: tuple[Int, ...] = Field((), description="SFT steps of a branch that get a census")
    controls: Controls = Field(
        (), description="controls of chapter 02 that are branches too, from the control start"
    )
    decodes: Int = Field(1, ge=1, description="censuses of every checkpoint on SFT and RL branches")
    nulls: tuple[NullName, ...] = Field(
        ("gaussian", "permuted", "turned"), description="null models of every pair of checkpoints"
    )
    draws: Int = Field(10, ge=2, description="draws of every null model")
    questions: Int = Field(256, ge=1, description="base's answers for the forward KL")


NAMES = (*get_args(Kind), "learning_rate", "weight_decay")


def read_regulariser(text: str) -> tuple[str, float]:
    """Name and value of a regulariser; BadInput when it cannot be read.

    >>> read_regulariser("kl=0.3")
    ('kl', 0.3)
    """
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if name.strip() not in NAMES or not math.isfinite(number) or number < 0:
        raise BadInput(f"regulariser {text!r:.60}; accepted: NAME=VALUE, NAME one of {', '.join(NAMES)}")
    return name.strip(), number


def _spelled(regularisers: tuple[str, ...]) -> tuple[str, ...]:
    read = [read_regulariser(one) for one in regularisers]
    spelled = tuple(f"{name}={number_text(value)}" for name, value in read)
    if len(set(spelled)) < len(spelled):
        raise ValueError("a regulariser is there twice")
    return spelled


Regularisers = Annotated[tuple[str, ...], AfterValidator(_spelled)]


class Protection(Settings):
    """SFT from the same base with a regulariser, or another rate or decay, and how finely it is measured.

    >>> Protection(regularisers=("subspace=0.10",)).regularisers
    ('subspace=0.1',)
    """

    regularisers: Regularisers = Field((), description="NAME=VALUE, NAME a regulariser or a setting of SFT")
    steps: tuple[Int, ...] = Field((), description="SFT steps that get a census")
    reader_regularisers: Regularisers = Field((), description="`regularisers` of a reader's fresh run")
    decodes: Int = Field(1, ge=1, description="censuses of every checkpoint")
