"""The stage that takes a base into the store which is there already: that of the package, or a recorded one.

A recorded base lies under `results/` with the manifest of its pretraining, so that its study goes on without it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.project import RESULTS_FOLDER, project_root
from rlheals.stage import Work

WEIGHTS = "model.safetensors"
RECORDED = "*-bases/seed-{seed}/base"
"""Where a recorded base lies in a folder of results."""


class AdoptSettings(BaseModel):
    """Which weights are meant: no others are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def run(work: Work) -> None:
    """The stage: copies the model folder with these weights to `base/`."""
    settings = AdoptSettings.model_validate(work.settings)
    for folder in (SHIPPED_BASE, *recorded_bases()):
        if weights_hash(folder) == settings.sha256:
            shutil.copytree(folder, work.out / "base")
            return
    raise BadInput(f"no base has the hash {settings.sha256[:12]}, neither the shipped one nor one in results")


def recorded_bases(seed: int | None = None) -> list[Path]:
    """The model folders of recorded bases below the project's results, of one seed or of all."""
    pattern = RECORDED.format(seed="*" if seed is None else seed)
    return sorted((project_root() / RESULTS_FOLDER).glob(f"**/{pattern}"))


def weights_hash(folder: Path = SHIPPED_BASE) -> str:
    """sha256 of the weights in a model folder; by default those of the base that ships with the package."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise BadInput(f"no {WEIGHTS} in the folder {folder.name!r}; install rlheals again")
    return hashlib.sha256(file.read_bytes()).hexdigest()
