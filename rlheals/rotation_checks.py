"""The checks at the end of chapter 03, as those of `rlheals.checks`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch

from rlheals.checks import Report, compared
from rlheals.linalg import decompose, principal_angles
from rlheals.nulls import haar

if TYPE_CHECKING:
    from rlheals.rotation import RotationTables


class HasFreshSpectra(Protocol):
    """A chapter with spectra."""

    @property
    def fresh(self) -> RotationTables: ...


def angles() -> Report:
    """Principal angles of subspaces that were built with known ones, and of decompositions with themselves."""
    found = {}
    for size in (1e-7, 1e-3, 0.1, 1.0, math.pi / 2):
        frame = haar(40, 6, 1, f"check {size}")[0]
        turned = frame[:, :3] * math.cos(size) + frame[:, 3:] * math.sin(size)
        errors = principal_angles(frame[:, :3], turned) - size
        found[f"error of three angles of {size:.4g}"] = float(errors.abs().max())
    matrix = torch.randn((24, 40), generator=torch.Generator().manual_seed(24), dtype=torch.float64)
    by_gram, by_svd = decompose(matrix, "gram"), decompose(matrix, "svd")
    found["angle of a subspace and itself"] = float(principal_angles(frame, frame).abs().max())
    found["Gram against svd, values"] = float((by_gram.s - by_svd.s).abs().max())
    found["Gram against svd, angle of the leading 8"] = float(
        principal_angles(by_gram.v[:, :8], by_svd.v[:, :8]).max()
    )
    accepted = dict.fromkeys(found, (0.0, 1e-9)) | {"angle of a subspace and itself": (0.0, 0.0)}
    return compared("radians", found, accepted)


def rotation(chapter: HasFreshSpectra) -> Report:
    """Laws that every comparison of two checkpoints obeys: what was compared is said, with the value if outside."""
    tables = chapter.fresh
    sizes, path = tables.changes, tables.path[tables.path["step"] == tables.path["step"].min()]
    by_what = sizes.astype({"what": object}).pivot_table(
        index=["seed", "pair", "tensor", "head"], columns="what", values="change_norm", observed=True
    )
    equal = (by_what[["gaussian", "permuted", "turned"]].div(by_what["change"], axis=0) - 1).abs()
    norms = sizes[sizes["what"] == "change"].set_index(["seed", "pair", "tensor", "head"])["change_norm"]
    moved = tables.values.assign(by=(tables.values["after"] - tables.values["before"]).abs())
    furthest = moved.groupby(["seed", "pair", "tensor", "head"], observed=True)["by"].max()
    known = tables.behaviour
    found = {
        "norms of nulls against that of the change": float(equal.max().max()),
        "singular values that moved by more than the change's norm (Weyl)": float(
            (furthest > norms.reindex(furthest.index) * 1.0001 + 1e-6).sum()
        ),
        "angles below 0 or above 90 degrees": float(
            (~tables.angles["mean"].dropna().between(0, 90.001)).sum()
        ),
        "means beyond the largest angle": float(
            (tables.angles["mean"] > tables.angles["largest"] * 1.0001).sum()
        ),
        "shares of energy above 1": float(
            (sizes["stretch_energy"] + sizes["rotation_energy"] > 1.0001).sum()
        ),
        "negative divergences": float((known["kl"] < -1e-6).sum()),
        "divergence of the base from itself": float(known.loc[known["step"] == 0, "kl"].abs().max()),
        "change of the base against itself": float(path["change_norm"].abs().max()),
    }
    accepted = dict.fromkeys(found, (0.0, 0.0)) | {
        "norms of nulls against that of the change": (0.0, 1e-4),
        "divergence of the base from itself": (0.0, 1e-6),
    }
    report = compared("fresh run", found, accepted)
    whole = sizes[sizes["head"] == -1]
    line = f"pairs: {whole['pair'].nunique()}, matrices in each: {whole['tensor'].nunique()}"
    return Report((line, *report.lines), report.ok)
