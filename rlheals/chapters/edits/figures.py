"""One function per figure of chapter 04: what edits do, beside how large they are and what controls of that size do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from rlheals.chapters.captions import CROSSES
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.figures_controls import behaviour, controls, layers
from rlheals.chapters.edits.runs import SwapChapter, SwapTables
from rlheals.chapters.edits.style import (
    COLORS,
    HOLLOW,
    LABELS,
    checkpoint_lines,
    entries,
    face,
    mark,
    size_axis,
)
from rlheals.display import style as drawing
from rlheals.display.style import GREY, Drawn

MEASURES = {"solved": "within five", "first": "in the first attempt"}
DOSED = r"^(values|left|right|directions|triples|subspace)\((?:top=(\d+)%|(all))\)$"
CONTROL = r"^(partial|random)\(top=(\d+)%\)(?P<none>) like directions\(top="


def by_size(chapter: SwapChapter) -> Drawn:
    """Effect on OOD and ID accuracy against the size of the edit, with controls in the same axes."""
    kinds = [kind for kind in LABELS if kind in set(chapter.tables.sizes["kind"].astype(str))]
    figure, axes = drawing.canvas(columns=2, rows=len(kinds), height=2.9)
    frames = []
    for row, kind in enumerate(kinds):
        for column, split in enumerate(("ood", "sft")):
            axis = axes[2 * row + column]
            for tables, study in chapter.layers:
                table = _means(tables, kind, split)
                for number in range(len(table)):
                    one = table.iloc[[number]]
                    mark(
                        axis, one, float(one["size"].iloc[0]), str(one["family"].iloc[0]), study, upright=True
                    )
                frames.append(table.assign(study=study, split=split))
            axis.axhline(0, color=GREY, linewidth=0.7)
            axis.set_title(f"{LABELS[kind]}: {'OOD' if split == 'ood' else 'ID, SFT hands'}", fontsize=7)
            size_axis(axis)
            axis.set_xlabel("|edit| / |distance of the two checkpoints|", fontsize=7)
        axes[2 * row].set_ylabel("change of accuracy\nwithin five", fontsize=8)
    drawn = {str(one) for frame in frames for one in frame["family"]}
    entries(axes[0], [family for family in measured.FAMILIES if family in drawn])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6, ncols=5, loc="outside lower center")
    note = (
        "Every point is an edit, its place the size of the change it makes. Filled: parts of the other checkpoint "
        "restored; open: controls (rollback, whole or partial, interpolation, noise, random angles)."
    )
    frame = pd.concat(frames)
    return drawing.finish(
        figure, "swaps-size", "Effect against size", frame, *chapter.caption(note, frame, CROSSES)
    )


def _means(tables: SwapTables, kind: str, split: str) -> pd.DataFrame:
    """Per edit: mean effect with its interval over base seeds, mean size."""
    rows = measured.effects(tables, split)
    rows = rows[rows["kind"] == kind]
    keys = ["edit", "where", "family"]
    found = drawing.with_intervals(rows.assign(value=rows["effect"]).drop(columns="n"), keys)
    return found.join(rows.groupby(keys)["size"].mean(), on=keys).assign(kind=kind)


def dose(chapter: SwapChapter) -> Drawn:
    """Accuracy against the share of directions put back (the paper's curves), with the two checkpoints as lines."""
    figure, axes = drawing.canvas(columns=2, rows=2, height=2.6)
    panels = [(measure, split) for measure in MEASURES for split in ("ood", "sft")]
    frames = []
    for axis, (measure, split) in zip(axes, panels, strict=True):
        for tables, study in chapter.layers:
            rows = measured.effects(tables, split, measure)
            rows = rows[(rows["kind"] == "restore") & (rows["where"] == _usual(rows))]
            for family, mine in _doses(rows).groupby("family"):
                table = drawing.with_intervals(mine, ["share"])
                label = measured.FAMILIES[str(family)] if study == chapter.study else "_"
                _curve(axis, table, str(family), study, label)
                frames.append(table.assign(series=f"{MEASURES[measure]}, {split}, {family}", study=study))
        checkpoint_lines(axis, chapter.tables, split, measure)
        axis.set_title("OOD" if split == "ood" else "ID, SFT hands", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(f"solved {MEASURES[measure]}" if split == "ood" else "", fontsize=8)
    for axis in axes[2:]:
        axis.set_xlabel("share of directions restored (%)", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6, ncols=4, loc="outside lower center")
    note = (
        "The late SFT checkpoint with parts of the peak's block matrices restored; left and right directions are "
        "restored all or none. Dashed: controls of the size of the directions' edit."
    )
    frame = pd.concat(frames or [pd.DataFrame(columns=["share", "value", "low", "high"])])
    caption = chapter.caption(note, frame, replace(CROSSES, bars=True))
    return drawing.finish(figure, "swaps-dose", "Dose and response", frame, *caption)


def _doses(rows: pd.DataFrame) -> pd.DataFrame:
    """Edits whose dose is a share of the directions, with it in percent."""
    found = rows["edit"].str.extract(DOSED)
    control = rows["edit"].str.extract(CONTROL).set_axis(found.columns, axis=1)
    found = found.where(found[0].notna(), control)
    share = found[1].where(found[2].isna() | (found[2] == ""), "100").astype(float)
    return rows.assign(family=found[0], share=share).dropna(subset=["share", "family"])


def _curve(axis: Any, table: pd.DataFrame, family: str, study: str, label: str) -> None:
    errors = np.stack([table["value"] - table["low"], table["high"] - table["value"]])
    look = {"color": COLORS[family], "marker": "o" if study == "recorded" else "x", "markersize": 4}
    line = ":" if study == "fresh" else "--" if family in HOLLOW else "-"
    style = {"linewidth": 1.0, "linestyle": line, "markerfacecolor": face(family)}
    axis.errorbar(
        table["share"], table["value"], yerr=np.clip(errors, 0, None), label=label,
        **cast(Any, {**look, **style}),
    )  # fmt: skip


def _usual(rows: pd.DataFrame) -> str:
    """The place at which most edits are made."""
    return str(rows["where"].mode().iloc[0]) if len(rows) else ""


SWAPS: tuple[Callable[[SwapChapter], Drawn], ...] = (by_size, dose, controls, layers, behaviour)
