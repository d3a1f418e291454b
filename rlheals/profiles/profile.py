"""What a profile is: the settings of every stage of a whole study, and that they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rlheals.engines.models import ModelSettings
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.profiles.edit_grid import SwapGrid
from rlheals.profiles.hardware import Hardware, Shape
from rlheals.profiles.healing import Healing
from rlheals.profiles.sections import Protection, RLStarts, Rotation, WarmUp
from rlheals.settings import Int, Settings, TaskName
from rlheals.tasks import load_task
from rlheals.training.fetch import Source
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.sft import SFTSettings

FEEDBACK_TOKENS = 3  # "wrong numbers answer", see `rlheals.tasks.base`
OF_A_TASK = ("pretrain", "sft", "evaluate", "rl_starts.rl")
"""Groups of settings that name a task."""
PLAYING = ("evaluate", "rl")
"""Stages that play, with an engine."""
STEPS = (
    "evaluated", "rule_steps", "reader_steps", "rl_starts.starts", "rl_starts.reader_starts", "rl_starts.late_starts",
    "rotation.steps", "rotation.branch_steps", "protection.steps", "swaps.late", "swaps.start",
    "rl_starts.control_start", "healing.steps",
)  # fmt: skip
"""Settings that name SFT steps, all of which have to be checkpoints."""


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
    warm_up: WarmUp | None = Field(None, description="of the language model before the study; none: as it is")
    shape: Shape | None = Field(
        None, description="its size, for the arithmetic before it is at hand, see `hardware.py`"
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
    rl_starts: RLStarts = RLStarts()
    rotation: Rotation = Rotation()
    swaps: SwapGrid = SwapGrid()
    protection: Protection = Protection()
    healing: Healing = Healing()
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
        """What a reader computes: SFT to the last of `reader_steps`; no trial of other rules where one is recorded."""
        mine = self.reader_steps if self.evaluated is None else None
        last = max(self.sft.checkpoints if mine is None else mine)

        def until(steps: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(step for step in steps if step <= last)

        changes: dict[str, Any] = {
            "decodes": 1,
            "evaluated": self.evaluated if mine is None else mine,
            "rule_steps": () if recorded else until(self.rule_steps),
            "sft": self.sft.model_copy(update={"checkpoints": until(self.sft.checkpoints)}),
        }
        if starts := self.rl_starts.reader_starts:
            few = {"starts": starts, "late_starts": (), "runs": 1, "decodes": 1, "control_start": None}
            changes["rl_starts"] = self.rl_starts.model_copy(update=few)
        alone: dict[str, Any] = {
            name: until(getattr(self.rotation, name)) for name in ("steps", "branch_steps")
        }
        alone |= {"branches": (), "controls": (), "decodes": 1}
        changes["rotation"] = self.rotation.model_copy(update=alone)
        few = {"restore": self.swaps.reader_restore, "swap": self.swaps.reader_swap, "other": (), "lend": ()}
        changes["swaps"] = self.swaps.model_copy(update={**few, "decodes": 1})
        kept = {
            "regularisers": self.protection.reader_regularisers,
            "steps": until(self.protection.steps),
            "decodes": 1,
        }
        changes["protection"] = self.protection.model_copy(update=kept)
        middle = len(self.healing.states) // 2
        compared: dict[str, Any] = {
            name: getattr(self.healing, name)[middle:][:1] for name in ("states", "steps")
        }
        compared |= {"map": self.healing.reader_map, "window": (), "arms": (), "edits": ()}
        changes["healing"] = self.healing.model_copy(update=compared)
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _fits_together(self) -> Profile:
        different = len(set(self.seeds)) == len(self.seeds) > 0
        if not different or min(self.seeds) < 0 or max(self.seeds) > 999_999:
            raise ValueError(f"seeds={list(self.seeds)}: different numbers from 0 to 999,999 are accepted")
        for field in STEPS:
            found = attrgetter(field)(self)
            steps = found if isinstance(found, tuple) else () if found is None else (found,)
            if unknown := sorted(set(steps) - set(self.sft.checkpoints)):
                raise ValueError(f"{field} has {unknown[0]}, which is not one of sft.checkpoints")
        last = max(self.reader_steps or self.sft.checkpoints)
        if beyond := [step for step in (*self.rl_starts.reader_starts, self.swaps.late or 0) if step > last]:
            raise ValueError(
                f"reader_steps ends at {last}, but a reader's runs need SFT to step {max(beyond)}"
            )
        for path in OF_A_TASK:
            if (task := attrgetter(f"{path}.task")(self)) != self.task:
                raise ValueError(f"{path}.task={task}, but the profile's task is {self.task}")
        if self.model is not None:
            return self  # its own configuration says what fits
        if self.shipped_base and self.task != Profile.model_fields["task"].default:
            raise ValueError(f"shipped_base: that base has not learnt the task {self.task}; set it to false")
        if self.shipped_base and self.pretrain.model != ModelSettings():
            raise ValueError(
                "shipped_base: pretrain.model has another shape than the shipped base; set it to false"
            )
        turn = self.evaluate.sampling.max_new_tokens + FEEDBACK_TOKENS
        needed = load_task(self.task).prompt_tokens + self.evaluate.attempts * turn
        most = self.pretrain.model.max_tokens
        if needed > most:
            raise ValueError(
                f"evaluate.attempts and evaluate.sampling.max_new_tokens make episodes of up to {needed} tokens, more "
                f"than pretrain.model.max_tokens={most}"
            )
        return self
