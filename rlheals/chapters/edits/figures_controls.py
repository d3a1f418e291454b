"""Figures of chapter 04 that set edits side by side: controls of equal size, layers and ends, sizes in behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import CROSSES
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import SwapChapter
from rlheals.chapters.edits.style import LABELS, checkpoint_lines, entries, mark, size_axis, where_label
from rlheals.display import style as drawing
from rlheals.display.style import GREY, Drawn
from rlheals.weights.selection import Where

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


def controls(chapter: SwapChapter) -> Drawn:
    """OOD accuracy after edits of like size, one under the other; the same edit with another SFT run's checkpoint."""
    rows = _named(chapter, "ood")
    there = [(kind, name) for kind, name in LISTED if len(_found(rows, kind, name))]
    figure, axes = drawing.canvas(columns=3, height=0.17 * len(there) + 1.1, rows=1)
    frames = []
    for axis, column in zip(axes, ("value", "effect", "rate"), strict=True):
        for place, (kind, name) in enumerate(there):
            for study, own in _found(rows, kind, name).groupby("study", sort=False):
                table = _marked(axis, own, column, -place, str(study), upright=False)
                frames.append(table.assign(kind=kind, quantity=column, study=study))
        axis.set_ylim(-len(there) + 0.5, 0.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.locator_params(axis="x", nbins=4)
    labels = [f"{name} †" if kind == OTHER_RUN else name for kind, name in there]
    axes[0].set_yticks([-place for place in range(len(there))], labels, fontsize=6)
    for axis in axes[1:]:
        axis.set_yticks([])
        axis.axvline(0, color=GREY, linewidth=0.7)
    checkpoint_lines(axes[0], chapter.tables, "ood", upright=False)
    for axis, title in zip(axes, ("OOD accuracy", "effect", "effect per size"), strict=True):
        axis.set_xlabel(title, fontsize=8)
    note = (
        "The late checkpoint's block matrices, edited with the peak's; † with those of another SFT run of the same "
        "base at the peak's step. Filled: parts of the peak; open: controls. Dotted and dashed line: late checkpoint "
        "and peak. Effect per size: change of accuracy over |edit| / |distance|."
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
            at = there.index(where) + shifts[name]
            table = _marked(axis, own, column, at, str(study), upright=True)
            frames.append(table.assign(where=where_label(str(where)), quantity=column, study=study))
        axis.set_xticks(
            range(len(there)), [where_label(where) for where in there], rotation=35, ha="right", fontsize=6
        )
        axis.set_xlim(-0.5, len(there) - 0.5)
        axis.axhline(0, color=GREY, linewidth=0.7)
    checkpoint_lines(axes[0], chapter.tables, "ood")
    entries(axes[0], ["directions", "rollback", "values"])
    axes[0].legend(fontsize=6)
    axes[0].set_ylabel("OOD, solved within five")
    axes[1].set_ylabel("effect per size", fontsize=8)
    note = (
        "Left: from the first layer on (cumulative), then single layers, all blocks, and the embedding and output head "
        "alone or with all blocks. Right: change of accuracy over |edit| / |distance|, both of the edited tensors."
    )
    return _finish(figure, "swaps-layers", "Where directions are restored", frames, chapter, note)


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
                at = float(own[column].mean())
                table = _marked(axis, own, "effect", at, str(study), upright=True)
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
        "answers. Filled: parts of the other checkpoint restored; open: controls."
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


def _marked(axis: Axes, own: pd.DataFrame, column: str, at: float, study: str, upright: bool) -> pd.DataFrame:
    """Draw one column of one edit's rows as an estimate over base seeds, and give it back."""
    table = own.assign(value=own[column])
    if column != "value":  # no share of hands
        table = table.drop(columns="n")
    found = drawing.with_intervals(table, ["edit"])
    mark(axis, found, at, str(own["family"].iloc[0]), study, upright)
    return found


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
    return drawing.finish(figure, name, title, frame, *chapter.caption(note, frame, CROSSES))
