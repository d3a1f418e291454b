"""TRL's SFT trainer, killed at any moment, goes on as if nothing had happened: from a file without pickles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from rlheals import resume

SCHEDULE = ("last_epoch", "_step_count", "_last_lr", "base_lrs")


class ResumableTrainer(SFTTrainer):
    """TRL's trainer that goes on from a file of ours instead of pickles: weights, optimiser, schedule, log."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    lr_scheduler: LambdaLR
    _saved: tuple[Path, dict[str, Any]] | None = None
    _moments: resume.Moments

    def go_on(self, files: resume.Files | None, scratch: Path, losses: list[dict[str, float]]) -> None:
        """Train to the end, from the state in the files if it is there; `losses` gets those measured before."""
        newest = files.newest() if files else None
        if newest is None:
            self.train()
            return
        said = resume.said(newest, "sft")
        self._saved = newest, said
        losses += said["losses"]
        (scratch / TRAINER_STATE_NAME).write_text(json.dumps(said["trainer"]))
        self.train(resume_from_checkpoint=str(scratch))

    def keep_state(self, files: resume.Files, losses: list[dict[str, float]]) -> None:
        """Write the files; between two steps."""
        schedule, scaler = self.lr_scheduler.state_dict(), self.accelerator.scaler
        said = {
            "trainer": dataclasses.asdict(self.state),
            "schedule": {name: schedule[name] for name in SCHEDULE},
            "scaler": scaler.state_dict() if scaler else None,
            "running": [float(self._tr_loss), self._globalstep_last_logged],
            "losses": losses,
        }
        step = self.state.global_step
        resume.save(files.at(step), {"model": self.model}, self.optimizer, said)
        files.written(step)

    def restore_log(self) -> None:
        """The sum of the losses since the last line of the log; when the training has begun."""
        if self._saved is not None:
            running, self._globalstep_last_logged = self._saved[1]["running"]
            self._tr_loss += running

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Called when the model is where it will be trained."""
        assert self._saved is not None
        self._moments = resume.load(self._saved[0], {"model": self.model}, "sft")[1]

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = self.accelerator.scaler
        if self._saved is not None and scaler:
            scaler.load_state_dict(self._saved[1]["scaler"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._saved is not None:
            said = self._saved[1]
            resume.restore_optimizer(self.optimizer, self._moments)
            self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **said["schedule"]})
            for group, rate in zip(self.optimizer.param_groups, said["schedule"]["_last_lr"], strict=True):
                group["lr"] = rate


class States(TrainerCallback):
    """Keeps the state of every checkpoint, and every so many steps if asked: before the next step, with its log."""

    def __init__(
        self,
        trainer: ResumableTrainer,
        files: resume.Files,
        losses: list[dict[str, float]],
        checkpoints: Sequence[int],
        every: int | None,
    ) -> None:
        self.trainer, self.files, self.losses = trainer, files, losses
        self.checkpoints, self.every = set(checkpoints), every
        self.begun_at = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun_at = state.global_step
        self.trainer.restore_log()

    def on_step_begin(self, args, state, control, **kwargs):
        step = state.global_step
        wanted = step in self.checkpoints or (self.every and step % self.every == 0)
        if wanted and step > self.begun_at:
            self.trainer.keep_state(self.files, self.losses)
