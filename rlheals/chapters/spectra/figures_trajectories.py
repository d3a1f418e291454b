"""Figures of chapter 03 about trajectories: does OOD accuracy follow rotation, or only time?"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd

from rlheals.chapters.captions import PLAIN
from rlheals.chapters.drawing import both, finish
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.predictors import SCALE_NAMES, associations
from rlheals.chapters.spectra.runs import RL, SFT, RotationChapter, RotationTables
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW, Drawn
from rlheals.stats.intervals import t_interval

LOOKS = {
    SFT: ("SFT", "#000000"),
    "lr-1e-4": ("SFT, learning rate 1e-4", SKY),
    "lr-1e-3": ("SFT, learning rate 1e-3", BLUE),
    "decay-0.3": ("SFT, weight decay 0.3", GREEN),
    "batch-16": ("SFT, batches of 16", PURPLE),
    RL: ("RL", RED),
    "rejection": ("own solved episodes", ORANGE),
    "ood-rule": ("RL on the OOD rule", YELLOW),
}


def along(chapter: RotationChapter) -> Drawn:
    """Along SFT: size, rotation with its null, KL, accuracies. Everything is monotone in time."""
    figure, axes = drawing.canvas(columns=3, rows=2, height=2.2)
    frames = []
    panels = {
        "size": ("size of the change, |dW| / |W|", BLUE),
        "angle": ("rotation (degrees)", PURPLE),
        "excess": ("rotation - null (degrees)", PURPLE),
        "kl": ("forward KL from the base (nats)", ORANGE),
        "id": ("ID accuracy, SFT hands", BLUE),
        "ood": ("OOD accuracy", RED),
    }
    steps = chapter.profile.rotation.steps
    for axis, (column, (title, color)) in zip(axes, panels.items(), strict=True):
        frames += both(axis, chapter, partial(_along, column=column), (title, color), column, None)
        if column == "angle":
            null = both(axis, chapter, partial(_along, column="null"), ("its null", GREY), "null", None)
            frames += null
            axis.legend(fontsize=6)
        axis.set_title(title, fontsize=8)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        drawing.step_axis(axis, steps)
    note = (
        "Rotation: mean angle of the leading quarter of directions to the base; its null: Gaussian changes of equal "
        "norm (grey). Two quantities that both go one way in time correlate whatever ties them together."
    )
    return finish(figure, chapter, "rotation-along", "Along SFT", frames, note)


def _along(tables: RotationTables, column: str) -> pd.DataFrame:
    rows = tables.once(measured.points)
    rows = rows[rows["branch"] == SFT].assign(null=lambda frame: frame["angle"] - frame["excess"])
    return rows[["seed", "step", column]].rename(columns={column: "value"}).dropna()


def trajectories(chapter: RotationChapter) -> Drawn:
    """OOD accuracy of every checkpoint of every trajectory against size, rotation and forward KL."""
    rows = chapter.tables.once(measured.points)
    rows = rows[(rows["size"] > 0) & rows["ood"].notna()]
    figure, axes = drawing.canvas(columns=3, height=3.4)
    for axis, scale in zip(axes, measured.SCALES, strict=True):
        for branch, (label, color) in LOOKS.items():
            mine = rows[rows["branch"] == branch]
            for number, (_, one) in enumerate(mine.groupby(["seed", "start"])):
                line = one.sort_values("step")
                style = "o-" if len(line) > 1 else "D"
                look = {"color": color, "linewidth": 0.5, "markersize": 2.2, "alpha": 0.8}
                axis.plot(
                    line[scale], line["ood"], style, label=label if number == 0 else None, **cast(Any, look)
                )
        axis.set_xscale("log")
        axis.set_xlabel(SCALE_NAMES[scale], fontsize=8)
        axis.set_ylim(bottom=-0.005)
    axes[0].set_ylabel("OOD hands solved within five")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=4, loc="outside lower center")
    counted = rows.drop_duplicates(["seed", "branch", "start"])
    note = (
        f"One line or diamond per trajectory: {len(counted)} of {rows['seed'].nunique()} bases. RL starts from "
        "checkpoints of SFT, so its places include those of SFT before it."
    )
    frame = rows.assign(study=chapter.study)
    return finish(figure, chapter, "rotation-trajectories", "Trajectories", [frame], note, PLAIN)


def matched(chapter: RotationChapter) -> Drawn:
    """At the size at which plain SFT is compared: do trajectories that rotate more have lower OOD accuracy?"""
    table = measured.matched(chapter.tables.once(measured.points))
    figure, (left, right) = drawing.canvas(columns=2, height=3.3)
    for branch, (label, color) in LOOKS.items():
        mine = table[table["branch"] == branch]
        if len(mine):
            left.plot(mine["angle"], mine["ood"], "o", color=color, markersize=3.5, label=label)
    left.axhline(0, color=GREY, linewidth=0.6)
    left.axvline(0, color=GREY, linewidth=0.6)
    left.set_xlabel("rotation - that of plain SFT (degrees)", fontsize=8)
    left.set_ylabel("OOD accuracy - that of plain SFT", fontsize=8)
    if len(table):
        left.legend(fontsize=6)
    frames = [table.assign(series="trajectories", study=chapter.study)]
    found = associations(table)
    for place, one in enumerate(found):
        right.plot(one.null, [-place - 0.25] * 2, color=GREY, linewidth=4, alpha=0.4)
        right.plot(one.values, [-place] * len(one.values), ".", color=RED, markersize=3, alpha=0.5)
        low, high = one.null
        row: dict[str, Any] = {
            "series": one.predictor.words, "null_low": low, "null_high": high, "seeds": len(one.values),
        }  # fmt: skip
        if one.values:
            row["value"] = float(np.mean(one.values))
            right.plot(row["value"], -place, "o", color=RED, markersize=5)
        if len(one.values) > 1:
            interval = t_interval(one.values)
            right.plot([interval.low, interval.high], [-place] * 2, color=RED, linewidth=1.4)
            row |= {"low": interval.low, "high": interval.high}
        frames.append(pd.DataFrame([row]).assign(study=chapter.study))
    right.axvline(0, color=GREY, linewidth=0.6)
    right.set_xlim(-1.02, 1.02)
    right.set_ylim(-len(found) + 0.5, 0.5)
    right.set_yticks([-place for place in range(len(found))], [one.predictor.words for one in found])
    right.tick_params(axis="y", labelsize=7)
    right.set_xlabel("correlation with OOD accuracy", fontsize=8)
    note = (
        f"{len(table)} trajectories, each minus plain SFT of the same base at equal |dW|, mean over its checkpoints. "
        "Right: correlation over the trajectories of a base (small dots), mean and 95 % t interval over bases; grey: "
        "central 95 % when accuracies are permuted among the trajectories of a base."
    )
    return finish(figure, chapter, "rotation-matched", "At equal size", frames, note, PLAIN)


def scales(chapter: RotationChapter) -> Drawn:
    """Which scale tells OOD accuracy of another trajectory best, if plain SFT's curve is read off at its place?"""
    found = measured.prediction_errors(chapter.tables.once(measured.points)).dropna()
    figure, (axis,) = drawing.canvas(height=2.0)
    frames = []
    for place, (scale, label) in enumerate(SCALE_NAMES.items()):
        mine = found[found["scale"] == scale]
        if not len(mine):
            continue
        table = drawing.with_intervals(mine, ["scale"])
        color = GREY if scale == "mean" else BLUE
        axis.plot(mine["value"], [-place] * len(mine), ".", color=color, markersize=4, alpha=0.6)
        axis.plot(table["value"], [-place], "o", color=color, markersize=5)
        axis.plot([table["low"].iloc[0], table["high"].iloc[0]], [-place] * 2, color=color, linewidth=1.4)
        frames.append(table.assign(series=label, study=chapter.study))
    axis.set_yticks([-place for place in range(len(SCALE_NAMES))], list(SCALE_NAMES.values()), fontsize=8)
    axis.set_xlim(left=0)
    axis.set_xlabel("error of OOD accuracy, root mean square over trajectories", fontsize=8)
    note = (
        "OOD accuracy of every other trajectory is predicted by that of plain SFT of the same base at the same place "
        "on a scale. Small dots: base seeds; large dots and bars: mean and 95 % t interval."
    )
    frames = frames or [pd.DataFrame(columns=["scale", "value", "low", "high"])]
    return finish(
        figure, chapter, "rotation-scales", "Which quantity best predicts OOD accuracy?", frames, note, PLAIN
    )
