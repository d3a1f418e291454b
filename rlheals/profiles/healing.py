"""Second stages that chapter 05 compares, all from the same SFT checkpoints: what they see, how they learn, and what
went before. Part of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from rlheals.profiles.edit_grid import Entries
from rlheals.profiles.sections import known_names
from rlheals.settings import STATES, Int, Settings, State


@dataclass(frozen=True)
class Arm:
    """A second stage. rl or sft: the settings of RL, or of SFT, that it changes; before: those of the SFT that leads to
    its start; stage: of that SFT; fused: how its start is edited with the base first."""

    rl: Mapping[str, Any] | None = None
    sft: Mapping[str, Any] | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    stage: str = "sft"
    fused: str = ""


ID, VARIED, FAMILIAR = ("sft", "rl"), ("sft", "rl", "varied"), ("sft", "rl", "familiar")
ARMS: dict[str, Arm] = {
    "rl": Arm(rl={}),
    "rl-varied": Arm(rl={"splits": VARIED}),
    "imitate-varied": Arm(sft={"splits": VARIED}),
    "expert-varied": Arm(rl={"splits": VARIED, "algorithm": "expert_iteration"}),
    "rl-familiar": Arm(rl={"splits": FAMILIAR}),
    "imitate-familiar": Arm(sft={"splits": FAMILIAR}),
    "imitate": Arm(sft={"splits": ID}),
    "expert": Arm(rl={"algorithm": "expert_iteration"}),
    "kl-base": Arm(rl={"kl_base": 0.1}),
    "kl-start": Arm(rl={"kl_start": 0.1}),
    "ppo": Arm(rl={"algorithm": "ppo"}),
    "slow": Arm(rl={"learning_rate": 3e-5, "checkpoints": (240,)}),
    "unseen-hands": Arm(rl={"splits": ("rl",)}),
    "one-attempt": Arm(rl={"attempts": 1}),
    "shuffled-feedback": Arm(rl={"feedback": "shuffled"}),
    "shuffled-reward": Arm(rl={"reward": "shuffled"}),
    "fused": Arm(rl={}, fused="interpolate(0.5) @ everything"),
    "replay": Arm(rl={}, before={"replay": 0.2}),
    "small-rate": Arm(rl={}, before={"learning_rate": 1e-4}),
    "dft": Arm(rl={}, before={"loss": "dft"}),
    "lora": Arm(rl={}, before={"lora_rank": 8, "learning_rate": 3e-3}),
    "protected": Arm(rl={}, before={"kind": "subspace", "strength": 0.1}, stage="protected"),
}
"""`rl` is that of chapter 02. Questions of `varied` make the rule matter and never show the OOD rule. RL plays as many
episodes as imitation sees examples."""

Arms = Annotated[tuple[str, ...], AfterValidator(partial(known_names, ARMS))]


class Healing(Settings):
    """What is tried from which starts. A start is a state: what SFT has lost of its peak's OOD ability, in per cent.

    >>> Healing().map
    ()
    """

    map: Arms = Field((), description="second stages from every start; none: no chapter 05 in this profile")
    window: Arms = Field((), description="those of them that get further RL seeds")
    runs: Int = Field(3, ge=1, le=9, description="RL seeds of these")
    arms: Arms = Field((), description="further ones, from the middle start")
    examples: Int = Field(40_960, ge=1, description="that imitation sees, as many as RL plays episodes")
    edits: Entries = Field(
        (), description="of an unhealed run with a healed one from the same start: EDIT @ WHERE"
    )
    states: tuple[State, ...] = Field(STATES, min_length=1, description="starts")
    steps: tuple[Int, ...] = Field(
        (),
        description="SFT steps that stand for them, fixed beforehand; none: the first that has lost so much",
    )
    reader_map: Arms = Field((), description="second stages of a reader's fresh run, from the middle start")

    @model_validator(mode="after")
    def _a_step_for_every_state(self) -> Healing:
        if self.steps and len(self.steps) != len(self.states):
            raise ValueError(f"steps={list(self.steps)}: as many as states ({len(self.states)}), or none")
        return self
