"""What a profile is: the settings of every stage of a whole study, and that they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rlheals.engines.models import ModelSettings
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.profiles.edit_grid import SwapGrid
from rlheals.profiles.hardware import Hardware, Shape
from rlheals.profiles.sections import Ladder, Protection, Rotation
from rlheals.settings import Int, Settings, TaskName
from rlheals.tasks import load_task
from rlheals.training.fetch import Source
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.sft import SFTSettings

FEEDBACK_TOKENS = 3  # "wrong numbers answer", see `rlheals.tasks.compact`
OF_A_TASK = ("pretrain", "sft", "evaluate", "ladder.rl")
"""Groups of settings that name a task."""
PLAYING = ("evaluate", "rl")
"""Stages that play, with an engine."""


class Profile(Settings):
    """The settings of a whole study.

    >>> Profile(name="mine").sft.checkpoints[-1]
    1280
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    about: str = Field("", description="one sentence on what the profile is for")
    task: TaskName = Field("general_points", description="the task of all stages")
    model: Source | None = Field(
        None, description="the language model to begin with; none: a lab model, trained from scratch"
    )
    shape: Shape | None = Field(
        None, description="its size, for the arithmetic before it is at hand, see `needs.py`"
    )
    hardware: Hardware | None = Field(None, description="what the profile is made for; none: any processor")
    seeds: tuple[Int, ...] = Field((0,), description="base seeds of the fresh run; 0 is the shipped base")
    shipped_base: bool = Field(
        True, description="seed 0 is the base shipped with the package, not pretrained"
    )
    decodes: Int = Field(1, ge=1, description="censuses per checkpoint, with different sampling noise")
    evaluated: tuple[Int, ...] | None = Field(
        None, description="SFT steps that get a census; None: all checkpoints"
    )
    rule_steps: tuple[Int, ...] = Field((), description="SFT steps at which other J, Q, K rules are tried")
    rule_hands: Int = Field(40, ge=1, description="hands per rule in that trial")
    reader_steps: tuple[Int, ...] | None = Field(
        None,
        description="SFT steps that get a census in a reader's fresh run, unless `evaluated` names its own",
    )
    pretrain: PretrainSettings = PretrainSettings()
    sft: SFTSettings = SFTSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    ladder: Ladder = Ladder()
    rotation: Rotation = Rotation()
    swaps: SwapGrid = SwapGrid()
    protection: Protection = Protection()
    engine: Literal["hf", "vllm"] = Field(
        "hf",
        description="what plays episodes in censuses and in RL: transformers, or vLLM where it is installed",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, data: Any) -> Any:
        """Groups that are not validated yet get the profile's task."""
        if not isinstance(data, Mapping) or "task" not in data:
            return data
        given = dict(data)
        for path in OF_A_TASK:
            inside, *names = given, *path.split(".")
            for name in names:
                inner = inside.get(name, {})
                if not isinstance(inner, Mapping):
                    break
                inside[name] = dict(inner)
                inside = inside[name]
            else:
                inside.setdefault("task", data["task"])
        return given

    @model_serializer(mode="wrap")
    def _task_once(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The profile's task is that of its groups, so it is written once."""
        data: dict[str, Any] = dump(self)
        for path in OF_A_TASK:
            inside = data
            for name in path.split("."):
                inside = inside.get(name, {})
            inside.pop("task", None)
        return data

    def stage(self, name: str) -> str:
        """A stage, or that which does the same with this profile's engine."""
        return name if self.engine == "hf" or name not in PLAYING else f"{name}_{self.engine}"

    @property
    def census_steps(self) -> tuple[int, ...]:
        """SFT steps that get a census."""
        return self.sft.checkpoints if self.evaluated is None else self.evaluated

    def for_reader(self, recorded: bool) -> Profile:
        """What a reader computes: the censuses of `reader_steps`; no trial of other rules where one is recorded."""
        changes: dict[str, Any] = {"rule_steps": ()} if recorded else {}
        if self.reader_steps is not None and self.evaluated is None:
            changes["evaluated"] = self.reader_steps
        if self.ladder.reader_starts:
            mine = {"starts": self.ladder.reader_starts, "runs": 1, "decodes": 1, "control_start": None}
            changes["ladder"] = self.ladder.model_copy(update=mine)
        alone = {"branches": (), "controls": (), "decodes": 1}
        changes["rotation"] = self.rotation.model_copy(update=alone)
        few = {
            "restore": self.swaps.reader_restore,
            "swap": self.swaps.reader_swap,
            "other": (),
            "lend": (),
            "decodes": 1,
        }
        changes["swaps"] = self.swaps.model_copy(update=few)
        ways = {"ways": self.protection.reader_ways, "decodes": 1}
        changes["protection"] = self.protection.model_copy(update=ways)
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _fits_together(self) -> Profile:
        different = len(set(self.seeds)) == len(self.seeds) > 0
        if not different or min(self.seeds) < 0 or max(self.seeds) > 999_999:
            raise ValueError(f"seeds={list(self.seeds)}: different numbers from 0 to 999,999 are accepted")
        groups = {
            "evaluated": self.census_steps,
            "rule_steps": self.rule_steps,
            "reader_steps": self.reader_steps or (),
            "ladder.starts": self.ladder.starts,
            "ladder.reader_starts": self.ladder.reader_starts,
            "ladder.late_starts": self.ladder.late_starts,
            "rotation.steps": self.rotation.steps,
            "rotation.branch_steps": self.rotation.branch_steps,
            "protection.steps": self.protection.steps,
            "swaps.late": () if self.swaps.late is None else (self.swaps.late,),
            "swaps.start": () if self.swaps.start is None else (self.swaps.start,),
            "ladder.control_start": (
                () if self.ladder.control_start is None else (self.ladder.control_start,)
            ),
        }
        for field, steps in groups.items():
            if unknown := sorted(set(steps) - set(self.sft.checkpoints)):
                raise ValueError(f"{field} has {unknown[0]}, which is not one of sft.checkpoints")
        for path in OF_A_TASK:
            group: Any = self
            for name in path.split("."):
                group = getattr(group, name)
            if group.task != self.task:
                raise ValueError(f"{path}.task={group.task}, but the profile's task is {self.task}")
        if self.model is not None:
            return self  # its own configuration says what fits
        if self.shipped_base and self.task != Profile.model_fields["task"].default:
            raise ValueError(f"shipped_base: that base has not learnt the task {self.task}; set it to false")
        if self.shipped_base and self.pretrain.model != ModelSettings():
            raise ValueError(
                "shipped_base: pretrain.model has another shape than the shipped base; set it to false"
            )
        needed = load_task(self.task).prompt_tokens + self.evaluate.attempts * (
            self.evaluate.sampling.max_new_tokens + FEEDBACK_TOKENS
        )
        if needed > self.pretrain.model.max_tokens:
            raise ValueError(
                f"evaluate.attempts and evaluate.sampling.max_new_tokens make episodes of up to {needed} tokens, more "
                f"than pretrain.model.max_tokens={self.pretrain.model.max_tokens}"
            )
        return self
