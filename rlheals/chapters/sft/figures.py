"""One function per figure of the book: takes a chapter, returns the drawing with the data frame it shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.captions import PLAIN, Marks
from rlheals.chapters.drawing import LOSSES, SPLITS, _paper_lines, both, finish, paper_points, paper_series
from rlheals.chapters.sft import measures
from rlheals.chapters.sft.claims import CLAIMS
from rlheals.chapters.sft.measures import Curves, by_seed
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW, Drawn
from rlheals.errors import BadInput
from rlheals.stats.intervals import t_interval

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
            fresh = CLAIMS.estimates(claim, chapter.fresh)
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


CATEGORIES = {
    "correct": ("correct", GREEN),
    "no_solution": ("values right, not 24", YELLOW),
    "wrong_rule": ("right under another rule", RED),
    "wrong_number": ("other wrong values", ORANGE),
    "illegal_formula": ("unreadable", GREY),
}
HATCHES = {
    "correct": "",
    "no_solution": "...",
    "wrong_rule": "////",
    "wrong_number": "xxx",
    "illegal_formula": "--",
}
"""So that the categories differ in grey as well."""


HERE, THERE = "Lab model (this book)", "Paper"


def accuracy(chapter: SFTChapter) -> Drawn:
    """Within-five and first-try accuracy against SFT step, with the base's layout-free accuracy as a line."""
    figure, axes = drawing.canvas(columns=2)
    frames = []
    panels = {"within five attempts": measures.within_five, "first try": measures.first_try}
    for axis, (title, solved) in zip(axes, panels.items(), strict=True):
        for split, look in SPLITS.items():
            series = f"{split}, {title}"
            frames += both(
                axis, chapter, partial(measures.accuracy, split=split, solved=solved), look, series
            )
            frames.append(_base_line(axis, chapter, split, solved, look[1], series))
        axis.set_title(title.capitalize(), fontsize=9)
        axis.set_ylim(-0.02, 1.02)
        drawing.step_axis(axis, chapter.fresh.steps)
    axes[0].set_ylabel("share of hands solved")
    axes[0].legend(fontsize=7, loc="center left")
    note = "Dotted horizontals: the base when an answer counts in either layout."
    return finish(figure, chapter, "sft-accuracy", "Accuracy during SFT", frames, note)


def layout_free(chapter: SFTChapter) -> Drawn:
    """Accuracy with the wanted layout against accuracy in either layout: how much of the rise is format."""
    figure, axes = drawing.canvas(columns=2)
    frames = []
    for axis, split in zip(axes, ("ood", "sft"), strict=True):
        title, color = SPLITS[split]
        looks = {"solved_at": ("wanted layout only", color), "solved_at_either": ("either layout", PURPLE)}
        for column, look in looks.items():
            measure = partial(measures.accuracy, split=split, column=column)
            frames += both(axis, chapter, measure, look, f"{split}, {look[0]}")
        axis.set_title(title, fontsize=9)
        axis.set_ylim(bottom=-0.01)
        drawing.step_axis(axis, chapter.fresh.steps)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("solved within five attempts")
    note = "Where the two curves meet the answer format is learnt; what the upper one does before that is ability."
    return finish(figure, chapter, "sft-layout-free", "Format apart from ability", frames, note)


def common_hands(chapter: SFTChapter) -> Drawn:
    """The hands that both rules can solve, asked under either: the rule changes, the hands do not."""
    figure, (axis,) = drawing.canvas()
    frames = []
    for rule, look in {
        "id": ("asked with J, Q, K = 10", BLUE),
        "ood": ("asked with J, Q, K = 11, 12, 13", RED),
    }.items():
        frames += both(
            axis, chapter, partial(measures.common_hands, rule=rule, task=chapter.profile.task), look, rule
        )
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("solved within five attempts")
    axis.legend(fontsize=7)
    drawing.step_axis(axis, chapter.fresh.steps)
    note = (
        "Face-card hands that both rules can solve. The OOD set holds other hands than the ID set; here they are the "
        "same, so the gap between the curves is that of the rule and of the arithmetic it asks for."
    )
    return finish(figure, chapter, "sft-common-hands", "The same hands under both rules", frames, note)


