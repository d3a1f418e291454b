"""Figures of chapter 04, one function each: what edits do, beside their size and controls of that size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.drawing import FEEDBACK, Sheet
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import ANCHOR, EditChapter, EditTables
from rlheals.chapters.rows import only
from rlheals.display.looks import EDITS, GREY, Look
from rlheals.display.panels import level, size_axis
from rlheals.display.style import Drawn
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
SPLITS = {"ood": "OOD", "sft": "ID, SFT hands"}
DOSED = r"^(?P<family>[a-z]+)\((?:top=(?P<share>\d+)%|all)\)(?P<like> like directions\(top=.*)?$"
RESTORED, CONTROLS = ("values", "directions"), ("partial", "random")
KEYS = ["kind", "edit", "where", "family"]
OTHER_RUN = "other"
LISTED: dict[tuple[str, str], str] = {
    ("restore", "directions(all)"): "all singular vectors",
    ("restore", "left(all)"): "left singular vectors alone",
    ("restore", "right(all)"): "right singular vectors alone",
    ("restore", "triples(top=40%)"): "leading 40 % of triples",
    ("restore", "rollback()"): "rollback, whole",
    ("restore", "interpolate(0.75)"): "rollback, three quarters",
    (OTHER_RUN, "directions(all)"): "all singular vectors of another run",
    (OTHER_RUN, "rollback()"): "rollback to another run",
    ("restore", "values(all) like directions(all)"): "rescaled values, sized as all singular vectors",
    ("restore", "noise() like directions(all)"): "noise, sized as all singular vectors",
    ("restore", "directions(top=20%)"): "leading 20 % of singular vectors",
    (OTHER_RUN, "directions(top=20%)"): "the same of another run",
    ("restore", "rollback() like directions(top=20%)"): "rollback of that size",
    ("restore", "partial(top=20%) like directions(top=20%)"): "partial rollback of that size",
    ("restore", "random(top=20%) like directions(top=20%)"): "random singular vectors of that size",
    ("restore", "noise() like directions(top=20%)"): "noise of that size",
    ("restore", "directions(bottom=20%)"): "trailing 20 % of singular vectors",
    ("restore", "triples(top=20%)"): "leading 20 % of triples",
    ("restore", "subspace(top=20%)"): "leading 20 % subspace",
    ("restore", "values(top=20%)"): "leading 20 % of values",
}
"""Edits of the late checkpoint's blocks by kind and name, in words, as they stand one under the other."""
WHOLE = tuple(str(Where.parse(name)) for name in PLACES)
BLOCKS = WHOLE[0]
LAYERED = ("directions(all)", "rollback()", "values(all)")
MARKS = "Controls: rollback, interpolation, noise, partial rollback and random singular vectors."


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


def checkpoint_lines(axis: Axes, tables: EditTables, split: str, upright: bool = True) -> None:
    """The accuracies of the late checkpoint (solid) and the peak (dashed) as lines across."""
    levels = measured.accuracy(tables, split)
    for name, dashes in (("late", "-"), ("peak", "--")):
        at = only(levels, kind=ANCHOR, edit=name)["value"].mean()
        draw = axis.axhline if upright else axis.axvline
        draw(at, color=GREY, linestyle=dashes, linewidth=0.9, label=f"{name} checkpoint")


def _kinds(chapter: EditChapter) -> list[str]:
    return [kind for kind in LABELS if kind in chapter.tables.sizes["kind"].unique()]


def _effects(tables: EditTables, split: str, column: str, **wanted: Any) -> pd.DataFrame:
    """Rows of `measures.effects` whose value is this column (or "rate", the effect per size). wanted: see `only`."""
    rows = only(measured.effects(tables, split), **wanted)
    rows = rows.assign(rate=rows["effect"] / rows["size"])
    rows["value"] = rows[column]
    return rows if column == "value" else rows.drop(columns="n")  # an effect is no share of hands


