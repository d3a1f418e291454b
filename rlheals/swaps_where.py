"""Figures of chapter 04 that set edits side by side: controls of equal size, layers and ends, sizes in behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rlheals import drawing
from rlheals import swaps_measures as measured
from rlheals.drawing import GREY, Drawn
from rlheals.panel import where_label
from rlheals.swaps_chapter import SwapChapter
from rlheals.swaps_looks import LABELS, entries, mark, size_axis
from rlheals.where import Where

GROUPS = {
    "about the size of all directions": (
        "directions(all)", "left(all)", "right(all)", "rollback()", "triples(top=40%)", "interpolate(0.75)",
        "values(all) like directions(all)", "noise(seed=0) like directions(all)",
        "noise(seed=1) like directions(all)",
    ),
    "the size of the first fifth": (
        "directions(top=20%)", "rollback() like directions(top=20%)",
        "partial(top=20%) like directions(top=20%)", "random(top=20%) like directions(top=20%)",
        "noise(seed=0) like directions(top=20%)", "noise(seed=1) like directions(top=20%)",
    ),
    "other first fifths": ("triples(top=20%)", "subspace(top=20%)", "values(top=20%)", "directions(bottom=20%)"),
}  # fmt: skip
"""Edits of the late checkpoint's blocks, as they are compared."""
BLOCKS = str(Where.parse("blocks"))
LAYERED = ("directions(all)", "rollback()", "values(all)")


