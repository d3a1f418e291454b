"""The checks at the end of chapter 04, as those of `rlheals.checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from rlheals.checks import Report, compared
from rlheals.edit_text import parse
from rlheals.edits import edit_matrix
from rlheals.nulls import haar

if TYPE_CHECKING:
    from rlheals.swaps import SwapTables

EDITS = (
    "values(all)", "left(all)", "right(all)", "directions(all)", "triples(all)", "directions(top=3)",
    "subspace(top=3)", "random(top=3)", "rollback()", "partial(top=3)", "interpolate(0.5, along=rotation)",
    "noise() like directions(top=3)", "released(top=8)",
)  # fmt: skip


class HasFreshEdits(Protocol):
    """A chapter with edited checkpoints."""

    @property
    def fresh(self) -> SwapTables: ...


def laws() -> Report:
    """Every edit of one constructed pair of matrices: does it keep singular values, is it the base, is it nothing?"""
    values = torch.linspace(4, 0.5, 8, dtype=torch.float64)
    t = (haar(12, 8, 1, "check left")[0] * values) @ haar(8, 8, 1, "check right")[0].T
    b = t + 0.02 * haar(12, 8, 1, "check change")[0]
    lines = []
    for text in EDITS:
        made = edit_matrix(b, t, parse(text))
        said = {
            "keeps singular values": torch.linalg.svdvals(made) - torch.linalg.svdvals(t),
            "is the base": made - b,
            "has the size of directions(top=3)": (made - t).norm()
            - (edit_matrix(b, t, parse("directions(top=3)")) - t).norm(),
        }
        true = [name for name, gap in said.items() if float(gap.abs().max()) < 1e-10]
        lines.append(f"{text}: {', '.join(true) or 'none of these'}")
    return Report(tuple(lines), True)


def swaps(chapter: HasFreshEdits) -> Report:
    """Laws that every edited checkpoint obeys: what was compared is said, with the value if outside."""
    sizes, effects = chapter.fresh.sizes, chapter.fresh.effects
    controls = sizes[sizes["edit"].astype(str).str.startswith("noise() like directions(all)")]
    wanted = sizes[sizes["edit"].astype(str) == "directions(all)"].set_index(["seed", "kind", "where"])[
        "edit_norm"
    ]
    keys = [controls["seed"], controls["kind"], controls["where"]]
    gaps = controls.groupby(keys, observed=True)["edit_norm"].first().div(wanted).dropna() - 1
    triangle = (sizes["left"] - sizes["distance"]).abs() - sizes["edit_norm"] * 1.0001
    found = {
        "size of noise against that of the directions it controls": float(gaps.abs().max()),
        "distances that changed by more than the edit": float((triangle > 1e-6).sum()),
        "negative divergences": float((sizes[["kl_origin", "kl_target"]] < -1e-6).sum().sum()),
        "more first tries than solved": float((effects["first"] > effects["solved"]).sum()),
        "more solved than hands": float((effects["solved"] > effects["hands"]).sum()),
        "edits without a census": float(len(set(sizes["edit"]) - set(effects["edit"]))),
    }
    accepted = dict.fromkeys(found, (0.0, 0.0)) | {
        "size of noise against that of the directions it controls": (0.0, 1e-4)
    }
    report = compared("fresh run", found, accepted)
    return Report((f"edited checkpoints: {len(sizes)}", *report.lines), report.ok)
