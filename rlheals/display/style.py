"""How figures of the book look, and what every one of them carries: an image, its data, a caption."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlheals.stats.intervals import t_interval, wilson

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "svg.hashsalt": "rlheals",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawn:
    """A figure with the data it shows. In a notebook it renders as takeaway, image, caption and a link to the data.

    caption: what is drawn and how to read it; origin: seeds, settings and code behind it, folded away in a notebook;
    takeaway: what it shows, in one sentence made from `frame`; "" where there is none.
    """

    name: str
    title: str
    svg: bytes
    frame: pd.DataFrame
    caption: str
    origin: str = ""
    takeaway: str = ""

    @property
    def alt(self) -> str:
        """The image in words: its title and takeaway, or how many values it shows between which ends."""
        if self.takeaway:
            return f"{self.title}: {self.takeaway}"
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
        summary = "<summary>Where the data are from</summary>"
        folded = f"<details>{summary}{html.escape(self.origin)}</details>" if self.origin else ""
        above = f'<p class="rlheals-takeaway">{html.escape(self.takeaway)}</p>' if self.takeaway else ""
        title = self.title if self.title.endswith("?") else f"{self.title}."
        return (
            f'<figure class="rlheals-figure" id="{self.name}">{above}'
            f'<img alt="{html.escape(self.alt)}" src="data:image/svg+xml;base64,{image}">'
            f"<figcaption><strong>{html.escape(title)}</strong> {html.escape(self.caption)} "
            f'<a download="{self.name}.csv" href="data:text/csv;base64,{data}">Data (CSV)</a>'
            f"{folded}</figcaption></figure>"
        )


def canvas(
    columns: int = 1, rows: int = 1, height: float = 3.2, ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style, not tied to any window or backend. height: inches per row; ratios: of the rows."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    return figure, list(axes.flat)


def finish(
    figure: Figure, name: str, title: str, frame: pd.DataFrame, caption: str, origin: str = "", takeaway: str = ""
) -> Drawn:  # fmt: skip
    """Render to SVG; the same data give the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Drawn(name, title, buffer.getvalue(), frame.reset_index(drop=True), caption, origin, takeaway)


OVER_SEEDS, OVER_HANDS = "95 % t intervals over base seeds", "95 % Wilson intervals of the hands"


def with_intervals(
    values: pd.DataFrame, by: Sequence[str] = ("step",), means: Sequence[str] = ()
) -> pd.DataFrame:
    """Mean and 95 % interval per group over base seeds; with a single seed Wilson's interval of its share.

    values: columns seed, by..., value, and n when there is one seed. means: other columns, averaged alike. Returns
    by..., value, low, high, seeds, interval (what low and high are, "" where there is no interval), means...
    """
    rows: list[dict[str, Any]] = []
    for key, group in values.groupby(list(by), observed=True):
        low = high = mean = float(group["value"].mean())
        kind = ""
        if len(group) > 1:
            interval = t_interval(group["value"].to_numpy())
            low, high, kind = interval.low, interval.high, OVER_SEEDS
        elif "n" in group:
            n = int(group["n"].iloc[0])
            interval = wilson(round(mean * n), n)
            low, high, kind = interval.low, interval.high, OVER_HANDS
        found = {"value": mean, "low": low, "high": high, "seeds": len(group), "interval": kind}
        rows.append({**dict(zip(by, key, strict=True)), **found, **group[list(means)].mean()})
    table = pd.DataFrame(rows, columns=[*by, "value", "low", "high", "seeds", "interval", *means])
    return table.astype(
        {"value": float, "low": float, "high": float} | {key: values[key].dtype for key in by}
    )
