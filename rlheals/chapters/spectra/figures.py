"""One function per figure of chapter 03: here singular values, angle curves and heat maps of pairs of checkpoints.

Angles against their null are in `rotation_angles.py`, trajectories in `rotation_trajectories.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import DOTTED, PLAIN
from rlheals.chapters.drawing import finish
from rlheals.chapters.spectra.figures_angles import DOTS, NAMES, back, by_size, where
from rlheals.chapters.spectra.figures_trajectories import along, matched, scales, trajectories
from rlheals.chapters.spectra.measures import BLOCKS
from rlheals.chapters.spectra.runs import RotationChapter, RotationTables
from rlheals.display import style as drawing
from rlheals.display.style import GREY, RED, Drawn
from rlheals.weights.figures import NULL_LOOKS, SIDE_LOOKS
from rlheals.weights.spectra import CHANGE

SHOWN = ("q", "k", "v", "down")
"""The kinds that the paper's figures show."""
PAIRS = ("peak-end", "end-rl")
SIZES = {
    "relative_change": "size of the change,\n|dW| / |W|",
    "value_change_mean": "mean relative change\nof singular values",
    "rotation_energy": "share of |dW|^2 that turns\nwithin W's directions",
    "effective_rank": "effective rank of dW",
}


def values(chapter: RotationChapter) -> Drawn:
    """Singular values and how they change, index by index (the paper's values and differences)."""
    figure, axes = drawing.canvas(columns=len(SHOWN), rows=1 + len(PAIRS), height=1.9)
    frames = []
    for column, kind in enumerate(SHOWN):
        for tables, study in chapter.layers:
            frames += _values(axes[column], tables, kind, study)
            for row, pair in enumerate(PAIRS, start=1):
                frames += _differences(axes[row * len(SHOWN) + column], tables, pair, kind, study)
        axes[column].set_title(kind, fontsize=8)
        axes[column].set_ylim(bottom=0)
    axes[0].set_ylabel("singular value", fontsize=7)
    for color, label in ((GREY, "before"), (RED, "after")):
        axes[0].plot([], [], color=color, linewidth=1, label=label)
    axes[0].legend(fontsize=6)
    for row, pair in enumerate(PAIRS, start=1):
        mine = axes[row * len(SHOWN) : (row + 1) * len(SHOWN)]
        mine[0].set_ylabel(f"difference,\n{NAMES[pair]}", fontsize=7)
        _same_height(mine)
    for axis in axes[-len(SHOWN) :]:
        axis.set_xlabel("index of the singular value", fontsize=7)
    note = (
        f"Top: singular values before and after ({NAMES[PAIRS[0]]}), mean over layers. Below: their differences in "
        "red, those under Gaussian changes of equal norm in grey (central 95 % of draws)."
    )
    return finish(figure, chapter, "rotation-values", "Singular values", frames, note, DOTTED)


def _values(axis: Axes, tables: RotationTables, kind: str, study: str) -> list[pd.DataFrame]:
    rows = tables.values
    rows = rows[(rows["pair"] == PAIRS[0]) & (rows["kind"] == kind) & (rows["head"] == -1)]
    table = rows.groupby(["seed", "index"])[["before", "after"]].mean().reset_index()
    frames = []
    for name, color in (("before", GREY), ("after", RED)):
        frame = drawing.with_intervals(table.rename(columns={name: "value"}), ["index"])
        axis.plot(frame["index"], frame["value"], _line(study), color=color, linewidth=1.0)
        if study == "recorded":
            axis.fill_between(
                frame["index"], frame["low"], frame["high"], color=color, alpha=0.2, linewidth=0
            )
        frames.append(frame.assign(series=f"{PAIRS[0]}, {kind}, {name}", study=study))
    return frames


