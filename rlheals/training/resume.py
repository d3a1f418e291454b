"""What a killed training run goes on from: weights, optimiser and log in one file, safetensors and JSON only.

Processes that hold the weights together have a file each, with their part; `Files` finds those of the same step.
The folder may be another process's too, one that computes the same run: nothing in it is ever changed in place.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from rlheals.engines import fsdp as sharded
from rlheals.errors import BadInput
from rlheals.store.files import fsync_file, fsync_folder, whole_file

COUNT = "parameters"
Modules = Mapping[str, torch.nn.Module]


@dataclass(frozen=True)
class Moments:
    """An optimiser's state by the number of the parameter, of so many; one that has no gradient has none."""

    parameters: int
    of: dict[int, dict[str, Any]]


def save(file: Path, modules: Modules, optimizer: torch.optim.Optimizer, said: Mapping[str, Any]) -> None:
    """Write everything, whole or not at all; `said` is JSON."""
    tensors = {
        f"{kind}/{name}": value
        for kind, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    apart = {name: sharded.part(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with whole_file(file) as temporary:
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        save_file(apart, temporary, metadata={"state": json.dumps({**said, COUNT: count})})


def said(file: Path, where: str) -> dict[str, Any]:
    """What was said when the file was written. Raises BadInput, which begins with `where`, for a damaged file."""
    return _read(file, where, tensors=False)[0]


def load(file: Path, modules: Modules, where: str) -> tuple[dict[str, Any], Moments]:
    """What was said, and the optimiser's state for `restore_optimizer`; the modules get their weights back.

    A module that the file does not know stays as it is. Raises BadInput, which begins with `where`, for a damaged file
    and for one of another model.
    """
    told, tensors = _read(file, where)
    for kind, module in modules.items():
        state = {n.removeprefix(f"{kind}/"): v for n, v in tensors.items() if n.startswith(f"{kind}/")}
        if state:
            _fill(module, state, f"{where}: {file}")
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
    return told, Moments(told[COUNT], moments)


def _read(file: Path, where: str, tensors: bool = True) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(file, "pt") as handle:
            names = handle.keys() if tensors else ()
            return json.loads(handle.metadata()["state"]), {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:80]
        raise BadInput(f"{where}: {file} is damaged ({reason}); delete it to start again") from None


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Moments) -> None:
    """Give an optimiser its state back, once it has all the parameters that the state is of."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if saved.parameters != len(parameters):
        return
    state = {
        index: {name: sharded.like(value, parameters[index]) for name, value in moments.items()}
        for index, moments in saved.of.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    mine = {name: sharded.part(value) for name, value in module.state_dict().items()}
    if {n: v.shape for n, v in mine.items()} != {n: v.shape for n, v in state.items()}:
        raise BadInput(f"{where} is of another model or number of processes; delete it to start again")
    for name, value in mine.items():
        value.copy_(state[name])


class Files:
    """The state of a run: one file, or one per process; those of a step count when all of them are there."""

    def __init__(self, file: Path) -> None:
        self.file, self.count = file, sharded.processes()

    def newest(self) -> Path | None:
        """This process's file of the newest step that is whole."""
        if self.count == 1:
            return self.file if self.file.exists() else None
        steps = sorted({int(path.name.split("-")[1]) for path in self._all()}, reverse=True)
        whole = (step for step in steps if all(self._of(step, one).exists() for one in range(self.count)))
        return next((self._of(step, sharded.rank()) for step in whole), None)

    def at(self, step: int) -> Path:
        """Where this process writes its state after a step."""
        return self.file if self.count == 1 else self._of(step, sharded.rank())

    def written(self, step: int) -> None:
        """Once every process has written that step, those before it go."""
        if self.count == 1:
            return
        sharded.wait()
        for path in self._all():
            if sharded.rank() == 0 and path.name.split("-")[1] != f"{step:07d}":
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{self.file.stem}-*-*-of-{self.count}{self.file.suffix}"))

    def _of(self, step: int, rank: int) -> Path:
        return self.file.with_name(f"{self.file.stem}-{step:07d}-{rank}-of-{self.count}{self.file.suffix}")


@contextmanager
def kept(folder: Path) -> Iterator[Path]:
    """A folder to write files to; when the block has ended well each takes its place in `folder`, whole.

    A file that is there already is replaced, not changed: where `same_files` has given it to a finished run, it is that
    run's.
    """
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    aside.mkdir()
    try:
        yield aside
        folder.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir()):
            fsync_file(file)
            os.replace(file, folder / file.name)
        fsync_folder(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def same_files(folder: Path, target: Path) -> None:
    """`target` becomes a folder with the same files; they share their bytes where the filesystem can do that.

    So nobody may change a file in `folder` from then on, see `kept`.
    """
    shutil.copytree(folder, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without links
        shutil.copy2(source, target)


SCHEDULE = ("last_epoch", "_step_count", "_last_lr", "base_lrs")


class ResumableTrainer(SFTTrainer):
    """TRL's trainer that goes on from a file of ours instead of pickles: weights, optimiser, schedule, log."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    lr_scheduler: LambdaLR
    _saved: tuple[Path, dict[str, Any]] | None = None
    _moments: Moments

    def go_on(self, files: Files | None, scratch: Path, losses: list[dict[str, float]]) -> None:
        """Train to the end, from the state in the files if it is there; `losses` gets those measured before."""
        newest = files.newest() if files else None
        if newest is None:
            self.train()
            return
        kept = said(newest, "sft")
        self._saved = newest, kept
        losses += kept["losses"]
        (scratch / TRAINER_STATE_NAME).write_text(json.dumps(kept["trainer"]))
        self.train(resume_from_checkpoint=str(scratch))

    def keep_state(self, files: Files, losses: list[dict[str, float]]) -> None:
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
        save(files.at(step), {"model": self.model}, self.optimizer, said)
        files.written(step)

    def restore_log(self) -> None:
        """The sum of the losses since the last line of the log; when the training has begun."""
        if self._saved is not None:
            running, self._globalstep_last_logged = self._saved[1]["running"]
            self._tr_loss += running

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Called when the model is where it will be trained."""
        assert self._saved is not None
        self._moments = load(self._saved[0], {"model": self.model}, "sft")[1]

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = self.accelerator.scaler
        if self._saved is not None and scaler:
            scaler.load_state_dict(self._saved[1]["scaler"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._saved is not None:
            said = self._saved[1]
            restore_optimizer(self.optimizer, self._moments)
            self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **said["schedule"]})
            for group, rate in zip(self.optimizer.param_groups, said["schedule"]["_last_lr"], strict=True):
                group["lr"] = rate


class States(TrainerCallback):
    """Keeps the state of every checkpoint, and every so many steps if asked: before the next step, with its log."""

    def __init__(
        self,
        trainer: ResumableTrainer,
        files: Files,
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
