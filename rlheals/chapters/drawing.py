"""A chapter's figures: the recorded study with its intervals, the fresh run beside it, a caption that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text

from rlheals.chapters import captions, sentences
from rlheals.chapters.base import PLUMBING, Chapter
from rlheals.chapters.expected import expected
from rlheals.display import panels, style
from rlheals.display.looks import Look
from rlheals.display.panels import Form, Panels, step_axis
from rlheals.display.style import Drawn, with_intervals
from rlheals.yaml_file import read_yaml

PAPER_POINTS = Path(str(resources.files("rlheals.chapters"))) / "paper_points.yaml"
FEEDBACK = "success@5 with feedback"
PAPERS_TASK = "general_points"
"""Of the numbers in that file."""
Measure = Callable[[Any], pd.DataFrame]


@cache
def paper_points() -> dict[str, dict[str, Any]]:
    """The paper's own points by series, with their sources."""
    return read_yaml(PAPER_POINTS, PAPER_POINTS.name)


class Sheet(Panels):
    """A chapter's figure in the making. steps: of the axis that its curves share, x: what that axis is called."""

    def __init__(
        self,
        chapter: Chapter[Any],
        columns: int = 1,
        rows: int = 1,
        height: float = 3.2,
        ratios: Sequence[float] | None = None,
        steps: Sequence[int] = (),
        x: str = "SFT step",
    ) -> None:
        super().__init__(columns, rows, height, ratios)
        self.chapter, self.steps, self.x = chapter, steps, x
        self.marks: dict[str, str] = {}
        self.called: dict[str, tuple[str, set[Axes]]] = {}
        self.left_out = ""

    def estimates(
        self, measure: Measure, by: Sequence[str] = ("step",), means: Sequence[str] = ()
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """("recorded", table) if there is one, then ("fresh", table): columns by..., value, low, high, seeds, means...

        measure: from tables to rows with columns seed, by..., value. Fresh rows also say between which bounds the
        recorded base seeds expect them (expected_low, expected_high; see `expected.py`).
        """
        rows = {study: measure(tables) for tables, study in self.chapter.layers}
        for study, mine in rows.items():
            table = with_intervals(mine, by, means)
            if study == "fresh" and (comparable := self.chapter.comparable) is not None:
                same = comparable is self.chapter.recorded
                known = rows["recorded"] if same else measure(comparable)
                table = table.join(expected(known, mine, by), on=list(by))
            yield study, table

    def draw(
        self,
        axis: Axes,
        at: Any,
        table: pd.DataFrame,
        look: Look,
        study: str,
        form: Form = "dots",
        **options: Any,
    ) -> None:
        """Estimates of one study: filled marks or lines in bands if it is recorded, open marks if it is fresh."""
        fresh = study == "fresh"
        label = look.label if study == self.chapter.study and len(table) else None
        panels.estimates(axis, at, table, look, form, hollow=fresh, label=label, **options)
        self.marks[study] = "open marks" if fresh else "lines in bands" if form == "band" else "filled marks"

    def mark(
        self, axis: Axes, at: Any, table: pd.DataFrame, look: Look, study: str, form: Form = "dots",
        upright: bool = True, clip: tuple[float, float] | None = None, **columns: Any,
    ) -> None:  # fmt: skip
        """Draw estimates and keep them as rows of the figure, with these columns."""
        self.draw(axis, at, table, look, study, form, upright=upright, clip=clip)
        self.keep(table, study=study, **columns)
        self.called.setdefault(str(columns.get("series")), (look.label, set()))[1].add(axis)

    def forest_row(
        self, axis: Axes, y: float, values: Sequence[float], look: Look, study: str = "recorded"
    ) -> pd.DataFrame:
        """One line of a forest plot; value, low, high, seeds."""
        fresh = study == "fresh"
        label = look.label if study == self.chapter.study else None
        self.marks[study] = "open marks" if fresh else "small dots are base seeds, large ones their means"
        return panels.forest_row(axis, y, values, look, fresh, label)

    def curves(
        self, axis: Axes, series: Mapping[str, tuple[Measure, Look]], title: str = "", y: str = "",
        share: bool = True, whole: bool = True, log: bool = False, **columns: Any,
    ) -> None:  # fmt: skip
        """Measures against the figure's steps. share: of hands, so that intervals end at 0 and 1; whole: axis too."""
        for name, (measure, look) in series.items():
            for study, table in self.estimates(measure):
                clip = (0, 1) if share else None
                self.mark(axis, table["step"], table, look, study, "band", clip=clip, series=name, **columns)
        if log:
            axis.set_yscale("log")
        self.label(axis, title, self.x, y, None if log else share and whole)
        if len(self.steps):
            step_axis(axis, self.steps, self.x)

    def paper(self, axis: Axes, key: str, look: Look, scale: float = 1.0) -> pd.DataFrame:
        """One of the paper's series, with Wilson intervals of its hands where it has a number of them."""
        if self.chapter.profile.task != PAPERS_TASK:
            axis.set_visible(False)
            self.left_out = f"The paper's panel is left out: it is about {PAPERS_TASK}."
            return pd.DataFrame(columns=["step", "value", "low", "high"])
        points = paper_points()[key]
        rows = pd.DataFrame({"step": list(points["points"]), "seed": 0})
        rows["value"] = [value / scale for value in points["points"].values()]
        if "hands" in points:
            table = with_intervals(rows.assign(n=points["hands"])).drop(columns="seeds")
        else:
            table = rows.drop(columns="seed").assign(low=np.nan, high=np.nan)
        panels.estimates(axis, table["step"], table, look, "line", label=look.label)
        self.keep(table, series=key, study="paper")
        step_axis(axis, table["step"])
        return table

    def finish(self, name: str, title: str, note: str, takeaway: str = "") -> Drawn:
        """The drawing, with its data and caption, and above it the sentence that the chapter's `takeaways.py` makes of
        the data; none for a plumbing test, whose numbers mean nothing."""
        frame = self.frame
        if not self.chapter.profile.name.startswith(PLUMBING):
            found = sentences.takeaways_of(type(self.chapter)).get(name)
            takeaway = sentences.said(found, frame, self.chapter.seeds)
        self.write_names()
        for text in self.figure.findobj(Text):
            text.set_text(captions.worded(text.get_text(), self.chapter.profile))
        words = {
            series: ", ".join(filter(None, (*(axis.get_title() for axis in axes if len(axes) == 1), label)))
            for series, (label, axes) in self.called.items()
        }
        caption = self.chapter.caption(self.left_out or note, frame, self.marks, words)
        title = captions.worded(title, self.chapter.profile)
        takeaway = captions.worded(takeaway, self.chapter.profile)
        return style.finish(self.figure, name, title, frame, *caption, takeaway)