def _differences(axis: Axes, tables: RotationTables, pair: str, kind: str, study: str) -> list[pd.DataFrame]:
    rows = tables.values
    rows = rows[(rows["pair"] == pair) & (rows["kind"] == kind) & (rows["head"] == -1)]
    gaps = {name: rows[name] - rows["before"] for name in ("after", "null", "null_low", "null_high")}
    table = pd.DataFrame(gaps).groupby([rows["seed"], rows["index"]]).mean().reset_index()
    line = drawing.with_intervals(table.rename(columns={"after": "value"}), ["index"])
    axis.plot(line["index"], line["value"], _line(study), color=RED, linewidth=1.0)
    if study == "recorded":
        axis.fill_between(line["index"], line["low"], line["high"], color=RED, alpha=0.25, linewidth=0)
    null = table.groupby("index")[["null", "null_low", "null_high"]].mean()
    axis.fill_between(null.index, null["null_low"], null["null_high"], color=GREY, alpha=0.3, linewidth=0)
    axis.axhline(0, color=GREY, linewidth=0.6)
    named = null.reset_index().rename(columns={"null": "value", "null_low": "low", "null_high": "high"})
    series = f"{pair}, {kind}, difference"
    return [line.assign(series=series, study=study), named.assign(series=f"{series}, null", study=study)]


def changes(chapter: RotationChapter) -> Drawn:
    """Size of the change, change of singular values, energies: every pair with its nulls."""
    pairs = [name for name in NAMES if name in set(chapter.tables.changes["pair"])]
    figure, axes = drawing.canvas(columns=len(SIZES), height=0.42 * len(pairs) + 1.3)
    frames = []
    for axis, (column, title) in zip(axes, SIZES.items(), strict=True):
        for tables, study in chapter.layers:
            table = _mean_change(tables, column)
            for place, pair in enumerate(pairs):
                mine = table[table["pair"] == pair].set_index("what")
                if not len(mine):
                    continue
                _bar(axis, mine.loc[CHANGE], -place, "black", "o" if study == "recorded" else "x")
                if study == chapter.study:
                    drawn = [name for name in NULL_LOOKS if name in mine.index and name != "independent"]
                    for number, name in enumerate(drawn):
                        _bar(axis, mine.loc[name], -place - 0.2 - 0.13 * number, NULL_LOOKS[name][1], "|")
            frames.append(table.assign(series=column, study=study))
        axis.set_title(title, fontsize=7)
        axis.set_yticks([-place - 0.2 for place in range(len(pairs))], [])
        if column in ("relative_change", "value_change_mean"):
            axis.set_xscale("log")
        else:
            axis.set_xlim(0, 1.1 * axis.get_xlim()[1])
    axes[0].set_yticks([-at - 0.2 for at in range(len(pairs))], [NAMES[name] for name in pairs], fontsize=7)
    key = [axes[0].plot([], [], "o", color="black", markersize=4)[0]]
    key += [
        axes[0].plot([], [], color=color)[0]
        for name, (_, color) in NULL_LOOKS.items()
        if name != "independent"
    ]
    words = ["the change", *(label for name, (label, _) in NULL_LOOKS.items() if name != "independent")]
    figure.legend(key, words, fontsize=7, ncols=5, loc="outside lower center")
    note = (
        "Means over the matrices of the blocks. Nulls are changes of the same norm as the one "
        "above them, except the bfloat16 step, which has its own size."
    )
    return finish(figure, chapter, "rotation-changes", "Sizes and values", frames, note, DOTS)


def _mean_change(tables: RotationTables, column: str) -> pd.DataFrame:
    rows = tables.changes
    rows = rows[(rows["head"] == -1) & rows["kind"].isin(BLOCKS)].astype({"pair": object, "what": object})
    mean = rows.groupby(["seed", "pair", "what"])[column].mean().reset_index()
    return drawing.with_intervals(mean.rename(columns={column: "value"}), ["pair", "what"])


def curves(chapter: RotationChapter) -> Drawn:
    """Principal angles one by one, ascending, of the leading half (the paper's curves)."""
    figure, axes = drawing.canvas(columns=len(SHOWN), rows=len(PAIRS), height=2.1)
    frames = []
    for row, pair in enumerate(PAIRS):
        for column, kind in enumerate(SHOWN):
            axis = axes[row * len(SHOWN) + column]
            for tables, study in chapter.layers:
                frames += _curves(axis, tables, pair, kind, study, study == chapter.study)
            axis.set_title(kind if row == 0 else "", fontsize=8)
            axis.set_ylim(bottom=0)
        mine = axes[row * len(SHOWN) : (row + 1) * len(SHOWN)]
        mine[0].set_ylabel(f"angle (degrees),\n{NAMES[pair]}", fontsize=7)
        _same_height(mine)
    for axis in axes[-len(SHOWN) :]:
        axis.set_xlabel("number of the angle", fontsize=7)
    for label, color in SIDE_LOOKS.values():
        axes[0].plot([], [], color=color, label=label)
    axes[0].legend(fontsize=6)
    note = "Means over layers. Dashed with band: Gaussian changes of equal norm, central 95 % of draws."
    return finish(figure, chapter, "rotation-curves", "Angle curves", frames, note, DOTTED)


