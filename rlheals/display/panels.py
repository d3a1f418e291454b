"""What every figure is made of: panels laid out alike, estimates with their intervals, and the rows that were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from rlheals.display import style
from rlheals.display.looks import GREY, Look
from rlheals.display.style import Drawn, with_intervals

Form = Literal["dots", "line", "band"]
DIRECT = 5
"""So many marks of a panel, at most, have their names beside them."""
MARKS = (Line2D, ErrorbarContainer)
"""What can have its name beside it."""
GAP = 6
"""Pixels between a mark and its name."""
DENSE = 24
"""Above so many estimates on a line, every few of a fresh run have a mark."""


def estimates(
    axis: Axes,
    at: Any,
    table: pd.DataFrame,
    look: Look,
    form: Form = "dots",
    hollow: bool = False,
    upright: bool = True,
    clip: tuple[float, float] | None = None,
    label: str | None = None,
) -> None:
    """Draw `table` (value, low, high; missing ends are no interval) at places of the same length.

    form: dots with bars, dots on a line, or a line in a band. hollow: open marks, on a dotted line where the form has
    one. upright: values go up, else to the right. clip: ends of the intervals that are drawn.
    """
    at, value = np.asarray(at, dtype=float), table["value"].to_numpy(float)
    low, high = (table[end].fillna(table["value"]).to_numpy(float) for end in ("low", "high"))
    if clip is not None:
        low, high = low.clip(*clip), high.clip(*clip)
    if form == "band" and not hollow:
        axis.fill_between(at, low, high, color=look.color, alpha=0.2, linewidth=0)
        axis.plot(at, value, look.line, color=look.color, linewidth=1.2, alpha=0.9, label=label)
        return
    every = max(1, len(at) // (DENSE // 2)) if form == "band" and len(at) > DENSE else 1
    drawn: dict[str, Any] = {
        "xerr" if not upright else "yerr": np.stack([value - low, high - value]).clip(0),
        "linestyle": "none" if form == "dots" else ":" if hollow else look.line,
        "markerfacecolor": "white" if hollow else look.color, "errorevery": every, "markevery": every,
    }  # fmt: skip
    axis.errorbar(
        *((at, value) if upright else (value, at)), color=look.color, marker=look.marker, markersize=4,
        linewidth=1, elinewidth=1, label=label, **drawn,
    )  # fmt: skip


def forest_row(
    axis: Axes, y: float, values: Sequence[float], look: Look, hollow: bool = False, label: str | None = None
) -> pd.DataFrame:
    """One line of a forest plot: a small dot per base seed, mean and interval; returns value, low, high, seeds."""
    values = [value for value in values if np.isfinite(value)]
    table = with_intervals(pd.DataFrame({"value": values, "row": 0}), ["row"]).drop(columns="row")
    if not values:
        return table
    if len(values) > 1:
        axis.plot(values, [y] * len(values), ".", color=look.color, markersize=4, alpha=0.5)
    estimates(axis, [y], table, look, hollow=hollow, upright=False, label=label)
    return table


def heat_map(axis: Axes, grid: pd.DataFrame, reach: float) -> AxesImage:
    """A matrix in colours from -reach (dark) over 0 to reach (light), which a reader tells apart in grey."""
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])
    return axis.imshow(grid, cmap="cividis", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")


def level(axis: Axes, at: float = 0.0, upright: bool = True, color: str = GREY, line: str = "-") -> None:
    """A thin line across: 0, 1 or what else values are compared with."""
    (axis.axhline if upright else axis.axvline)(at, color=color, linestyle=line, linewidth=0.8)


def step_axis(axis: Axes, steps: Sequence[int], label: str = "SFT step") -> None:
    """Steps on a logarithmic axis that still has a place for step 0."""
    axis.set_xscale("symlog", linthresh=10, linscale=0.6)
    last = max(steps)
    ticks = [step for step in (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120) if step <= last]
    shown = ticks if len(ticks) <= 5 else [0, *ticks[2::2]]
    axis.set_xticks(shown, [f"{step:,}" for step in shown])
    axis.minorticks_off()
    axis.set_xlim(-0.8, last * 1.1)
    axis.set_xlabel(label)


def size_axis(axis: Axes) -> None:
    """Sizes on a logarithmic axis with plain numbers (0.1, 0.2, 0.5, 1, ...), unless they span little or one is 0."""
    low, high = axis.dataLim.intervalx
    if not low > 0 or high < 3 * low:
        axis.locator_params(axis="x", nbins=5)
        return
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [base * 10.0**power for power in range(-6, 6) for base in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) > 6:
        shown = [tick for tick in shown if f"{tick:g}".lstrip("0.").startswith("1")]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()


def _between(points: np.ndarray) -> np.ndarray:
    """Points (n, 2) and some between them."""
    places = np.linspace(0, len(points) - 1, max(100, len(points)))
    return np.stack([np.interp(places, range(len(points)), column) for column in points.T], axis=1)


def _pixels(line: Line2D) -> np.ndarray:
    """What a line or its marks take, in pixels (n, 2)."""
    at = line.get_transform().transform(line.get_xydata())
    return at if line.get_linestyle() == "None" or len(at) < 2 else _between(at)


def _distance(middles: np.ndarray, points: np.ndarray, half: np.ndarray, most: float) -> np.ndarray:
    """From boxes of one size, by their middles (n, 2), to the nearest of the points (m, 2); at most so much."""
    aside, above = ((abs(middles[:, None, way] - points[:, way]) - half[way]).clip(min=0) for way in (0, 1))
    return np.sqrt((aside**2 + above**2).min(axis=1, initial=most**2))


def _name_beside(axis: Axes, line: Line2D, name: str, taken: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Write a name beside its line and far from all else that is taken; the pixels that it takes."""
    color = tuple(0.6 * np.array(to_rgb(line.get_color())))
    text = axis.text(0, 0, name, fontsize=7, color=color, ha="center", va="center", transform=None)
    box, size = axis.bbox, text.get_window_extent()
    half = np.array([size.width, size.height]) / 2
    sides = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    own = np.array([at for at in taken[line] if box.contains(*at)])
    if not len(own):
        text.remove()
        return own.reshape(0, 2)
    middles = (own[:, None] + np.array(sides) * (half + GAP)).reshape(-1, 2)
    middles = middles.clip((box.x0 + half[0], box.y0 + half[1]), (box.x1 - half[0], box.y1 - half[1]))
    others = np.concatenate([np.empty((0, 2)), *(one for key, one in taken.items() if key is not line)])
    free, near = (_distance(middles, points, half, 3 * GAP) for points in (others, own))
    alone = _distance(own, others, np.zeros(2), 5 * GAP).repeat(len(sides))
    best = middles[np.argmax(2 * free + alone - 2 * abs(near - GAP) + 1e-4 * middles[:, 0])]
    text.set(position=axis.transAxes.inverted().transform(best), transform=axis.transAxes)
    grid = np.stack(np.meshgrid(*([-1, -0.5, 0, 0.5, 1],) * 2), axis=-1).reshape(-1, 2)
    return best + grid * half


