"""Figures of chapter 03 about trajectories: does OOD accuracy follow rotation, or only time?"""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from rlheals.chapters.drawing import FEEDBACK, Sheet
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
        "equal norm (grey). Two quantities that both go one way in time correlate whatever ties them together."
    )
    return sheet.finish("rotation-along", "Along SFT", note)


def _along(tables: SpectraTables, column: str) -> pd.DataFrame:
    rows = tables.once(measured.points)
    rows = only(rows, branch=SFT).assign(null=lambda frame: frame["angle"] - frame["excess"])
    return rows[["seed", "step", column]].rename(columns={column: "value"}).dropna()


def trajectories(chapter: SpectraChapter) -> Drawn:
    """OOD accuracy of every checkpoint of every trajectory against size, rotation and forward KL."""
    rows = chapter.tables.once(measured.points)
    rows = rows[(rows["size"] > 0) & rows["ood"].notna()]
    sheet = Sheet(chapter, 3, height=3.4)
    for axis, scale in zip(sheet.axes, measured.SCALES, strict=True):
        for branch, look in BRANCHES.items():
            drawn: dict[str, Any] = {"marker": look.marker, "color": look.color, "label": look.label}
            for _, one in only(rows, branch=branch).groupby(["seed", "start"]):
                line = one.sort_values("step")
                axis.plot(line[scale], line["ood"], linewidth=0.5, markersize=3, alpha=0.8, **drawn)
        axis.set_xscale("log")
        sheet.label(axis, x=SCALES[scale].label)
        axis.set_ylim(bottom=-0.005)
    sheet.axes[0].set_ylabel(f"OOD, {FEEDBACK}")
    sheet.legend(below=4)
    sheet.keep(rows, study=chapter.study)
    counted = rows.drop_duplicates(["seed", "branch", "start"])
    note = (
        f"One line or mark per trajectory: {len(counted)} of {rows['seed'].nunique()} bases. RL starts from "
        "checkpoints of SFT, so its size and rotation include those of SFT before it."
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
    sheet.legend(left, fontsize=6)
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
    note = (
        f"{len(table)} trajectories, each minus plain SFT of the same base at equal |dW|, mean over its checkpoints. "
        "Right: correlation over the trajectories of a base, without the one trained on the OOD rule where it is not "
        "named; grey: central 95 % when accuracies are permuted among the "
        "trajectories of a base."
    )
    return sheet.finish("rotation-matched", "At equal size", note)


def scales(chapter: SpectraChapter) -> Drawn:
    """Which quantity predicts OOD accuracy of another trajectory best, from plain SFT's curve at the same value?"""
    found = measured.prediction_errors(chapter.tables.once(measured.points)).dropna()
    sheet = Sheet(chapter, height=2.0)
    (axis,) = sheet.axes
    for place, (scale, look) in enumerate(SCALES.items()):
        if values := only(found, scale=scale)["value"].to_list():
            row = sheet.forest_row(axis, -place, values, look, chapter.study)
            sheet.keep(row, scale=scale, series=look.label, study=chapter.study)
    sheet.names(axis, [look.label for look in SCALES.values()], size=8)
    axis.set_xlim(left=0)
    axis.set_xlabel("error of OOD accuracy, root mean square over trajectories")
    note = (
        "OOD accuracy of every other trajectory is predicted by that of plain SFT of the same base at the same value "
        "of a quantity."
    )
    return sheet.finish("rotation-scales", "Which quantity best predicts OOD accuracy?", note)
