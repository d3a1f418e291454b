"""One function per figure of chapter 04: what edits do, beside how large they are and what controls of that size do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd

from rlheals import drawing
from rlheals import swaps_measures as measured
from rlheals.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Drawn
from rlheals.swaps import SwapTables
from rlheals.swaps_chapter import SwapChapter

COLORS = {
    "values": GREEN, "left": SKY, "right": SKY, "directions": RED, "triples": ORANGE, "subspace": PURPLE,
    "rollback": "#000000", "interpolate": "#000000", "partial": BLUE, "random": GREY, "noise": GREY, "released": RED,
}  # fmt: skip
HOLLOW = ("noise", "random", "partial", "interpolate", "rollback")
"""Controls."""
LABELS = {
    "restore": "late SFT checkpoint, edited with the peak",
    "swap": "result of RL, edited with the late checkpoint",
}


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
                for _, one in table.iterrows():
                    _dot(axis, one, study)
                frames.append(table.assign(study=study, split=split))
            axis.axhline(0, color=GREY, linewidth=0.7)
            axis.set_title(f"{LABELS[kind]}: {'OOD' if split == 'ood' else 'ID, SFT hands'}", fontsize=7)
            axis.set_xlim(0, 1.05 * axis.get_xlim()[1])
            axis.set_xlabel("|edit| / |distance of the two checkpoints|", fontsize=7)
        axes[2 * row].set_ylabel("change of accuracy\nwithin five", fontsize=8)
    for family in dict.fromkeys(measured.FAMILIES):
        marker = {"marker": "o", "markerfacecolor": "none" if family in HOLLOW else COLORS[family]}
        look = {"color": COLORS[family], "linestyle": "none", "markersize": 4, **marker}
        if family in {str(one) for frame in frames for one in frame["family"]}:
            axes[0].plot([], [], label=measured.FAMILIES[family], **cast(Any, look))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6, ncols=5, loc="outside lower center")
    note = (
        "Every point is an edit, its place the size of the change it makes. Filled: parts of the other checkpoint put "
        "back; open: controls (rollback, whole or partial, interpolation, noise, random angles). Crosses: fresh run."
    )
    return drawing.finish(
        figure, "swaps-size", "Effect against size", pd.concat(frames), chapter.caption(note)
    )


def _means(tables: SwapTables, kind: str, split: str) -> pd.DataFrame:
    """Per edit: mean effect with its interval over base seeds, mean size."""
    rows = measured.effects(tables, split)
    rows = rows[rows["kind"] == kind]
    keys = ["edit", "where", "family"]
    found = drawing.with_intervals(rows.assign(value=rows["effect"]), keys)
    return found.join(rows.groupby(keys)["size"].mean(), on=keys).assign(kind=kind)


def _dot(axis: Any, one: pd.Series, study: str) -> None:
    color, hollow = COLORS[one["family"]], one["family"] in HOLLOW
    if study == "fresh":
        axis.plot(one["size"], one["value"], "x", color=color, markersize=4)
        return
    axis.plot([one["size"]] * 2, [one["low"], one["high"]], color=color, linewidth=0.7, alpha=0.6)
    axis.plot(
        one["size"], one["value"], "o", color=color, markersize=4, markerfacecolor="none" if hollow else color
    )


def dose(chapter: SwapChapter) -> Drawn:
    """Accuracy against the share of directions put back (the paper's curves), with the two checkpoints as lines."""
    figure, axes = drawing.canvas(columns=2, height=2.9)
    frames = []
    for axis, split in zip(axes, ("ood", "sft"), strict=True):
        for tables, study in chapter.layers:
            rows = measured.effects(tables, split)
            rows = rows[(rows["kind"] == "restore") & (rows["where"] == _usual(rows))]
            shares = rows["edit"].str.extract(
                r"^(values|directions|triples|subspace)\((?:top=(\d+)%|(all))\)$"
            )
            rows = rows.assign(
                family=shares[0], share=shares[1].where(shares[2].isna(), "100").astype(float)
            ).dropna(subset=["share", "family"])
            for family, mine in rows.groupby("family"):
                table = drawing.with_intervals(mine, ["share"])
                errors = np.clip(
                    np.stack([table["value"] - table["low"], table["high"] - table["value"]]), 0, None
                )
                look = {
                    "color": COLORS[str(family)],
                    "marker": "o" if study == "recorded" else "x",
                    "markersize": 4,
                }
                style = {"linewidth": 1.0, "linestyle": "-" if study == "recorded" else ":"}
                named = study == chapter.study
                label = measured.FAMILIES[str(family)] if named else "_"
                axis.errorbar(
                    table["share"], table["value"], yerr=errors, label=label, **cast(Any, {**look, **style})
                )
                frames.append(table.assign(series=f"{split}, {family}", study=study))
        levels = measured.accuracy(chapter.tables, split)
        for name, dashes in (("late", ":"), ("peak", "--")):
            level = float(levels.loc[(levels["kind"] == "anchor") & (levels["edit"] == name), "value"].mean())
            axis.axhline(level, color=GREY, linestyle=dashes, linewidth=0.9, label=f"{name} checkpoint")
        axis.set_title("OOD" if split == "ood" else "ID, SFT hands", fontsize=9)
        axis.set_xlabel("share of directions put back (%)", fontsize=8)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("hands solved within five")
    axes[0].legend(fontsize=6)
    note = "The late SFT checkpoint with parts of the peak's block matrices put back. Crosses: fresh run."
    frames = frames or [pd.DataFrame(columns=["share", "value", "low", "high"])]
    return drawing.finish(figure, "swaps-dose", "Dose and response", pd.concat(frames), chapter.caption(note))


def _usual(rows: pd.DataFrame) -> str:
    """The place at which most edits are made."""
    return str(rows["where"].mode().iloc[0]) if len(rows) else ""


SWAPS: tuple[Callable[[SwapChapter], Drawn], ...] = (by_size, dose)
