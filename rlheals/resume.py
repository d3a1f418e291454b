"""What a killed training run goes on from: weights, optimiser and log in one file, safetensors and JSON only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlheals.atomic import whole_file
from rlheals.errors import BadInput

Modules = Mapping[str, torch.nn.Module]


def save(file: Path, modules: Modules, optimizer: torch.optim.Optimizer, said: Mapping[str, Any]) -> None:
    """Write everything, whole or not at all; `said` is JSON."""
    tensors = {
        f"{kind}/{name}": value
        for kind, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with whole_file(file) as temporary:
        save_file(apart, temporary, metadata={"state": json.dumps(said)})


def load(file: Path, modules: Modules, where: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """What was said, and the optimiser's state for `restore_optimizer`; the modules get their weights back.

    A module that the file does not know stays as it is. Raises BadInput, which begins with `where`, for a damaged file.
    """
    try:
        with safe_open(file, "pt") as handle:
            said = json.loads(handle.metadata()["state"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:80]
        raise BadInput(f"{where}: {file} is damaged ({reason}); delete it to start again") from None
    for kind, module in modules.items():
        state = {n.removeprefix(f"{kind}/"): v for n, v in tensors.items() if n.startswith(f"{kind}/")}
        if state:
            module.load_state_dict(state)
    saved: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            saved.setdefault(int(index), {})[key] = value
    return said, saved


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[int, dict[str, Any]]) -> None:
    """Give an optimiser its state back, once it has all the parameters that the state is of."""
    whole = optimizer.state_dict()
    if len(saved) == sum(len(group["params"]) for group in whole["param_groups"]):
        optimizer.load_state_dict({"state": saved, "param_groups": whole["param_groups"]})


def same_files(folder: Path, target: Path) -> None:
    """`target` becomes a folder with the same files; they share their bytes where the filesystem can do that."""
    shutil.copytree(folder, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without links
        shutil.copy2(source, target)
