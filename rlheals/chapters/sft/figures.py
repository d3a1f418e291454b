"""Figures of chapter 01, one function each: takes the chapter, returns the drawing with the data frame it shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from rlheals.chapters.drawing import FEEDBACK, PAPERS_TASK, Sheet, paper_points
from rlheals.chapters.rows import only
from rlheals.chapters.sft import measures
from rlheals.chapters.sft.claims import CLAIMS
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display import looks
from rlheals.display.panels import level, step_axis
from rlheals.display.style import Drawn, with_intervals
from rlheals.errors import BadInput
from rlheals.tasks import load_task

HERE, THERE = "Lab model (this book)", "Paper"
TRIES = {FEEDBACK: ("success@5", "success@5 either"), "pass@1": ("pass@1", "pass@1 either")}
"""Measure of a panel, and its format-agnostic twin."""


def _sheet(chapter: SFTChapter, columns: int = 1, rows: int = 1, height: float = 3.2) -> Sheet:
    return Sheet(chapter, columns, rows, height, steps=chapter.fresh.steps)


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
            axis.axhline(found["value"].iloc[0], color=look.color, linewidth=0.9, linestyle=(0, (1, 2)))
            sheet.keep(found, series=f"{name}, base, format-agnostic", study="base")
    chance = {
        name: share for name, share in load_task(chapter.profile.task).chance().items() if " on ood" in name
    }
    for share in chance.values():
        sheet.axes[0].axhline(share, color=looks.GREY, linewidth=0.7, linestyle=(0, (5, 3)))
    sheet.axes[0].set_ylabel("share of hands solved")
    sheet.legend(below=3)
    note = (
        "success@5 with feedback: solved within five attempts, each after the verifier's answer to the one before. "
        "pass@1: solved in the first attempt. Dotted horizontals: the base, format-agnostic (an answer counts in the "
        "format asked for or in that of pretraining)."
    )
    if chance:
        said = ", ".join(f"{name.removesuffix(' on ood')} {share:.2f}" for name, share in chance.items())
        note += f" Grey: what policies solve of OOD that calculate nothing ({said})."
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
    step_axis(right, [2000])
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
    step_axis(right, [1280])
    for axis in sheet.axes:
        sheet.legend(axis)
    note = (
        "The paper's points are one sampling seed of one run; its definition of a format error is not stated."
    )
    return sheet.finish("sft-format", "Format errors during SFT", note)


def error_categories(chapter: SFTChapter) -> Drawn:
    """All attempts by the verifier's verdict, stacked, for seen ID and OOD hands."""
    sheet = _sheet(chapter, 2, height=3.5)
    task = load_task(chapter.profile.task)
    categories = looks.verdicts(task.rewards.keys() - {"partial"})  # a part of `no_solution`
    for axis, split in zip(sheet.axes, ("sft", "ood"), strict=True):
        parts = measures.categories(chapter.tables, split, list(categories))
        verdicts = [look for look, _ in categories.values()]
        areas = axis.stackplot(
            parts.index, parts.to_numpy().T, labels=[look.label for look in verdicts],
            colors=[look.color for look in verdicts], alpha=0.85, edgecolor="black", lw=0.4,
        )  # fmt: skip
        for area, (_, hatch) in zip(areas, categories.values(), strict=True):
            area.set_hatch(hatch)
        axis.set_ylim(0, 1)
        sheet.label(axis, looks.SPLITS[split].label)
        step_axis(axis, chapter.fresh.steps)
        rows = parts.reset_index().melt("step", var_name="series", value_name="value")
        sheet.keep(rows, split=split, study=chapter.study)
    sheet.axes[0].set_ylabel("share of attempts")
    sheet.legend(below=3)
    most = chapter.profile.evaluate.attempts
    note = f"Every attempt at every hand, at most {most} per hand, base seeds together."
    return sheet.finish("sft-errors", "What goes wrong", note)


def decomposition(chapter: SFTChapter) -> Drawn:
    """Format, rule and arithmetic in the first attempt, and revision after feedback, each given the one before."""
    sheet = _sheet(chapter, 2, 2, 2.5)
    for axis, title in zip(sheet.axes, measures.PARTS, strict=True):
        series = {f"{split}, {title}": (_curve(split, title), look) for split, look in looks.SPLITS.items()}
        sheet.curves(axis, series, title, "share")
    sheet.legend(sheet.axes[0], loc="lower right")
    note = (
        "Each share is taken among the hands that got the part before it right, revision among those whose first "
        "attempt failed; late in SFT few seen hands are left there."
    )
    return sheet.finish("sft-parts", "Format, rule, arithmetic, revision", note)


