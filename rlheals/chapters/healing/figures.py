"""Figures of chapter 05, one function each: when does RL heal? Those about single runs are in `figures_runs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.healing.estimates import (
    COLUMNS,
    LOOKS,
    LOST,
    NOTHING,
    SHARES,
    by_state,
    finish,
    second_stages,
    shares,
)
from rlheals.chapters.healing.figures_runs import arms, gradients, mixed, paths
from rlheals.chapters.healing.runs import BEFORE, HEALED, IMITATED, UNHEALED, HealingChapter
from rlheals.display.panels import level
from rlheals.display.style import Drawn
from rlheals.settings import STATES
from rlheals.study.peaks import PEAK

SPLITS = {
    "ood": "OOD rule (11, 12, 13)",
    "control": "unseen rule of ID numbers (7, 8, 9)",
    "held_out": "held-out ID",
}
WHY = {
    "rule": "rule: right values stated",
    "arithmetic": "arithmetic: solved, if so",
    "success5": "success@5 with feedback",
}
HEALS = 0.25
"""A share of the loss above which a second stage is said to heal."""


def levels(chapter: HealingChapter) -> Drawn:
    """Accuracy at the peak, at every start, and after every second stage."""
    sheet = Sheet(chapter, len(SPLITS), height=3.3)
    for axis, (split, title) in zip(sheet.axes, SPLITS.items(), strict=True):
        by_state(sheet, axis, (PEAK, *STATES), [BEFORE, *second_stages(chapter)], split, split=split)
        sheet.label(axis, title, share=True)
    sheet.axes[0].set_ylabel("pass@4, format-agnostic")
    sheet.axes[len(SPLITS) // 2].set_xlabel(LOST)
    sheet.legend(below=4)
    note = (
        "Starts are SFT checkpoints by the share of the peak's OOD pass@4 that they have lost, chosen on one half of "
        "the hands and measured on the other. No second stage sees the OOD rule or the other unseen rule."
    )
    return finish(sheet, "healing-levels", "What a second stage brings back", note)


def map_of_healing(chapter: HealingChapter) -> Drawn:
    """The map: ability of the base against amount of SFT; colour and number are the share of the loss regained."""
    shown = [arm for arm in second_stages(chapter) if "familiar" not in arm]
    rows = max(1, (len(shown) + 1) // 2)
    sheet = Sheet(chapter, 2, rows, height=2.0)
    abilities = sorted((float(one) for one in chapter.tables.steps["ability"].unique()), reverse=True)
    for place, (axis, arm) in enumerate(zip(sheet.axes, shown, strict=False)):
        _one_map(sheet, axis, arm, abilities)
        axis.set_title(LOOKS[arm].label, fontsize=8)
        if place % 2 == 0:
            axis.set_ylabel("ability of the base")
        if place >= len(shown) - 2:
            axis.set_xlabel(LOST)
    sheet.hide(max(1, len(shown)))
    sheet.marks[chapter.study] = "numbers with their intervals"
    note = (
        "Share of the lost OOD pass@4 that is regained: 1 is the peak, 0 the start. Blue regains, red loses more; "
        "bold: the whole interval lies above a quarter. Ability: share of a panel of hands that the base solves."
    )
    return finish(sheet, "healing-map", "When RL heals", note)


def _one_map(sheet: Sheet, axis: Axes, arm: str, abilities: Sequence[float]) -> None:
    chapter, grid = sheet.chapter, np.full((len(abilities), len(STATES)), np.nan)
    for row, ability in enumerate(abilities):
        for column, state in enumerate(STATES):
            table = shares(chapter.tables, arm, state, ability=ability)
            here = {"arm": arm, "state": state, "ability": ability}
            if table.empty:
                sheet.keep(pd.DataFrame([dict.fromkeys(COLUMNS, np.nan)]), study=chapter.study, **here)
                axis.text(column, row, NOTHING, ha="center", va="center", fontsize=7)
                continue
            sheet.keep(table, study=chapter.study, interval=SHARES, **here)
            value, low, high = table[["value", "low", "high"]].iloc[0]
            grid[row, column] = value
            ends = "" if np.isnan(low) else f"\n[{low:.2f}, {high:.2f}]"
            dark, bold = abs(value) > 0.6, low > HEALS
            axis.text(
                column, row, f"{value:.2f}{ends}", ha="center", va="center", fontsize=7,
                color="white" if dark else "black", fontweight="bold" if bold else "normal",
            )  # fmt: skip
    axis.imshow(grid, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axis.grid(visible=False)
    axis.set_xticks(range(len(STATES)), [str(state) for state in STATES])
    axis.set_yticks(range(len(abilities)), [f"{ability:g}" for ability in abilities])


def numbers(chapter: HealingChapter) -> Drawn:
    """The rule or its numbers: shares regained under the OOD rule and under an unseen rule of familiar numbers."""
    sheet = Sheet(chapter, 2, height=1.6)
    splits = {"ood": SPLITS["ood"], "control": SPLITS["control"]}
    for axis, (split, title) in zip(sheet.axes, splits.items(), strict=True):
        _forest(sheet, axis, ("rl", UNHEALED, HEALED), STATES[1], split=split)
        axis.set_title(title, fontsize=8)
    note = (
        f"Share of the loss of pass@4 under either rule that is regained, from the start that has lost {STATES[1]} % "
        "of the OOD pass@4: 1 is the peak, 0 the start; dashed: a quarter. No training question has either rule."
    )
    return finish(sheet, "healing-numbers", "The rule or the numbers?", note)


def imitation(chapter: HealingChapter) -> Drawn:
    """Ways to learn from the same questions: RL, imitation of experts, of the model's own solved episodes."""
    sheet = Sheet(chapter, len(STATES), height=2.0)
    for axis, state in zip(sheet.axes, STATES, strict=True):
        _forest(sheet, axis, (HEALED, IMITATED, "expert-varied", UNHEALED, "imitate-familiar"), state)
        axis.set_title(f"{state} % lost", fontsize=8)
        if axis is not sheet.axes[0]:
            axis.set_yticklabels([])
    note = (
        "Share of the lost OOD pass@4 that is regained: 1 is the peak, 0 the start; dashed: a quarter. All see as many "
        "episodes or examples."
    )
    return finish(sheet, "healing-imitation", "RL or imitation?", note)


