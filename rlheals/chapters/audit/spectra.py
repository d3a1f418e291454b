"""Spectra and angles of unrelated matrices, and the released ones beside them.

Three kinds of null. Laws: exact in the limit of large matrices (Marchenko and Pastur 1967 for singular values, Wachter
1980 for angles), or exact at any size (`chordal_law`). Simulations at full size. Simulations at a quarter of the size,
where the full one would take minutes: angles depend on shapes through ratios only, up to an error of finite size.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from rlheals.errors import BadInput
from rlheals.weights import linalg, nulls
from rlheals.yaml_file import read_yaml

RELEASED_POINTS = Path(str(resources.files("rlheals.chapters.audit"))) / "released_points.yaml"
SPREAD = 0.02
"""Standard deviation of the initialiser: `initializer_range` of Llama's configuration."""
QUARTER = 4
KEY_SHAPE = (1024, 4096)
QUERY_SIZE = 4096
OVERSAMPLED = 12
LARGE = 2**24
"""Matrices of more entries are drawn twice only."""
GRID = 20_000

Floats = npt.NDArray[np.float64]


@cache
def released() -> dict[str, Any]:
    """Numbers in the released files, with the file and how each was read."""
    return read_yaml(RELEASED_POINTS, RELEASED_POINTS.name)


def singular_law(m: int, n: int, spread: float = SPREAD) -> Floats:
    """Singular values of an m x n matrix of independent N(0, spread^2), descending: (min(m, n),).

    Quantiles (i + 1/2) / r of the Marchenko-Pastur law, for m = n the quarter circle; what finite size changes is
    largest at the two ends, about n^(-2/3) of a value.

    >>> [round(float(x), 3) for x in singular_law(4096, 4096)[[0, 2048]]]
    [2.554, 1.034]
    """
    r, longest = min(m, n), max(m, n)
    c = r / longest
    phi = (np.arange(GRID) + 0.5) * math.pi / GRID
    square = 1 + c - 2 * math.sqrt(c) * np.cos(phi)
    mass = np.cumsum(2 * np.sin(phi) ** 2 / square)
    values = np.interp((np.arange(r) + 0.5) / r, mass / mass[-1], np.sqrt(square))
    return spread * math.sqrt(longest) * values[::-1]


def angle_law(n: int, k: int) -> Floats:
    """Principal angles of two independent k-dimensional subspaces of n dimensions, radians, ascending: (k,).

    Quantiles of Wachter's law; the first free angle has cos = 2 sqrt(a (1 - a)), a = k / n. Where 2k > n the spaces
    have to share 2k - n directions, whose angles are exactly 0; the other angles are those of the complements.

    >>> angles = angle_law(1024, 768)
    >>> int((angles == 0).sum()), round(math.degrees(angles[512]))
    (512, 31)
    """
    if not 1 <= k <= n:
        raise BadInput(f"angle_law: k = {k}; accepted: 1 to {n}")
    forced = max(0, 2 * k - n)
    free = k - forced
    if free == 0:
        return np.zeros(k)
    a = free / n
    edge = 4 * a * (1 - a)
    phi = (np.arange(GRID) + 0.5) * math.pi / GRID
    cosine2 = edge * (1 - np.cos(phi)) / 2
    mass = np.cumsum(np.sin(phi) ** 2 / (cosine2 * (1 - cosine2)))
    found = np.interp((np.arange(free) + 0.5) / free, mass / mass[-1], cosine2)
    return np.concatenate([np.zeros(forced), np.arccos(np.sqrt(found[::-1]))])


def chordal_law(n: int, k: int) -> float:
    """sqrt of the mean squared sine between independent k-dimensional subspaces: sqrt(1 - k/n), at any size."""
    return math.sqrt(1 - k / n)


def gaussian(m: int, n: int, draws: int, key: str) -> torch.Tensor:
    """Independent N(0, SPREAD^2): (draws, m, n), float64."""
    base = torch.full((m, n), SPREAD, dtype=torch.float64)
    return nulls.independent(base, base, draws, key)


def leading(w: torch.Tensor, k: int) -> torch.Tensor:
    """The first k left singular vectors of (..., m, n), m <= n, by the Gram matrix: (..., m, k)."""
    return torch.linalg.eigh(w @ w.mT)[1].flip(-1)[..., :k]


