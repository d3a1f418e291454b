"""How edits look and what places are called in chapter 04: colours, open marks for controls, crosses for fresh runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import ANCHOR, SwapTables
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from rlheals.weights.selection import Where

COLORS = {
    "values": GREEN, "left": SKY, "right": SKY, "directions": RED, "triples": ORANGE, "subspace": PURPLE,
    "rollback": "#000000", "interpolate": "#000000", "partial": BLUE, "random": GREY, "noise": GREY, "released": RED,
}  # fmt: skip
HOLLOW = ("noise", "random", "partial", "interpolate", "rollback")
"""Controls."""
LABELS = {
    "restore": "late SFT checkpoint, edited with the peak",
    "swap": "result of RL, edited with the late checkpoint",
    "lend": "start of RL, edited with RL's result",
}


PLACES = {"blocks": "all blocks", "matrices": "blocks, embeddings and head", "ends": "embeddings and head"}


def where_label(where: str) -> str:
    """A place in words.

    >>> where_label(str(Where.parse("blocks layers=0-2"))), where_label(str(Where.parse("ends")))
    ('layers 0, 1, 2', 'embeddings and head')
    """
    for name, label in PLACES.items():
        if where == str(Where.parse(name)):
            return label
    kinds, _, layers = where.partition(" layers=")
    if layers and kinds == str(Where.parse("blocks")):
        return f"layer{'s' if ',' in layers else ''} {layers.replace(',', ', ')}"
    return where


def face(family: str) -> str:
    """What a mark of this family is filled with."""
    return "none" if family in HOLLOW else COLORS[family]


def mark(axis: Axes, table: pd.DataFrame, at: float, family: str, study: str, upright: bool) -> None:
    """One estimate at a place: a dot with its interval, or a cross for the fresh run. upright: values upwards."""
    color, row = COLORS[family], table.iloc[0]
    value, ends = row["value"], [row["low"], row["high"]]
    if study == "fresh":
        axis.plot(*((at, value) if upright else (value, at)), "x", color=color, markersize=4)
        return
    axis.plot(*(([at, at], ends) if upright else (ends, [at, at])), color=color, linewidth=0.7, alpha=0.7)
    axis.plot(
        *((at, value) if upright else (value, at)),
        "o",
        color=color,
        markersize=4,
        markerfacecolor=face(family),
    )


def size_axis(axis: Axes) -> None:
    """Sizes on a logarithmic axis with plain numbers (0.1, 0.2, 0.5, 1, ...), unless they span little or one is 0."""
    low, high = axis.dataLim.intervalx
    if not low > 0 or high < 3 * low:
        axis.locator_params(axis="x", nbins=5)
        return
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [base * 10.0**power for power in range(-6, 6) for base in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) > 6:
        shown = [tick for tick in shown if f"{tick:g}".lstrip("0.").startswith("1")]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()


def entries(axis: Axes, families: Sequence[str]) -> None:
    """One legend entry per family, beside what the axis has already."""
    for family in families:
        look = {"color": COLORS[family], "linestyle": "none", "marker": "o", "markersize": 4}
        axis.plot(
            [], [], label=measured.FAMILIES[family], **cast(Any, {**look, "markerfacecolor": face(family)})
        )


def checkpoint_lines(
    axis: Axes, tables: SwapTables, split: str, measure: str = "solved", upright: bool = True
) -> None:
    """The accuracies of the late checkpoint (dotted) and the peak (dashed) as lines across."""
    levels = measured.accuracy(tables, split, measure)
    levels = levels[levels["kind"] == ANCHOR]
    for name, dashes in (("late", ":"), ("peak", "--")):
        level = float(levels.loc[levels["edit"] == name, "value"].mean())
        draw = axis.axhline if upright else axis.axvline
        draw(level, color=GREY, linestyle=dashes, linewidth=0.9, label=f"{name} checkpoint")
