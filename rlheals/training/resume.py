"""What a killed training run goes on from: weights, optimiser and log in one file, safetensors and JSON only.

Why not transformers' own checkpoints: they are written in place, so that a kill leaves half of one; the sum of losses
since the last line of the log is not in them; sharded ones (FSDP) have a file that is read with `pickle.load`; and RL
has no trainer of transformers'.

Processes that hold the weights together have a file each, with their part; `Files` finds those of the same step.
The folder may be another process's too, one that computes the same run: nothing in it is ever changed in place.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlheals.engines import fsdp
from rlheals.errors import BadInput
from rlheals.store.files import all_believed, believed, fsync_folder, fsync_tree, note, say, whole_file

STATE = "state.safetensors"
Modules = Mapping[str, torch.nn.Module]


def save(file: Path, modules: Modules, optimizer: torch.optim.Optimizer, said: Mapping[str, Any]) -> None:
    """Write everything, whole or not at all; `said` is JSON, its `step` the number of steps that were taken."""
    tensors = {
        f"{kind}/{name}": value
        for kind, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    apart = {name: fsdp.part(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with whole_file(file) as temporary:
        save_file(apart, temporary, metadata={"state": json.dumps(said)})
        note(file.parent, {file.name: temporary})


def said(file: Path, where: str) -> dict[str, Any]:
    """What was said when the file was written. Raises BadInput, which begins with `where`, for a damaged file."""
    return _read(file, where, tensors=False)[0]


def load(file: Path, modules: Modules, optimizer: torch.optim.Optimizer, where: str) -> dict[str, Any]:
    """What was said; modules and optimiser are as they were when the file was written.

    Raises BadInput, which begins with `where`, for a damaged file and for one of another model.
    """
    told, tensors = _read(file, where)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}  # a parameter without a gradient has none
    weights: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, key = rest.split("/")
            moments.setdefault(int(index), {})[key] = fsdp.like(value, parameters[int(index)])
        else:
            weights[name] = value
    mine = {
        f"{kind}/{name}": fsdp.part(value)
        for kind, module in modules.items()
        for name, value in module.state_dict().items()
    }
    if {name: value.shape for name, value in mine.items()} != {name: v.shape for name, v in weights.items()}:
        raise BadInput(
            f"{where}: {file} is of another model or number of processes; delete it to start again"
        )
    for name, value in mine.items():
        value.copy_(weights[name])
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return told


def _read(file: Path, where: str, tensors: bool = True) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(file, "pt") as handle:
            names = handle.keys() if tensors else ()
            return json.loads(handle.metadata()["state"]), {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:80]
        raise BadInput(f"{where}: {file} is damaged ({reason}); delete it to start again") from None


class Files:
    """The state of a run: one file, or one per process; those of a step count when all of them are there.

    count: of processes, where they have not been started yet.
    """

    def __init__(self, file: Path, count: int | None = None) -> None:
        self.file, self.count = file, count or fsdp.processes()

    def check(self, checkpoints: Mapping[int, str], where: str) -> None:
        """Before a run goes on: drop what is not as it was written, and say so.

        checkpoints: folders beside the state, by step. Where one that was kept before the state is not whole, the state
        goes as well: the training begins again.
        """
        folder = self.file.parent
        for file in self._all():
            believed(folder, file.name)
        if (newest := self.newest()) is None:
            return
        step = said(newest, where)["step"]
        kept = [name for at, name in checkpoints.items() if at <= step]
        if bad := [name for name in kept if not all_believed(folder, name)]:
            say(f"{folder}: {', '.join(bad)} cannot be used; {where} begins again")
            for file in self._all():
                file.unlink(missing_ok=True)

    def newest(self) -> Path | None:
        """This process's file of the newest step that is whole."""
        if self.count == 1:
            return self.file if self.file.exists() else None
        steps = sorted({int(path.name.split("-")[1]) for path in self._all()}, reverse=True)
        whole = (step for step in steps if all(self._of(step, one).exists() for one in range(self.count)))
        return next((self._of(step, fsdp.rank()) for step in whole), None)

    def at(self, step: int) -> Path:
        """Where this process writes its state after a step."""
        return self.file if self.count == 1 else self._of(step, fsdp.rank())

    def written(self, step: int) -> None:
        """Once every process has written that step, those before it go."""
        if self.count == 1:
            return
        fsdp.wait()
        for path in self._all():
            if fsdp.rank() == 0 and path.name.split("-")[1] != f"{step:07d}":
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        if self.count == 1:
            return [self.file]
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
        fsync_tree(aside)
        files = sorted(aside.iterdir())
        note(folder.parent, {f"{folder.name}/{file.name}": file for file in files})
        folder.mkdir(exist_ok=True)
        for file in files:
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
