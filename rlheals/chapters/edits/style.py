"""What edits, places and checkpoints are called in chapter 04, and how checkpoints are drawn beside edits."""

from __future__ import annotations

from matplotlib.axes import Axes

from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import ANCHOR, EditTables
from rlheals.chapters.rows import only
from rlheals.display.looks import EDITS, GREY, Look
from rlheals.weights.selection import Where

LABELS = {
    "restore": "late SFT checkpoint, edited with the peak",
    "swap": "result of RL, edited with the late checkpoint",
    "lend": "RL start checkpoint, edited with RL's result",
}
PLACES = {
    "blocks": "all blocks",
    "matrices": "blocks, embeddings and output head",
    "ends": "embeddings and output head",
}


def where_label(where: str) -> str:
    """A place in words.

    >>> where_label(str(Where.parse("blocks layers=0-2"))), where_label(str(Where.parse("ends")))
    ('layers 0, 1, 2', 'embeddings and output head')
    """
    for name, label in PLACES.items():
        if where == str(Where.parse(name)):
            return label
    kinds, _, layers = where.partition(" layers=")
    if layers and kinds == str(Where.parse("blocks")):
        return f"layer{'s' if ',' in layers else ''} {layers.replace(',', ', ')}"
    return where


def look(family: object) -> Look:
    """How a family of edits is drawn."""
    return EDITS[str(family)].named(measured.FAMILIES[str(family)])


def checkpoint_lines(
    axis: Axes, tables: EditTables, split: str, measure: str = "solved", upright: bool = True
) -> None:
    """The accuracies of the late checkpoint (dotted) and the peak (dashed) as lines across."""
    levels = measured.accuracy(tables, split, measure)
    for name, dashes in (("late", ":"), ("peak", "--")):
        at = only(levels, kind=ANCHOR, edit=name)["value"].mean()
        draw = axis.axhline if upright else axis.axvline
        draw(at, color=GREY, linestyle=dashes, linewidth=0.9, label=f"{name} checkpoint")
