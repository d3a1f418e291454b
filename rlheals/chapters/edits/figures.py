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
MEASURES = {"solved": FEEDBACK, "first": "pass@1"}
SPLITS = {"ood": "OOD", "sft": "ID, SFT hands"}
DOSED = r"^(?P<family>[a-z]+)\((?:top=(?P<share>\d+)%|all)\)(?P<like> like directions\(top=.*)?$"
RESTORED, CONTROLS = ("values", "left", "right", "directions", "triples", "subspace"), ("partial", "random")
KEYS = ["kind", "edit", "where", "family"]
OTHER_RUN = "other"
LISTED: tuple[tuple[str, str], ...] = (
    *(("restore", edit) for edit in (
        "directions(all)", "left(all)", "right(all)", "rollback()", "triples(top=40%)", "interpolate(0.75)",
        "values(all) like directions(all)", "noise() like directions(all)",
        "noise(seed=1) like directions(all)", "directions(top=20%)", "rollback() like directions(top=20%)",
        "partial(top=20%) like directions(top=20%)", "random(top=20%) like directions(top=20%)",
        "noise() like directions(top=20%)", "noise(seed=1) like directions(top=20%)",
        "triples(top=20%)", "subspace(top=20%)", "values(top=20%)", "directions(bottom=20%)",
    )),
    *((OTHER_RUN, edit) for edit in ("directions(all)", "directions(top=20%)", "rollback()")),
)  # fmt: skip
"""Kind and edit of the late checkpoint's blocks, as they stand one under the other."""
BLOCKS = str(Where.parse("blocks"))
LAYERED = ("directions(all)", "rollback()", "values(all)")
MARKS = "Circles: parts of the other checkpoint restored; other marks: controls."


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


def _kinds(chapter: EditChapter) -> list[str]:
    return [kind for kind in LABELS if kind in set(chapter.tables.sizes["kind"].astype(str))]


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
    """Effect on OOD and ID accuracy against the size of the edit, with controls in the same axes."""
    kinds = _kinds(chapter)
    sheet = Sheet(chapter, 2, len(kinds), 2.9)
    for row, kind in enumerate(kinds):
        for axis, (split, title) in zip(sheet.row(row), SPLITS.items(), strict=True):
            measure = partial(_effects, split=split, column="effect", kind=kind)
            _marked(sheet, axis, measure, lambda table: table["size"], means=("size",), split=split)
            level(axis)
            size_axis(axis)
            sheet.label(axis, f"{LABELS[kind]}: {title}", "|edit| / |distance of the two checkpoints|")
        sheet.row(row)[0].set_ylabel("change of success@5\nwith feedback")
    sheet.legend(below=5, fontsize=6)
    note = (
        f"Every point is an edit, its place the size of the change it makes. {MARKS} Controls are interpolation to the "
        "earlier checkpoint, whole or partial, noise and random angles."
    )
    return sheet.finish("swaps-size", "Effect against size", note)


def dose(chapter: EditChapter) -> Drawn:
    """Accuracy against the share of singular vectors put back (the paper's curves), the two checkpoints as lines."""
    sheet = Sheet(chapter, 2, 2, 2.6)
    panels = [(measure, split) for measure in MEASURES for split in SPLITS]
    for axis, (measure, split) in zip(sheet.axes, panels, strict=True):
        doses = partial(_doses, split=split, measure=measure)
        for study, table in sheet.estimates(doses, ["family", "share"]):
            for family, mine in table.groupby("family"):
                series = f"{MEASURES[measure]}, {split}, {family}"
                sheet.mark(axis, mine["share"], mine, look(family), study, "line", series=series)
        checkpoint_lines(axis, chapter.tables, split, measure)
        sheet.label(axis, SPLITS[split], y=MEASURES[measure] if split == "ood" else "")
        axis.set_ylim(bottom=0)
    for axis in sheet.row(1):
        axis.set_xlabel("share of singular vectors restored (%)")
    sheet.legend(below=4, fontsize=6)
    note = (
        "The late SFT checkpoint with parts of the peak's block matrices restored; left and right singular vectors are "
        "restored all or none. Dashed: controls of the size of the edit that restores singular vectors."
    )
    return sheet.finish("swaps-dose", "Dose and response", note)


