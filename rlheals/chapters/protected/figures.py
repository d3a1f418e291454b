"""Figures of protected SFT: accuracies along training, and OOD accuracy at equal ID accuracy."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import Marks
from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.runs import SFT, ProtectionChapter
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Drawn
from rlheals.profiles.sections import read_regulariser

NAMES = {
    "subspace": "leading subspaces", "random": "random subspaces", "kl": "KL to the base",
    "learning_rate": "learning rate", "weight_decay": "weight decay",
}  # fmt: skip
COLORS = {
    "subspace": RED,
    "random": GREY,
    "kl": BLUE,
    "learning_rate": GREEN,
    "weight_decay": ORANGE,
    SFT: PURPLE,
}
GAINS = Marks("dots and triangles", "crosses and plus signs")


def name_of(way: str) -> str:
    """Which kind a way is of; "sft" for plain SFT."""
    return way if way == SFT else read_regulariser(way)[0]


def label_of(way: str) -> str:
    """A way in words.

    >>> label_of("kl=0.3"), label_of("sft")
    ('KL to the base 0.3', 'plain SFT')
    """
    return "plain SFT" if way == SFT else f"{NAMES[name_of(way)]} {read_regulariser(way)[1]:g}"


def _order(way: str) -> tuple[int, float]:
    return (-1, 0.0) if way == SFT else (list(NAMES).index(name_of(way)), read_regulariser(way)[1])


def ways_of(chapter: ProtectionChapter) -> list[str]:
    """All ways that are drawn, plain SFT first."""
    return sorted(
        {str(way) for tables, _ in chapter.layers for way in tables.accuracy["way"].unique()}, key=_order
    )


def plane(chapter: ProtectionChapter) -> Drawn:
    """OOD against ID accuracy along training: plain SFT and every way, one panel per kind."""
    ways = ways_of(chapter)
    names = list(dict.fromkeys(name_of(way) for way in ways if way != SFT)) or [SFT]
    figure, axes = drawing.canvas(columns=3, rows=-(-max(1, len(names)) // 3), height=2.5)
    frames = []
    for axis, name in zip(axes, names, strict=False):
        own = [way for way in ways if name_of(way) == name != SFT]
        shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, max(2, len(own))))
        for tables, study in chapter.layers:
            rows = measured.points(tables)
            for way, color in [(SFT, "#000000"), *zip(own, shades, strict=False)]:
                mine = rows[rows["way"] == way]
                if not len(mine):
                    continue
                ood = drawing.with_intervals(mine.assign(value=mine["ood"]), ["step"])
                at = mine.groupby("step")["id"].mean().to_numpy()
                recorded = study == "recorded"
                axis.plot(at, ood["value"], "-o" if recorded else ":x", color=color, markersize=3, linewidth=1.0,
                          label=label_of(way) if study == chapter.study else "_")  # fmt: skip
                if recorded:
                    axis.fill_between(at, ood["low"], ood["high"], color=color, alpha=0.12, linewidth=0)
                frames.append(ood.assign(id=at, way=way, study=study))
        axis.set_title(NAMES.get(name, "nothing is protected here yet"), fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("ID accuracy, SFT hands", fontsize=8)
        axis.legend(fontsize=6)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].set_ylabel("OOD accuracy", fontsize=8)
    note = (
        "Every point is a checkpoint; lines follow training. What lies above plain SFT at the same ID accuracy is "
        "better than stopping plain SFT early."
    )
    return _finish(
        figure,
        "protection-plane",
        "OOD against ID accuracy",
        frames,
        chapter,
        note,
        Marks("lines in bands", "crosses"),
    )


def gains(chapter: ProtectionChapter) -> Drawn:
    """OOD accuracy of every way less that of plain SFT at the same ID accuracy."""
    ways = [way for way in ways_of(chapter) if way != SFT]
    figure, axes = drawing.canvas(columns=2, height=0.19 * max(1, len(ways)) + 1.0)
    frames = []
    left, right = axes
    shown = {"gained": (left, True), "kept": (right, True), "beyond": (right, False)}
    reach: dict[Axes, list[float]] = {left: [0.0], right: [0.0]}
    for column, (axis, equal) in shown.items():
        for tables, study in chapter.layers:
            found = measured.at_equal_id(measured.points(tables))
            found = found.rename(columns={column: "value"}).dropna(subset=["value"])
            for way, own in found[found["way"] != SFT].groupby("way"):
                table = drawing.with_intervals(own[["seed", "way", "value"]], ["way"])
                place = -ways.index(str(way)) - (0.0 if equal else 0.3)
                color = COLORS[name_of(str(way))]
                reach[axis] += own["value"].to_list()
                if study == "recorded":
                    axis.plot(table[["low", "high"]].iloc[0], [place] * 2, color=color, linewidth=1.2)
                    axis.plot(own["value"], [place] * len(own), ".", color=color, markersize=3, alpha=0.5)
                mark = ("o" if equal else "^") if study == "recorded" else ("x" if equal else "+")
                axis.plot(table["value"], [place], mark, color=color, markersize=4)
                frames.append(table.assign(quantity=column, study=study))
    for axis, title in ((left, "mean over checkpoints"), (right, "last checkpoint")):
        axis.axvline(0, color="#000000", linewidth=0.8)
        edge = 0.1 * (max(reach[axis]) - min(reach[axis])) or 0.01
        axis.set_xlim(min(reach[axis]) - edge, max(reach[axis]) + edge)
        axis.set_ylim(min(-0.5, -len(ways) + 0.4), 0.5)
        if not ways:
            axis.text(
                0.5, 0.5, "no protected run is here yet", transform=axis.transAxes, ha="center", fontsize=8
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("OOD accuracy, less plain SFT at equal ID", fontsize=8)
        axis.set_yticks([])
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks([-place for place in range(len(ways))], [label_of(way) for way in ways], fontsize=7)
    note = (
        "To the right of the line: more OOD accuracy than plain SFT stopped at the same ID accuracy. Random subspaces "
        "have the dimension of the leading ones. Triangles, not part of the claims: base seeds where the last "
        "checkpoint's ID accuracy is above all that plain SFT has, against plain SFT at its highest. A way without a "
        "mark has no ID accuracy that plain SFT passes. Intervals of few base seeds may run out of the picture."
    )
    return _finish(figure, "protection-gains", "Against early stopping", frames, chapter, note, GAINS)


def _finish(
    figure,
    name: str,
    title: str,
    frames: list[pd.DataFrame],
    chapter: ProtectionChapter,
    note: str,
    marks: Marks,
) -> Drawn:
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=["way", "value", "low", "high"])
    return drawing.finish(figure, name, title, frame, *chapter.caption(note, frame, marks))


PROTECTION: tuple[Callable[[ProtectionChapter], Drawn], ...] = (plane, gains)
