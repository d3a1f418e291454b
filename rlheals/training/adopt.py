"""The stage that takes the base shipped with the package into the store, so that all bases are runs alike."""

from __future__ import annotations

import hashlib
import shutil

from pydantic import BaseModel, ConfigDict, Field

from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.stage import Work

WEIGHTS = "model.safetensors"


class AdoptSettings(BaseModel):
    """Which weights are meant: a shipped base with another hash is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def run(work: Work) -> None:
    """The stage: copies the shipped model folder to `base/` after checking its hash."""
    settings = AdoptSettings.model_validate(work.settings)
    found = weights_hash()
    if found != settings.sha256:
        raise BadInput(f"the shipped base has the hash {found[:12]}, not {settings.sha256[:12]}")
    shutil.copytree(SHIPPED_BASE, work.out / "base")


def weights_hash() -> str:
    """sha256 of the weights of the base that ships with the package."""
    file = SHIPPED_BASE / WEIGHTS
    if not file.is_file():
        raise BadInput(f"no {WEIGHTS} in the package's folder {SHIPPED_BASE.name!r}; install rlheals again")
    return hashlib.sha256(file.read_bytes()).hexdigest()