def _marked(
    sheet: Sheet, axis: Axes, measure: Callable[..., pd.DataFrame], at: Callable[..., Any], upright: bool = True,
    means: tuple[str, ...] = (), **columns: Any,
) -> None:  # fmt: skip
    """Every edit as an estimate over base seeds, in the look of its family. at: from a table of edits to places."""
    for study, table in sheet.estimates(measure, KEYS, means):
        for family, mine in table.groupby("family", sort=False):
            sheet.mark(axis, at(mine), mine, look(family), study, upright=upright, series=family, **columns)


def by_size(chapter: EditChapter) -> Drawn:
    """Effect on OOD accuracy against the size of the edit, with controls in the same axes."""
    kinds = _kinds(chapter)
    sheet = Sheet(chapter, max(1, len(kinds)), height=3.4)
    for axis, kind in zip(sheet.axes, kinds, strict=False):
        measure = partial(_effects, split="ood", column="effect", kind=kind, where=WHOLE)
        _marked(sheet, axis, measure, lambda table: table["size"], means=("size",), split="ood")
        level(axis)
        size_axis(axis)
        sheet.label(axis, LABELS[kind].replace(", ", ",\n"), "|edit| / |distance|")
    sheet.axes[0].set_ylabel(f"change of OOD {FEEDBACK}")
    sheet.legend(below=4)
    note = (
        "Every point is an edit of all blocks, of embeddings and output head, or of both; its place is the size of the "
        f"change that it makes, over the distance of the two checkpoints. {MARKS}"
    )
    return sheet.finish("swaps-size", "Effect against size", note)


def dose(chapter: EditChapter) -> Drawn:
    """Accuracy against the share of singular vectors put back (the paper's curves), the two checkpoints as lines."""
    sheet = Sheet(chapter, 2, height=3.4)
    for axis, (split, title) in zip(sheet.axes, SPLITS.items(), strict=True):
        for study, table in sheet.estimates(partial(_doses, split=split), ["family", "share"]):
            for family, mine in table.groupby("family"):
                series = f"{FEEDBACK}, {split}, {family}"
                sheet.mark(axis, mine["share"], mine, look(family), study, "line", clip=(0, 1), series=series)
        checkpoint_lines(axis, chapter.tables, split)
        sheet.label(axis, title, "share of singular vectors restored (%)")
        axis.set_ylim(bottom=0)
    sheet.axes[0].set_ylabel(FEEDBACK)
    sheet.legend(below=3)
    note = (
        "The late SFT checkpoint with parts of the peak's block matrices restored. Partial rollback and random "
        "singular vectors are controls of the size of the edit that restores singular vectors."
    )
    return sheet.finish("swaps-dose", "Dose and response", note)


def _doses(tables: EditTables, split: str) -> pd.DataFrame:
    """Edits whose dose is a share of the singular vectors, with it in percent, at the place where most edits are."""
    rows = only(measured.effects(tables, split), kind="restore")
    rows = rows[rows["where"].isin(rows["where"].mode().iloc[:1])]
    rows = rows.drop(columns="family").join(rows["edit"].str.extract(DOSED))
    control = rows["like"].notna()
    rows = rows[rows["family"].isin(RESTORED) & ~control | rows["family"].isin(CONTROLS) & control]
    return rows.fillna({"share": "100"}).astype({"share": float})


def controls(chapter: EditChapter) -> Drawn:
    """OOD accuracy after edits of like size, one under the other; the same edit with another SFT run's checkpoint."""

    def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
        return list(zip(table["kind"], table["edit"], strict=True))

    def listed(tables: EditTables, column: str = "value") -> pd.DataFrame:
        rows = _effects(tables, "ood", column, where=BLOCKS)
        return rows[[pair in LISTED for pair in pairs(rows)]]

    known = {pair for tables, _ in chapter.layers for pair in pairs(listed(tables))}
    there = [one for one in LISTED if one in known]
    sheet = Sheet(chapter, 2, height=0.2 * len(there) + 1.0)
    places = lambda table: [-there.index(pair) for pair in pairs(table)]  # noqa: E731
    for axis, (column, title) in zip(
        sheet.axes, {"effect": "change of OOD accuracy", "rate": "change per size"}.items(), strict=True
    ):
        _marked(sheet, axis, partial(listed, column=column), places, upright=False, quantity=column)
        sheet.names(axis, [LISTED[one] if axis is sheet.axes[0] else "" for one in there])
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel(title)
        level(axis, upright=False)
    note = (
        "The late checkpoint's block matrices, edited with the peak's or, of another run, with those of another SFT "
        f"run of the same base at the peak's step. {MARKS} Change per size: of accuracy, over |edit| / |distance|."
    )
    return sheet.finish("swaps-controls", "Edits beside controls of their size", note)


