"""Figures of protected SFT: accuracies along training, and OOD accuracy at equal ID accuracy."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.runs import SFT, ProtectedChapter
from rlheals.chapters.rows import only
from rlheals.display.looks import PLAIN_SFT, REGULARISERS, Look
from rlheals.display.panels import level
from rlheals.display.style import Drawn
from rlheals.profiles.sections import read_regulariser

MOST, TICKS = 0.999, (0.5, 0.9, 0.98, 0.995)
"""Of an axis that spreads accuracies near 1 (logit): its end, and where it is marked."""
NOTHING = "no run with a regulariser is here yet"
LEFT_OUT = "Here are no runs with a regulariser: the recorded study has them, a fresh run has none."


def name_of(way: str) -> str:
    """Which kind a regulariser is of; "sft" for plain SFT."""
    return way if way == SFT else read_regulariser(way)[0]


def label_of(way: str) -> str:
    """A regulariser in words.

    >>> label_of("kl=0.3"), label_of("sft")
    ('KL to the base 0.3', 'plain SFT')
    """
    return "plain SFT" if way == SFT else f"{REGULARISERS[name_of(way)].label} {read_regulariser(way)[1]:g}"


def ways_of(chapter: ProtectedChapter) -> list[str]:
    """All regularisers that are drawn, plain SFT first."""
    kinds = list(REGULARISERS)
    found = {str(way) for tables, _ in chapter.layers for way in tables.accuracy["way"].unique()} - {SFT}
    known = {way: read_regulariser(way) for way in found}
    return [SFT, *sorted(found, key=lambda way: (kinds.index(known[way][0]), known[way][1]))]


def plane(chapter: ProtectedChapter) -> Drawn:
    """OOD against ID accuracy along training: plain SFT and every regulariser, one panel per kind."""
    ways = ways_of(chapter)
    names = list(dict.fromkeys(name_of(way) for way in ways if way != SFT)) or [SFT]
    sheet = Sheet(chapter, 3, -(-len(names) // 3), 2.5)

    measure = lambda tables: measured.points(tables).rename(columns={"ood": "value"})  # noqa: E731
    found = list(sheet.estimates(measure, ["way", "step"], ["id"]))
    for axis, name in zip(sheet.axes, names, strict=False):
        own = [way for way in ways if name_of(way) == name != SFT]
        shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, max(2, len(own))))
        looks = {SFT: PLAIN_SFT.named(label_of(SFT))}
        for way, shade, marker in zip(own, shades, "o^D", strict=False):
            looks[way] = Look(f"{read_regulariser(way)[1]:g}", matplotlib.colors.to_hex(shade), marker)
        for study, table in found:
            for way, look in looks.items():
                if len(mine := only(table, way=way)):
                    at = mine["id"].clip(1 - MOST, MOST)
                    sheet.mark(axis, at, mine, look, study, "band", series=label_of(way))
        axis.set_xscale("logit")
        axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.minorticks_off()
        sheet.label(axis, NOTHING if name == SFT else REGULARISERS[name].label, "ID accuracy, SFT hands")
        axis.set_ylim(bottom=0)
        sheet.legend(axis)
    sheet.hide(len(names))
    sheet.left_out = LEFT_OUT if names == [SFT] else ""
    sheet.axes[0].set_ylabel("OOD accuracy")
    note = (
        "Lines follow training, from checkpoint to checkpoint; numbers: strength of the regulariser. What lies above "
        "plain SFT at the same ID accuracy is better than stopping plain SFT early. The ID axis spreads what is near 1."
    )
    return sheet.finish("protection-plane", "OOD against ID accuracy", note)


def gains(chapter: ProtectedChapter) -> Drawn:
    """OOD accuracy with every regulariser less that of plain SFT at the same ID accuracy."""
    ways = [way for way in ways_of(chapter) if way != SFT]
    sheet = Sheet(chapter, 2, height=0.19 * max(1, len(ways)) + 1.0)
    left, right = sheet.axes
    shown = {"gained": left, "kept": right}
    reach = {left: [0.0], right: [0.0]}
    for tables, study in chapter.layers:
        rows = measured.at_equal_id(measured.points(tables))
        for column, axis in shown.items():
            found = rows[rows["way"] != SFT].dropna(subset=[column])
            for way, own in found.groupby("way"):
                look, values = REGULARISERS[name_of(str(way))].named(""), own[column].to_list()
                row = sheet.forest_row(axis, -ways.index(str(way)), values, look, study)
                reach[axis] += values
                sheet.keep(row, way=way, quantity=column, study=study)
    sheet.left_out = "" if ways else LEFT_OUT
    for axis, title in ((left, "mean over checkpoints"), (right, "last checkpoint")):
        if ways:
            level(axis, upright=False, color=PLAIN_SFT.color)
        edge = 0.1 * (max(reach[axis]) - min(reach[axis])) or 0.01
        axis.set_xlim(min(reach[axis]) - edge, max(reach[axis]) + edge)
        if not ways:
            axis.text(0.5, 0.5, NOTHING, transform=axis.transAxes, ha="center", fontsize=8)
        sheet.label(axis, title, "OOD accuracy, less plain SFT at equal ID")
        sheet.names(axis, [label_of(way) if axis is left else "" for way in ways])
        axis.locator_params(axis="x", nbins=5)
    note = (
        "To the right of the line: more OOD accuracy than plain SFT stopped at the same ID accuracy. Random subspaces "
        "have the dimension of the leading ones. Base seeds whose ID accuracy plain SFT never has are left out. "
        "Intervals of few base seeds may run out of the picture."
    )
    return sheet.finish("protection-gains", "Against early stopping", note)


PROTECTION: tuple[Callable[[ProtectedChapter], Drawn], ...] = (plane, gains)