def paper_beside(chapter: SFTChapter) -> Drawn:
    """OOD accuracy of the paper's Llama run beside ours."""
    series = paper_points()["ood_accuracy_llama"]
    figure, axes = drawing.canvas(columns=2)
    theirs = drawing.with_intervals(paper_series("ood_accuracy_llama", 100).assign(seed=0, n=series["hands"]))
    drawing.points(axes[0], theirs, ORANGE, "paper")
    axes[0].set_title(series["label"], fontsize=8)
    axes[0].set_xlabel("SFT step")
    axes[0].set_ylabel("OOD, solved within five attempts")
    look = ("this book", RED)
    frames = both(axes[1], chapter, partial(measures.accuracy, split="ood"), look, "this book")
    axes[1].set_title(HERE, fontsize=8)
    drawing.step_axis(axes[1], chapter.fresh.steps)
    for axis in axes:
        axis.set_ylim(bottom=-0.01)
    note = (
        f"Left: {series['source']}; Wilson intervals ours. Right: all OOD hands. Another model at another scale: "
        "shapes can be compared, heights cannot."
    )
    title = "The paper's OOD curve beside ours"
    return finish(figure, chapter, "sft-paper", title, [theirs.assign(series="paper"), *frames], note)


def losses(chapter: SFTChapter) -> Drawn:
    """Cross-entropy of expert answers during SFT on training, held-out and OOD hands; the paper's beside."""
    figure, axes = drawing.canvas(columns=2)
    frames = []
    for name, look in LOSSES.items():
        frames += both(axes[0], chapter, partial(measures.loss, name=name), look, name, clip=None)
    drawing.step_axis(axes[0], chapter.fresh.steps)
    axes[0].set_ylabel("cross-entropy, nats per answer token")
    frames += _paper_lines(axes[1], {"train_loss_llama": BLUE, "ood_loss_llama": RED}, last=2000)
    for axis, title in zip(axes, (HERE, THERE), strict=True):
        axis.set_yscale("log")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7)
    note = (
        "All three of our sets have the same format, so a difference between them is not one of layout. Each loss is "
        "measured on a fixed set, without sampling; between seeds the band shows the spread."
    )
    return finish(figure, chapter, "sft-losses", "Losses during SFT", frames, note)


def format_errors(chapter: SFTChapter) -> Drawn:
    """Share of first tries that cannot be read, ours and the paper's."""
    figure, axes = drawing.canvas(columns=2)
    frames = []
    for split in ("sft", "ood"):
        frames += both(axes[0], chapter, partial(measures.unreadable, split=split), SPLITS[split], split)
    drawing.step_axis(axes[0], chapter.fresh.steps)
    axes[0].set_ylabel("unreadable first tries")
    frames += _paper_lines(
        axes[1], {"format_error_llama": ORANGE, "format_error_qwen": PURPLE}, 1280, scale=100
    )
    for axis, title in zip(axes, (HERE, THERE), strict=True):
        axis.set_ylim(-0.02, 1.02)
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7)
    note = "The paper's points are one decode of one run, and its definition of a format error is not stated."
    return finish(figure, chapter, "sft-format", "Format errors during SFT", frames, note)


def error_categories(chapter: SFTChapter) -> Drawn:
    """All attempts by the verifier's verdict, stacked, for seen ID and OOD hands."""
    figure, axes = drawing.canvas(columns=2, height=3.5)
    tables = chapter.tables
    frames = []
    for axis, split in zip(axes, ("sft", "ood"), strict=True):
        parts = measures.categories(tables, split, list(CATEGORIES))
        names, colors = zip(*(CATEGORIES[name] for name in parts), strict=True)
        areas = axis.stackplot(
            parts.index,
            parts.to_numpy().T,
            labels=names,
            colors=colors,
            alpha=0.85,
            edgecolor="black",
            lw=0.4,
        )
        for area, category in zip(areas, parts, strict=True):
            area.set_hatch(HATCHES[category])
        axis.set_ylim(0, 1)
        axis.set_title(SPLITS[split][0], fontsize=9)
        drawing.step_axis(axis, chapter.fresh.steps)
        frames.append(
            parts.reset_index()
            .melt("step", var_name="series", value_name="value")
            .assign(split=split, study=chapter.study)
        )
    axes[0].set_ylabel("share of attempts")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, ncols=3, loc="outside lower center")
    note = "Every attempt at every hand, up to five per hand, base seeds together."
    return finish(figure, chapter, "sft-errors", "What goes wrong", frames, note, PLAIN)


