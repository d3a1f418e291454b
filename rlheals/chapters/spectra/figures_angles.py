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
from rlheals.display.looks import BACK, PAIRS
from rlheals.display.panels import heat_map, level
from rlheals.display.style import Drawn, with_intervals
from rlheals.weights.spectra import CHANGE, PARTS, START, part_of

BY_SIZE = ("base-peak", "peak-end", "middle-rl", "end-rl")


def by_size(chapter: SpectraChapter) -> Drawn:
    """Mean angle over its null against the size of the subspace (the paper's table of k)."""
    sheet = Sheet(chapter, 2, height=2.9)
    places = {part: place for place, part in enumerate(sorted(PARTS, reverse=True))}
    titles = {"top": "leading singular vectors", "bottom": "trailing singular vectors"}
    for axis, (end, title) in zip(sheet.axes, titles.items(), strict=True):
        for pair, shift in zip(BY_SIZE, np.linspace(-0.15, 0.15, len(BY_SIZE)), strict=True):
            for study, table in sheet.estimates(partial(_by_part, pair=pair, end=end), ["part"]):
                at = table["part"].map(places) + shift
                sheet.mark(axis, at, table, PAIRS[pair], study, series=f"{pair}, {end}, over null")
        level(axis, 1, line="--")
        axis.set_xticks(list(places.values()), [f"1/{part}" for part in places])
        sheet.label(axis, title, "share of all singular vectors")
    sheet.axes[0].set_ylabel("angle / null")
    sheet.legend(below=len(BY_SIZE))
    note = "Means over the matrices of the blocks and both sides, base by base; null: Gaussian changes of equal norm."
    return sheet.finish("rotation-by-size", "Rotation against its null", note)


def _by_part(tables: SpectraTables, pair: str, end: str) -> pd.DataFrame:
    """Per base seed and part: angle over that of the null."""
    rows = pd.concat([measured.angles(tables, part, end).assign(part=part) for part in PARTS])
    found = only(rows, pair=pair).pivot_table(index=["part", "seed"], columns="what", values="mean")
    found = found.reindex(columns=[CHANGE, "gaussian"]).astype(float)
    ratio = (found[CHANGE] / found["gaussian"]).rename("value").dropna()
    return ratio.reset_index().astype({"part": int})


def where(chapter: SpectraChapter) -> Drawn:
    """Rotation over its null by kind, layer and attention head, peak to end: dots where the interval excludes 1."""
    sheet = Sheet(chapter, 2, height=3.4)
    for axis, whole in zip(sheet.axes, (True, False), strict=True):
        table = with_intervals(_over_null(chapter.tables, whole), ["kind", "layer", "head"])
        rows = [
            f"layer {max(0, row.layer)}{'' if whole else f', head {row.head}'}" for row in table.itertuples()
        ]
        table["row"] = [
            name if layer >= 0 else "outside layers" for name, layer in zip(rows, table["layer"], strict=True)
        ]
        kinds = [kind for kind in (*BLOCKS, "embed", "head") if kind in set(table["kind"])]
        grid = table.pivot_table(index="row", columns="kind", values="value").reindex(columns=kinds)
        image = heat_map(axis, np.log2(grid), 0.8)
        clear = (table["seeds"] > 1) & ((table["low"] > 1) | (table["high"] < 1))  # one seed has no interval
        for row in table[clear].itertuples():
            axis.plot(kinds.index(row.kind), grid.index.get_loc(row.row), "o", color="black", markersize=2.5)
        axis.set_xticks(range(len(kinds)), kinds, rotation=45)
        axis.set_yticks(range(len(grid)), grid.index, fontsize=7)
        sheet.label(axis, "whole matrices" if whole else "attention heads")
        sheet.keep(table.drop(columns="row"), study=chapter.study)
    sheet.figure.colorbar(image, ax=sheet.axes, label="log2(angle / null), leading quarter", shrink=0.8)
    note = (
        "Peak to end of SFT, both sides together, mean over base seeds; 0: as Gaussian changes of equal norm; dots: "
        "the 95 % interval excludes 0. Heads are matrices of their own rows (q, k, v) or columns (o)."
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
    """Does RL turn back toward the peak? The change of the angle to it, against noise, and under further SFT."""
    sheet = Sheet(chapter, 2, height=2.9)
    starts = sorted({int(at) for tables, _ in chapter.layers for at in tables.once(to_the_peak)["start"]})
    for axis, shown in zip(sheet.axes, ({"RL": -0.1, "null": 0.1}, {"SFT on": 0.0}), strict=True):
        for what, shift in shown.items():
            for study, table in sheet.estimates(partial(_toward, what=what), ["start"]):
                at = table["start"].map(starts.index) + shift
                sheet.mark(axis, at, table, BACK[what], study, series=f"{what}, share")
        level(axis)
        axis.set_xlim(-0.5, len(starts) - 0.5)
        axis.set_xticks(range(len(starts)), [f"{start:,}" for start in starts])
        axis.set_xlabel("start checkpoint (SFT step)")
        sheet.legend(axis)
    sheet.axes[0].set_ylabel("change of the angle to the peak,\nas a share of the angle before")
    note = (
        "Leading quarter of singular vectors, means over the matrices of the blocks and both sides, base by base. "
        "Below 0: nearer to the peak than before. Mind the two scales."
    )
    return sheet.finish("rotation-back", "Back toward the peak", note)


def _toward(tables: SpectraTables, what: str) -> pd.DataFrame:
    return only(tables.once(to_the_peak), what=what).rename(columns={"share": "value"})


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