def _forest(sheet: Sheet, axis: Axes, listed: Sequence[str], state: int, **options: object) -> None:
    """Shares of the loss regained, a row for every second stage, downward."""
    chapter = sheet.chapter
    for place, arm in enumerate(listed):
        table = shares(chapter.tables, arm, state, **options)
        here = {"study": chapter.study, "arm": arm, "state": state, **options}
        if table.empty:
            sheet.keep(pd.DataFrame([dict.fromkeys(COLUMNS, np.nan)]), **here)
            axis.text(0, -place, NOTHING, fontsize=7, va="center")
            continue
        sheet.draw(axis, [-place], table, LOOKS[arm].named(""), chapter.study, upright=False)
        sheet.keep(table, interval=SHARES, **here)
    sheet.names(axis, [LOOKS[arm].label for arm in listed])
    for at, line in ((0, "-"), (HEALS, "--"), (1, "-")):
        level(axis, at, upright=False, line=line)
    axis.set_xlabel("share of the loss regained")


def why(chapter: HealingChapter) -> Drawn:
    """What comes back: the rule is read, the arithmetic is right, feedback is used."""
    sheet = Sheet(chapter, len(WHY), height=3.0)
    for axis, (measure, title) in zip(sheet.axes, WHY.items(), strict=True):
        by_state(sheet, axis, (PEAK, *STATES), [BEFORE, *second_stages(chapter)], measure, measure=measure)
        sheet.label(axis, title, share=True)
    sheet.axes[0].set_ylabel("share of OOD hands")
    sheet.axes[len(WHY) // 2].set_xlabel(LOST)
    sheet.legend(below=4)
    note = (
        "The first two are about first attempts; the second counts only those that state the right values. The peak is "
        "that of pass@4, format-agnostic: few of its answers have the format that success@5 asks for."
    )
    return finish(sheet, "healing-why", "What comes back on OOD hands", note)


HEALING: tuple[Callable[[HealingChapter], Drawn], ...] = (
    levels, map_of_healing, numbers, imitation, why, gradients, arms, paths, mixed,
)  # fmt: skip