def controls(chapter: SwapChapter) -> Drawn:
    """OOD accuracy after edits of like size, one under the other; the same edit with another SFT run's checkpoint."""
    rows = _named(chapter, "ood")
    listed = [(group, name) for group, names in GROUPS.items() for name in names]
    listed += [
        ("with another SFT run's checkpoint", name)
        for name in ("directions(all)", "directions(top=20%)", "rollback()")
    ]
    kinds = dict.fromkeys(GROUPS, "restore") | {"with another SFT run's checkpoint": "other"}
    there = [(group, name) for group, name in listed if len(_found(rows, kinds[group], name))]
    figure, axes = drawing.canvas(columns=3, height=0.17 * len(there) + 1.1, rows=1)
    frames = []
    for axis, column in zip(axes, ("value", "effect", "rate"), strict=True):
        for place, (group, name) in enumerate(there):
            own = _found(rows, kinds[group], name)
            for study, mine in own.groupby("study", sort=False):
                table = drawing.with_intervals(_column(mine, column), ["edit"])
                mark(axis, table, -place, mine["family"].iloc[0], str(study), upright=False)
                frames.append(table.assign(group=group, quantity=column, study=study))
        axis.set_ylim(-len(there) + 0.5, 0.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.locator_params(axis="x", nbins=4)
    labels = [f"{name} †" if kinds[group] == "other" else name for group, name in there]
    axes[0].set_yticks([-place for place in range(len(there))], labels, fontsize=6)
    for axis in axes[1:]:
        axis.set_yticks([])
        axis.axvline(0, color=GREY, linewidth=0.7)
    for name, dashes in (("late", ":"), ("peak", "--")):
        axes[0].axvline(_level(chapter, name), color=GREY, linestyle=dashes, linewidth=0.9)
    for axis, title in zip(axes, ("OOD accuracy", "effect", "effect per size"), strict=True):
        axis.set_xlabel(title, fontsize=8)
    note = (
        "The late checkpoint's block matrices, edited with the peak's; † with those of another SFT run of the same "
        "base at the peak's step. Filled: parts of the peak; open: controls. Dotted and dashed line: late checkpoint "
        "and peak. Effect per size: change of accuracy over |edit| / |distance|. Crosses: fresh run."
    )
    return _finish(figure, "swaps-controls", "Edits beside controls of their size", frames, chapter, note)


def layers(chapter: SwapChapter) -> Drawn:
    """Where the directions are put back: from the first layer on, layer by layer, embeddings and output head."""
    rows = _named(chapter, "ood")
    rows = rows[(rows["kind"] == "restore") & rows["edit"].isin(LAYERED)]
    there = _order(rows["where"].unique())
    figure, axes = drawing.canvas(columns=2, height=3.0)
    frames = []
    shifts = dict(zip(LAYERED, (-0.2, 0.0, 0.2), strict=True))
    for axis, column in zip(axes, ("value", "rate"), strict=True):
        for (name, where, study), own in rows.groupby(["edit", "where", "study"], sort=False):
            table = drawing.with_intervals(_column(own, column), ["edit"])
            mark(
                axis,
                table,
                there.index(where) + shifts[name],
                own["family"].iloc[0],
                str(study),
                upright=True,
            )
            frames.append(table.assign(where=where_label(str(where)), quantity=column, study=study))
        axis.set_xticks(
            range(len(there)), [where_label(where) for where in there], rotation=35, ha="right", fontsize=6
        )
        axis.set_xlim(-0.5, len(there) - 0.5)
        axis.axhline(0, color=GREY, linewidth=0.7)
    for name, dashes in (("late", ":"), ("peak", "--")):
        axes[0].axhline(
            _level(chapter, name), color=GREY, linestyle=dashes, linewidth=0.9, label=f"{name} checkpoint"
        )
    entries(axes[0], ["directions", "rollback", "values"])
    axes[0].legend(fontsize=6)
    axes[0].set_ylabel("OOD, solved within five")
    axes[1].set_ylabel("effect per size", fontsize=8)
    note = (
        "Left: from the first layer on (cumulative), then single layers, all blocks, and the embedding and output head "
        "alone or with all blocks. Right: change of accuracy over |edit| / |distance|, both of the edited tensors. "
        "Crosses: fresh run."
    )
    return _finish(figure, "swaps-layers", "Where directions are put back", frames, chapter, note)


def behaviour(chapter: SwapChapter) -> Drawn:
    """Effect against what is left of the way to the other checkpoint, and against forward KL."""
    kinds = [kind for kind in LABELS if kind in set(chapter.tables.sizes["kind"].astype(str))]
    figure, axes = drawing.canvas(columns=3, rows=len(kinds), height=2.6)
    titles = {
        "left": "distance left / distance before",
        "kl_target": "KL from the edited checkpoint (nats)",
        "kl_origin": "KL from the pretrained base (nats)",
    }
    rows, frames = _named(chapter, "ood"), []
    for number, kind in enumerate(kinds):
        for axis, (column, title) in zip(axes[3 * number :], titles.items(), strict=False):
            for (edit, where, study), own in rows[rows["kind"] == kind].groupby(
                ["edit", "where", "study"], sort=False
            ):
                table = drawing.with_intervals(_column(own, "effect"), ["edit"])
                at = float(own[column].mean())
                mark(axis, table, at, own["family"].iloc[0], str(study), upright=True)
                frames.append(
                    table.assign(kind=kind, where=where, at=at, scale=column, study=study, edit=edit)
                )
            axis.axhline(0, color=GREY, linewidth=0.7)
            axis.set_xlabel(title, fontsize=7)
            axis.tick_params(labelsize=7)
            if column == "left":  # a rollback leaves nothing
                axis.locator_params(axis="x", nbins=5)
            else:
                size_axis(axis)
        axes[3 * number].set_ylabel("change of OOD accuracy", fontsize=8)
        axes[3 * number + 1].set_title(LABELS[kind], fontsize=8)
    note = (
        "Every point is an edit. Left: a rollback ends at 0, noise of its size beyond 1. Divergences are of whole "
        "answers. Filled: parts of the other checkpoint put back; open: controls. Crosses: fresh run."
    )
    return _finish(
        figure, "swaps-behaviour", "How near, and how differently it answers", frames, chapter, note
    )


def _named(chapter: SwapChapter, split: str) -> pd.DataFrame:
    """Effects of the recorded study and of the fresh run, with the name of the study and the effect per size."""
    parts = [measured.effects(tables, split).assign(study=study) for tables, study in chapter.layers]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(rate=rows["effect"] / rows["size"])


def _found(rows: pd.DataFrame, kind: str, edit: str) -> pd.DataFrame:
    return rows[(rows["kind"] == kind) & (rows["edit"] == edit) & (rows["where"] == BLOCKS)]


def _column(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column as the value; counts of hands only where it is a share of them."""
    table = rows.assign(value=rows[column])
    return table if column == "value" else table.drop(columns="n")


def _level(chapter: SwapChapter, name: str) -> float:
    levels = measured.accuracy(chapter.tables, "ood")
    return float(levels.loc[(levels["kind"] == "anchor") & (levels["edit"] == name), "value"].mean())


def _order(places: np.ndarray) -> list[str]:
    """From the first layer on, single layers, all blocks, what holds embeddings."""
    firsts = {"0": 0, "0,1": 1, "0,1,2": 2}

    def key(where: str) -> tuple[int, int, str]:
        kinds, _, layers = where.partition(" layers=")
        if layers:
            return (0, firsts[layers], "") if layers in firsts else (1, 0, layers)
        return (2 if kinds == BLOCKS else 3, len(kinds), "")

    return sorted(map(str, places), key=key)


def _finish(
    figure: Any, name: str, title: str, frames: list[pd.DataFrame], chapter: SwapChapter, note: str
) -> Drawn:
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=["value", "low", "high"])
    return drawing.finish(figure, name, title, frame, chapter.caption(note))
