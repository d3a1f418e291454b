"""How figures of the book look, and what every one of them carries: an image, its data, a caption."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlheals.stats.intervals import t_interval, wilson

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#777777",
)  # fmt: skip
"""Okabe and Ito's colours, told apart by colour-blind readers."""

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "svg.hashsalt": "rlheals",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawn:
    """A figure with the data it shows. In a notebook it renders as image, caption and a link to the data.

    caption: what is drawn and how to read it; origin: seeds, settings and code behind it, folded away in a notebook.
    """

    name: str
    title: str
    svg: bytes
    frame: pd.DataFrame
    caption: str
    origin: str = ""

    @property
    def alt(self) -> str:
        """The image in words: its title, and how many values it shows between which ends."""
        values = self.frame["value"].dropna() if "value" in self.frame else ()
        if not len(values):
            return self.title
        return f"{self.title}: {len(values)} values between {min(values):.2g} and {max(values):.2g}"

    def __repr__(self) -> str:
        return f"Drawn({self.name!r}: {self.title}, {len(self.frame)} rows)"

    def csv(self) -> str:
        return self.frame.to_csv(index=False, float_format="%.6g")

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.svg).decode()
        data = base64.b64encode(self.csv().encode()).decode()
        return (
            f'<figure class="rlheals-figure" id="{self.name}">'
            f'<img alt="{html.escape(self.alt)}" src="data:image/svg+xml;base64,{image}">'
            f"<figcaption><strong>{html.escape(self.title)}.</strong> {html.escape(self.caption)} "
            f'<a download="{self.name}.csv" href="data:text/csv;base64,{data}">Data (CSV)</a>'
            f"{self._folded()}</figcaption></figure>"
        )

    def _folded(self) -> str:
        if not self.origin:
            return ""
        return f"<details><summary>Where the data are from</summary>{html.escape(self.origin)}</details>"


def canvas(
    columns: int = 1,
    rows: int = 1,
    height: float = 3.2,
    width: float = 7.4,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style, not tied to any window or backend. height: inches per row; ratios: of the rows."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    return figure, list(axes.flat)


def finish(
    figure: Figure, name: str, title: str, frame: pd.DataFrame, caption: str, origin: str = ""
) -> Drawn:
    """Render to SVG; the same data give the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Drawn(name, title, buffer.getvalue(), frame.reset_index(drop=True), caption, origin)


def step_axis(axis: Axes, steps: Sequence[int], label: str = "SFT step") -> None:
    """Steps on a logarithmic axis that still has a place for step 0."""
    axis.set_xscale("symlog", linthresh=10, linscale=0.6)
    last = max(steps)
    ticks = [step for step in (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560) if step <= last]
    shown = ticks if len(ticks) <= 5 else [0, *ticks[2::2]]
    axis.set_xticks(shown, [f"{step:,}" for step in shown])
    axis.minorticks_off()
    axis.set_xlim(-0.8, last * 1.1)
    axis.set_xlabel(label)


def with_intervals(values: pd.DataFrame, by: Sequence[str] = ("step",)) -> pd.DataFrame:
    """Mean and 95 % interval per group over base seeds; with a single seed Wilson's interval of its share.

    values: columns seed, by..., value, and n when there is one seed. Returns by..., value, low, high, seeds.
    """
    rows: list[dict[str, Any]] = []
    for key, group in values.groupby(list(by), observed=True):
        place = dict(zip(by, key, strict=True))
        low = high = mean = float(group["value"].mean())
        if len(group) > 1:
            interval = t_interval(group["value"].to_numpy())
            low, high = interval.low, interval.high
        elif "n" in group:
            n = int(group["n"].iloc[0])
            interval = wilson(round(mean * n), n)
            low, high = interval.low, interval.high
        rows.append({**place, "value": mean, "low": low, "high": high, "seeds": len(group)})
    table = pd.DataFrame(rows, columns=[*by, "value", "low", "high", "seeds"])
    return table.astype(
        {"value": float, "low": float, "high": float} | {key: values[key].dtype for key in by}
    )


def band(
    axis: Axes,
    frame: pd.DataFrame,
    color: str,
    label: str,
    clip: tuple[float, float] | None = (0, 1),
    dashed: bool = False,
) -> None:
    """The recorded study: mean line in a band of its interval."""
    low, high = frame["low"], frame["high"]
    if clip is not None:
        low, high = low.clip(*clip), high.clip(*clip)
    axis.fill_between(frame["step"], low, high, color=color, alpha=0.22, linewidth=0)
    axis.plot(
        frame["step"],
        frame["value"],
        "--" if dashed else "-",
        color=color,
        linewidth=1.2,
        alpha=0.9,
        label=label,
    )


def points(axis: Axes, frame: pd.DataFrame, color: str, label: str, dashed: bool = False) -> None:
    """The fresh run: open circles, or squares, with the interval of each."""
    errors = np.abs(np.stack([frame["value"] - frame["low"], frame["high"] - frame["value"]]))
    axis.errorbar(
        frame["step"], frame["value"], yerr=errors, color=color, marker="s" if dashed else "o", markersize=3.4,
        linewidth=0.8, markerfacecolor="white", linestyle=":", elinewidth=0.8, label=label,
    )  # fmt: skip
