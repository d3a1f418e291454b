"""Figures of chapter 05 about single runs: what RL sees, other arms, and which way the weights go."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.healing.estimates import LOOKS, finish, over_seeds, second_stages, values
from rlheals.chapters.healing.measures import Healing, by_seed
from rlheals.chapters.healing.runs import BEFORE, HEALED, UNHEALED, HealingChapter
from rlheals.display.looks import BLACK, GREY, PURPLE, Look
from rlheals.display.panels import level
from rlheals.display.style import Drawn
from rlheals.settings import STATES
from rlheals.study.peaks import PEAK

FIRST = 5
"""What RL sees at its start is the mean over so many iterations."""
ARM = Look("", PURPLE, "s")
NAMES = {
    "imitate": "SFT, ID rule",
    "expert": "expert iteration, ID rule",
    "kl-base": "RL with a KL penalty to the base",
    "kl-start": "RL with a KL penalty to its start",
    "ppo": "RL by PPO",
    "slow": "RL, three times as long, a third of the rate",
    "unseen-hands": "RL on hands that SFT has not seen",
    "one-attempt": "RL with one attempt",
    "shuffled-feedback": "RL with shuffled feedback",
    "shuffled-reward": "RL with shuffled reward",
    "fused": "halfway back to the base, then RL",
    "replay": "SFT with a fifth of replay, then RL",
    "small-rate": "SFT at a third of the rate, then RL",
    "dft": "dynamic fine-tuning, then RL",
    "lora": "low-rank SFT, then RL",
    "protected": "protected SFT, then RL",
}
"""Second stages from the middle start alone."""
PARTS = {
    "values(all)": "singular values",
    "directions(all)": "singular vectors",
    "rollback()": "all of the weights",
    "noise()": "noise",
}


def gradients(chapter: HealingChapter) -> Drawn:
    """What RL sees: how many groups of episodes differ in their return, beside what is gained."""
    sheet = Sheet(chapter, 2, height=2.8)
    tables, log = chapter.tables, chapter.tables.log
    early = log[log["update"] <= FIRST] if len(log) else log
    for arm in second_stages(chapter):
        mine, drawn = early[early["control"] == arm], []
        for (seed, state), rows in mine.groupby(["seed", "start"]) if len(mine) else ():
            gained = tables.once(by_seed)[int(seed)].gain(arm, int(state))
            first = rows[rows["ability"] == rows["ability"].max()][["zero_variance", "entropy"]].mean()
            drawn.append((gained, 1 - first["zero_variance"], first["entropy"], int(state), int(seed)))
        table = pd.DataFrame(drawn, columns=["value", "groups", "entropy", "state", "seed"])
        if len(table):
            look = LOOKS[arm]
            for axis, column in zip(sheet.axes, ("groups", "entropy"), strict=True):
                axis.plot(
                    table[column], table["value"], look.marker, color=look.color, markersize=4, alpha=0.8,
                    label=look.label,
                )  # fmt: skip
            sheet.keep(table, study=chapter.study, arm=arm)
    for axis in sheet.axes if sheet.frames else ():
        level(axis)
    sheet.label(sheet.axes[0], x="share of groups with a gradient", y="gain in OOD pass@4")
    sheet.label(sheet.axes[1], x="entropy of answers (nats per token)")
    sheet.legend(below=4)
    sheet.marks[chapter.study] = "one mark per base seed, second stage and start"
    note = (
        f"Means of the first {FIRST} iterations. A group without a gradient: all its episodes earn the same."
    )
    return finish(sheet, "healing-gradients", "What RL sees", note)


def arms(chapter: HealingChapter) -> Drawn:
    """Every second stage from the middle start: where it starts, and where it ends."""
    tables, state, keys = chapter.tables, STATES[1], ["start", "run"]
    rows = tables.episodes[["control", *keys]].drop_duplicates()
    there = set(rows.loc[(rows["start"] == state) & (rows["run"] >= 0), "control"].unique())
    names = {arm: look.label for arm, look in LOOKS.items() if arm != BEFORE} | NAMES
    levels = {}
    for arm in (name for name in names if name in there):
        after = list(values(tables, partial(_level, arm=arm, state=state, after=True)))
        levels[arm] = (float(np.mean(after)) if after else -1.0, after)
    order = sorted(levels, key=lambda arm: -levels[arm][0])
    sheet = Sheet(chapter, height=0.24 * max(2, len(order)) + 0.9)
    (axis,) = sheet.axes
    plain = {
        at: over_seeds(tables, partial(_level, arm=BEFORE, state=at, after=False)) for at in (PEAK, state)
    }
    for place, arm in enumerate(order):
        table = sheet.forest_row(axis, -place, levels[arm][1], LOOKS.get(arm, ARM).named(""), chapter.study)
        start = over_seeds(tables, partial(_level, arm=arm, state=state, after=False))
        if len(start):
            axis.plot(start["value"], [-place], "|", color=BLACK, markersize=8)
        sheet.keep(table.assign(start_value=start["value"]), study=chapter.study, arm=arm)
    for table in plain.values() if order else ():
        if len(table):
            level(axis, float(table["value"].iloc[0]), upright=False, line="--")
    sheet.names(axis, [names[arm] for arm in order])
    axis.set_xlabel("OOD pass@4")
    note = (
        f"From the start that has lost {state} %. Upright strokes are where each starts, dashed lines the peak and the "
        "start of plain SFT. Arms with another SFT start elsewhere, after as many steps."
    )
    return finish(sheet, "healing-arms", "Second stages from the same loss", note)


def _level(one: Healing, arm: str, state: int, after: bool) -> float:
    return one.accuracy(arm, state, after)


def paths(chapter: HealingChapter) -> Drawn:
    """Do singular vectors turn back toward the peak's? The same distance from the start, healed or not."""
    tables = chapter.tables
    there = sorted(int(state) for state in tables.path["start"].unique()) if len(tables.path) else []
    sheet = Sheet(chapter, max(1, len(there)), height=2.8)
    for axis, state in zip(sheet.axes, there, strict=False):
        for arm in ("rl", UNHEALED, HEALED):
            label: str | None = LOOKS[arm].label
            for seed, one in tables.once(by_seed).items():
                if state not in one.reached():
                    continue
                size, angle = (one.path(arm, state, seen_from) for seen_from in (-1, PEAK))
                line = pd.DataFrame({"size": size["size"], "value": angle["angle"]})
                axis.plot(
                    line["size"], line["value"], LOOKS[arm].line, color=LOOKS[arm].color, linewidth=1, label=label,
                )  # fmt: skip
                label = None
                sheet.keep(line, study=chapter.study, arm=arm, state=state, seed=seed)
        sheet.label(axis, f"{state} % lost", "|dW| from the start")
    sheet.axes[0].set_ylabel("degrees to the peak's\nsingular vectors")
    sheet.legend(below=3)
    sheet.marks[chapter.study] = "one line per base seed"
    note = "Mean angle of the leading quarter of singular vectors over all matrices. Lower is nearer to the peak."
    return finish(sheet, "healing-paths", "Which way the weights go", note)


