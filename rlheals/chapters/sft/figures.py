"""Figures of chapter 01, one function each: takes the chapter, returns the drawing with the data frame it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pandas as pd

from rlheals.chapters.drawing import FEEDBACK, PAPERS_TASK, Sheet, paper_points
from rlheals.chapters.rows import only
from rlheals.chapters.sft import measures
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display import looks
from rlheals.display.panels import level
from rlheals.display.style import Drawn, with_intervals
from rlheals.errors import BadInput
from rlheals.tasks import load_task

HERE, THERE = "Lab model (this book)", "Paper"
VARIANTS = {
    "lab": "the lab", "75": "base stopped at .75", "50": "base stopped at .5",
    "lr-1e-4": "learning rate 1e-4", "lr-1e-3": "learning rate 1e-3",
    "strict": "held-out hands not pretrained", "diverse": "questions of many forms",
}  # fmt: skip
"""Recorded studies of a lab made differently, in words."""
TRIES = {FEEDBACK: ("success@5", "success@5 either"), "pass@1": ("pass@1", "pass@1 either")}
"""Measure of a panel, and its format-agnostic twin."""


def _sheet(chapter: SFTChapter, columns: int = 1, rows: int = 1, height: float = 3.2) -> Sheet:
    """The axis holds every step that a study has: a fresh run is shorter than the recorded ones."""
    steps = sorted({step for tables, _ in chapter.layers for step in tables.steps})
    return Sheet(chapter, columns, rows, height, steps=steps)


def _curve(split: str, measure: str = "success@5") -> Callable[..., pd.DataFrame]:
    return partial(measures.accuracy, split=split, measure=measure)


def accuracy(chapter: SFTChapter) -> Drawn:
    """success@5 with feedback and pass@1 against SFT step, with the base's format-agnostic accuracy as a line."""
    sheet = _sheet(chapter, 2)
    for axis, (title, (solved, agnostic)) in zip(sheet.axes, TRIES.items(), strict=True):
        series = {f"{split}, {title}": (_curve(split, solved), look) for split, look in looks.SPLITS.items()}
        sheet.curves(axis, series, title)
        for name, (split, look) in zip(series, looks.SPLITS.items(), strict=True):
            found = with_intervals(only(_curve(split, agnostic)(chapter.tables), step=0))
            if found.empty:
                raise BadInput(
                    f"profile {chapter.profile.name}: the figure needs the base's answers to the hands of {split}; "
                    f"accepted: 0 in evaluated, {split} in evaluate.splits"
                )
            level(axis, found["value"].iloc[0], color=look.color)
            sheet.keep(found, series=f"{name}, base, format-agnostic", study="base")
    chance = {
        name: share for name, share in load_task(chapter.profile.task).chance().items() if " on ood" in name
    }
    for share in chance.values():
        level(sheet.axes[0], share, line="--")
    sheet.axes[0].set_ylabel("share of hands solved")
    sheet.legend()
    note = (
        "success@5 with feedback: solved within five attempts, each after the verifier's answer to the one before. "
        "pass@1: solved in the first attempt. Thin horizontals: the base, format-agnostic (an answer counts in the "
        "format asked for or in that of pretraining)."
    )
    if chance:
        said = ", ".join(f"{name.removesuffix(' on ood')} {share:.2f}" for name, share in chance.items())
        note += f" Dashed grey: what policies solve of OOD that calculate nothing ({said})."
    return sheet.finish("sft-accuracy", "Accuracy during SFT", note)


def layout_free(chapter: SFTChapter) -> Drawn:
    """Accuracy in the format asked for against format-agnostic accuracy: how much of the rise is format."""
    sheet = _sheet(chapter, 2)
    for axis, split in zip(sheet.axes, ("ood", "sft"), strict=True):
        asked = looks.SPLITS[split].named("format asked for")
        drawn = {"success@5": asked, "success@5 either": looks.AGNOSTIC}
        series = {f"{split}, {look.label}": (_curve(split, name), look) for name, look in drawn.items()}
        sheet.curves(axis, series, looks.SPLITS[split].label, whole=False)
        sheet.legend(axis)
    sheet.axes[0].set_ylabel(FEEDBACK)
    note = "Where the two curves meet the format is learnt; what the upper one does before that is ability."
    return sheet.finish("sft-layout-free", "Format apart from ability", note)


