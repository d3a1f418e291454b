"""Forest plots: many estimates with their intervals, one per line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals import drawing, measures
from rlheals.chapters.captions import Marks
from rlheals.drawing import BLUE, GREY, PURPLE, RED, Drawn
from rlheals.sft_chapter import SFTChapter
from rlheals.sft_claims import CLAIMS, Curves, by_seed, estimates
from rlheals.stats import t_interval

FOREST = Marks("dots", "crosses, not judged")


def sensitivity(chapter: SFTChapter) -> Drawn:
    """OOD accuracy of base, peak and last checkpoint when the lab is made in another way."""
    studies = ({"lab": chapter.recorded} if chapter.recorded is not None else {}) | chapter.variants
    levels: tuple[tuple[str, str, Callable[[Curves], float]], ...] = (
        ("base, either layout", PURPLE, measures.base_level),
        ("peak", RED, measures.peak_level),
        ("last checkpoint", GREY, measures.end_level),
    )
    figure, (axis,) = drawing.canvas(height=0.45 * max(1, len(studies)) + 1.0)
    rows = []
    for place, (name, study) in enumerate(studies.items()):
        for offset, (what, color, level) in enumerate(levels):
            values = [level(curves) for curves in study.once(by_seed).values()]
            rows += [
                {"study": name, "what": what, "seed": s, "value": v}
                for s, v in zip(study.seeds, values, strict=True)
            ]
            _row(axis, -place + 0.22 * (1 - offset), values, color, what if place == 0 else None)
    axis.set_yticks([-place for place in range(len(studies))], list(studies), fontsize=8)
    axis.set_xlabel("OOD, solved within five attempts")
    axis.set_xlim(left=-0.01)
    if studies:
        axis.legend(fontsize=7)
    seeds = ", ".join(f"{name} {len(study.seeds)}" for name, study in studies.items()) or "none recorded yet"
    note = (
        "The peak is chosen on one half of the hands and measured on the other, both ways; bars: 95 % t interval over "
        f"base seeds. Number of base seeds: {seeds}."
    )
    frame = pd.DataFrame(rows).assign(study="recorded", variant=[row["study"] for row in rows])
    return drawing.finish(figure, "sft-sensitivity", "Sensitivity", frame, *chapter.caption(note, frame))


def claims_forest(chapter: SFTChapter) -> Drawn:
    """Every claim's number per base seed, its interval, and the margin decided beforehand."""
    judged = {one.claim.id: one for one in chapter.judged()}
    claims = CLAIMS.read().claims
    groups = {
        "difference of accuracies": [claim for claim in claims if "accuracy" in claim.unit],
        "share of the loss, or octaves of steps": [claim for claim in claims if "accuracy" not in claim.unit],
    }
    sizes = [len(group) + 1.5 for group in groups.values()]
    figure, axes = drawing.canvas(rows=2, height=0.15 * sum(sizes) + 0.4, ratios=sizes)
    rows = []
    for axis, (unit, group) in zip(axes, groups.items(), strict=True):
        for place, claim in enumerate(group):
            fresh = estimates(claim, chapter.fresh)
            axis.plot(list(fresh.values()), [-place] * len(fresh), "x", color=GREY, markersize=5)
            rows += [{"claim": claim.id, "study": "fresh", "seed": s, "value": v} for s, v in fresh.items()]
            if claim.id in judged:
                values = judged[claim.id].values
                _row(axis, -place, list(values.values()), BLUE, None)
                rows += [
                    {"claim": claim.id, "study": "recorded", "seed": s, "value": v} for s, v in values.items()
                ]
            axis.plot([claim.margin] * 2, [-place - 0.35, -place + 0.35], color=RED, linewidth=1.4)
        axis.axvline(0, color=GREY, linewidth=0.8)
        labels = [f"{c.id} ({judged[c.id].verdict})" if c.id in judged else c.id for c in group]
        axis.set_yticks([-place for place in range(len(labels))], labels, fontsize=8)
        axis.set_ylim(-len(group) + 0.4, 0.6)
        axis.set_xlabel(unit, fontsize=8)
    note = (
        "A claim says that its effect lies to the right of its red mark, the margin decided beforehand. Small dots: "
        "base seeds of the recorded study; large dot and bar: mean and 95 % t interval."
    )
    frame = pd.DataFrame(rows)
    return drawing.finish(figure, "sft-claims", "Claims", frame, *chapter.caption(note, frame, FOREST))


def _row(axis: Axes, y: float, values: list[float], color: str, label: str | None) -> None:
    """One line of a forest plot: seeds, mean, interval over seeds."""
    if len(values) > 1:
        interval = t_interval(values)
        axis.plot([interval.low, interval.high], [y, y], color=color, linewidth=1.5)
    axis.plot(values, [y] * len(values), ".", color=color, markersize=4, alpha=0.6)
    axis.plot(float(np.mean(values)), y, "o", color=color, markersize=5, label=label)
