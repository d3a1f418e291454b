"""One function per figure of chapter 02: takes the chapter, returns the drawing with the data frame it shows.

Here: before and after. What happens in between is in `recovery_training.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import PLAIN, Marks
from rlheals.chapters.drawing import SPLITS, both, finish, paper_points, paper_series
from rlheals.chapters.rl import measures as measured
from rlheals.chapters.rl.figures_training import advantages, learning, losses, why_late
from rlheals.chapters.rl.measures import Accuracies
from rlheals.chapters.rl.runs import MAIN, RecoveryChapter
from rlheals.chapters.sft import measures
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREY, PURPLE, RED, Drawn
from rlheals.stats.intervals import Interval, t_interval, wilson

BEFORE, AFTER = "start (SFT)", "after RL"
STAGE_LOOKS = {
    "peak": {"color": "white"},
    "start": {"color": GREY},
    "rl": {"color": RED, "hatch": "////"},
}
WINDOW = Marks("dots", "crosses")


def ood(chapter: RecoveryChapter) -> Drawn:
    """OOD accuracy of every start and of RL from it: within five, first try, either layout (the paper's Fig. 2c)."""
    figure, axes = drawing.canvas(columns=3)
    panels: dict[str, dict[str, Any]] = {
        "within five attempts": {},
        "first try": {"solved": measures.first_try},
        "within five, either layout": {"column": "solved_at_either"},
    }
    frames = []
    for axis, (title, options) in zip(axes, panels.items(), strict=True):
        frames += _before_after(
            axis, chapter, partial(measured.accuracy, split="ood", **options), RED, f"OOD, {title}"
        )
        axis.set_title(title.capitalize(), fontsize=9)
        axis.set_ylim(bottom=-0.01)
    axes[0].set_ylabel("share of OOD hands solved")
    axes[0].legend(fontsize=7)
    note = "Every point of the axis is an SFT checkpoint from which RL starts; RL sees the ID rule only."
    return finish(figure, chapter, "rl-ood", "OOD accuracy before and after RL", frames, note)


def id_hands(chapter: RecoveryChapter) -> Drawn:
    """The same on ID hands: those of SFT, those that only RL sees, those that neither sees (the paper's Fig. 2d)."""
    figure, axes = drawing.canvas(columns=3)
    frames = []
    looks = {"sft": SPLITS["sft"], "rl": ("RL-only hands", PURPLE), "held_out": SPLITS["held_out"]}
    for axis, (split, (title, color)) in zip(axes, looks.items(), strict=True):
        frames += _before_after(axis, chapter, partial(measured.accuracy, split=split), color, split)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(-0.02, 1.02)
    axes[0].set_ylabel("share solved within five attempts")
    axes[0].legend(fontsize=7)
    note = (
        "RL trains on hands of the SFT split and on RL-only hands; held-out hands have values that neither SFT nor RL "
        "sees."
    )
    return finish(figure, chapter, "rl-id", "ID accuracy before and after RL", frames, note)


def window(chapter: RecoveryChapter) -> Drawn:
    """Gain of every start with an interval that holds for all starts together: where the window can and cannot be."""
    figure, axes = drawing.canvas(columns=3)
    frames = []
    names = {
        "within_five": "within five attempts",
        "first_try": "first try",
        "revision": "corrected after feedback",
    }
    for axis, (measure, title) in zip(axes, names.items(), strict=True):
        for tables, color, study in ((chapter.recorded, RED, "recorded"), (chapter.fresh, GREY, "fresh")):
            if tables is None:
                continue
            frame = measured.gains(tables, measure)
            errors = np.nan_to_num(
                np.abs(np.stack([frame["value"] - frame["low"], frame["high"] - frame["value"]]))
            )
            marker = "o" if study == "recorded" else "x"
            look = {"color": color, "marker": marker, "markersize": 4, "linestyle": "none", "label": study}
            axis.errorbar(frame["step"], frame["value"], yerr=errors, **cast(Any, look))
            frames.append(frame.assign(series=title, study=study))
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_title(title.capitalize(), fontsize=9)
        drawing.step_axis(axis, chapter.starts, "start of RL (SFT step)")
    axes[0].set_ylabel("OOD accuracy, after RL - start")
    axes[0].legend(fontsize=7)
    return finish(figure, chapter, "rl-window", "The window", frames, window_note(chapter), WINDOW)


def window_note(chapter: RecoveryChapter) -> str:
    """Where the window surely is, surely is not, and may be."""
    if chapter.recorded is None or len(chapter.recorded.seeds) < 2:
        return "There are not enough recorded base seeds for intervals."
    kinds = measured.window(measured.gains(chapter.recorded))
    said = {name: ", ".join(f"{step:,}" for step in steps) or "none" for name, steps in kinds.items()}
    return (
        "Bars: the 95 % t intervals hold for all starts at once (Bonferroni). Starts from which OOD accuracy "
        f"within five gains significantly: {said['gain']}; loses significantly: {said['loss']}; inconclusive: "
        f"{said['open']}. An edge of the window lies between a significant start and its neighbour that is not. From "
        f"any start, RL ends at most {measured.excess_bound(chapter.recorded):+.3f} from the OOD peak of SFT (95 % "
        "bound for all starts together, wild bootstrap of the largest t)."
    )


def paper_beside(chapter: RecoveryChapter) -> Drawn:
    """The paper's Fig. 2c beside ours."""
    figure, (left, right) = drawing.canvas(columns=2)
    frames = []
    for key, color, label in (
        ("ood_accuracy_llama", GREY, BEFORE), ("ood_accuracy_after_rl_llama", RED, AFTER),
    ):  # fmt: skip
        frame = paper_series(key, 100)
        hands = paper_points()[key]["hands"]
        intervals = [wilson(round(value * hands), hands) for value in frame["value"]]
        frame = frame.assign(low=[one.low for one in intervals], high=[one.high for one in intervals])
        errors = np.clip(np.stack([frame["value"] - frame["low"], frame["high"] - frame["value"]]), 0, None)
        look = {
            "color": color,
            "marker": "o",
            "markersize": 3,
            "linewidth": 0.8,
            "elinewidth": 0.6,
            "label": label,
        }
        left.errorbar(frame["step"], frame["value"], yerr=errors, **cast(Any, look))
        frames.append(frame.assign(study="paper"))
    left.set_title("Paper: Llama-3.2-11B-Vision, 234 hands, one decode", fontsize=8)
    left.set_xlabel("SFT checkpoint")
    left.set_ylabel("share of OOD hands solved")
    left.legend(fontsize=7)
    left.set_ylim(bottom=-0.005)
    frames += _before_after(right, chapter, partial(measured.accuracy, split="ood"), RED, "OOD, this book")
    right.set_title("Lab model (this book)", fontsize=8)
    right.set_ylim(bottom=-0.005)
    note = "Left: points from the authors' files; the Wilson intervals on them are ours, for hands alone."
    return finish(figure, chapter, "rl-paper", "The paper's window beside ours", frames, note)


def stages(chapter: RecoveryChapter) -> Drawn:
    """Peak of SFT, a start of RL and RL from that very start: the paper's three bars (Fig. 1) beside ours."""
    figure, axes = drawing.canvas(columns=2, height=3.6)
    frames = []
    for axis, split in zip(axes, ("ood", "id"), strict=True):
        place, ticks = 0.0, {}
        for label, rows in _stage_rows(chapter, split).items():
            for row in rows:
                look = STAGE_LOOKS[row["stage"]]
                axis.bar(place, row["value"], width=0.7, edgecolor="black", linewidth=0.5, **cast(Any, look))
                axis.plot([place] * 2, [row["low"], row["high"]], color="black", linewidth=0.9)
                ticks[place] = row["bar"]
                place += 0.8
            middle = place - 0.4 * (len(rows) + 1)
            axis.text(middle, 1.0, label, ha="center", fontsize=7, transform=axis.get_xaxis_transform())
            frames.append(pd.DataFrame(rows).assign(series=f"{split}, {label}"))
            place += 0.6
        axis.set_xticks(list(ticks), list(ticks.values()), rotation=90, fontsize=7)
        axis.set_ylim(bottom=0)
        axis.set_title("OOD" if split == "ood" else "ID", fontsize=9, pad=14)
    axes[0].set_ylabel("share of hands solved")
    note = (
        "Hatched: RL; the plain bar to its left is the checkpoint from which it starts. Peak: the start with the "
        "highest OOD accuracy, in the lab chosen and measured on different halves of the hands. Bars of the paper: "
        "Wilson intervals of its 234 hands; of the lab: 95 % t intervals over base seeds, Wilson intervals for one."
    )
    return finish(figure, chapter, "rl-stages", "Three stages", frames, note, PLAIN)


def parts(chapter: RecoveryChapter) -> Drawn:
    """What changes on OOD hands: format, rule, arithmetic, revision."""
    figure, axes = drawing.canvas(columns=2, rows=2, height=2.5)
    frames = []
    for axis, name in zip(axes, measures.PARTS, strict=True):
        frames += _before_after(axis, chapter, partial(measured.part, split="ood", name=name), RED, name)
        axis.set_title(name, fontsize=8)
        axis.set_ylim(-0.02, 1.02)
    axes[0].legend(fontsize=7)
    note = "Each part among the hands that got to it: readable answers, those with right values, failed first tries."
    return finish(figure, chapter, "rl-parts", "What RL restores on OOD hands", frames, note)


def controls(chapter: RecoveryChapter) -> Drawn:
    """OOD accuracy of the start, of RL from it, and of every control from the same start."""
    start = chapter.profile.rl_starts.control_start
    levels = (
        measured.control_levels(chapter.recorded, start) if chapter.recorded is not None and start else {}
    )
    if chapter.sft is not None and start:
        later = 4 * start
        rows = chapter.sft.episodes
        rows = rows[(rows["split"] == "ood") & (rows["step"] == later)]
        if len(rows):
            levels["SFT continued"] = (rows["solved_at"] > 0).groupby(rows["seed"]).mean().to_dict()
    if (
        chapter.recorded is not None
        and start
        and (matched := measured.at_matched_entropy(chapter.recorded, start))
    ):
        levels["start at RL's entropy"] = matched
    figure, (axis,) = drawing.canvas(height=0.24 * max(2, len(levels)) + 0.9)
    frames = []
    for place, (name, values) in enumerate(levels.items()):
        found = list(values.values())
        color = {"start": GREY, "RL": RED}.get(name, BLUE)
        if len(found) > 1:
            interval = t_interval(found)
            axis.plot([interval.low, interval.high], [-place] * 2, color=color, linewidth=1.5)
        axis.plot(found, [-place] * len(found), ".", color=color, markersize=4, alpha=0.6)
        axis.plot(float(np.mean(found)), -place, "o", color=color, markersize=5)
        frames += [{"control": name, "seed": seed, "value": value} for seed, value in values.items()]
    axis.set_yticks([-place for place in range(len(levels))], list(levels), fontsize=8)
    axis.set_xlabel("OOD hands solved within five attempts")
    axis.set_xlim(left=-0.005)
    note = (
        f"All from SFT step {start:,} with the same number of episodes; SFT continued: four times as many SFT steps, "
        "about as many training sequences; at RL's entropy: the start's accuracy interpolated between temperatures to "
        "the entropy of RL's first attempts. Small dots: base seeds; large dots and bars: mean and 95 % t interval."
        if start
        else "This profile has no controls."
    )
    frame = pd.DataFrame(frames).assign(study="recorded")
    return drawing.finish(figure, "rl-controls", "Controls", frame, *chapter.caption(note, frame))


def entropy(chapter: RecoveryChapter) -> Drawn:
    """Accuracy against entropy: is RL more than decoding its start at another temperature?"""
    start = chapter.profile.rl_starts.control_start
    frame = (
        measured.entropies(chapter.recorded, start)
        if chapter.recorded is not None and start
        else pd.DataFrame(columns=["seed", "control", "start", "run", "entropy", "value"])
    )
    figure, (axis,) = drawing.canvas(height=2.4)
    control = frame["control"].astype(str)
    before = frame[(control.str.startswith("temperature") | (control == MAIN)) & (frame["run"] < 0)]
    after = frame[(control == MAIN) & (frame["run"] >= 0)]
    for number, (_, curve) in enumerate(before.groupby("seed")):
        line = curve.sort_values("entropy")
        label = "start, temperatures 0.3 to 1" if number == 0 else None
        axis.plot(line["entropy"], line["value"], ".-", color=GREY, linewidth=0.8, markersize=4, label=label)
    axis.plot(
        after["entropy"], after["value"], "o", color=RED, markersize=4, label="after RL, temperature 0.7"
    )
    axis.set_xlabel("entropy of first attempts at OOD hands (nats per token)")
    axis.set_ylabel("OOD hands solved within five")
    axis.set_ylim(bottom=0)
    note = "There are no recorded controls to show."
    if len(frame):
        axis.legend(fontsize=7)
        frame = frame.assign(study="recorded")
        note = "One line per base seed, one dot per RL run; a dot on its line: RL did what a temperature does as well."
    return drawing.finish(figure, "rl-entropy", "RL and temperature", frame, *chapter.caption(note, frame))


def _before_after(
    axis: Axes, chapter: RecoveryChapter, measure: Callable[..., pd.DataFrame], color: str, series: str
) -> list[pd.DataFrame]:
    frames = []
    for after, look in ((False, (BEFORE, GREY)), (True, (AFTER, color))):
        frames += both(
            axis, chapter, partial(measure, after=after), look, f"{series}, {look[0]}", dashed=not after
        )
    drawing.step_axis(axis, chapter.starts, "start of RL (SFT step)")
    return frames


def _stage_rows(chapter: RecoveryChapter, split: str) -> dict[str, list[dict[str, Any]]]:
    """The bars of each model in order; every bar of RL stands right of the checkpoint from which it starts."""
    rows: dict[str, list[dict[str, Any]]] = {}
    words = {"peak": "peak", "end": "end", "rl": "RL from the end"}
    for key, label in (("stages_llama", "Llama (paper)"), ("stages_qwen", "Qwen (paper)")):
        paper = paper_points()[key]
        rows[label] = []
        for name, bar in words.items():
            value = paper["points"][f"{split}_{name}"] / 100
            found = wilson(round(value * paper["hands"]), paper["hands"])
            stage = "start" if name == "end" else name
            rows[label].append(_bar(stage, bar, value, found) | {"study": "paper"})
    tables = chapter.tables
    accuracies = list(Accuracies.by_seed(tables).values())
    splits = set(tables.episodes["split"])
    asked = "ood" if split == "ood" else "sft" if "sft" in splits else "held_out"
    hands = int(tables.episodes.loc[tables.episodes["split"] == asked, "item"].nunique())
    middle = chapter.profile.rl_starts.control_start or tables.starts[len(tables.starts) // 2]
    wanted: list[tuple[str, str, int | None]] = [("peak", "peak", None)]
    for start in dict.fromkeys((middle, tables.starts[-1])):
        wanted += [("start", f"step {start:,}", start), ("rl", f"RL from {start:,}", start)]
    rows["lab (this book)"] = []
    for stage, bar, at in wanted:
        values = [_stage(one, stage, asked, at) for one in accuracies]
        found = t_interval(values) if len(values) > 1 else wilson(round(values[0] * hands), hands)
        row = _bar(stage, bar, float(np.mean(values)), found)
        rows["lab (this book)"].append(row | {"start": at, "study": chapter.study})
    return rows


def _bar(stage: str, bar: str, value: float, found: Interval) -> dict[str, Any]:
    return {"stage": stage, "bar": bar, "value": value, "low": found.low, "high": found.high}


def _stage(one: Accuracies, stage: str, split: str, start: int | None) -> float:
    """Accuracy of one bar; without a start that of the peak."""
    if start is None and split == "ood":
        return one.best(after=False)
    at = max(one.starts, key=lambda each: one.accuracy(each, False)) if start is None else start
    return one.accuracy(at, stage == "rl", split=split)


RL: tuple[Callable[[RecoveryChapter], Drawn], ...] = (
    ood,
    id_hands,
    window,
    paper_beside,
    stages,
    parts,
    why_late,
    advantages,
    learning,
    losses,
    controls,
    entropy,
)