class Panels:
    """A figure in the making: its axes, row by row, and the data drawn into them."""

    def __init__(
        self, columns: int = 1, rows: int = 1, height: float = 3.2, ratios: Sequence[float] | None = None
    ) -> None:
        self.figure, self.axes = style.canvas(columns, rows, height, ratios)
        self.columns = columns
        self.frames: list[pd.DataFrame] = []
        self.named: dict[Axes, dict[str, Any]] = {}

    def keep(self, frame: pd.DataFrame, **columns: Any) -> None:
        """Rows that were drawn, with what they are."""
        self.frames.append(frame.assign(**columns))

    @property
    def frame(self) -> pd.DataFrame:
        """All rows that were drawn."""
        return pd.concat(self.frames) if self.frames else pd.DataFrame(columns=["value", "low", "high"])

    def row(self, number: int) -> list[Axes]:
        """The axes of one row."""
        return self.axes[number * self.columns : (number + 1) * self.columns]

    def label(self, axis: Axes, title: str = "", x: str = "", y: str = "", share: bool | None = None) -> None:
        """Title and labels where given. share: the axis of values is that of all shares, or (False) holds 0."""
        if title:
            axis.set_title(title, fontsize=8)
        axis.set(**{f"{name}label": text for name, text in (("x", x), ("y", y)) if text})
        if share:
            axis.set_ylim(-0.02, 1.02)
        elif share is not None:
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))

    def names(self, axis: Axes, names: Sequence[str], offset: float = 0.0, size: float = 7) -> None:
        """Rows of a forest plot, downward from 0; offset: of a name below its row."""
        axis.set_yticks([-place - offset for place in range(len(names))], names, fontsize=size)
        axis.set_ylim(-max(1, len(names)) + 0.5 - offset, 0.5)

    def legend(self, axis: Axes | None = None, below: int = 0) -> None:
        """What is named in one panel, beside its marks where it is at most `DIRECT`; or, once, in columns below all."""
        axis, found = axis or self.axes[0], dict[str, Any]()
        for one in self.axes if below else [axis]:
            found |= {name: mark for mark, name in zip(*one.get_legend_handles_labels(), strict=True)}
        if not below and len(found) <= DIRECT and all(isinstance(mark, MARKS) for mark in found.values()):
            self.named[axis] = found
            return
        where: dict[str, Any] = {"ncols": below, "loc": "outside lower center"} if below else {}
        (self.figure if below else axis).legend(found.values(), found, fontsize=7, frameon=False, **where)

    def write_names(self) -> None:
        """Names beside their marks, where nothing else is drawn; to be called last, when every panel has its place."""
        if self.named:
            self.figure.draw_without_rendering()
        for axis, found in self.named.items():
            taken: dict[Any, np.ndarray] = {line: _pixels(line) for line in axis.lines}
            for bars in axis.collections:
                if isinstance(bars, LineCollection):
                    taken |= {(bars, at): _between(axis.transData.transform(one))
                              for at, one in enumerate(bars.get_segments())}  # fmt: skip
            for name, mark in found.items():
                own = mark.lines[0] if isinstance(mark, ErrorbarContainer) else mark
                taken[name] = _name_beside(axis, own, name, taken)

    def hide(self, used: int) -> None:
        """Leave out the panels beyond those that are used."""
        for axis in self.axes[used:]:
            axis.set_visible(False)

    def finish(self, name: str, title: str, note: str, takeaway: str = "") -> Drawn:
        """The drawing, with its data, caption and takeaway."""
        self.write_names()
        return style.finish(self.figure, name, title, self.frame, note, takeaway=takeaway)
