"""One weight matrix before and after: what its singular values and directions did, beside changes that mean nothing.

The same measurement is made of the change that is there and of the draws of every null model (`nulls.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from rlheals.weights.checkpoint import Place
from rlheals.weights.linalg import (
    ENDS,
    SIDES,
    Bases,
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
from rlheals.weights.nulls import null

CHANGE, START = "change", "start"
NullName = Literal["gaussian", "permuted", "turned", "ulp", "independent"]
PARTS = (16, 8, 4, 2)
"""Subspaces of 1/16, 1/8, ... of a matrix's smaller side are measured unless others are asked for."""
BATCH_BYTES = 64_000_000
ANGLE_COLUMNS = ("mean", "largest", "projector_distance", "alignment", "gap")


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


def measure(
    matrix: Matrix,
    ks: Sequence[int] = (),
    nulls: Sequence[NullName] = (),
    draws: int = 20,
    key: str = "",
    bases: Bases | None = None,
) -> Spectra:
    """One matrix, with its null models.

    ks: sizes of subspaces (none: PARTS of the smaller side); draws: of every null; key: of their random numbers.
    """
    delta = matrix.after - matrix.before
    origin = matrix.before if matrix.reference is None else matrix.reference
    base = decompose(origin) if bases is None else bases.of(origin)
    r = base.s.shape[-1]
    ks = swept(r, tuple(ks) or sorted({int(part_of(r, part)) for part in PARTS}))
    rows: dict[str, list[pd.DataFrame]] = {"matrices": [], "angles": []}
    change = _Measured(base, matrix.before, matrix.after[None], ks)
    gaussian: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    for what, first, measured in _all(matrix, delta, base, ks, change, nulls, draws, key):
        numbers = np.arange(first, first + measured.count)
        rows["matrices"].append(measured.scalars().assign(what=what, draw=numbers))
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
    nulls: Sequence[NullName],
    draws: int,
    key: str,
) -> Iterator[tuple[str, int, _Measured]]:
    """The change itself, then the draws of every null in batches that fit into memory."""
    yield CHANGE, 0, change
    if matrix.reference is not None:
        yield START, 0, _Measured(base, matrix.before, matrix.before[None], ks)
    size = max(1, BATCH_BYTES // (8 * matrix.before.numel()))
    for name in nulls:
        for first in range(0, draws, size):
            count = min(size, draws - first)
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