def common_hands(chapter: SFTChapter) -> Drawn:
    """The hands that both rules can solve, asked under either: the rule changes, the hands do not."""
    sheet = _sheet(chapter)
    measure = partial(measures.common_hands, task=chapter.profile.task)
    drawn = {
        "id": looks.ID.named("asked with J, Q, K = 10"),
        "ood": looks.OOD.named("asked with J, Q, K = 11, 12, 13"),
    }
    series = {rule: (partial(measure, rule=rule), look) for rule, look in drawn.items()}
    sheet.curves(sheet.axes[0], series, y=FEEDBACK)
    sheet.legend()
    note = (
        "Face-card hands that both rules can solve. The OOD set holds other hands than the ID set; here they are the "
        "same, so the gap between the curves is that of the rule and of the arithmetic it asks for."
    )
    return sheet.finish("sft-common-hands", "The same hands under both rules", note)


def paper_beside(chapter: SFTChapter) -> Drawn:
    """OOD accuracy of the paper's Llama run beside ours."""
    source = paper_points()["ood_accuracy_llama"]
    sheet = _sheet(chapter, 2)
    left, right = sheet.axes
    sheet.paper(left, "ood_accuracy_llama", looks.LLAMA, 100)
    sheet.curves(right, {"this book": (_curve("ood"), looks.OOD)}, HERE, whole=False)
    sheet.label(left, source["label"], y=f"OOD, {FEEDBACK}", share=False)
    note = (
        f"Left: {source['source']}; Wilson intervals ours. Right: all OOD hands. Another model at another scale: "
        "shapes can be compared, heights cannot."
    )
    return sheet.finish("sft-paper", "The paper's OOD curve beside ours", note)


def losses(chapter: SFTChapter) -> Drawn:
    """Cross-entropy of expert answers during SFT on training, held-out and OOD hands; the paper's beside."""
    sheet = _sheet(chapter, 2)
    left, right = sheet.axes
    series = {name: (partial(measures.loss, name=name), look) for name, look in looks.LOSSES.items()}
    sheet.curves(left, series, HERE, "cross-entropy, nats per answer token", share=False, log=True)
    for key, look in (("train_loss_llama", looks.ID), ("ood_loss_llama", looks.OOD)):
        sheet.paper(right, key, look.named(paper_points()[key]["label"]))
    sheet.label(right, THERE)
    right.set_yscale("log")
    for axis in sheet.axes:
        sheet.legend(axis)
    note = (
        "All three of our sets have the same format, so no difference between them is one of format. Each loss is "
        "measured on a fixed set, without sampling; between seeds the band shows the spread."
    )
    return sheet.finish("sft-losses", "Losses during SFT", note)


def format_errors(chapter: SFTChapter) -> Drawn:
    """Share of first attempts that cannot be read, ours and the paper's."""
    sheet = _sheet(chapter, 2)
    left, right = sheet.axes
    series = {split: (_curve(split, "unreadable"), looks.SPLITS[split]) for split in ("sft", "ood")}
    sheet.curves(left, series, HERE, "unreadable first attempts")
    for key, look in (("format_error_llama", looks.LLAMA), ("format_error_qwen", looks.QWEN)):
        sheet.paper(right, key, look.named(paper_points()[key]["label"]), 100)
    sheet.label(right, THERE, share=True)
    for axis in sheet.axes:
        sheet.legend(axis)
    note = (
        "The paper's points are one sampling seed of one run; its definition of a format error is not stated."
    )
    return sheet.finish("sft-format", "Format errors during SFT", note)


def error_categories(chapter: SFTChapter) -> Drawn:
    """All attempts by the verifier's verdict, for seen ID and OOD hands."""
    sheet = _sheet(chapter, 2, height=3.5)
    known = load_task(chapter.profile.task).rewards.keys() - {"partial"}  # a part of `no_solution`
    for axis, split in zip(sheet.axes, ("sft", "ood"), strict=True):
        series = {
            f"{split}, {name}": (partial(measures.verdict, split=split, name=name), look)
            for name, look in looks.verdicts(known).items()
        }
        sheet.curves(axis, series, looks.SPLITS[split].label)
    sheet.legend(sheet.axes[1])
    sheet.axes[0].set_ylabel("share of attempts")
    note = (
        f"Every attempt at every hand, at most {chapter.profile.evaluate.attempts} per hand, by its verdict."
    )
    return sheet.finish("sft-errors", "What goes wrong", note)