def decomposition(chapter: SFTChapter) -> Drawn:
    """Format, rule and arithmetic on the first try, and revision after feedback, each given the one before."""
    figure, axes = drawing.canvas(columns=2, rows=2, height=2.5)
    frames = []
    for axis, title in zip(axes, measures.PARTS, strict=True):
        for split, look in SPLITS.items():
            measure = partial(measures.part, split=split, name=title)
            frames += both(axis, chapter, measure, look, f"{split}, {title}")
        axis.set_title(title, fontsize=9)
        axis.set_ylim(-0.02, 1.02)
        drawing.step_axis(axis, chapter.fresh.steps)
    axes[0].legend(fontsize=7, loc="lower right")
    axes[0].set_ylabel("share")
    axes[2].set_ylabel("share")
    note = (
        "Each share is taken among the hands that got the part before it right, revision among those whose first try "
        "failed; late in SFT few seen hands are left there."
    )
    return finish(figure, chapter, "sft-parts", "Format, rule, arithmetic, revision", frames, note)


def rule_distance(chapter: SFTChapter) -> Drawn:
    """Accuracy on face-card hands under other values of J, Q, K, against their distance from the ID rule."""
    figure, (axis,) = drawing.canvas()
    tables = chapter.tables
    trials = measures.rule_trials(tables, chapter.profile.task)
    frame = drawing.with_intervals(trials, by=("step", "distance")).assign(study=chapter.study)
    for color, (step, group) in zip(
        [GREY, SKY, BLUE, ORANGE, RED, PURPLE], frame.groupby("step"), strict=False
    ):
        errors = np.abs(np.stack([group["value"] - group["low"], group["high"] - group["value"]]))
        look: dict[str, Any] = {
            "color": color,
            "marker": "o",
            "markersize": 4,
            "linewidth": 1,
            "elinewidth": 0.7,
        }
        axis.errorbar(group["distance"], group["value"], yerr=errors, label=f"step {step:,}", **look)
    axis.set_xlabel("distance of the rule: mean of |value - 10| over J, Q, K")
    axis.set_ylabel("solved within five attempts")
    axis.set_ylim(-0.02, 1.02)
    axis.legend(fontsize=7, ncols=3)
    rules = tables.rules.drop_duplicates(["rule", "item"]).groupby("rule").size()
    note = (
        f"{len(rules)} rules, at most {rules.max()} face-card hands each, one decode; bars: 95 % intervals. "
        "Rules far from 10 also make other hands, easier or harder, so distance is not all that changes."
    )
    return finish(figure, chapter, "sft-rule-distance", "Other rules", [frame], note, PLAIN)


def _base_line(
    axis: Axes, chapter: SFTChapter, split: str, solved: measures.Solved, color: str, series: str
) -> pd.DataFrame:
    """A horizontal line: what the base solves when either layout counts."""
    values = measures.accuracy(chapter.tables, split, solved, "solved_at_either")
    level = drawing.with_intervals(values[values["step"] == 0])
    if level.empty:
        raise BadInput(
            f"profile {chapter.profile.name}: the figure needs the base's answers to the hands of {split}; "
            f"accepted: 0 in evaluated, {split} in evaluate.splits"
        )
    axis.axhline(float(level["value"].iloc[0]), color=color, linewidth=0.9, linestyle=(0, (1, 2)))
    return level.assign(series=f"{series}, base in either layout", study="base")


SFT: tuple[Callable[[SFTChapter], Drawn], ...] = (
    accuracy,
    layout_free,
    common_hands,
    paper_beside,
    losses,
    format_errors,
    error_categories,
    decomposition,
    rule_distance,
    sensitivity,
    claims_forest,
)