def mixed(chapter: HealingChapter) -> Drawn:
    """Parts of the healed run put into the one that did not heal, and the reverse, beside controls of equal size."""
    tables = chapter.tables
    names = [str(name) for name in tables.episodes["control"].unique() if str(name).startswith("edit of ")]
    rows = max((sum(f"of {target}: " in name for name in names) for target in (UNHEALED, HEALED)), default=0)
    sheet = Sheet(chapter, 2, height=0.26 * (rows + 1) + 1.0)
    for axis, target in zip(sheet.axes, (UNHEALED, HEALED), strict=True):
        edits = [name for name in names if name.startswith(f"edit of {target}: ")]
        listed = [target, *edits] if edits else []
        for place, name in enumerate(listed):
            found = list(values(tables, partial(_level, arm=name, state=STATES[1], after=True)))
            plain = Look("", BLACK if _edit(name).startswith("singular") else GREY, "s")
            look = LOOKS[target].named("") if name == target else plain
            table = sheet.forest_row(axis, -place, found, look, chapter.study)
            sheet.keep(table, study=chapter.study, target=target, edit=name)
        sheet.names(axis, ["unedited", *map(_edit, edits)] if listed else [])
        axis.set_title(f"into: {LOOKS[target].label}", fontsize=8)
        axis.set_xlabel("OOD pass@4")
        if axis is not sheet.axes[0] and len(edits) == rows:
            axis.set_yticklabels([])
    note = (
        f"From the start that has lost {STATES[1]} %. An edit puts parts of the other run's weights into this one; "
        "sized: scaled to as large a change as the singular vectors make."
    )
    return finish(sheet, "healing-mixed", "Weights of one run in the other", note)


def _edit(name: str) -> str:
    """An edit in words.

    >>> _edit("edit of rl: noise() like directions(all) @ kinds=q,k,v,o,gate,up,down")
    'noise, sized'
    """
    edit, _, where = name.partition(": ")[2].partition(" @ ")
    part, _, like = edit.partition(" like ")
    beyond = ", embeddings and head too" if where.endswith("embed,head") else ""
    return f"{PARTS.get(part, part)}{', sized' if like else ''}{beyond}"