def decomposition(chapter: SFTChapter) -> Drawn:
    """Format, rule and arithmetic in the first attempt, and revision after feedback, each given the one before."""
    sheet = _sheet(chapter, 2, 2, 2.5)
    for axis, title in zip(sheet.axes, measures.PARTS, strict=True):
        series = {f"{split}, {title}": (_curve(split, title), look) for split, look in looks.SPLITS.items()}
        sheet.curves(axis, series, title, "share")
    sheet.legend(sheet.axes[2])
    note = (
        "Each share is taken among the hands that got the part before it right, revision among those whose first "
        "attempt failed; late in SFT few seen hands are left there."
    )
    return sheet.finish("sft-parts", "Format, rule, arithmetic, revision", note)


def rule_distance(chapter: SFTChapter) -> Drawn:
    """Accuracy on face-card hands under other values of J, Q, K, at the best checkpoint and the last one."""
    found = with_intervals(
        measures.rule_trials(chapter.tables, chapter.profile.task), by=("rule", "distance", "step")
    )
    levels = found.pivot_table(index=["rule", "distance"], columns="step", values="value")
    best, end = levels.mean().idxmax(), levels.columns[-1]
    levels = levels.loc[(levels[end] - levels[best]).sort_values().index]
    sheet = Sheet(chapter, height=0.17 * len(levels) + 0.9)
    (axis,) = sheet.axes
    places = {rule: -place for place, (rule, _) in enumerate(levels.index)}
    axis.hlines(list(places.values()), levels[best], levels[end], color=looks.GREY, linewidth=0.8)
    for step, look in {best: looks.OOD, end: looks.PLAIN_SFT}.items():
        mine = only(found, step=step)
        named = look.named(f"step {step:,}")
        sheet.mark(axis, mine["rule"].map(places), mine, named, chapter.study, upright=False)
    sheet.names(axis, [f"{rule_label(rule)} (distance {distance:g})" for rule, distance in levels.index])
    sheet.label(axis, x=f"{FEEDBACK}, other rules")
    sheet.legend()
    rules = chapter.tables.rules.drop_duplicates(["rule", "item"]).groupby("rule").size()
    note = f"{len(rules)} rules, at most {rules.max()} face-card hands each, one sampling seed, by what SFT loses."
    if chapter.profile.task == PAPERS_TASK:
        note += " A rule also decides which hands are solvable and how hard they are."
    return sheet.finish("sft-rule-distance", "Other rules", note)


def rule_label(name: str) -> str:
    """A rule's name as a reader says it.

    >>> rule_label("J11-Q12-K13"), rule_label("ood")
    ('J, Q, K = 11, 12, 13', 'OOD rule')
    """
    values = re.fullmatch(r"J(\d+)-Q(\d+)-K(\d+)", name)
    return f"J, Q, K = {', '.join(values.groups())}" if values else {"ood": "OOD rule"}.get(name, name)


def sensitivity(chapter: SFTChapter) -> Drawn:
    """OOD accuracy of base, peak and last checkpoint when the lab is made differently."""
    studies = ({"lab": chapter.recorded} if chapter.recorded is not None else {}) | chapter.variants
    levels = (
        (looks.AGNOSTIC.named("base, format-agnostic"), measures.base_level),
        (looks.OOD.named("peak"), measures.peak_level),
        (looks.PLAIN_SFT.named("last checkpoint"), measures.end_level),
    )
    sheet = Sheet(chapter, height=0.45 * max(1, len(studies)) + 1.0)
    (axis,) = sheet.axes
    for place, (name, study) in enumerate(studies.items()):
        for offset, (look, measure) in enumerate(levels):
            values = [measure(curves) for curves in study.once(measures.by_seed).values()]
            sheet.forest_row(axis, -place + 0.22 * (1 - offset), values, look)
            rows = pd.DataFrame({"what": look.label, "seed": study.seeds, "value": values})
            sheet.keep(rows, study="recorded", variant=name)
    named = [f"{VARIANTS.get(name, name)} ({len(study.seeds)} base seeds)" for name, study in studies.items()]
    sheet.names(axis, named)
    sheet.label(axis, x=f"OOD, {FEEDBACK}")
    axis.set_xlim(left=-0.005)
    sheet.legend(below=3)
    note = (
        "The peak is chosen on one half of the hands and measured on the other, both ways; bars: 95 % t interval over "
        "base seeds."
    )
    return sheet.finish("sft-sensitivity", "Sensitivity", note)


SFT: tuple[Callable[[SFTChapter], Drawn], ...] = (
    accuracy, layout_free, common_hands, paper_beside, losses, format_errors, error_categories, decomposition,
    rule_distance, sensitivity,
)  # fmt: skip
