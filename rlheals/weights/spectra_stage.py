"""How singular values and vectors of weight matrices differ between two checkpoints, with null models beside them.

For every matrix the same measurement is made of the change that is there and of changes of the same size that mean
nothing (`nulls.py`). Rotation no larger than under a null is not evidence of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from rlheals.errors import BadInput
from rlheals.settings import Int, Settings
from rlheals.stage import Tick, Work, no_tick
from rlheals.weights.adapter import Adapted
from rlheals.weights.architectures import HEADED, KINDS, NAMED, Piece, known
from rlheals.weights.arrays import torch
from rlheals.weights.checkpoint import Checkpoint, require_same_tensors
from rlheals.weights.linalg import Bases
from rlheals.weights.spectra import CHANGE, Matrix, NullName, Spectra, measure

TABLES = tuple(table.name for table in fields(Spectra))


class SpectraSettings(Settings):
    """What is measured of two checkpoints."""

    before: str = Field("", description="folder of the first checkpoint inside its run")
    after: str = Field("", description="folder of the second checkpoint inside its run")
    reference: str = Field(
        "", description="folder of a third checkpoint inside its run, from which both are seen"
    )
    kinds: tuple[str, ...] = Field(tuple(KINDS), description="kinds of matrices")
    ks: tuple[Int, ...] = Field(
        (), description="sizes of subspaces; none: 1/16, 1/8, 1/4 and 1/2 of the smaller side"
    )
    nulls: tuple[NullName, ...] = ("gaussian", "permuted", "turned", "ulp", "independent")
    draws: Int = Field(20, ge=0, le=10_000, description="draws of every null model; 0: none")
    heads: int = Field(
        0, ge=0, description="attention heads; above 0 every head of q, k, v, o is a matrix as well"
    )
    key_value_heads: int = Field(0, ge=0, description="heads of k and v where they are fewer; 0: as many")
    unrelated: bool = Field(False, description="accept matrices that have nothing to do with each other")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [kind for kind in kinds if not known(kind)]:
            raise ValueError(f"{unknown[0]!r:.40} is not one of {', '.join(NAMED)}")
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError("a list of one or more different kinds is accepted")
        return kinds

    @field_validator("ks")
    @classmethod
    def _increasing(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if list(ks) != sorted(set(ks)) or (ks and ks[0] < 1):
            raise ValueError(f"{ks} is not an increasing list of numbers of at least 1")
        return ks


def run(work: Work) -> None:
    """The stage: compares a checkpoint of run "before" with one of run "after"; a parquet file per table.

    A third input, "reference", is what both are seen from.
    """
    settings = SpectraSettings.model_validate(work.settings)
    before = Checkpoint(work.inputs["before"] / settings.before)
    after = Checkpoint(work.inputs["after"] / settings.after)
    third = work.inputs.get("reference")
    reference = None if third is None else Checkpoint(third / settings.reference)
    write(compare(before, after, settings, work.tick, f"seed {work.seed}", reference=reference), work.out)


def compare(
    before: Checkpoint,
    after: Checkpoint,
    settings: SpectraSettings | None = None,
    tick: Tick = no_tick,
    key: str = "",
    bases: Bases | None = None,
    reference: Checkpoint | None = None,
) -> Spectra:
    """Measure every matrix of two checkpoints of one model, one at a time.

    key: of the null models' random numbers; bases: where decompositions of the first checkpoint (or of the reference)
    are kept; reference: a third checkpoint from which both are seen, so that a change can lead toward it. Raises
    BadInput when tensors are missing, differ in shape, hold numbers that are not finite, or have nothing to do with
    each other (as when a loader re-initialised them).
    """
    settings = settings or SpectraSettings()
    checkpoints = [before, after] if reference is None else [before, after, reference]
    for other in checkpoints[1:]:
        require_same_tensors(before, other)
    pieces = before.matrices(settings.kinds)
    parts: list[Spectra] = []
    for done, piece in enumerate(pieces, start=1):
        for matrix in _matrices(piece, checkpoints, settings):
            parts.append(measure(matrix, settings.ks, settings.nulls, settings.draws, key, bases))
        tick(done, len(pieces), "matrix")
    return Spectra(
        *(pd.concat([getattr(part, name) for part in parts], ignore_index=True) for name in TABLES)
    )


def _matrices(piece: Piece, checkpoints: Sequence[Checkpoint], settings: SpectraSettings) -> Iterator[Matrix]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = [piece.of(one.tensor(piece.tensor)).to(device, torch.float64) for one in checkpoints]
    for one, source in zip(found, checkpoints, strict=True):
        if not bool(torch.isfinite(one).all()):
            raise BadInput(f"checkpoint {source.source!r}: {piece.name} holds numbers that are not finite")
    if not settings.unrelated:
        for other in found[1:]:
            _refuse_unrelated(piece, found[0], other)
    reference, factors = (found[2] if len(found) > 2 else None), None
    if isinstance(checkpoints[1], Adapted) and checkpoints[1].base is checkpoints[0]:
        factors = checkpoints[1].factors(piece)
    yield Matrix(piece, -1, found[0], found[1], reference, factors)
    if settings.heads and piece.family in HEADED:
        count = settings.heads
        if piece.family in ("k", "v"):
            count = settings.key_value_heads or piece.heads or count
        for head, parts in enumerate(zip(*(piece.by_head(one, count) for one in found), strict=True)):
            yield Matrix(piece, head, *parts)


def _refuse_unrelated(piece: Piece, before: torch.Tensor, after: torch.Tensor) -> None:
    """Two independent matrices of m n entries have a correlation of about 1 / sqrt(m n); of small ones, .5 is asked."""
    sizes = before.norm() * after.norm()
    if sizes == 0 or torch.equal(before, after):
        return
    correlation = float((before * after).sum() / sizes)
    if correlation < min(6 / math.sqrt(before.numel()), 0.5):
        raise BadInput(
            f"{piece.name} of the two checkpoints has nothing in common (correlation {correlation:.3f}): it looks "
            "re-initialised, as by a loader that did not find it; to compare all the same, pass --unrelated"
        )


def summary(found: Spectra, nulls: Sequence[str] = ("gaussian",)) -> pd.DataFrame:
    """One row per (kind, side, k) of the leading subspaces: mean angles of the change and of nulls in degrees.

    The excess is the mean over matrices of the change's mean angle less that of Gaussian changes of equal norm.
    """
    angles = found.angles[(found.angles["head"] == -1) & (found.angles["end"] == "top")]
    keys = ["kind", "side", "k"]
    means = np.rad2deg(angles.groupby([*keys, "what", "tensor"], sort=False)["mean"].mean())
    table = means.groupby([*keys, "what"], sort=False).mean().unstack("what")
    table = table.reindex(angles.groupby(keys, sort=False).size().index)
    table = table[[CHANGE, *(name for name in nulls if name in table)]].reset_index()
    if "gaussian" in table:
        table["excess"] = table[CHANGE] - table["gaussian"]
    return table


def write(found: Spectra, folder: Path) -> list[str]:
    """A parquet file per table; their names."""
    for name in TABLES:
        getattr(found, name).to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    return [f"{name}.parquet" for name in TABLES]


def read(folder: Path) -> Spectra:
    """The tables that `write` wrote; BadInput when one is missing or not parquet."""
    frames = []
    for name in TABLES:
        try:
            frames.append(pd.read_parquet(folder / f"{name}.parquet"))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:80]
            raise BadInput(f"spectra in {folder.name!r}: {name}.parquet cannot be read ({reason})") from None
    return Spectra(*frames)
