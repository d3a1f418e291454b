"""The settings of RL, and that they fit together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rlheals.engines.hf import Sampling
from rlheals.engines.models import Unscaled
from rlheals.evaluation.dialects import Prompts
from rlheals.settings import Checkpoints, Decay, Float, Int, Rate, Settings, TaskName
from rlheals.tasks import checked_splits
from rlheals.training.rl.episodes import AdvantageEstimator, Scale

Algorithm = Literal["grpo", "rloo", "expert_iteration", "ppo"]
Positive = Annotated[Float, Field(gt=0)]
Count = Annotated[Int, Field(ge=1)]
OWN_ADVANTAGES = ("reward", "advantage_estimator", "scale", "kl_start", "kl_base")


class RLSettings(Settings):
    """How a checkpoint is trained by RL."""

    task: TaskName = Field("general_points", description="the task's name")
    folder: str = Field("step-00160", description="RL start checkpoint: a folder of the input run")
    algorithm: Algorithm = Field(
        "grpo",
        description="grpo: group mean as baseline; rloo: leave-one-out; expert_iteration: imitate what "
        "solved (a control); ppo: one action per answer with a value head, as in the paper",
    )
    splits: tuple[str, ...] = Field(("sft", "rl"), description="the task's splits that it plays")
    checkpoints: Checkpoints = Field(
        (80,), description="iterations whose weights are kept; the last ends the run"
    )
    episodes: Int = Field(512, ge=2, description="per iteration")
    group: Int = Field(8, ge=2, description="episodes of the same hand in an iteration")
    attempts: Int = Field(5, ge=1, le=20, description="per episode")
    sampling: Sampling = Sampling(temperature=1.0)
    feedback: Literal["verifier", "shuffled"] = "verifier"
    reward: Literal["task", "shuffled"] = Field(
        "task", description="shuffled: returns are permuted among the episodes of a hand (a control)"
    )
    gamma: Float = Field(0.9, ge=0, le=1, description="per attempt, as in the paper")
    advantage_estimator: AdvantageEstimator = Field(
        "episode", description="of an attempt's weight, see `episodes.py`"
    )
    scale: Scale = Field(
        "none", description="group: divide by its spread, which favours hands that vary least"
    )
    learning_rate: Rate = Field(1e-4, description="AdamW, constant: a resumed run needs no schedule")
    weight_decay: Float = Field(0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    max_grad_norm: Float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    clip_range: Positive | None = Field(
        None,
        description="clip of the probability ratio, in ppo also of the value's change; without effect at one epoch; "
        "unset: 0.2, for ppo 0.1 as in the paper",
    )
    epochs: Count | None = Field(
        None, description="optimiser steps per iteration; unset: 1, for ppo 4 as in the paper"
    )
    gae_lambda: Float = Field(0.95, ge=0, le=1, description="ppo: 1 trusts returns only, 0 the value head")
    value_weight: Float = Field(0.5, ge=0, description="ppo: weight of the value loss, as in the paper")
    kl_start: Float = Field(0.0, ge=0, description="penalty per nat of KL to the start, taken off the return")
    kl_base: Float = Field(0.0, ge=0, description="the same to the base")
    micro_batch_size: Int = Field(64, ge=1, description="episodes of similar length per forward pass")
    loss_every: Int = Field(10, ge=1, description="iterations between measurements of the expert losses")
    loss_examples: Int = Field(256, ge=1, description="expert answers in each loss set")
    prompts: Prompts = Field("fixed", description="forms of the questions: always the same, or many")
    play_rows: Int = Field(256, ge=1, description="episodes that are played at once, as far as memory goes")
    log_kl: bool = Field(True, description="measure the KL to start and base, which then stay in memory")
    precision: Unscaled = Field(
        "own", description="of products: the weights' own format, or a shorter one beside float32 weights"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, a third more time")
    save_every: Int = Field(1, ge=1, description="iterations between states that a killed run goes on from")
    processes: Int = Field(1, ge=1, description="GPUs that share weights (FSDP) and episodes")

    @field_validator("splits")
    @classmethod
    def _known_and_different(cls, splits: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return checked_splits(splits, info.data.get("task"))

    @model_validator(mode="after")
    def _fits_together(self) -> RLSettings:
        if self.episodes % self.group:
            raise ValueError(f"group={self.group} does not divide episodes={self.episodes}")
        if self.episodes % self.processes:
            raise ValueError(f"processes={self.processes} does not divide episodes={self.episodes}")
        if self.per_process % self.micro_batch_size:
            parts = f"/{self.processes}" if self.processes > 1 else ""
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} does not divide episodes={self.episodes}{parts}"
            )
        if self.processes > 1 and self.log_kl:
            raise ValueError(f"processes={self.processes} needs log_kl=false")
        if self.reward == "shuffled" and self.advantage_estimator != "episode":
            raise ValueError(
                "reward=shuffled permutes returns of episodes; it needs advantage_estimator=episode"
            )
        if not self.log_kl and (self.kl_start or self.kl_base):
            raise ValueError("log_kl=false measures no KL; kl_start and kl_base need it")
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature=0 explores nothing")
        if self.algorithm in ("ppo", "expert_iteration"):
            fields = type(self).model_fields
            refused = [name for name in OWN_ADVANTAGES if getattr(self, name) != fields[name].default]
            if refused:
                raise ValueError(
                    f"algorithm={self.algorithm} has its own advantages and no KL term; "
                    f"it takes no {', '.join(refused)}"
                )
        return self

    @property
    def iterations(self) -> int:
        return self.checkpoints[-1]

    @property
    def per_process(self) -> int:
        """Episodes of an iteration that one process plays and learns from."""
        return self.episodes // self.processes

    @property
    def used_epochs(self) -> int:
        """`epochs`, or the algorithm's own."""
        return self.epochs or (4 if self.algorithm == "ppo" else 1)

    @property
    def used_clip_range(self) -> float:
        """`clip_range`, or the algorithm's own."""
        return self.clip_range or (0.1 if self.algorithm == "ppo" else 0.2)


def checkpoint_name(iteration: int) -> str:
    """Folder of a checkpoint inside an RL run.

    >>> checkpoint_name(60)
    'update-00060'
    """
    return f"update-{iteration:05d}"
