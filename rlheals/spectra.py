"""How singular values and directions of weight matrices differ between two checkpoints, with null models beside them.

For every matrix the same measurement is made of the change that is there and of changes of the same size that mean
nothing (`nulls.py`). What a null turns as much, training has not turned.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from rlheals.atomic import atomic_write, make_folder, told
from rlheals.errors import BadInput
from rlheals.linalg import (
    ENDS,
    SIDES,
    Decomposition,
    Overlap,
    concentration,
    decompose,
    effective_rank,
    energies,
    projector_distance,
    swept,
    value_changes,
)
from rlheals.nulls import null
from rlheals.settings import Int, Settings
from rlheals.stage import Tick, Work, no_tick
from rlheals.tensors import KINDS, Checkpoint, Place, require_same_tensors

CHANGE, START = "change", "start"
NullName = Literal["gaussian", "permuted", "turned", "ulp", "independent"]
PARTS = (16, 8, 4, 2)
"""Subspaces of 1/16, 1/8, ... of a matrix's smaller side are measured unless others are asked for."""
BATCH_BYTES = 64_000_000
ANGLE_COLUMNS = ("mean", "largest", "projector_distance", "alignment", "gap")


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
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(KINDS)}")
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError("a list of one or more different kinds is accepted")
        return kinds

    @field_validator("ks")
    @classmethod
    def _increasing(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if list(ks) != sorted(set(ks)) or (ks and ks[0] < 1):
            raise ValueError(f"{ks} is not an increasing list of numbers of at least 1")
        return ks


@dataclass(frozen=True)
class Spectra:
    """What was measured; every row names tensor, kind, layer and head (-1: the whole matrix).

    matrices   one row per (what, draw): size of the change, changes of singular values, energies
    angles     one row per (what, draw, side, end, k): mean and largest angle in radians, gap at k, distances
    values     one row per singular value: before, after, and under the Gaussian null (mean, 2.5 % and 97.5 %)
    heat       one row per block of U^T dW V (at most 32 x 32): mean square in units of that of dW's entries
    curves     one row per angle of the largest k (top, both sides), ascending: of the change, and of the Gaussian null
               (mean, 2.5 % and 97.5 % over draws)

    what is "change" or a null's name; draw is 0 for the change. Where a third checkpoint is the reference, angles,
    values and gaps are against it, and "start" is the first checkpoint as seen from there: what lies between "start"
    and "change" came from the change.
    """

    matrices: pd.DataFrame
    angles: pd.DataFrame
    values: pd.DataFrame
    heat: pd.DataFrame
    curves: pd.DataFrame


def part_of(r: Any, part: int) -> Any:
    """The k that is a part of the smaller side r (numbers or a column of them), at least 1.

    >>> int(part_of(64, 16)), int(part_of(7, 16))
    (4, 1)
    """
    return np.maximum(1, r // part)


class Bases:
    """Decompositions of matrices that many others are compared with, kept in a folder by the hash of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told("make the cache of decompositions", folder.absolute().parent):
            make_folder(folder.absolute())

    def of(self, matrix: torch.Tensor) -> Decomposition:
        """The decomposition of (m, n), read if it is there; BadInput when its file is damaged."""
        numbers = matrix.detach().to("cpu", torch.float64).contiguous()
        name = hashlib.sha256(f"{tuple(numbers.shape)} ".encode() + numbers.numpy().tobytes()).hexdigest()
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            made = decompose(matrix)
            parts = {"u": made.u, "s": made.s, "v": made.v}
            atomic_write(file, to_bytes({part: t.cpu().contiguous() for part, t in parts.items()}))
            return made
        try:
            kept = load_file(file, device=str(matrix.device))
            return Decomposition(kept["u"], kept["s"], kept["v"])
        except (OSError, SafetensorError, KeyError):
            raise BadInput(f"cache of decompositions: {file.name} is damaged; delete it") from None


@dataclass(frozen=True)
class Matrix:
    """One matrix before and after, float64, and where it comes from; reference: what both are seen from."""

    place: Place
    head: int
    before: torch.Tensor
    after: torch.Tensor
    reference: torch.Tensor | None = None

    @property
    def labels(self) -> dict[str, str | int]:
        layer = -1 if self.place.layer is None else self.place.layer
        return {
            "tensor": self.place.name,
            "kind": str(self.place.kind),
            "layer": layer,
            "head": self.head,
            "rows": self.before.shape[0],
            "columns": self.before.shape[1],
        }


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
    places = before.matrices(settings.kinds)
    parts: list[Spectra] = []
    for done, place in enumerate(places, start=1):
        for matrix in _matrices(place, checkpoints, settings):
            parts.append(measure(matrix, settings, key, bases))
        tick(done, len(places), "matrix")
    return Spectra(
        **{
            table.name: pd.concat([getattr(part, table.name) for part in parts], ignore_index=True)
            for table in fields(Spectra)
        }
    )


def measure(matrix: Matrix, settings: SpectraSettings, key: str = "", bases: Bases | None = None) -> Spectra:
    """One matrix, with its null models."""
    delta = matrix.after - matrix.before
    origin = matrix.before if matrix.reference is None else matrix.reference
    base = decompose(origin) if bases is None else bases.of(origin)
    r = base.s.shape[-1]
    ks = swept(r, settings.ks or sorted({int(part_of(r, part)) for part in PARTS}))
    rows: dict[str, list[pd.DataFrame]] = {"matrices": [], "angles": []}
    change = _Measured(base, matrix.before, matrix.after[None], ks)
    gaussian: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    for what, first, measured in _all(matrix, delta, base, ks, change, settings, key):
        draws = np.arange(first, first + measured.count)
        rows["matrices"].append(measured.scalars().assign(what=what, draw=draws))
        rows["angles"].append(
            measured.angles().assign(what=what, draw=lambda frame, at=first: frame["draw"] + at)
        )
        if what == "gaussian":
            drawn.append(measured.after.s.cpu().numpy())
            if ks:
                gaussian.append(measured.curve(ks[-1]))
    labels = matrix.labels
    under = np.concatenate(drawn) if drawn else np.full((1, r), np.nan)
    low, high = np.quantile(under, [0.025, 0.975], axis=0)
    values = pd.DataFrame(
        {
            "index": np.arange(1, r + 1),
            "before": base.s.cpu().numpy(),
            "after": change.after.s[0].cpu().numpy(),
            "null": under.mean(0),
            "null_low": low,
            "null_high": high,
        }
    )
    return Spectra(
        pd.concat(rows["matrices"], ignore_index=True).assign(**labels),
        pd.concat(rows["angles"], ignore_index=True).assign(**labels),
        values.assign(**labels),
        _heat(base, delta).assign(**labels),
        _curves(change, ks, gaussian).assign(**labels),
    )


def _all(
    matrix: Matrix,
    delta: torch.Tensor,
    base: Decomposition,
    ks: Sequence[int],
    change: _Measured,
    settings: SpectraSettings,
    key: str,
) -> Iterator[tuple[str, int, _Measured]]:
    """The change itself, then the draws of every null in batches that fit into memory."""
    yield CHANGE, 0, change
    if matrix.reference is not None:
        yield START, 0, _Measured(base, matrix.before, matrix.before[None], ks)
    size = max(1, BATCH_BYTES // (8 * matrix.before.numel()))
    for name in settings.nulls:
        for first in range(0, settings.draws, size):
            count = min(size, settings.draws - first)
            drawn = null(
                name,
                matrix.before.cpu(),
                delta.cpu(),
                count,
                f"{key}/{matrix.place.name}/{matrix.head}/{first}",
            )
            yield name, first, _Measured(base, matrix.before, drawn.to(matrix.before.device), ks)


class _Measured:
    """Several changed versions of one matrix: (draws, m, n)."""

    def __init__(
        self, base: Decomposition, before: torch.Tensor, after: torch.Tensor, ks: Sequence[int]
    ) -> None:
        self.base, self.ks, self.count = base, ks, len(after)
        self.before, self.delta = before, after - before
        self.after = decompose(after)
        self.overlaps = {
            side: Overlap.of(base.side(side).expand(self.count, -1, -1), self.after.side(side))
            for side in SIDES
        }

    def scalars(self) -> pd.DataFrame:
        """One row per draw."""
        changes = value_changes(self.base, self.after).abs()
        stretch, rotation = energies(self.base, self.delta)
        size, change = self.before.norm(), self.delta.flatten(1).norm(dim=1)
        table = {
            "norm": size.expand(self.count),
            "change_norm": change,
            "relative_change": change / size if size > 0 else torch.full_like(change, math.nan),
            "value_change_mean": changes.nanmean(-1),
            "value_change_max": changes.nan_to_num(0.0).amax(-1),
            "stretch_energy": stretch,
            "rotation_energy": rotation,
            "effective_rank": effective_rank(self.delta),
            "rank": self.after.rank,
        }
        return pd.DataFrame({name: values.cpu().numpy() for name, values in table.items()})

    def angles(self) -> pd.DataFrame:
        """One row per (side, end, k, draw); nan where the rank is below k, at the bottom where it is not full."""
        enough = torch.minimum(self.after.rank, self.base.rank.expand(self.count))
        whole = enough == self.base.s.shape[-1]
        keys = [(side, end, k) for side in SIDES for end in ENDS for k in self.ks]
        if not keys:
            return pd.DataFrame(columns=["draw"])
        columns: dict[str, list[torch.Tensor]] = {name: [] for name in ANGLE_COLUMNS}
        for side, end, k in keys:
            found = self.overlaps[side].angles(k, end)
            found = torch.where((enough >= k if end == "top" else whole)[:, None], found, math.nan)
            columns["mean"].append(found.mean(-1))
            columns["largest"].append(found.amax(-1))
            columns["projector_distance"].append(projector_distance(found))
            columns["alignment"].append(self.overlaps[side].alignment(k, end))
            columns["gap"].append(self.base.gap(k, end).expand(self.count))
        table = {name: torch.cat(values).cpu().numpy() for name, values in columns.items()}
        labels = pd.DataFrame(keys, columns=["side", "end", "k"]).loc[
            np.repeat(np.arange(len(keys)), self.count)
        ]
        draws = np.tile(np.arange(self.count), len(keys))
        return pd.concat([labels.reset_index(drop=True), pd.DataFrame({**table, "draw": draws})], axis=1)

    def curve(self, k: int) -> np.ndarray:
        """Angles of the top k, ascending: (draws, sides, k)."""
        return torch.stack([self.overlaps[side].angles(k) for side in SIDES], 1).cpu().numpy()


def _heat(base: Decomposition, delta: torch.Tensor) -> pd.DataFrame:
    cells = concentration(base, delta).cpu().numpy()
    left, right = np.indices(cells.shape)
    return pd.DataFrame({"left": left.ravel(), "right": right.ravel(), "energy": cells.ravel()})


def _curves(change: _Measured, ks: Sequence[int], gaussian: Sequence[np.ndarray]) -> pd.DataFrame:
    if not ks:
        return pd.DataFrame(columns=["side", "k", "index", "angle", "null", "null_low", "null_high"])
    k = ks[-1]
    mine = change.curve(k)[0]
    drawn = np.concatenate(gaussian) if gaussian else np.full((1, *mine.shape), np.nan)
    frames = []
    for number, side in enumerate(SIDES):
        low, high = np.quantile(drawn[:, number], [0.025, 0.975], axis=0)
        table = {"index": np.arange(1, k + 1), "angle": mine[number], "null": drawn[:, number].mean(0)}
        frames.append(pd.DataFrame({**table, "null_low": low, "null_high": high}).assign(side=side, k=k))
    return pd.concat(frames, ignore_index=True)


def _matrices(place: Place, checkpoints: Sequence[Checkpoint], settings: SpectraSettings) -> Iterator[Matrix]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = [one.tensor(place.name).to(device, torch.float64) for one in checkpoints]
    for one, source in zip(found, checkpoints, strict=True):
        if not bool(torch.isfinite(one).all()):
            raise BadInput(f"checkpoint {source.source!r}: {place.name} holds numbers that are not finite")
    if not settings.unrelated:
        for other in found[1:]:
            _refuse_unrelated(place, found[0], other)
    yield Matrix(place, -1, *found)
    count = settings.key_value_heads or settings.heads if place.kind in ("k", "v") else settings.heads
    if count and place.kind in ("q", "k", "v", "o"):
        along = 1 if place.kind == "o" else 0
        if place.shape[along] % count:
            raise BadInput(f"{place.name}: {place.shape[along]} does not divide into {count} heads")
        for head, parts in enumerate(zip(*(one.chunk(count, along) for one in found), strict=True)):
            yield Matrix(place, head, *parts)


def _refuse_unrelated(place: Place, before: torch.Tensor, after: torch.Tensor) -> None:
    """Two independent matrices of m n entries have a correlation of about 1 / sqrt(m n)."""
    sizes = before.norm() * after.norm()
    if sizes == 0 or torch.equal(before, after):
        return
    correlation = float((before * after).sum() / sizes)
    if correlation < 6 / math.sqrt(before.numel()):
        raise BadInput(
            f"{place.name} of the two checkpoints has nothing in common (correlation {correlation:.3f}): it looks "
            "re-initialised, as by a loader that did not find it; to compare all the same, pass --unrelated"
        )


def summary(found: Spectra, nulls: Sequence[str] = ("gaussian",)) -> pd.DataFrame:
    """One row per (kind, side, k) of the top directions: mean angles of the change and of nulls in degrees.

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
    names = []
    for table in fields(found):
        names.append(f"{table.name}.parquet")
        getattr(found, table.name).to_parquet(folder / names[-1], index=False, compression="zstd")
    return names


def read(folder: Path) -> Spectra:
    """The tables that `write` wrote; BadInput when one is missing or not parquet."""
    frames = {}
    for table in fields(Spectra):
        try:
            frames[table.name] = pd.read_parquet(folder / f"{table.name}.parquet")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:80]
            raise BadInput(
                f"spectra in {folder.name!r}: {table.name}.parquet cannot be read ({reason})"
            ) from None
    return Spectra(**frames)