def _doses(tables: EditTables, split: str, measure: str) -> pd.DataFrame:
    """Edits whose dose is a share of the singular vectors, with it in percent, at the place where most edits are."""
    rows = only(measured.effects(tables, split, measure), kind="restore")
    rows = rows[rows["where"].isin(rows["where"].mode().iloc[:1])]
    rows = rows.drop(columns=["family", "share"]).join(rows["edit"].str.extract(DOSED))
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
    sheet = Sheet(chapter, 3, height=0.17 * len(there) + 1.1)
    places = lambda table: [-there.index(pair) for pair in pairs(table)]  # noqa: E731
    titles = {"value": "OOD accuracy", "effect": "effect", "rate": "effect per size"}
    names = [f"{name} †" if kind == OTHER_RUN else name for kind, name in there]
    for axis, (column, title) in zip(sheet.axes, titles.items(), strict=True):
        _marked(sheet, axis, partial(listed, column=column), places, upright=False, quantity=column)
        first = axis is sheet.axes[0]
        sheet.names(axis, names if first else [""] * len(names), size=6)
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(title)
        if not first:
            level(axis, upright=False)
    checkpoint_lines(sheet.axes[0], chapter.tables, "ood", upright=False)
    note = (
        "The late checkpoint's block matrices, edited with the peak's; † with those of another SFT run of the same "
        f"base at the peak's step. {MARKS} Dotted and dashed line: late checkpoint and peak. Effect per size: change "
        "of accuracy over |edit| / |distance|."
    )
    return sheet.finish("swaps-controls", "Edits beside controls of their size", note)


def layers(chapter: EditChapter) -> Drawn:
    """Where singular vectors are restored: from the first layer on, layer by layer, embeddings and output head."""
    restored = partial(_effects, split="ood", kind="restore", edit=LAYERED)
    rows = pd.concat([restored(tables, column="value") for tables, _ in chapter.layers])
    there = sorted(map(str, rows["where"].unique()), key=_order)
    sheet = Sheet(chapter, 2, height=3.0)
    shifts = dict(zip(LAYERED, (-0.2, 0.0, 0.2), strict=True))
    for axis, column in zip(sheet.axes, ("value", "rate"), strict=True):
        places = lambda table: table["where"].map(there.index) + table["edit"].map(shifts)  # noqa: E731
        _marked(sheet, axis, partial(restored, column=column), places, quantity=column)
        axis.set_xticks(range(len(there)), list(map(where_label, there)), rotation=35, ha="right", fontsize=6)
        axis.set_xlim(-0.5, len(there) - 0.5)
        level(axis)
    left, right = sheet.axes
    checkpoint_lines(left, chapter.tables, "ood")
    sheet.legend(left, fontsize=6)
    left.set_ylabel(f"OOD, {MEASURES['solved']}")
    right.set_ylabel("effect per size")
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
    """Effect against the distance left to the other checkpoint, and against forward KL."""
    kinds = _kinds(chapter)
    sheet = Sheet(chapter, 3, len(kinds), 2.6)
    titles = {
        "left": "distance left / distance before",
        "kl_target": "KL from the edited checkpoint (nats)",
        "kl_origin": "KL from the pretrained base (nats)",
    }
    for row, kind in enumerate(kinds):
        measure = partial(_effects, split="ood", column="effect", kind=kind)
        for axis, (scale, title) in zip(sheet.row(row), titles.items(), strict=True):
            _marked(sheet, axis, measure, lambda table, at=scale: table[at], means=(scale,), scale=scale)
            level(axis)
            axis.set_xlabel(title, fontsize=7)
            if scale == "left":  # an interpolation to the other checkpoint leaves nothing
                axis.locator_params(axis="x", nbins=5)
            else:
                size_axis(axis)
        sheet.row(row)[0].set_ylabel("change of OOD accuracy")
        sheet.label(sheet.row(row)[1], LABELS[kind])
    sheet.frames = [frame.rename(columns=dict.fromkeys(titles, "at")) for frame in sheet.frames]
    note = (
        "Every point is an edit. Left: interpolation all the way ends at 0, noise of its size beyond 1. Divergences "
        f"are of whole answers. {MARKS}"
    )
    return sheet.finish("swaps-behaviour", "How near, and how differently it answers", note)


SWAPS: tuple[Callable[[EditChapter], Drawn], ...] = (by_size, dose, controls, layers, behaviour)
