"""Other ways from the same base: what chapter 03 compares rotations of, how finely it measures; part of a profile."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rlheals.ladder import CONTROLS
from rlheals.settings import Int, Settings
from rlheals.spectrum import NullName

BRANCHES: dict[str, dict[str, Any]] = {
    "lr-1e-4": {"learning_rate": 1e-4},
    "lr-1e-3": {"learning_rate": 1e-3},
    "decay-0.3": {"weight_decay": 0.3},
    "batch-16": {"batch": 16},
}
"""SFT of the same base with one setting changed."""


class Rotation(Settings):
    """What is measured of the weights, and along which branches.

    >>> Rotation().branches
    ()
    """

    steps: tuple[Int, ...] = Field((), description="SFT steps whose weights and accuracies are compared")
    branches: tuple[str, ...] = Field((), description="SFT with one setting changed, see `branches.py`")
    branch_steps: tuple[Int, ...] = Field((), description="SFT steps of a branch that get a census")
    controls: tuple[str, ...] = Field(
        (), description="controls of chapter 02 that are branches too, from the control start"
    )
    decodes: Int = Field(1, ge=1, description="censuses of every checkpoint on SFT and RL branches")
    nulls: tuple[NullName, ...] = Field(
        ("gaussian", "permuted", "turned"), description="null models of every pair of checkpoints"
    )
    draws: Int = Field(10, ge=2, description="draws of every null model")
    questions: Int = Field(256, ge=1, description="base's answers for the forward KL")

    @field_validator("branches")
    @classmethod
    def _known_branches(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, BRANCHES)

    @field_validator("controls")
    @classmethod
    def _known_controls(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, CONTROLS)


def _known(names: tuple[str, ...], accepted: dict[str, Any]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in accepted]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(accepted)}")
    if len(set(names)) < len(names):
        raise ValueError("a list of different names is accepted")
    return names
