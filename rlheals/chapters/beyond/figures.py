"""Figures of chapter 06, one function each: the paper's effect on other tasks than cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.beyond import measures
from rlheals.chapters.beyond.runs import CARDS, TASKS, BeyondChapter, BeyondTables
from rlheals.chapters.drawing import Sheet, paper_points
from rlheals.chapters.edits.measures import effects
from rlheals.chapters.healing.estimates import (
    BEFORE,
    HEALED,
    LOOKS,
    LOST,
    NOTHING,
    SHARES,
    finish,
    over_seeds,
    shares,
)
from rlheals.chapters.healing.figures import HEALS
from rlheals.chapters.healing.measures import Healing
from rlheals.chapters.healing.runs import MIDDLE, STATES
from rlheals.chapters.sft.measures import accuracy
from rlheals.chapters.spectra.measures import angles
from rlheals.display import looks
from rlheals.display.panels import level, step_axis
from rlheals.display.style import Drawn, with_intervals
from rlheals.study.peaks import PEAK
from rlheals.tasks import load_task
from rlheals.weights.edit_parser import read_entry

NAMES = {CARDS: "cards", "navigation": "navigation", "determinant_rules": "determinant, stated rule"}
STAGES = {
    "OOD peak\nof SFT": (BEFORE, PEAK),
    "half of it\nlost": (BEFORE, MIDDLE),
    "RL,\nID rule": ("rl", MIDDLE),
    "RL, other\nrules": (HEALED, MIDDLE),
}
"""By what they are called: the arm, and the state that it starts from."""
SERIES = {"ood": looks.OOD, "held_out": looks.HELD_OUT}
PAPERS = {
    CARDS: ("stages_llama", "stages_qwen"),
    "navigation": ("stages_navigation_llama", "stages_navigation_qwen"),
}
PAPERS_STAGES = ("peak", "end", "rl")
KIND_LOOKS = {
    "first turn": looks.OOD.named("first turn"),
    "later turns": looks.Look("later turns", looks.ORANGE, "D", "--"),
    "forward": looks.Look("forward", looks.SKY, "v", ":"),
    "stop": looks.Look("stop", looks.GREEN, "^", "-."),
}
RATE_LOOKS = {
    "nodes": looks.Look("nodes solved", looks.BLUE, "s", "--"),
    "per step": looks.Look("per step, as the reference counts", looks.PURPLE, "D", ":"),
    "routes": looks.Look("whole routes", looks.BLACK, "o", "-"),
}
EDITS = ("values(all)", "directions(all)", "rollback()", "noise() like directions(all)")
EDIT_NAMES = ("singular values", "singular vectors", "whole matrices", "noise, sized")


def stages(chapter: BeyondChapter) -> Drawn:
    """Peak, what SFT leaves, and what RL makes of it: all tasks side by side, the paper's numbers below."""
    tasks = (CARDS, *TASKS)
    sheet = Sheet(chapter, len(tasks), 2, 2.5)
    for axis, task in zip(sheet.row(0), tasks, strict=True):
        for tables, study in chapter.layers:
            _stages_of(sheet, axis, tables, study, task)
        _stage_axis(sheet, axis, NAMES[task], tuple(STAGES))
    for axis, task in zip(sheet.row(1), tasks, strict=True):
        for place, key in enumerate(PAPERS.get(task, ())):
            _papers_stages(sheet, axis, key, (-0.12, 0.12)[place], hollow=place == 1)
        _stage_axis(sheet, axis, "", ("OOD peak\nof SFT", "end of\nSFT", "RL"))
        if task not in PAPERS:
            axis.text(
                0.5, 0.5, "the paper gives\nno numbers", transform=axis.transAxes, ha="center", va="center"
            )
    for number, whose in enumerate(("this lab", "the paper")):
        sheet.row(number)[0].set_ylabel(f"{whose}:\nsolved within the attempts")
    sheet.legend(below=4)
    note = (
        "Above: the lab's peak, the SFT checkpoint that has lost half of the OOD ability, and second stages from there "
        "on questions under the ID rule or under other rules, never the OOD rule. Attempts with feedback: five for "
        "cards, two for the others; of routes, turns count. Below: the paper's Llama (filled) and Qwen (open), with "
        "Wilson intervals of its 234 hands or 48 routes."
    )
    return sheet.finish("beyond-stages", "All tasks side by side", note)


def _stages_of(sheet: Sheet, axis: Axes, tables: BeyondTables, study: str, task: str) -> None:
    mine = tables.of(task, "healing")
    if mine is None:
        return
    for shift, (split, look) in zip((-0.08, 0.08), SERIES.items(), strict=True):
        for place, (arm, state) in enumerate(STAGES.values()):
            table = over_seeds(mine, partial(_solved, arm=arm, state=state, split=split))
            at = [place + shift] * len(table)
            sheet.mark(axis, at, table, look, study, series=f"{task}, {split}", arm=arm, state=state)


def _solved(one: Healing, arm: str, state: int, split: str) -> float:
    return one.accuracy(arm, state, arm != BEFORE, measure="success5", split=split)


