"""Figures of chapter 03 about angles of pairs of checkpoints, each beside its null: Gaussian changes of equal norm."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.rows import only
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.measures import BLOCKS, PART
from rlheals.chapters.spectra.runs import SpectraChapter, SpectraTables
from rlheals.display.looks import BACK, CATEGORICAL, PAIRS
from rlheals.display.panels import level, null_level
from rlheals.display.style import Drawn
from rlheals.weights.spectra import CHANGE, PARTS, START, part_of

BY_SIZE = ("base-peak", "peak-end", "middle-rl", "end-rl")


def by_size(chapter: SpectraChapter) -> Drawn:
    """Mean angle against the size of the subspace, in degrees and against the null (the paper's table of k)."""
    sheet = Sheet(chapter, 3, height=2.9)
    panels = {
        ("top", "degrees"): "leading singular vectors, degrees",
        ("top", "over null"): "leading, angle / null",
        ("bottom", "over null"): "trailing, angle / null",
    }
    places = {part: place for place, part in enumerate(sorted(PARTS, reverse=True))}
    for axis, ((end, unit), title) in zip(sheet.axes, panels.items(), strict=True):
        for pair, shift in zip(BY_SIZE, np.linspace(-0.15, 0.15, len(BY_SIZE)), strict=True):
            look, measure = PAIRS[pair], partial(_by_part, pair=pair, end=end, unit=unit)
            for study, table in sheet.estimates(measure, ["part"], ["null"]):
                at = table["part"].map(places) + shift
                sheet.mark(axis, at, table, look, study, series=f"{pair}, {end}, {unit}")
                if unit == "degrees" and study == chapter.study:
                    axis.plot(at, table["null"], look.line, color=look.color, linewidth=0.9)
        if unit == "over null":
            null_level(axis)
        axis.set_xticks(list(places.values()), [f"1/{part}" for part in places])
        sheet.label(axis, title, "share of all singular vectors")
    sheet.axes[0].set_yscale("log")
    sheet.legend(sheet.axes[0])
    note = "Means over the matrices of the blocks and both sides, base by base. Lines: Gaussian changes of equal norm."
    return sheet.finish("rotation-by-size", "Rotation against its null", note)


def _by_part(tables: SpectraTables, pair: str, end: str, unit: str) -> pd.DataFrame:
    """Per base seed and part: angle (degrees, or over the null), and the null's degrees."""
    rows = pd.concat([measured.angles(tables, part, end).assign(part=part) for part in PARTS])
    found = only(rows, pair=pair).pivot_table(index=["part", "seed"], columns="what", values="mean")
    found = found.reindex(columns=[CHANGE, "gaussian"]).astype(float)
    value = found[CHANGE] / found["gaussian"] if unit == "over null" else found[CHANGE]
    table = pd.DataFrame({"value": value, "null": found["gaussian"]}).dropna(subset=["value"])
    return table.reset_index().astype({"part": int})


def where(chapter: SpectraChapter) -> Drawn:
    """Rotation over its null by kind, layer and attention head, peak to end."""
    sheet = Sheet(chapter, 2, height=3.0)
    for axis, whole in zip(sheet.axes, (True, False), strict=True):
        for study, table in sheet.estimates(partial(_over_null, whole=whole), ["kind", "layer", "head"]):
            kinds = [kind for kind in (*BLOCKS, "embed", "head") if kind in set(table["kind"])]
            for place, kind in enumerate(kinds):
                own = table[table["kind"] == kind]
                at = place + (np.linspace(-0.3, 0.3, len(own)) if len(own) > 1 else np.zeros(1))
                for layer in sorted(set(own["layer"])):
                    mine = (own["layer"] == layer).to_numpy()
                    shown = max(0, int(layer))
                    look = CATEGORICAL[shown % len(CATEGORICAL)].named(f"layer {shown}")
                    sheet.mark(axis, at[mine], own[mine], look, study, series=kind)
            axis.set_xticks(range(len(kinds)), kinds)
        null_level(axis)
        sheet.label(axis, "whole matrices, by layer" if whole else "attention heads, by layer")
    sheet.axes[0].set_ylabel("angle / null, leading quarter")
    sheet.legend(sheet.axes[0])
    note = (
        "Peak to end of SFT, both sides together; dashed: Gaussian changes of equal norm. Heads are matrices of their "
        "own rows (q, k, v) or columns (o)."
    )
    return sheet.finish("rotation-where", "Where singular vectors rotate", note)


def _over_null(tables: SpectraTables, whole: bool) -> pd.DataFrame:
    rows = only(tables.angles, pair="peak-end", end="top")
    rows = rows[(rows["head"] == -1) == whole]
    rows = rows[rows["k"] == part_of(rows[["rows", "columns"]].min(axis=1), PART)]
    rows = rows.astype({"kind": object, "what": object})
    found = rows.groupby(["seed", "kind", "layer", "head", "what"])["mean"].mean().unstack("what")
    return (found[CHANGE] / found["gaussian"]).rename("value").dropna().reset_index()


def back(chapter: SpectraChapter) -> Drawn:
    """Does RL turn back toward the peak? Angle to the peak before and after, against further SFT and noise."""
    sheet = Sheet(chapter, 2, height=2.9)
    starts = sorted({int(at) for tables, _ in chapter.layers for at in tables.once(to_the_peak)["start"]})
    for axis, column in zip(sheet.axes, ("degrees", "share"), strict=True):
        for (what, look), shift in zip(BACK.items(), np.linspace(-0.2, 0.2, len(BACK)), strict=True):
            if column == "share" and what == "start":
                continue
            for study, table in sheet.estimates(partial(_toward, what=what, column=column), ["start"]):
                if len(table):
                    at = table["start"].map(starts.index) + shift
                    sheet.mark(axis, at, table, look, study, series=f"{what}, {column}")
        axis.set_xticks(range(len(starts)), [f"{start:,}" for start in starts])
        axis.set_xlabel("RL start checkpoint (SFT step)")
    left, right = sheet.axes
    left.set(ylabel="angle to the peak (degrees)", ylim=(0, None))
    right.set_ylabel("change of that angle,\nas a share of the angle before")
    level(right)
    sheet.legend(left)
    note = (
        "Leading quarter of singular vectors, means over the matrices of the blocks and both sides. Below 0: nearer to "
        "the peak than before. The right panel takes differences base by base."
    )
    return sheet.finish("rotation-back", "Back toward the peak", note)


def _toward(tables: SpectraTables, what: str, column: str) -> pd.DataFrame:
    return only(tables.once(to_the_peak), what=what).rename(columns={column: "value"})


def to_the_peak(tables: SpectraTables) -> pd.DataFrame:
    """Rows (seed, start, what, degrees, share): share is the change of the angle against that of the start."""
    rows = []
    names = {"back": {CHANGE: "RL", START: "start", "gaussian": "null"}, "on": {CHANGE: "SFT on"}}
    for (seed, pair), group in measured.angles(tables).groupby(["seed", "pair"]):
        kind, _, start = str(pair).partition("-")
        if kind not in names or not start.isdigit():
            continue
        found = group.set_index("what")["mean"]
        for what, name in names[kind].items():
            place = {"seed": seed, "start": int(start), "what": name}
            rows.append({**place, "degrees": found[what], "share": found[what] / found[START] - 1})
    return pd.DataFrame(rows, columns=["seed", "start", "what", "degrees", "share"])
