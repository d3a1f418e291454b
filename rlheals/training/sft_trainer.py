"""TRL's SFT trainer that goes on after a kill as if nothing had happened, from a file of `resume.py`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from rlheals.errors import BadInput
from rlheals.stage import Tick
from rlheals.training import resume


class ResumableTrainer(SFTTrainer):
    """Its state: weights, optimiser, schedule, log, and `losses`, the list of losses measured at checkpoints."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    lr_scheduler: LambdaLR
    losses: list[dict[str, float]]
    _saved: Path | None = None
    _running: tuple[float, int] | None = None

    def go_on(self, files: resume.Files | None) -> None:
        """Train to the end, from the state in the files if it is there."""
        self._saved = files.newest() if files else None
        if self._saved is None:
            self.train()
            return
        said = resume.said(self._saved, "sft")
        self.losses += said["losses"]
        folder = str(self.args.output_dir)
        Path(folder, TRAINER_STATE_NAME).write_text(json.dumps(said["trainer"]))
        self.train(resume_from_checkpoint=folder)

    def keep_state(self, files: resume.Files) -> None:
        """Write the files; between two steps."""
        scaler = self.accelerator.scaler
        said = {
            "step": self.state.global_step,
            "trainer": dataclasses.asdict(self.state),
            "schedule": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "running": [float(self._tr_loss), self._globalstep_last_logged],
            "losses": self.losses,
        }
        resume.save(files.at(self.state.global_step), {"model": self.model}, self.optimizer, said)
        files.written(self.state.global_step)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """With the optimiser, when the model is where it will be trained."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._saved is None:
            return
        said = resume.load(self._saved, {"model": self.model}, self.optimizer, "sft")
        self.lr_scheduler.load_state_dict(said["schedule"])
        for group, rate in zip(self.optimizer.param_groups, said["schedule"]["_last_lr"], strict=True):
            group["lr"] = rate
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(said["scaler"])
        self._running = said["running"]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As TRL's; BadInput for a loss that is not finite, which transformers would leave out of the log."""
        loss = super().training_step(*args, **kwargs)
        refuse_diverged(self.state.global_step + 1, float(loss))
        return loss

    def restore_log(self) -> None:
        """The sum of the losses since the last line of the log; when the training has begun."""
        if self._running is not None:
            loss, self._globalstep_last_logged = self._running
            self._tr_loss += loss


def refuse_diverged(step: int, *losses: float) -> None:
    """BadInput unless all losses are finite."""
    if not all(map(math.isfinite, losses)):
        raise BadInput(
            f"sft: step {step}: the loss is not finite; the training has diverged (a lower learning rate?)"
        )


class AtSteps(TrainerCallback):
    """Calls `at_checkpoint(step)` at the wanted steps, step 0 included; keeps the state of every checkpoint, and every
    so many steps if asked: before the next step, with its log."""

    def __init__(
        self,
        trainer: ResumableTrainer,
        checkpoints: tuple[int, ...],
        at_checkpoint: Callable[[int], None],
        tick: Tick,
        files: resume.Files | None,
        every: int | None,
    ) -> None:
        self.trainer, self.checkpoints, self.at_checkpoint = trainer, set(checkpoints), at_checkpoint
        self.tick, self.files, self.every = tick, files, every
        self.begun_at = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun_at = state.global_step
        self.trainer.restore_log()
        if 0 in self.checkpoints and state.global_step == 0:
            self.at_checkpoint(0)

    def on_step_begin(self, args, state, control, **kwargs):
        step = state.global_step
        wanted = step in self.checkpoints or (self.every and step % self.every == 0)
        if self.files and wanted and step > self.begun_at:
            self.trainer.keep_state(self.files)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.checkpoints:
            self.at_checkpoint(state.global_step)
        self.tick(state.global_step, state.max_steps, "step")