def _papers_stages(sheet: Sheet, axis: Axes, key: str, shift: float, hollow: bool) -> None:
    points = paper_points()[key]
    for split, look in (("ood", looks.OOD), ("id", looks.ID)):
        rows = pd.DataFrame({"step": range(len(PAPERS_STAGES)), "seed": 0, "n": points["hands"]})
        rows["value"] = [points["points"][f"{split}_{stage}"] / 100 for stage in PAPERS_STAGES]
        table = with_intervals(rows).drop(columns="seeds")
        axis.errorbar(
            table["step"] + shift, table["value"], [table["value"] - table["low"], table["high"] - table["value"]],
            color=look.color, marker=look.marker, markersize=4, elinewidth=1, linestyle="none",
            markerfacecolor="white" if hollow else look.color, label=None if hollow else f"{look.label} (paper)",
        )  # fmt: skip
        sheet.keep(table, series=f"{key}, {split}", study="paper")


def _stage_axis(sheet: Sheet, axis: Axes, title: str, names: tuple[str, ...]) -> None:
    axis.set_xticks(range(len(names)), names, fontsize=6)
    axis.set_xlim(-0.5, len(names) - 0.5)
    sheet.label(axis, title, share=True)
    if not axis.has_data() and title:
        axis.text(0.5, 0.5, NOTHING, transform=axis.transAxes, ha="center", va="center", fontsize=8)


def curves(chapter: BeyondChapter) -> Drawn:
    """The rise and the fall of every task, with feedback and format-agnostic."""
    sheet = Sheet(chapter, 2, len(TASKS), 2.5)
    drawn = {
        "success@5": SERIES,
        "pass@1 either": {**SERIES, "control": looks.Look("another unseen rule", looks.GREY, "v", ":")},
    }
    for number, task in enumerate(TASKS):
        for axis, (measure, series) in zip(sheet.row(number), drawn.items(), strict=True):
            tries = _tries(task, measure)
            asked: dict[str, tuple[Callable[..., pd.DataFrame], looks.Look]] = {
                f"{task}, {split}, {tries}": (partial(_curve, task=task, split=split, measure=measure), look)
                for split, look in series.items()
            }
            sheet.curves(axis, asked, f"{NAMES[task]}: {tries}")
            if steps := _steps(chapter, task):
                step_axis(axis, steps)
                for name, share in load_task(task).chance().items():
                    if measure == "success@5" and name.endswith(" on ood"):
                        level(axis, share, line=":")
        sheet.row(number)[0].set_ylabel("share of questions")
    sheet.legend(below=3)
    chance = "; ".join(
        f"{NAMES[task]}, {name.removesuffix(' on ood')} {share:.2f}"
        for task in TASKS
        for name, share in load_task(task).chance().items()
        if name.endswith(" on ood")
    )
    note = (
        "Left: solved in the format asked for within the task's attempts, with feedback. Right: solved at the first "
        "attempt in either format. Of routes, turns count. Dotted: what policies solve of OOD that calculate nothing "
        f"({chance})."
    )
    return finish(sheet, "beyond-curves", "Accuracy during SFT", note)


def _curve(tables: BeyondTables, task: str, split: str, measure: str) -> pd.DataFrame:
    return measures.of(tables, task, "sft", partial(accuracy, split=split, measure=measure))


def _tries(task: str, measure: str) -> str:
    """A measure with the task's own number of attempts."""
    return measure.replace("success@5", f"success@{load_task(task).attempts}").replace(
        " either", ", either format"
    )


def _steps(chapter: BeyondChapter, task: str) -> list[int]:
    """SFT steps with an evaluation in any layer."""
    found = (tables.of(task, "sft") for tables, _ in chapter.layers)
    return sorted({step for one in found if one is not None for step in one.steps})


def routes(chapter: BeyondChapter) -> Drawn:
    """Navigation under the OOD rule: by kind of node, and how differently three rates see the same model."""
    sheet = Sheet(chapter, 2, steps=_steps(chapter, measures.NAVIGATION))
    for axis, column, measure, drawn in (
        (sheet.axes[0], "kind", measures.nodes, KIND_LOOKS),
        (sheet.axes[1], "rate", measures.rates, RATE_LOOKS),
    ):
        series = {
            name: (partial(_named, measure=measure, column=column, name=name), look)
            for name, look in drawn.items()
        }
        sheet.curves(axis, series, share=True)
        sheet.legend(axis)
    sheet.label(sheet.axes[0], "OOD nodes by kind: first attempt, either format", y="share")
    sheet.label(sheet.axes[1], "the same checkpoints, three rates")
    note = (
        "Before the first turn a prompt shows no action, so the list alone says which words count; at later turns it "
        "shows earlier ones. Only turns differ between the rules. The reference leaves a route at its first failed "
        "node; later nodes are never asked there."
    )
    return sheet.finish("beyond-routes", "Where routes are lost", note)


