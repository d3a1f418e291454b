"""Figures of chapter 02, one function each: before and after RL. What happens during RL is in `figures_training.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.drawing import FEEDBACK, PAPERS_TASK, Sheet, paper_points
from rlheals.chapters.rl import measures as measured
from rlheals.chapters.rl.figures_training import advantages, learning, losses, why_late
from rlheals.chapters.rl.measures import Accuracies
from rlheals.chapters.rl.runs import MAIN, NO_FEEDBACK, RLChapter
from rlheals.chapters.rows import only
from rlheals.chapters.sft import measures
from rlheals.display.looks import AFTER, BEFORE, BLUE, GREY, OOD, RED, Look
from rlheals.display.panels import level, step_axis
from rlheals.display.style import Drawn
from rlheals.stats.intervals import t_interval, wilson

STARTS = "RL start checkpoint (SFT step)"
SIMULTANEOUS = "95 % t intervals over base seeds, simultaneous for all RL start checkpoints (Bonferroni)"
OF_RATIO = "95 % t interval of a ratio of sums over base seeds, for one RL start checkpoint"
GAINS = {
    "success@5": FEEDBACK, "pass@1": "pass@1", "revision": "corrected after feedback",
    measured.ABILITY: "pass@4, format-agnostic", "feedback@4 either": "added by feedback, 4 attempts",
}  # fmt: skip
"""Measures of which the gain from every start is shown."""
CONTROLS = {
    "ppo": "PPO", "rejection": "expert iteration", "per-attempt": "an advantage per attempt",
    "one-attempt": "one attempt", "shuffled-feedback": "shuffled feedback", "shuffled-reward": "shuffled reward",
    "ood-rule": "RL on the OOD rule", NO_FEEDBACK: "asked without feedback",
}  # fmt: skip
BARS: dict[str, dict[str, Any]] = {
    "peak": {"color": "white"}, "start": {"color": GREY}, "rl": {"color": RED, "hatch": "////"},
}  # fmt: skip


def control_label(name: str) -> str:
    """A control in words.

    >>> control_label("ppo"), control_label("no-feedback (start)"), control_label("temperature-0.85 (start)")
    ('PPO', 'the start, asked without feedback', 'the start, at temperature 0.85')
    """
    control, start, _ = name.partition(" (start)")
    said = CONTROLS.get(control, control.replace("temperature-", "at temperature "))
    return f"the start, {said}" if start else "RL, " * (control == NO_FEEDBACK) + said


def _before_after(
    sheet: Sheet, axis: Axes, split: str, series: str, measure: str = "success@5", **of: Any
) -> None:
    """A measure of the checkpoints from which RL starts, and of what RL makes of them."""
    accuracy = partial(measured.accuracy, split=split, measure=measure)
    looks = ((False, BEFORE), (True, AFTER))
    drawn = {f"{series}, {one.label}": (partial(accuracy, after=after), one) for after, one in looks}
    sheet.curves(axis, drawn, **of)


def _sheet(chapter: RLChapter, columns: int, rows: int = 1, height: float = 3.2) -> Sheet:
    return Sheet(chapter, columns, rows, height, steps=chapter.starts, x=STARTS)


def ood(chapter: RLChapter) -> Drawn:
    """OOD accuracy of every RL start checkpoint and after RL: three measures (the paper's Fig. 2c)."""
    sheet = _sheet(chapter, 3)
    titles = {"success@5": FEEDBACK, "pass@1": "pass@1", "success@5 either": "success@5, format-agnostic"}
    for axis, (name, title) in zip(sheet.axes, titles.items(), strict=True):
        _before_after(sheet, axis, "ood", f"OOD, {title}", name, title=title, whole=False)
    sheet.axes[0].set_ylabel("share of OOD hands solved")
    sheet.legend(sheet.axes[0])
    note = "Every point of the axis is an SFT checkpoint from which RL starts; RL sees the ID rule only."
    return sheet.finish("rl-ood", "OOD accuracy before and after RL", note)


def id_hands(chapter: RLChapter) -> Drawn:
    """The same on ID hands: those of SFT, those that only RL sees, those that neither sees (the paper's Fig. 2d)."""
    sheet = _sheet(chapter, 3)
    titles = {"sft": "ID, SFT hands", "rl": "ID, RL-only hands", "held_out": "held-out ID"}
    for axis, (split, title) in zip(sheet.axes, titles.items(), strict=True):
        _before_after(sheet, axis, split, split, title=title)
    sheet.axes[0].set_ylabel(FEEDBACK)
    sheet.legend(sheet.axes[1])
    note = (
        "RL trains on hands of the SFT split and on RL-only hands; held-out hands have values that neither SFT nor RL "
        "sees."
    )
    return sheet.finish("rl-id", "ID accuracy before and after RL", note)


def window(chapter: RLChapter) -> Drawn:
    """Gain from every RL start checkpoint with simultaneous intervals: where the window can and cannot be."""
    sheet = _sheet(chapter, 3, 2, 2.6)
    for axis, (measure, title) in zip(sheet.axes, GAINS.items(), strict=False):
        for tables, study in chapter.layers:
            table = measured.gains(tables, measure)
            table["interval"] = np.where(table["high"] > table["low"], SIMULTANEOUS, "")
            sheet.mark(axis, table["step"], table, OOD, study, series=title)
        sheet.label(axis, title)
    last = sheet.axes[len(GAINS)]
    for tables, study in chapter.layers:
        if len(table := measured.regained(tables)):
            table["interval"] = np.where(table["high"] > table["low"], OF_RATIO, "")
            sheet.mark(last, table["step"], table, OOD, study, series="share of the loss regained")
    sheet.label(last, "share of the loss regained")
    last.set_ylim(-1, 1.5)
    for axis in sheet.axes:
        level(axis)
        step_axis(axis, chapter.starts, STARTS)
    for axis in (sheet.axes[0], sheet.axes[3]):
        axis.set_ylabel("OOD accuracy, after RL - before")
    note = (
        " Share regained: of pass@4, format-agnostic; its axis leaves out what lies below -1 and above 1.5, as near "
        "the peak, where little is lost."
    )
    return sheet.finish("rl-window", "The window", window_note(chapter) + note)


def window_note(chapter: RLChapter) -> str:
    """Where the window surely is, surely is not, and may be."""
    if chapter.recorded is None or len(chapter.recorded.seeds) < 2:
        return "There are not enough recorded base seeds for intervals."
    kinds = measured.window(measured.gains(chapter.recorded))
    said = {name: ", ".join(f"{step:,}" for step in steps) or "none" for name, steps in kinds.items()}
    excess = 100 * measured.excess_bound(chapter.recorded)
    bound = f"at most {excess:.1f} points above" if excess >= 0 else f"at least {-excess:.1f} points below"
    return (
        "RL start checkpoints from which OOD "
        f"{FEEDBACK} gains significantly: {said['gain']}; loses significantly: {said['loss']}; inconclusive: "
        f"{said['open']}. An edge of the window lies between a significant one and its neighbour that is not. From "
        f"any of them, RL ends {bound} the OOD peak of SFT (95 % bound for all together, wild bootstrap of the largest "
        "t)."
    )


def paper_beside(chapter: RLChapter) -> Drawn:
    """The paper's Fig. 2c beside ours."""
    sheet = _sheet(chapter, 2)
    left, right = sheet.axes
    sheet.paper(left, "ood_accuracy_llama", BEFORE, 100)
    sheet.paper(left, "ood_accuracy_after_rl_llama", OOD.named(AFTER.label), 100)
    title = "Paper: Llama-3.2-11B-Vision, 234 hands, one sampling seed"
    left.set_xlim(left=70)
    sheet.label(left, title, y="share of OOD hands solved", share=False)
    sheet.legend(left)
    _before_after(sheet, right, "ood", "OOD, this book", title="Lab model (this book)", whole=False)
    note = "Left: the authors' points from their step 90 on; the Wilson intervals are ours, for hands alone."
    return sheet.finish("rl-paper", "The paper's window beside ours", note)


def stages(chapter: RLChapter) -> Drawn:
    """Peak of SFT, an RL start checkpoint and RL from that very one: the paper's three bars (Fig. 1) beside ours."""
    sheet = Sheet(chapter, 2, height=3.6)
    for axis, split in zip(sheet.axes, ("ood", "id"), strict=True):
        place, ticks = 0.0, {}
        for label, rows in _stage_rows(chapter, split).items():
            for row in rows:
                look = {"width": 0.7, "edgecolor": "black", "linewidth": 0.5, **BARS[row["stage"]]}
                axis.bar(place, row["value"], **look)
                axis.plot([place] * 2, [row["low"], row["high"]], color="black", linewidth=0.9)
                ticks[place] = row["bar"]
                place += 0.8
            middle = place - 0.4 * (len(rows) + 1)
            axis.text(middle, 1.0, label, ha="center", fontsize=7, transform=axis.get_xaxis_transform())
            sheet.keep(pd.DataFrame(rows), series=f"{split}, {label}")
            place += 0.6
        axis.set_xticks(list(ticks), list(ticks.values()), rotation=90, fontsize=7)
        axis.set_ylim(bottom=0)
        axis.set_title("OOD" if split == "ood" else "ID", fontsize=8, pad=14)
    sheet.axes[0].set_ylabel("share of hands solved")
    note = (
        "Hatched: RL; the plain bar to its left is the checkpoint from which it starts. Peak: the checkpoint with the "
        "highest OOD accuracy, in the lab chosen and measured on different halves of the hands. Bars of the paper: "
        "Wilson intervals of its 234 hands; of the lab: 95 % t intervals over base seeds, Wilson intervals for one."
    )
    return sheet.finish("rl-stages", "Three stages", note)


def _stage_rows(chapter: RLChapter, split: str) -> dict[str, list[dict[str, Any]]]:
    """The bars of each model in order; every bar of RL stands right of the checkpoint from which it starts."""
    rows: dict[str, list[dict[str, Any]]] = {}
    words = {"peak": ("peak", "peak"), "end": ("start", "end"), "rl": ("rl", "RL from the end")}
    for key, label in (("stages_llama", "Llama (paper)"), ("stages_qwen", "Qwen (paper)")):
        if chapter.profile.task != PAPERS_TASK:
            continue
        points, hands = paper_points()[key]["points"], paper_points()[key]["hands"]
        rows[label] = [
            _bar(stage, bar, [points[f"{split}_{name}"] / 100], hands) | {"study": "paper"}
            for name, (stage, bar) in words.items()
        ]
    tables = chapter.tables
    accuracies = tables.once(measured.by_seed).values()
    splits = set(tables.episodes["split"].unique())
    asked = "ood" if split == "ood" else "sft" if "sft" in splits else "held_out"
    hands = only(tables.episodes, split=asked)["item"].nunique()
    control = chapter.profile.rl_starts.control_start
    middle = control if control in tables.starts else tables.starts[len(tables.starts) // 2]
    wanted: list[tuple[str, str, int | None]] = [("peak", "peak", None)]
    for start in dict.fromkeys((middle, tables.starts[-1])):
        wanted += [("start", f"step {start:,}", start), ("rl", f"RL from {start:,}", start)]
    rows["lab (this book)"] = []
    for stage, bar, at in wanted:
        values = [_stage(one, stage, asked, at) for one in accuracies]
        row = _bar(stage, bar, values, hands) | {"start": at, "study": chapter.study}
        rows["lab (this book)"].append(row)
    return rows


def _bar(stage: str, bar: str, values: list[float], hands: int) -> dict[str, Any]:
    found = t_interval(values) if len(values) > 1 else wilson(round(values[0] * hands), hands)
    value = float(np.mean(values))
    return {"stage": stage, "bar": bar, "value": value, "low": found.low, "high": found.high}


def _stage(one: Accuracies, stage: str, split: str, start: int | None) -> float:
    """Accuracy of one bar; without a start that of the peak."""
    if start is None and split == "ood":
        return one.best(after=False)
    at = max(one.starts, key=lambda each: one.accuracy(each, False)) if start is None else start
    return one.accuracy(at, stage == "rl", split=split)


def parts(chapter: RLChapter) -> Drawn:
    """What changes on OOD hands: format, rule, arithmetic, revision."""
    sheet = _sheet(chapter, 2, 2, 2.5)
    for axis, name in zip(sheet.axes, measures.PARTS, strict=True):
        _before_after(
            sheet, axis, "ood", name, name, title=name, whole=name.split(":")[0] in ("format", "rule")
        )
    sheet.legend(sheet.axes[0])
    note = "Each part among the hands that got to it: readable answers, those with right values, failed first attempts."
    return sheet.finish("rl-parts", "What RL restores on OOD hands", note)


def controls(chapter: RLChapter) -> Drawn:
    """OOD accuracy of one RL start checkpoint, of RL from it, and of every control from the same checkpoint."""
    start = chapter.profile.rl_starts.control_start
    levels: dict[str, dict[int, float]] = {}
    if chapter.recorded is not None and start:
        levels |= measured.control_levels(chapter.recorded, start)
        if chapter.sft is not None:
            rows = only(chapter.sft.episodes, split="ood", step=4 * start)
            levels["SFT continued"] = (rows["solved_at"] > 0).groupby(rows["seed"]).mean().to_dict()
        levels["start at RL's entropy"] = measured.at_matched_entropy(chapter.recorded, start)
    before = pd.Series(levels.get("start"), dtype=float)
    changes = {
        name: (pd.Series(values) - before).dropna() for name, values in levels.items() if name != "start"
    }
    there = sorted(
        (name for name, one in changes.items() if len(one)), key=lambda name: -changes[name].mean()
    )
    sheet = Sheet(chapter, height=0.2 * max(2, len(there)) + 0.9)
    (axis,) = sheet.axes
    for place, name in enumerate(there):
        sheet.forest_row(
            axis, -place, changes[name].to_list(), AFTER if name == "RL" else Look("", BLUE, "^")
        )
    for name, values in levels.items():
        rows = pd.DataFrame({"seed": list(values), "value": list(values.values())})
        sheet.keep(
            rows.assign(change=rows["seed"].map(changes.get(name, {}))), control=name, study="recorded"
        )
    most = max((len(one) for one in changes.values()), default=0)
    few = {name: f" ({len(changes[name])} seeds)" for name in there if len(changes[name]) < most}
    sheet.names(axis, [f"{control_label(name)}{few.get(name, '')}" for name in there], size=8)
    level(axis, upright=False)
    axis.set_xlabel(f"OOD {FEEDBACK}, less that of the start checkpoint")
    note = (
        f"All from SFT step {start:,} with the same number of episodes; SFT continued: four times as many SFT steps, "
        "about as many training sequences; at RL's entropy: the accuracy of the RL start checkpoint, interpolated "
        "between temperatures to the entropy of RL's first attempts. Differences within base seeds; bars: 95 % t "
        "interval."
        if start
        else "This profile has no controls."
    )
    return sheet.finish("rl-controls", "Controls", note)


def entropy(chapter: RLChapter) -> Drawn:
    """Accuracy against entropy: is RL more than sampling its start checkpoint at another temperature?"""
    start, drawn = chapter.profile.rl_starts.control_start, list[pd.DataFrame]()
    if chapter.recorded is not None and start:
        known = measured.entropies(chapter.recorded, start)
        for _, mine in known.groupby("seed"):
            line = measured.at_temperatures(mine).sort_values("entropy")
            if len(line) > 1:
                drawn.append(pd.concat([line, only(mine[mine["run"] >= 0], control=MAIN)]))
    columns = len(drawn) if 0 < len(drawn) <= 4 else 3
    sheet = Sheet(chapter, columns, max(1, -(-len(drawn) // columns)), height=2.2)
    sheet.hide(len(drawn) or 1)
    x, y = "entropy of first attempts (nats per token)", "OOD success@5"
    for axis, mine in zip(sheet.axes, drawn, strict=False):
        line, after = mine[mine["run"] < 0], mine[mine["run"] >= 0]
        axis.plot(line["entropy"], line["value"], "s-", label="start", color=BEFORE.color, lw=0.8, ms=3)
        axis.plot(after["entropy"], after["value"], "o", label="after RL", color=RED, ms=4)
        sheet.label(axis, f"base seed {mine['seed'].iloc[0]}", x, y)
        sheet.keep(mine, study="recorded")
    note = "No start has been sampled at several temperatures."
    if drawn:
        most = sheet.frame[["entropy", "value"]].max().clip(lower=0.01)
        for axis in sheet.axes[: len(drawn)]:
            axis.set(xlim=(0, 1.1 * most["entropy"]), ylim=(0, 1.25 * most["value"]))
        sheet.legend()
        note = (
            "OOD hands. Squares: the start, sampled at several temperatures; dots: RL runs from it, at "
            f"{chapter.profile.evaluate.sampling.temperature:g}. A dot on the line: a temperature does as much."
        )
    return sheet.finish("rl-entropy", "RL and temperature", note)


RL: tuple[Callable[[RLChapter], Drawn], ...] = (
    ood, id_hands, window, paper_beside, stages, parts, why_late, advantages, learning, losses, controls, entropy,
)  # fmt: skip
