"""TODO rlheals/chapters/drawing.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlheals.chapters import compare
from rlheals.chapters.captions import BANDS, Marks
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, RED, Drawn

PAPER_POINTS = Path(str(resources.files("rlheals.chapters"))) / "paper_points.yaml"
SPLITS = {"sft": ("seen ID (SFT hands)", BLUE), "held_out": ("held-out ID", GREEN), "ood": ("OOD", RED)}
LOSSES = {"train": ("ID, SFT hands", BLUE), "test": ("ID, held-out hands", GREEN), "ood": ("OOD hands", RED)}


class Layers(Protocol):
    """What a chapter's figures need: a fresh run, the recorded study beside it, and words about both."""

    @property
    def fresh(self) -> Any: ...

    @property
    def recorded(self) -> Any: ...

    def caption(self, note: str, frame: pd.DataFrame, marks: Marks) -> tuple[str, str]: ...


@cache
def paper_points() -> dict[str, dict[str, Any]]:
    """The paper's own points by series, with their sources."""
    return yaml.safe_load(PAPER_POINTS.read_text(encoding="utf-8"))


def paper_series(key: str, scale: float = 1.0) -> pd.DataFrame:
    points = paper_points()[key]["points"]
    return pd.DataFrame(
        {"step": list(points), "value": [value / scale for value in points.values()], "series": key}
    )


def _paper_lines(axis: Axes, colors: dict[str, str], last: int, scale: float = 1.0) -> list[pd.DataFrame]:
    frames = [paper_series(key, scale) for key in colors]
    for frame, (key, color) in zip(frames, colors.items(), strict=True):
        label = paper_points()[key]["label"]
        axis.plot(frame["step"], frame["value"], color=color, marker="o", markersize=3, label=label)
    drawing.step_axis(axis, [last])
    return frames


def both(
    axis: Axes,
    chapter: Layers,
    measure: Callable[[Any], pd.DataFrame],
    look: tuple[str, str],
    series: str,
    clip: tuple[float, float] | None = (0, 1),
    dashed: bool = False,
) -> list[pd.DataFrame]:
    """Draw one series twice, recorded band and fresh marks, and return both as frames. look: (label, colour).

    dashed: with a dashed line and square marks, told apart from other series in grey.
    Fresh rows also say between which bounds the recorded base seeds expect them (`compare.expected`).
    """
    label, color = look
    frames = []
    if chapter.recorded is not None:
        recorded = drawing.with_intervals(measure(chapter.recorded))
        drawing.band(axis, recorded, color, label, clip, dashed)
        frames.append(recorded.assign(series=series, study="recorded"))
    mine = measure(chapter.fresh)
    fresh = drawing.with_intervals(mine)
    drawing.points(axis, fresh, color, label if chapter.recorded is None else "_", dashed)
    if chapter.recorded is not None:
        known = measure(compare.cut_down(chapter.recorded, chapter.fresh))
        fresh = fresh.join(compare.expected(known, mine), on="step")
    return [*frames, fresh.assign(series=series, study="fresh")]


def finish(
    figure: Figure,
    chapter: Layers,
    name: str,
    title: str,
    frames: list[pd.DataFrame],
    note: str,
    marks: Marks = BANDS,
) -> Drawn:
    frame = pd.concat(frames)
    return drawing.finish(figure, name, title, frame, *chapter.caption(note, frame, marks))
