"""Figures of chapter 03, one function each: here singular values, angle curves and heat maps of pairs of checkpoints.

Angles against their null are in `figures_angles.py`, trajectories in `figures_trajectories.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.rows import only
from rlheals.chapters.spectra.figures_angles import back, by_size, where
from rlheals.chapters.spectra.figures_trajectories import along, matched, trajectories
from rlheals.chapters.spectra.measures import BLOCKS
from rlheals.chapters.spectra.runs import SpectraChapter, SpectraTables
from rlheals.display import looks as looked
from rlheals.display.looks import AFTER, GAUSSIAN, NULLS, PAIRS, SIDES, Look
from rlheals.display.panels import estimates, heat_map, level
from rlheals.display.style import Drawn
from rlheals.weights.spectra import CHANGE

SHOWN = ("q", "k", "v", "down")
"""The kinds that the paper's figures show."""
COMPARED = ("peak-end", "end-rl")
SIZES = {
    "relative_change": "size of the change, |dW| / |W|", "value_change_mean": "mean relative change of singular values",
}  # fmt: skip


def _by_index(
    tables: SpectraTables, table: str, value: str, less: str = "", over: str = "", **wanted: str
) -> pd.DataFrame:
    """Mean over layers by (seed, index) of a column and of its null, less another column or, after that, over one.

    wanted: pair, kind, side.
    """
    rows = only(getattr(tables, table), head=-1, **wanted)
    found = rows[[value, "null", "null_low", "null_high"]]
    found = found.sub(rows[less], axis=0) if less else found
    means = found.groupby([rows["seed"], rows["index"]]).mean()
    means = means.div(means[over], axis=0).dropna(subset=value) if over else means
    return means.reset_index().rename(columns={value: "value"})


def _line(sheet: Sheet, axis: Axes, measure: Callable[..., pd.DataFrame], look: Look, series: str) -> None:
    for study, table in sheet.estimates(measure, ["index"]):
        sheet.mark(axis, table["index"], table, look, study, "band", series=series)


def _null(sheet: Sheet, axis: Axes, table: pd.DataFrame, look: Look, series: str, study: str) -> None:
    """A null by index: its mean in the band of the central 95 % of draws, both averaged over base seeds."""
    ends = {"null": "value", "null_low": "low", "null_high": "high"}
    null = table.groupby("index")[list(ends)].mean().reset_index().rename(columns=ends)
    estimates(axis, null["index"], null, look, "band")
    sheet.keep(null, series=f"{series}, null", study=study)


def values(chapter: SpectraChapter) -> Drawn:
    """How singular values change, index by index (the paper's differences)."""
    sheet = Sheet(chapter, len(SHOWN), len(COMPARED), 2.0)
    for row, pair in enumerate(COMPARED):
        for axis, kind in zip(sheet.row(row), SHOWN, strict=True):
            series = f"{pair}, {kind}, difference"
            measure = partial(_by_index, table="values", value="after", less="before", pair=pair, kind=kind)
            _line(sheet, axis, measure, AFTER.named("the change"), series)
            _null(sheet, axis, measure(chapter.tables), GAUSSIAN, series, chapter.study)
            level(axis)
            sheet.label(axis, kind if row == 0 else "")
        _same_height(sheet.row(row), f"change of the value,\n{PAIRS[pair].label}")
    for axis in sheet.row(len(COMPARED) - 1):
        axis.set_xlabel("index of the value")
    sheet.legend(sheet.axes[len(SHOWN) - 1])
    note = "After less before, mean over layers; grey: Gaussian changes of equal norm, central 95 % of draws."
    return sheet.finish("rotation-values", "Singular values", note)