def _curves(
    axis: Axes, tables: RotationTables, pair: str, kind: str, study: str, with_null: bool
) -> list[pd.DataFrame]:
    rows = tables.curves
    rows = rows[(rows["head"] == -1) & (rows["pair"] == pair) & (rows["kind"] == kind)].astype(
        {"side": object}
    )
    columns = ["angle", "null", "null_low", "null_high"]
    table = rows.groupby(["seed", "side", "index"])[columns].mean().reset_index()
    frames = []
    for side, (_, color) in SIDE_LOOKS.items():
        mine = table[table["side"] == side]
        line = drawing.with_intervals(mine.rename(columns={"angle": "value"}), ["index"])
        axis.plot(line["index"], line["value"], _line(study), color=color, linewidth=1.1)
        frames.append(line.assign(series=f"{pair}, {kind}, {side}", study=study))
        if study == "recorded":
            axis.fill_between(line["index"], line["low"], line["high"], color=color, alpha=0.25, linewidth=0)
        if with_null:
            null = mine.groupby("index")[columns[1:]].mean().reset_index()
            axis.plot(null["index"], null["null"], "--", color=color, linewidth=0.8)
            axis.fill_between(
                null["index"], null["null_low"], null["null_high"], color=color, alpha=0.1, linewidth=0
            )
            named = null.rename(columns={"null": "value", "null_low": "low", "null_high": "high"})
            frames.append(named.assign(series=f"{pair}, {kind}, {side}, null", study=study))
    return frames


def heat(chapter: RotationChapter) -> Drawn:
    """Where the change lies in the directions of the matrix that it changes (the paper's U^T dW V)."""
    rows = chapter.tables.heat.astype({"pair": object, "kind": object})
    figure, axes = drawing.canvas(columns=len(SHOWN), rows=len(PAIRS), height=1.9)
    table = rows.groupby(["pair", "kind", "left", "right"])["energy"].mean().reset_index()
    shown = None
    for row, pair in enumerate(PAIRS):
        for column, kind in enumerate(SHOWN):
            axis = axes[row * len(SHOWN) + column]
            mine = table[(table["pair"] == pair) & (table["kind"] == kind)]
            grid = np.log2(mine.pivot_table(index="left", columns="right", values="energy").clip(lower=1e-9))
            shown = axis.imshow(grid, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.set_title(kind if row == 0 else "", fontsize=8)
        axes[row * len(SHOWN)].set_ylabel(f"{NAMES[pair]}\nleft directions", fontsize=7)
    for axis in axes[-len(SHOWN) :]:
        axis.set_xlabel("right directions", fontsize=7)
    assert shown is not None
    figure.colorbar(shown, ax=axes, label="log2(energy / white noise)", shrink=0.7)
    note = (
        "Largest singular values first. Mean over layers and base seeds of the squares of U^T dW V, in units of what "
        "white noise of the same norm has everywhere, so that white (0) is the null."
    )
    frame = table[table["pair"].isin(PAIRS) & table["kind"].isin(SHOWN)].assign(study=chapter.study)
    return finish(figure, chapter, "rotation-heat", "Where the change lies", [frame], note, PLAIN)


def _line(study: str) -> str:
    return "-" if study == "recorded" else ":"


def _bar(axis: Axes, row: pd.Series, at: float, color: str, marker: str) -> None:
    axis.plot([row["low"], row["high"]], [at, at], color=color, linewidth=1.3)
    axis.plot(row["value"], at, marker, color=color, markersize=4)


def _same_height(axes: Sequence[Axes]) -> None:
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for number, axis in enumerate(axes):
        axis.set_ylim(low, high)
        if number:
            axis.tick_params(labelleft=False)


ROTATION: tuple[Callable[[RotationChapter], Drawn], ...] = (
    values,
    changes,
    curves,
    by_size,
    where,
    heat,
    along,
    trajectories,
    matched,
    scales,
    back,
)
