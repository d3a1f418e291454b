"""Figures of chapter 03 about angles of pairs of checkpoints, and what its figures share.

Every figure shows its null: Gaussian changes of equal norm unless it says otherwise. Dots are the recorded study, with
intervals over base seeds; crosses are the fresh run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import CROSSES
from rlheals.chapters.drawing import finish
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.measures import BLOCKS, PART
from rlheals.chapters.spectra.runs import RotationChapter, RotationTables
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, Drawn
from rlheals.weights.spectra import CHANGE, PARTS, START, part_of

NAMES = {
    "base-peak": "base to peak",
    "peak-middle": "peak to middle of SFT",
    "peak-end": "peak to end of SFT",
    "base-end": "base to end of SFT",
    "early-rl": "RL from an early start",
    "middle-rl": "RL from the middle",
    "end-rl": "RL from the end",
}
DOTS = replace(CROSSES, bars=True)
BY_SIZE = {"base-peak": GREY, "peak-end": RED, "middle-rl": BLUE, "end-rl": GREEN}
LAYER_COLORS = ("#000000", BLUE, RED, GREEN, ORANGE, SKY)
BACK_LOOKS = {
    "start": ("start (SFT)", GREY, "s"),
    "RL": ("after RL", RED, "o"),
    "null": ("start + noise of RL's norm", SKY, "d"),
    "SFT on": ("SFT, four times the steps", BLUE, "^"),
}


def dots(
    axis: Axes, at: npt.ArrayLike, table: pd.DataFrame, color: str, study: str, label: str, marker: str = "o"
) -> None:
    """Means with their intervals, or crosses for the fresh run."""
    recorded = study == "recorded"
    look = {
        "color": color,
        "marker": marker if recorded else "x",
        "markersize": 4,
        "linestyle": "none",
        "elinewidth": 1.2,
        "label": label,
    }
    errors = np.stack([table["value"] - table["low"], table["high"] - table["value"]])
    axis.errorbar(at, table["value"], yerr=np.clip(errors, 0, None), **cast(Any, look))


def by_size(chapter: RotationChapter) -> Drawn:
    """Mean angle against the size of the subspace, in degrees and against the null (the paper's table of k)."""
    figure, axes = drawing.canvas(columns=3, height=2.9)
    panels = (("top", "degrees"), ("top", "over null"), ("bottom", "over null"))
    places = {part: place for place, part in enumerate(sorted(PARTS, reverse=True))}
    frames = []
    for (pair, color), shift in zip(BY_SIZE.items(), np.linspace(-0.15, 0.15, len(BY_SIZE)), strict=True):
        for axis, (end, unit) in zip(axes, panels, strict=True):
            for tables, study in chapter.layers:
                table, null = _by_part(tables, pair, end, unit)
                if not len(table):
                    continue
                at = table["part"].map(places) + shift
                dots(axis, at, table, color, study, NAMES[pair] if study == chapter.study else "_")
                if unit == "degrees" and study == chapter.study:
                    axis.plot(at, null, "--", color=color, linewidth=0.9)
                frames.append(table.assign(series=f"{pair}, {end}, {unit}", study=study, null=null))
    titles = ("leading directions, degrees", "leading, angle / null", "trailing, angle / null")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_xticks(list(places.values()), [f"1/{part}" for part in places])
        axis.set_xlabel("share of all directions")
        axis.set_title(title, fontsize=8)
    for axis in axes[1:]:
        axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=6)
    note = "Means over the matrices of the blocks and both sides, base by base. Dashed: Gaussian changes of equal norm."
    return finish(figure, chapter, "rotation-by-size", "Rotation against its null", frames, note, DOTS)


def _by_part(tables: RotationTables, pair: str, end: str, unit: str) -> tuple[pd.DataFrame, npt.NDArray]:
    """Per part: angle (degrees, or over the null) with its interval over base seeds, and the null's degrees."""
    rows = []
    for part in PARTS:
        found = measured.angles(tables, part, end)
        found = found[found["pair"] == pair].pivot_table(index="seed", columns="what", values="mean")
        if len(found):
            value = found[CHANGE] / found["gaussian"] if unit == "over null" else found[CHANGE]
            rows.append(
                pd.DataFrame({"part": part, "seed": found.index, "value": value, "null": found["gaussian"]})
            )
    if not rows:
        return pd.DataFrame(columns=["part"]), np.array([])
    table = pd.concat(rows).dropna(subset=["value"])
    null = table.groupby("part")["null"].mean()
    shown = drawing.with_intervals(table, ["part"]).sort_values("part", ascending=False)
    return shown, null.loc[shown["part"]].to_numpy()