def changes(chapter: SpectraChapter) -> Drawn:
    """Size of the change, change of singular values, energies: every pair with its nulls."""
    pairs = [name for name in PAIRS if name in chapter.tables.changes["pair"].unique()]
    sheet = Sheet(chapter, len(SIZES), height=0.42 * len(pairs) + 1.3)
    looks = {CHANGE: looked.CHANGE, **{name: look for name, look in NULLS.items() if name != "independent"}}
    for axis, (column, title) in zip(sheet.axes, SIZES.items(), strict=True):
        for study, table in sheet.estimates(partial(_mean_change, column=column), ["pair", "what"]):
            there = [name for name in looks if name in set(table["what"])]
            for number, name in enumerate(there):
                if number and study != chapter.study:
                    continue
                mine = table[(table["what"] == name) & table["pair"].isin(pairs)]
                at = -mine["pair"].map(pairs.index) - (0.07 + 0.13 * number if number else 0)
                sheet.draw(axis, at, mine, looks[name], study, upright=False)
            sheet.keep(table, series=column, study=study)
        sheet.names(axis, [PAIRS[pair].label if axis is sheet.axes[0] else "" for pair in pairs], offset=0.2)
        axis.set_xscale("log")
        sheet.label(axis, title)
    sheet.legend(below=5)
    note = (
        "Means over the matrices of the blocks; the smallest singular values, whose relative changes are largest, "
        "weigh most in them. The claims weigh by energy or take the median. Nulls are changes of the same norm as "
        "the one above them, except the bfloat16 step, which has its own size."
    )
    return sheet.finish("rotation-changes", "Size of the change and of what it does", note)


def _mean_change(tables: SpectraTables, column: str) -> pd.DataFrame:
    rows = only(tables.changes, head=-1, kind=BLOCKS).astype({"pair": object, "what": object})
    return rows.groupby(["seed", "pair", "what"])[column].mean().rename("value").reset_index()


def curves(chapter: SpectraChapter) -> Drawn:
    """Principal angles one by one, ascending, of the leading half, over those of their null (the paper's curves)."""
    sheet = Sheet(chapter, len(SHOWN), len(COMPARED), 2.1)
    for row, pair in enumerate(COMPARED):
        for axis, kind in zip(sheet.row(row), SHOWN, strict=True):
            for side, look in SIDES.items():
                measure = partial(
                    _by_index, table="curves", value="angle", over="null", pair=pair, kind=kind, side=side
                )
                series = f"{pair}, {kind}, {side}"
                _line(sheet, axis, measure, look, series)
                _null(sheet, axis, measure(chapter.tables), GAUSSIAN.named(""), series, chapter.study)
            sheet.label(axis, kind if row == 0 else "")
            axis.set_ylim(bottom=0)
        _same_height(sheet.row(row), f"angle / null,\n{PAIRS[pair].label}")
    for axis in sheet.row(len(COMPARED) - 1):
        axis.set_xlabel("number of the angle")
    sheet.legend(sheet.axes[len(SHOWN) - 1])
    note = (
        "Of the leading half of singular vectors, means over layers; grey: Gaussian changes of equal norm (1: their "
        "mean; band: central 95 % of draws)."
    )
    return sheet.finish("rotation-curves", "Angle curves", note)


def heat(chapter: SpectraChapter) -> Drawn:
    """Where the change lies among the singular vectors of the matrix that it changes (the paper's U^T dW V)."""
    rows = chapter.tables.heat.astype({"pair": object, "kind": object})
    sheet = Sheet(chapter, len(SHOWN), len(COMPARED), 1.9)
    table = rows.groupby(["pair", "kind", "left", "right"])["energy"].mean().reset_index()
    for row, pair in enumerate(COMPARED):
        for axis, kind in zip(sheet.row(row), SHOWN, strict=True):
            mine = only(table, pair=pair, kind=kind)
            grid = mine.pivot_table(index="left", columns="right", values="energy").clip(lower=1e-9)
            shown = heat_map(axis, np.log2(grid), 3)
            sheet.label(axis, kind if row == 0 else "")
        sheet.row(row)[0].set_ylabel(f"{PAIRS[pair].label}\nleft singular vectors")
    for axis in sheet.row(len(COMPARED) - 1):
        axis.set_xlabel("right singular vectors")
    sheet.figure.colorbar(shown, ax=sheet.axes, label="log2(energy / white noise)", shrink=0.7)
    sheet.keep(only(table, pair=COMPARED, kind=SHOWN), study=chapter.study)
    note = (
        "Largest singular values first. Mean over layers and base seeds of the squares of U^T dW V, in units of what "
        "white noise of the same norm has everywhere, so that 0 is the null."
    )
    return sheet.finish("rotation-heat", "Where the change lies", note)


def _same_height(axes: Sequence[Axes], label: str) -> None:
    limits = [axis.get_ylim() for axis in axes]
    axes[0].set_ylabel(label)
    for number, axis in enumerate(axes):
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axis.tick_params(labelleft=not number)


ROTATION: tuple[Callable[[SpectraChapter], Drawn], ...] = (
    values, changes, curves, by_size, where, heat, along, trajectories, matched, back,
)  # fmt: skip
