"""Distance, rotation and KL of every checkpoint of a training run from the base.

One row per checkpoint and matrix: size of the change, angles of leading subspaces and those of Gaussian changes of
equal norm. One row per checkpoint: forward KL from the base on its own answers to the task's questions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from rlheals.evaluation.kl import Behaviour, DivergenceSettings
from rlheals.settings import Int
from rlheals.stage import Work
from rlheals.weights.architectures import KINDS
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.spectra import CHANGE, PARTS, part_of
from rlheals.weights.spectra_stage import SpectraSettings, compare

LABELS = ["tensor", "kind", "layer"]


class TrajectorySettings(DivergenceSettings):
    """Which checkpoints of a run, and what is measured of each."""

    base: str = Field("base", description="folder of the base inside its run")
    folders: tuple[str, ...] = Field(min_length=1, description="checkpoints inside the run")
    kinds: tuple[str, ...] = tuple(KINDS)
    draws: Int = Field(5, ge=0, le=1000, description="Gaussian changes of equal norm")

    @field_validator("folders")
    @classmethod
    def _different(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(folders)) < len(folders):
            raise ValueError("a list of different folders is accepted")
        return folders


def run(work: Work) -> None:
    """The stage: `path.parquet` (folder, matrix, part, ...) and `divergence.parquet` (folder, mean, standard error)."""
    settings = TrajectorySettings.model_validate(work.settings)
    base = work.inputs["base"] / settings.base
    behaviour = Behaviour(settings, base, work.seed)
    before, rows, kls = Checkpoint(base), [], []
    for done, folder in enumerate(settings.folders, start=1):
        place = work.inputs["model"] / folder
        found = distances(before, Checkpoint(place), settings.kinds, settings.draws, f"seed {work.seed}")
        rows.append(found.assign(folder=folder))
        kls.append({"folder": folder, **behaviour.of(place)})
        work.tick(done, len(settings.folders), "checkpoint")
    pd.concat(rows, ignore_index=True).to_parquet(work.out / "path.parquet", index=False, compression="zstd")
    pd.DataFrame(kls).to_parquet(work.out / "divergence.parquet", index=False)


def distances(
    before: Checkpoint, after: Checkpoint, kinds: tuple[str, ...], draws: int, key: str
) -> pd.DataFrame:
    """One row per matrix and part: norms, mean angle in degrees over both sides, that of the Gaussian null."""
    asked = SpectraSettings(kinds=kinds, nulls=("gaussian",), draws=draws)
    found = compare(before, after, asked, key=key)
    sizes = found.matrices[found.matrices["what"] == CHANGE]
    sizes = sizes[[*LABELS, "norm", "change_norm", "value_change_mean", "effective_rank"]]
    top = found.angles[found.angles["end"] == "top"]
    rows = []
    for part in PARTS:
        mine = top[top["k"] == part_of(top[["rows", "columns"]].min(axis=1), part)]
        angles = mine.groupby(["tensor", "what"], sort=False)["mean"].mean().unstack("what")
        angles = np.rad2deg(angles.reindex(columns=[CHANGE, "gaussian"]))
        rows.append(sizes.assign(part=part).join(angles, on="tensor").rename(columns={CHANGE: "angle"}))
    return pd.concat(rows, ignore_index=True)