def update_angles(m: int, n: int, ks: Sequence[int], draws: int, key: str) -> dict[int, Floats]:
    """Angles of the leading left k-subspaces of A - C and B - C, A, B, C independent: k -> (draws, k), radians.

    What two updates give that start from the same base, when neither of the two results has to do with it.
    """
    found: dict[int, list[Floats]] = {k: [] for k in ks}
    for draw in range(draws):
        a, b, c = gaussian(m, n, 3, f"{key}/{draw}")
        first, second = leading(a - c, max(ks)), leading(b - c, max(ks))
        for k in ks:
            found[k].append(_angles(first[:, :k], second[:, :k]))
    return {k: np.stack(angles) for k, angles in found.items()}


def matrix_angles(m: int, ks: Sequence[int], draws: int, key: str) -> dict[int, Floats]:
    """The same for two independent matrices, whose leading subspaces are two Haar draws: k -> (draws, k)."""
    found = {}
    for k in ks:
        first, second = (nulls.haar(m, k, draws, f"{key}/{k}/{one}") for one in "ab")
        found[k] = np.stack([_angles(a, b) for a, b in zip(first, second, strict=True)])
    return found


def _angles(a: torch.Tensor, b: torch.Tensor) -> Floats:
    return linalg.principal_angles(a, b).numpy()


def randomised_values(m: int, n: int, draws: int, key: str) -> Floats:
    """The first two singular values as a randomised PCA finds them, which is a little too low: (draws, 2).

    The call of the released script: `torch.pca_lowrank`, 2 directions and 10 more, centred, float32 (a matrix of
    4096 x 14336 is large, and two decimals are needed).
    """
    found = []
    with torch.random.fork_rng(devices=[]):
        for draw in range(draws):
            torch.manual_seed(zlib.crc32(f"{key}/{draw}".encode()))
            w = torch.randn((m, n)) * SPREAD
            found.append(torch.pca_lowrank(w, q=OVERSAMPLED)[1][:2].double().numpy())
    return np.stack(found)


@dataclass(frozen=True)
class Nulls:
    """Draws of the nulls; angles in radians, those of q_proj at a quarter of its size.

    values (2 draws, 1024): singular values of matrices of k_proj's shape. changes (pairs of these, 1024): differences.
    diagonal (draws, 1024): |diag(U^T (B - A) V)|, U and V of A. largest: kind -> (draws, 2), of a randomised PCA.
    updates, matrices: q or k -> k -> angles (draws, k).
    """

    draws: int
    values: Floats
    changes: Floats
    diagonal: Floats
    largest: dict[str, Floats]
    updates: dict[str, dict[int, Floats]]
    matrices: dict[str, dict[int, Floats]]


