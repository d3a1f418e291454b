"""Figures of chapter 03 about trajectories: does OOD accuracy follow rotation, or only time?"""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.rows import only
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.predictors import SCALES, associations
from rlheals.chapters.spectra.runs import SFT, SpectraChapter, SpectraTables
from rlheals.display.looks import BRANCHES, GAUSSIAN, GREY, ID, KL, OOD, ROTATION, SIZE
from rlheals.display.panels import level
from rlheals.display.style import Drawn


def along(chapter: SpectraChapter) -> Drawn:
    """Along SFT: size, rotation with its null, KL, accuracies. Everything is monotone in time."""
    sheet = Sheet(chapter, 3, 2, 2.2, steps=chapter.profile.rotation.steps)
    panels = {
        "size": SIZE,
        "angle": ROTATION,
        "excess": ROTATION.named("rotation - null (degrees)"),
        "kl": KL,
        "id": ID.named("ID accuracy, SFT hands"),
        "ood": OOD.named("OOD accuracy"),
    }
    for axis, (column, look) in zip(sheet.axes, panels.items(), strict=True):
        series = {column: (partial(_along, column=column), look)}
        if column == "angle":
            series["null"] = (partial(_along, column="null"), GAUSSIAN.named("its null"))
        sheet.curves(axis, series, look.label, share=False)
        if column == "angle":
            sheet.legend(axis)
    note = (
        "Rotation: mean angle of the leading quarter of singular vectors to the base; its null: Gaussian changes of "
        "equal norm (grey). Any two quantities that grow with training correlate."
    )
    return sheet.finish("rotation-along", "Along SFT", note)


def _trajectories(count: int) -> str:
    return "1 trajectory" if count == 1 else f"{count} trajectories"


def _along(tables: SpectraTables, column: str) -> pd.DataFrame:
    rows = tables.once(measured.points)
    rows = only(rows, branch=SFT).assign(null=lambda frame: frame["angle"] - frame["excess"])
    return rows[["seed", "step", column]].rename(columns={column: "value"}).dropna()


def trajectories(chapter: SpectraChapter) -> Drawn:
    """OOD accuracy of every checkpoint against the size of the change: each way to train beside plain SFT."""
    rows = chapter.tables.once(measured.points)
    rows = rows[(rows["size"] > 0) & rows["ood"].notna()]
    branches = [branch for branch in BRANCHES if branch != SFT and branch in set(rows["branch"])]
    sheet = Sheet(chapter, 4, max(1, -(-len(branches) // 4)), 2.1)
    for axis, branch in zip(sheet.axes, branches, strict=False):
        for one, color in ((SFT, GREY), (branch, BRANCHES[branch].color)):
            for _, line in only(rows, branch=one).sort_values("step").groupby(["seed", "start"]):
                axis.plot(line["size"], line["ood"], BRANCHES[one].marker, ls="-", lw=0.5, ms=3, color=color)
        axis.set_xscale("log")
        axis.minorticks_off()
        sheet.label(axis, BRANCHES[branch].label, "|dW| / |W|")
        axis.set_ylim(-0.005, 1.05 * rows["ood"].max())
    sheet.hide(len(branches))
    sheet.axes[0].set_ylabel("OOD accuracy")
    sheet.keep(rows, study=chapter.study)
    counted, bases = rows.drop_duplicates(["seed", "branch", "start"]), rows["seed"].nunique()
    note = (
        f"{_trajectories(len(counted))} of {bases} base{'s' * (bases != 1)}; grey squares: plain SFT of the same base. "
        "RL starts from checkpoints of SFT, so its size includes that of SFT before it."
    )
    return sheet.finish("rotation-trajectories", "Trajectories", note)


def matched(chapter: SpectraChapter) -> Drawn:
    """Among runs matched on |dW|: do those that rotate more have lower OOD accuracy?"""
    table = measured.matched(chapter.tables.once(measured.points))
    sheet = Sheet(chapter, 2, height=3.3)
    left, right = sheet.axes
    for branch, look in BRANCHES.items():
        if len(mine := only(table, branch=branch)):
            shown: dict[str, Any] = {"color": look.color, "label": look.label}
            left.plot(mine["angle"], mine["ood"], look.marker, markersize=4, **shown)
    level(left)
    level(left, upright=False)
    sheet.label(left, x="rotation - that of plain SFT (degrees)", y="OOD accuracy - that of plain SFT")
    sheet.legend(below=4)
    sheet.keep(table, series="trajectories", study=chapter.study)
    found = associations(table)
    for place, one in enumerate(found):
        right.plot(one.null, [-place - 0.25] * 2, color=GREY, linewidth=4, alpha=0.4)
        look, (low, high) = SCALES.get(one.predictor.column, ROTATION), one.null
        row = sheet.forest_row(right, -place, one.values, look, chapter.study)
        row = row if len(row) else pd.DataFrame({"seeds": [0]})
        sheet.keep(row, series=one.predictor.words, null_low=low, null_high=high, study=chapter.study)
    level(right, upright=False)
    right.set_xlim(-1.02, 1.02)
    sheet.names(right, [one.predictor.words for one in found])
    right.set_xlabel("correlation with OOD accuracy")
    if not any(one.values for one in found):
        right.set_visible(False)
        sheet.left_out = (
            "A correlation needs several trajectories of a base beside plain SFT and RL, which the recorded study has; "
            f"here is the difference from plain SFT at equal |dW| of {_trajectories(len(table))}."
        )
    note = (
        f"{_trajectories(len(table))}, each minus plain SFT of the same base at equal |dW|, mean over its checkpoints. "
        "Right: correlation over the trajectories of a base, without the one trained on the OOD rule where it is not "
        "named; grey: central 95 % when accuracies are permuted among the "
        "trajectories of a base."
    )
    return sheet.finish("rotation-matched", "At equal size", note)
