"""The stage that takes a model into the store which is there already: the base of the package, or a recorded model.

Recorded bases and SFT checkpoints lie under `results/` with the manifest of their training, so that what begins with
them need not wait for it.
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
BASES = "*-bases/seed-{seed}/base"
CHECKPOINTS = "*/seed-{seed}/step-*"
"""Where recorded models lie in a folder of results."""
FOLDER = "base"
"""Of the adopted model in its run."""


class AdoptSettings(BaseModel):
    """Which weights are meant: no others are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def run(work: Work) -> None:
    """The stage: copies the model folder with these weights to `FOLDER`."""
    settings = AdoptSettings.model_validate(work.settings)
    for folder in (SHIPPED_BASE, *recorded(BASES), *recorded(CHECKPOINTS)):
        if weights_hash(folder) == settings.sha256:
            shutil.copytree(folder, work.out / FOLDER)
            return
    raise BadInput(
        f"no model has the hash {settings.sha256[:12]}, neither the shipped base nor one in results"
    )


def recorded(models: str, seed: int | None = None) -> list[Path]:
    """The folders of recorded models (`BASES`, `CHECKPOINTS`) below the project's results, of one seed or of all."""
    pattern = models.format(seed="*" if seed is None else seed)
    return sorted((project_root() / RESULTS_FOLDER).glob(f"**/{pattern}"))


def weights_hash(folder: Path = SHIPPED_BASE) -> str:
    """sha256 of the weights in a model folder; by default those of the base that ships with the package."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise BadInput(f"no {WEIGHTS} in the folder {folder.name!r}; install rlheals again")
    return hashlib.sha256(file.read_bytes()).hexdigest()
