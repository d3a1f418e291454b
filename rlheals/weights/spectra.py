"""One weight matrix before and after: what its singular values and vectors did, beside changes that mean nothing.

The same measurement is made of the change that is there and of the draws of every null model (`nulls.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd

from rlheals.weights.architectures import Piece
from rlheals.weights.arrays import torch
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
    product_effective_rank,
    projector_distance,
    value_changes,
)
from rlheals.weights.nulls import null

CHANGE, START = "change", "start"
NullName = Literal["gaussian", "permuted", "turned", "ulp", "independent"]
PARTS = (16, 8, 4, 2)
"""Subspaces of 1/16, 1/8, ... of a matrix's smaller side are measured unless others are asked for."""
BATCH_BYTES = 64_000_000
CURVE_COLUMNS = ("side", "k", "index", "angle", "null", "null_low", "null_high")


@dataclass(frozen=True)
class Spectra:
    """What was measured; every row names tensor, kind, layer and head (-1: the whole matrix).

    matrices   one row per (what, draw): size of the change, changes of singular values (mean, median and maximum of
               |d sigma| / sigma; energy: sum |d sigma| / sum sigma), energies, intruder dimensions
    angles     one row per (what, draw, side, end, k): mean and largest angle in radians, gap at k, distances
    values     one row per singular value: before, after, and under the Gaussian null (mean, 2.5 % and 97.5 %)
    heat       one row per block of U^T dW V (at most 32 x 32): mean square in units of that of dW's entries
    curves     one row per angle of the largest k (top, both sides), ascending: of the change, and of the Gaussian null
               (mean, 2.5 % and 97.5 % over draws)

    what is "change" or a null's name; draw is 0 for the change. Where a third checkpoint is the reference, angles,
    values and gaps are against it, and "start" is the first checkpoint as seen from there: the difference from "start"
    to "change" is due to dW.
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
    """One matrix before and after, float64, and where it comes from.

    reference: what both are seen from; factors: left and right of the change, where it is a product of low rank.
    """

    piece: Piece
    head: int
    before: torch.Tensor
    after: torch.Tensor
    reference: torch.Tensor | None = None
    factors: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def labels(self) -> dict[str, str | int]:
        at, (rows, columns) = self.piece, self.before.shape
        layer = -1 if at.layer is None else at.layer
        where = {"layer": layer, "head": self.head, "rows": rows, "columns": columns}
        return {"tensor": at.name, "kind": at.kind, **where}


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
    before, delta = matrix.before, matrix.after - matrix.before
    origin = before if matrix.reference is None else matrix.reference
    base = decompose(origin) if bases is None else bases.of(origin)
    r = base.s.shape[-1]
    ks = [
        k for k in ks or sorted({int(part_of(r, part)) for part in PARTS}) if 1 <= k < r
    ]  # a gap lies behind

    def under_nulls() -> Iterator[tuple[str, int, _Measured]]:
        size = max(1, BATCH_BYTES // (8 * before.numel()))
        for name in nulls:
            for first in range(0, draws, size):
                count, of = min(size, draws - first), f"{key}/{matrix.piece.name}/{matrix.head}/{first}"
                drawn = null(name, before.cpu(), delta.cpu(), count, of)
                yield name, first, _Measured(base, before, drawn.to(before.device), ks)

    change = _Measured(base, before, matrix.after[None], ks)
    versions = [(CHANGE, 0, change)]
    if matrix.reference is not None:
        versions.append((START, 0, _Measured(base, before, before[None], ks)))
    matrices, angles, values, curves = [], [], [], []
    for what, first, version in chain(versions, under_nulls()):
        scalars = version.scalars()
        if what == CHANGE and matrix.factors is not None:
            scalars["effective_rank"] = float(product_effective_rank(*matrix.factors))
        matrices.append(scalars.assign(what=what, draw=np.arange(first, first + version.count)))
        angles.append(version.angles().assign(what=what, draw=lambda frame, at=first: frame["draw"] + at))
        if what == "gaussian":
            values.append(version.after.s.cpu().numpy())
            curves.append(version.curve(ks[-1]) if ks else np.empty((version.count, len(SIDES), 0)))
    index, after = np.arange(1, r + 1), change.after.s[0].cpu().numpy()
    by_value = {"index": index, "before": base.s.cpu().numpy(), "after": after, **_band(values, after)}
    return Spectra(
        *(
            frame.assign(**matrix.labels)
            for frame in (
                pd.concat(matrices, ignore_index=True),
                pd.concat(angles, ignore_index=True),
                pd.DataFrame(by_value),
                _heat(base, delta),
                _curves(change, ks[-1], curves) if ks else pd.DataFrame(columns=CURVE_COLUMNS),
            )
        )
    )


def _band(drawn: Sequence[np.ndarray], like: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, 2.5 % and 97.5 % over draws, each of the shape of `like`; nan without draws."""
    draws = np.concatenate(drawn) if drawn else np.full((1, *like.shape), np.nan)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {"null": draws.mean(0), "null_low": low, "null_high": high}


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
        moved, whole = (self.after.s - self.base.s).abs().sum(-1), self.base.s.sum(-1)
        stretch, rotation = energies(self.base, self.delta)
        size, change = self.before.norm(), self.delta.flatten(1).norm(dim=1)
        table: dict[str, torch.Tensor] = {
            "norm": size.expand(self.count),
            "change_norm": change,
            "relative_change": change / size if size > 0 else torch.full_like(change, math.nan),
            "value_change_mean": changes.nanmean(-1),
            "value_change_median": changes.nanmedian(-1).values,
            "value_change_energy": moved / whole if whole > 0 else torch.full_like(moved, math.nan),
            "value_change_max": changes.nan_to_num(0.0).amax(-1),
            "stretch_energy": stretch,
            "rotation_energy": rotation,
            "effective_rank": effective_rank(self.delta),
            "rank": self.after.rank,
            "intruders": self.overlaps["left"].intruders(self.after.rank),
        }
        return pd.DataFrame({name: values.cpu().numpy() for name, values in table.items()})

    def angles(self) -> pd.DataFrame:
        """One row per (side, end, k, draw); nan where the rank is below k, at the bottom where it is not full."""
        enough = torch.minimum(self.after.rank, self.base.rank.expand(self.count))
        whole = enough == self.base.s.shape[-1]
        keys = [(side, end, k) for side in SIDES for end in ENDS for k in self.ks]
        if not keys:
            return pd.DataFrame(columns=["draw"])
        frames = []
        for side, end, k in keys:
            found = self.overlaps[side].angles(k, end)
            found = torch.where((enough >= k if end == "top" else whole)[:, None], found, math.nan)
            table = {
                "mean": found.mean(-1),
                "largest": found.amax(-1),
                "projector_distance": projector_distance(found),
                "alignment": self.overlaps[side].alignment(k, end),
                "gap": self.base.gap(k, end).expand(self.count),
            }
            numbers = {name: values.cpu().numpy() for name, values in table.items()}
            labels = {"side": side, "end": end, "k": k}
            frames.append(pd.DataFrame({**labels, **numbers, "draw": np.arange(self.count)}))
        return pd.concat(frames, ignore_index=True)

    def curve(self, k: int) -> np.ndarray:
        """Angles of the top k, ascending: (draws, sides, k)."""
        return torch.stack([self.overlaps[side].angles(k) for side in SIDES], 1).cpu().numpy()


def _heat(base: Decomposition, delta: torch.Tensor) -> pd.DataFrame:
    cells = concentration(base, delta).cpu().numpy()
    left, right = np.indices(cells.shape)
    return pd.DataFrame({"left": left.ravel(), "right": right.ravel(), "energy": cells.ravel()})


def _curves(change: _Measured, k: int, gaussian: Sequence[np.ndarray]) -> pd.DataFrame:
    mine = change.curve(k)[0]
    lines = {"angle": mine, **_band(gaussian, mine)}
    frames = []
    for number, side in enumerate(SIDES):
        table = {"index": np.arange(1, k + 1), **{name: line[number] for name, line in lines.items()}}
        frames.append(pd.DataFrame(table).assign(side=side, k=k))
    return pd.concat(frames, ignore_index=True)