def _named(
    tables: BeyondTables, measure: Callable[[BeyondTables], pd.DataFrame], column: str, name: str
) -> pd.DataFrame:
    if tables.of(measures.NAVIGATION, "sft") is None:
        return pd.DataFrame(columns=["seed", "step", "value", "n"])
    rows = tables.once(measure)
    return rows[rows[column] == name].drop(columns=column)


def healed(chapter: BeyondChapter) -> Drawn:
    """What RL regains of the loss, task by task and start by start, with questions under other rules and without."""
    tasks = (CARDS, *TASKS)
    sheet = Sheet(chapter, len(tasks), height=2.7)
    for axis, task in zip(sheet.axes, tasks, strict=True):
        for tables, study in chapter.layers:
            mine = tables.of(task, "healing")
            for shift, arm in zip((-0.08, 0.08), ("rl", HEALED), strict=True):
                for place, state in enumerate(STATES):
                    if mine is None:
                        continue
                    table = shares(mine, arm, state)
                    sheet.draw(axis, [place + shift] * len(table), table, arm_look(arm), study)
                    sheet.keep(table, study=study, interval=SHARES, series=f"{task}, {arm}", state=state)
        axis.set_xticks(range(len(STATES)), [str(state) for state in STATES])
        axis.set_xlim(-0.5, len(STATES) - 0.5)
        for at, line in ((0, "-"), (HEALS, "--"), (1, "-")):
            level(axis, at, line=line)
        sheet.label(axis, NAMES[task])
    sheet.axes[0].set_ylabel("share of the loss regained")
    sheet.axes[len(tasks) // 2].set_xlabel(LOST)
    sheet.legend(below=2)
    note = (
        "1 is the peak, 0 the start, dashed a quarter. Ability is pass@4 of first attempts in either format; of "
        "routes, turns count. No second stage sees the OOD rule."
    )
    return finish(sheet, "beyond-healed", "What RL brings back", note)


def arm_look(arm: str) -> looks.Look:
    """Of all tasks, so that no numbers of cards are named."""
    return LOOKS[arm].named("RL, other rules too") if arm == HEALED else LOOKS[arm]


def weights(chapter: BeyondChapter) -> Drawn:
    """Rotation from the peak to the end of SFT beside its null, and what putting the peak's parts back restores."""
    sheet = Sheet(chapter, 2, height=2.6)
    left, right = sheet.axes
    for tables, study in chapter.layers:
        for place, task in enumerate(TASKS):
            rotation, swaps = tables.of(task, "rotation"), tables.of(task, "swaps")
            for what, look in (("change", looks.CHANGE.named("SFT")), ("gaussian", looks.GAUSSIAN)):
                if rotation is not None:
                    rows = _angles(rotation, what)
                    sheet.mark(left, [-place], rows, look, study, upright=False, series=f"{task}, {what}")
            if swaps is not None and len(swaps.sizes):
                _restored(sheet, right, swaps, study, task)
    sheet.names(left, [NAMES[task] for task in TASKS])
    sheet.label(left, "from the OOD peak to the end of SFT", "mean angle of the leading quarter (degrees)")
    sheet.legend(left)
    sheet.names(right, EDIT_NAMES)
    sheet.label(right, "the peak's, put into a late checkpoint", "OOD success, edited - late")
    level(right, 0, upright=False)
    sheet.legend(right)
    note = (
        "Left: angle between leading singular subspaces of the block matrices, beside Gaussian changes of equal norm. "
        "Right: all of the peak's singular values, vectors, or whole matrices of the blocks put into a late checkpoint "
        "of SFT, and noise as large as the change of the vectors."
    )
    return finish(sheet, "beyond-weights", "What moves in the weights", note)


def _angles(rotation: Any, what: str) -> pd.DataFrame:
    rows = angles(rotation)
    mine = rows[(rows["pair"] == "peak-end") & (rows["what"] == what)]
    return with_intervals(mine.assign(value=mine["mean"], row=0)[["seed", "value", "row"]], ["row"]).drop(
        columns="row"
    )


TASK_LOOKS: Mapping[str, looks.Look] = {
    "navigation": looks.Look("navigation", looks.BLUE, "s"),
    "determinant_rules": looks.Look("determinant, stated rule", looks.ORANGE, "D"),
}


def _restored(sheet: Sheet, axis: Axes, swaps: Any, study: str, task: str) -> None:
    shift, found = 0.12 * (TASKS.index(task) - 0.5), effects(swaps)
    for place, entry in enumerate(EDITS):
        edit, where = read_entry(f"{entry} @ blocks")
        rows = found[(found["kind"] == "restore") & (found["edit"] == edit) & (found["where"] == where)]
        if rows.empty:
            continue
        values = rows.assign(value=rows["effect"], row=0)[["seed", "value", "row"]]
        table = with_intervals(values, ["row"]).drop(columns="row")
        sheet.mark(
            axis, [-place + shift], table, TASK_LOOKS[task], study, upright=False, series=f"{task}, {entry}"
        )  # fmt: skip


BEYOND: tuple[Callable[[BeyondChapter], Drawn], ...] = (stages, curves, routes, healed, weights)