def layers(chapter: EditChapter) -> Drawn:
    """Where singular vectors are restored: from the first layer on, layer by layer, embeddings and output head."""
    restored = partial(_effects, split="ood", kind="restore", edit=LAYERED)
    rows = pd.concat([restored(tables, column="value") for tables, _ in chapter.layers])
    there = sorted(map(str, rows["where"].unique()), key=_order)
    sheet = Sheet(chapter, 2, height=0.36 * max(1, len(there)) + 0.9)
    shifts = dict(zip(LAYERED, (0.2, 0.0, -0.2), strict=True))
    for axis, column in zip(sheet.axes, ("value", "rate"), strict=True):
        places = lambda table: table["edit"].map(shifts) - table["where"].map(there.index)  # noqa: E731
        _marked(sheet, axis, partial(restored, column=column), places, upright=False, quantity=column)
        sheet.names(axis, list(map(where_label, there)) if axis is sheet.axes[0] else [""] * len(there))
        level(axis, upright=False)
    left, right = sheet.axes
    checkpoint_lines(left, chapter.tables, "ood", upright=False)
    sheet.legend(below=5)
    left.set_xlabel(f"OOD, {FEEDBACK}")
    right.set_xlabel("effect per size")
    sheet.frames = [frame.assign(where=frame["where"].map(where_label)) for frame in sheet.frames]
    note = (
        "Left: from the first layer on (cumulative), then single layers, all blocks, and embeddings and output head "
        "alone or with all blocks. Right: change of accuracy over |edit| / |distance|, both of the edited tensors."
    )
    return sheet.finish("swaps-layers", "Where singular vectors are restored", note)


def _order(where: str) -> tuple[int, int, str]:
    """From the first layer on, single layers, all blocks, what holds embeddings."""
    firsts = {"0": 0, "0,1": 1, "0,1,2": 2}
    kinds, _, layers = where.partition(" layers=")
    if layers:
        return (0, firsts[layers], "") if layers in firsts else (1, 0, layers)
    return (2 if kinds == BLOCKS else 3, len(kinds), "")


def behaviour(chapter: EditChapter) -> Drawn:
    """Effect against the distance left to the peak, and against forward KL from the late checkpoint."""
    sheet = Sheet(chapter, 2, height=3.2)
    titles = {
        "left": "distance left to the peak / distance before",
        "kl_target": "KL from the late checkpoint (nats)",
    }
    measure = partial(_effects, split="ood", column="effect", kind="restore")
    for axis, (scale, title) in zip(sheet.axes, titles.items(), strict=True):
        _marked(sheet, axis, measure, lambda table, at=scale: table[at], means=(scale,), scale=scale)
        level(axis)
        size_axis(axis)
        sheet.label(axis, x=title)
    sheet.axes[0].set_ylabel("change of OOD accuracy")
    sheet.legend(below=4)
    sheet.frames = [frame.rename(columns=dict.fromkeys(titles, "at")) for frame in sheet.frames]
    note = (
        "Every point is an edit of the late checkpoint with the peak. Left: a rollback all the way ends at 0, noise of "
        f"its size beyond 1. Divergences are of whole answers. {MARKS}"
    )
    return sheet.finish("swaps-behaviour", "How near, and how differently it answers", note)


SWAPS: tuple[Callable[[EditChapter], Drawn], ...] = (by_size, dose, controls, layers, behaviour)