def simulate(draws: int = 3, key: str = "audit") -> Nulls:
    """All draws that the page needs; about 5 seconds per draw on one core.

    Raises BadInput for fewer than two draws.
    """
    if draws < 2:
        raise BadInput(f"simulate: {draws} draws, at least 2 are needed for a band")
    values, diagonal = [], []
    for draw in range(draws):
        first, second = gaussian(*KEY_SHAPE, 2, f"{key}/pair/{draw}")
        base = linalg.decompose(first, "gram")
        values += [base.s.numpy(), linalg.decompose(second, "gram").s.numpy()]
        diagonal.append(((base.u.mT @ (second - first)) * base.v.mT).sum(-1).abs().numpy())
    tables = [one["matrices"] for one in released()["largest_two"]]
    shapes = {kind: tuple(table["shape"]) for one in tables for kind, table in one.items()}
    by_shape = {
        (m, n): randomised_values(m, n, 2 if m * n > LARGE else 2 * draws, f"{key}/pca/{m}x{n}")
        for m, n in sorted(set(shapes.values()))
    }
    q, k = QUERY_SIZE // QUARTER, KEY_SHAPE[0]
    q_ks = sorted({one["k"] // QUARTER for one in released()["angles"] if one["matrix"] == "q"})
    k_ks = sorted({one["k"] for one in released()["angles"] if one["matrix"] == "k"})
    return Nulls(
        draws=draws,
        values=np.stack(values),
        changes=np.stack([second - first for first, second in combinations(values, 2)]),
        diagonal=np.stack(diagonal),
        largest={kind: by_shape[shape] for kind, shape in shapes.items()},
        updates={
            "q": update_angles(q, q, q_ks, draws, f"{key}/updates/q"),
            "k": update_angles(*KEY_SHAPE, k_ks, draws, f"{key}/updates/k"),
        },
        matrices={
            "q": matrix_angles(q, q_ks, draws, f"{key}/matrices/q"),
            "k": matrix_angles(k, k_ks, draws, f"{key}/matrices/k"),
        },
    )


MATRICES, UPDATES = "independent matrices", "updates of one base"
LAW, FULL, PART = "law", "simulation", "simulation, quarter size"


def comparison(found: Nulls) -> pd.DataFrame:
    """Every released point beside its nulls, one row per null.

    Columns: quantity, file, how, unit, value, error, null, by, low, high (of the draws; equal for a law), inside: the
    reading, with its error, reaches into the null.
    """
    frame = pd.DataFrame(
        [
            (what, one["file"], one["how"], unit, value, one["error"], null, by, draws.min(), draws.max())
            for one, what, value, unit, draws, null, by in (*_value_rows(found), *_angle_rows(found))
        ],
        columns=["quantity", "file", "how", "unit", "value", "error", "null", "by", "low", "high"],
    )
    value, error = frame["value"], frame["error"]
    return frame.assign(inside=(value + error >= frame["low"]) & (value - error <= frame["high"]))


Row = tuple[dict[str, Any], str, float, str, Floats, str, str]
"""The facts that a reading belongs to, quantity, value, unit, draws of the null, its kind, and how it was made."""


def _value_rows(found: Nulls) -> Iterator[Row]:
    facts = released()
    for one in facts["singular_values"]:
        law, is_key = singular_law(*one["shape"]), tuple(one["shape"]) == KEY_SHAPE
        for index, value in one["points"].items():
            null, by = (found.values[:, index], FULL) if is_key else (law[index : index + 1], LAW)
            yield one, f"{one['what']}: {index}", value, "", null, MATRICES, by
    for one in facts["singular_value_changes"]:
        for value in one["points"].values():
            yield one, one["what"], value, "", found.changes.std(1), MATRICES, FULL
    for one in facts["diagonal"]:
        for index, value in one["points"].items():
            yield one, f"{one['what']}: {index}", value, "", found.diagonal[:, index], MATRICES, FULL
    for one in facts["largest_two"]:
        for kind, table in one["matrices"].items():
            for place, values in enumerate((table["first"], [table["second"]])):
                for value in sorted(set(values)):
                    what = f"singular value {place + 1} of {kind}_proj, randomised PCA"
                    yield one, what, value, "", found.largest[kind][:, place], MATRICES, FULL
    for one in facts["chordal"]:
        law = np.array([chordal_law(one["n"], one["k"])])
        yield one, f"chordal distance, {one['what']}", one["value"], "", law, MATRICES, LAW


def _angle_rows(found: Nulls) -> Iterator[Row]:
    for one in released()["angles"]:
        in_unit = np.rad2deg if one["unit"] == "degrees" else np.asarray
        kind, k = one["matrix"], one["k"]
        n, part, by = (QUERY_SIZE, QUARTER, PART) if kind == "q" else (KEY_SHAPE[0], 1, FULL)
        if "forced" in one:
            what, forced = f"angles of {kind}_proj that are 0, k = {k}", np.array([2 * k - n], dtype=float)
            for null in (MATRICES, UPDATES):
                yield {**one, "error": 0}, what, one["forced"], "", forced, null, LAW
        for index, value in one["points"].items():
            what = f"angle {index} of {kind}_proj, k = {k}"
            law = in_unit(angle_law(n, k)[index : index + 1])
            drawn = in_unit(found.updates[kind][k // part][:, index // part])
            yield one, what, value, one["unit"], law, MATRICES, LAW
            yield one, what, value, one["unit"], drawn, UPDATES, by


def movement() -> pd.DataFrame:
    """How far training can move the entries of a weight, and how far independent matrices are apart, in spreads."""
    facts = released()["training"]
    first, last = facts["steps"]
    most = (last - first) * largest_adam_step(facts["learning_rate"], facts["betas"])
    what = [f"Adam, steps {first} to {last}, at most", "two independent matrices"]
    return pd.DataFrame({"what": what, "relative_change": [most / SPREAD, math.sqrt(2)]})


def largest_adam_step(learning_rate: float, betas: Sequence[float]) -> float:
    """The most by which Adam without weight decay can move an entry in one step, whatever the gradients.

    learning_rate (1 - b1) / sqrt(1 - b2) / sqrt(1 - b1^2 / b2), by Cauchy and Schwarz on its two running means.

    >>> round(largest_adam_step(1.0, (0.9, 0.98)), 2)
    1.7
    """
    b1, b2 = betas
    return learning_rate * (1 - b1) / math.sqrt(1 - b2) / math.sqrt(1 - b1 * b1 / b2)