def where(chapter: RotationChapter) -> Drawn:
    """Rotation over its null by kind, layer and attention head, peak to end."""
    figure, axes = drawing.canvas(columns=2, height=3.0)
    frames, seen = [], 0
    for tables, study in chapter.layers:
        table = _over_null(tables)
        for axis, whole in zip(axes, (True, False), strict=True):
            mine = table[(table["head"] == -1) == whole]
            kinds = [kind for kind in (*BLOCKS, "embed", "head") if kind in set(mine["kind"])]
            for place, kind in enumerate(kinds):
                own = drawing.with_intervals(mine[mine["kind"] == kind], ["layer", "head"])
                spots = place + (np.linspace(-0.3, 0.3, len(own)) if len(own) > 1 else np.zeros(1))
                for at, (_, point) in zip(spots, own.iterrows(), strict=True):
                    layer = max(0, int(point["layer"]))
                    seen = max(seen, layer)
                    color = LAYER_COLORS[layer % len(LAYER_COLORS)]
                    dots(axis, [at], own.loc[[point.name]], color, study, "_")
                frames.append(own.assign(series=kind, study=study))
            axis.set_xticks(range(len(kinds)), kinds, fontsize=8)
            axis.set_title("whole matrices, by layer" if whole else "attention heads, by layer", fontsize=8)
    for axis in axes:
        axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes[0].set_ylabel("angle / null, leading quarter")
    for layer in range(seen + 1):
        axes[0].plot(
            [], [], "o", color=LAYER_COLORS[layer % len(LAYER_COLORS)], label=f"layer {layer}", markersize=3
        )
    axes[0].legend(fontsize=6)
    note = (
        "Peak to end of SFT, both sides together; dashed: Gaussian changes of equal norm. Heads are matrices of their "
        "own rows (q, k, v) or columns (o)."
    )
    return finish(figure, chapter, "rotation-where", "Where directions turn", frames, note, DOTS)


def _over_null(tables: RotationTables) -> pd.DataFrame:
    rows = tables.angles
    rows = rows[(rows["pair"] == "peak-end") & (rows["end"] == "top")]
    rows = rows[rows["k"] == part_of(rows[["rows", "columns"]].min(axis=1), PART)]
    rows = rows.astype({"kind": object, "what": object})
    found = rows.groupby(["seed", "kind", "layer", "head", "what"])["mean"].mean().unstack("what")
    return (found[CHANGE] / found["gaussian"]).rename("value").dropna().reset_index()


def back(chapter: RotationChapter) -> Drawn:
    """Does RL turn back toward the peak? Angle to the peak before and after, against further SFT and noise."""
    figure, axes = drawing.canvas(columns=2, height=2.9)
    tables = {study: to_the_peak(one) for one, study in chapter.layers}
    starts = sorted({int(start) for table in tables.values() for start in table["start"]})
    frames = []
    for axis, column in zip(axes, ("degrees", "share"), strict=True):
        shifts = np.linspace(-0.2, 0.2, len(BACK_LOOKS))
        for (what, (label, color, marker)), shift in zip(BACK_LOOKS.items(), shifts, strict=True):
            for study, table in tables.items():
                mine = table[table["what"] == what]
                if (column == "share" and what == "start") or not len(mine):
                    continue
                found = drawing.with_intervals(mine.rename(columns={column: "value"}), ["start"])
                at = np.array([starts.index(start) for start in found["start"]]) + shift
                dots(axis, at, found, color, study, label if study == chapter.study else "_", marker)
                frames.append(found.assign(series=f"{what}, {column}", study=study))
        axis.set_xticks(range(len(starts)), [f"{start:,}" for start in starts])
        axis.set_xlabel("start of RL (SFT step)")
    axes[0].set_ylabel("angle to the peak (degrees)")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylabel("change of that angle,\nas a share of the angle before")
    axes[1].axhline(0, color=GREY, linewidth=0.8)
    if len(frames):
        axes[0].legend(fontsize=6)
    note = (
        "Leading quarter of directions, means over the matrices of the blocks and both sides. Below 0: nearer to the "
        "peak than before. The right panel takes differences base by base."
    )
    frames = frames or [pd.DataFrame(columns=["start", "value", "low", "high"])]
    return finish(figure, chapter, "rotation-back", "Back toward the peak", frames, note, DOTS)


def to_the_peak(tables: RotationTables) -> pd.DataFrame:
    """Rows (seed, start, what, degrees, share): share is the change of the angle against that of the start."""
    rows = []
    names = {"back": {CHANGE: "RL", START: "start", "gaussian": "null"}, "on": {CHANGE: "SFT on"}}
    for (seed, pair), group in measured.angles(tables).groupby(["seed", "pair"]):
        kind, _, start = str(pair).partition("-")
        if kind not in names or not start.isdigit():
            continue
        level = group.set_index("what")["mean"]
        for what, name in names[kind].items():
            share = float(level[what] / level[START] - 1)
            place = {"seed": seed, "start": int(start), "what": name}
            rows.append({**place, "degrees": float(level[what]), "share": share})
    return pd.DataFrame(rows, columns=["seed", "start", "what", "degrees", "share"])