def rule_distance(chapter: SFTChapter) -> Drawn:
    """Accuracy on face-card hands under other values of J, Q, K, against their distance from the ID rule."""
    sheet = Sheet(chapter)
    (axis,) = sheet.axes
    table = with_intervals(
        measures.rule_trials(chapter.tables, chapter.profile.task), by=("step", "distance")
    )
    for look, (step, group) in zip(looks.CATEGORICAL, table.groupby("step"), strict=False):
        sheet.mark(axis, group["distance"], group, look.named(f"step {step:,}"), chapter.study, "line")
    sheet.label(axis, x="distance of the rule from the ID rule", y=FEEDBACK, share=True)
    sheet.legend(ncols=3)
    rules = chapter.tables.rules.drop_duplicates(["rule", "item"]).groupby("rule").size()
    note = f"{len(rules)} rules, at most {rules.max()} face-card hands each, one sampling seed."
    if chapter.profile.task == PAPERS_TASK:
        note += (
            " Rules far from 10 also make other hands, easier or harder, so distance is not all that changes."
        )
    return sheet.finish("sft-rule-distance", "Other rules", note)


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
    sheet.names(axis, list(studies), size=8)
    axis.set_xlabel(f"OOD, {FEEDBACK}")
    axis.set_xlim(left=-0.01)
    sheet.legend()
    seeds = ", ".join(f"{name} {len(study.seeds)}" for name, study in studies.items()) or "none recorded yet"
    note = (
        "The peak is chosen on one half of the hands and measured on the other, both ways; bars: 95 % t interval over "
        f"base seeds. Number of base seeds: {seeds}."
    )
    return sheet.finish("sft-sensitivity", "Sensitivity", note)


def claims_forest(chapter: SFTChapter) -> Drawn:
    """Every claim's number per base seed, its interval, and the margin decided beforehand."""
    claims, is_judged = CLAIMS.read().claims, chapter.profile.name == CLAIMS.read().study.profile
    judged = {one.claim.id: one for one in CLAIMS.outcome(chapter.recorded).judged} if is_judged else {}
    units = {"difference of accuracies": True, "share of the loss, or octaves of steps": False}
    groups = {unit: [c for c in claims if ("accuracy" in c.unit) == is_so] for unit, is_so in units.items()}
    sizes = [len(group) + 1.5 for group in groups.values()]
    sheet = Sheet(chapter, rows=2, height=0.15 * sum(sizes) + 0.4, ratios=sizes)
    for axis, (unit, group) in zip(sheet.axes, groups.items(), strict=True):
        for place, claim in enumerate(group):
            found = {"fresh": CLAIMS.estimates(claim, chapter.fresh)}
            if claim.id in judged:
                found["recorded"] = dict(judged[claim.id].values)
            for study, values in found.items():
                sheet.forest_row(axis, -place, list(values.values()), looks.PLAIN_SFT, study)
                rows = pd.DataFrame({"seed": list(values), "value": list(values.values())})
                sheet.keep(rows, claim=claim.id, margin=claim.margin, study=study)
            axis.plot([claim.margin] * 2, [-place - 0.35, -place + 0.35], color=looks.RED, linewidth=1.4)
        level(axis, upright=False)
        verdicts = [f"{c.id} ({judged[c.id].verdict})" if c.id in judged else c.id for c in group]
        sheet.names(axis, verdicts, size=8)
        axis.set_xlabel(unit)
    note = (
        "A claim says that its effect lies to the right of its red mark, the margin decided beforehand; bars: 95 % t "
        "interval over base seeds. The fresh run is not judged."
    )
    return sheet.finish("sft-claims", "Claims", note)


SFT: tuple[Callable[[SFTChapter], Drawn], ...] = (
    accuracy, layout_free, common_hands, paper_beside, losses, format_errors, error_categories, decomposition,
    rule_distance, sensitivity, claims_forest,
)  # fmt: skip
