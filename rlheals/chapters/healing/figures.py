"""Figures of chapter 05, one function each: when does RL heal?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.healing.measures import Healing, by_seed
from rlheals.chapters.healing.runs import BEFORE, HEALED, UNHEALED, HealingChapter, HealingTables
from rlheals.display.looks import (
    AFTER_RL,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PLAIN_SFT,
    PURPLE,
    SKY,
    Look,
)
from rlheals.display.panels import level
from rlheals.display.style import Drawn
from rlheals.stats.intervals import of_ratio, t_interval
from rlheals.study.peaks import PEAK, STATES

LOOKS = {
    BEFORE: PLAIN_SFT,
    "rl": AFTER_RL.named("RL, ID rule"),
    "rl-familiar": Look("RL, other rules up to 10", SKY, "v", ":"),
    "rl-varied": Look("RL, other rules up to 13", BLUE, "^", "-"),
    "imitate-familiar": Look("SFT, other rules up to 10", GREEN, "<", ":"),
    "imitate-varied": Look("SFT, other rules up to 13", GREEN, ">", "-"),
    "expert-varied": Look("expert iteration, other rules up to 13", ORANGE, "D", "-."),
}
"""Second stages: what their questions are about, and how they learn."""
SPLITS = {
    "ood": "OOD rule (11, 12, 13)",
    "control": "unseen rule of known numbers (7, 8, 9)",
    "held_out": "held-out ID",
}
SHARES = "95 % t intervals of a ratio of sums over base seeds"


def shares(tables: HealingTables, arm: str, state: int, **options: object) -> pd.DataFrame:
    """Share of the loss that a second stage regains, sum(after - start) / sum(peak - start): value, low, high, seeds.

    Empty where nothing was measured or nothing was lost; without an interval for one base seed.
    """
    pairs = [
        (one.gain(arm, state, **options), one.lost(state, arm, **options))
        for one in tables.once(by_seed).values()
    ]
    known = [pair for pair in pairs if np.isfinite(pair).all()]
    gained, lost = (list(side) for side in zip(*known, strict=True)) if known else ([], [])
    if not known or sum(lost) <= 0:
        return pd.DataFrame(columns=["value", "low", "high", "seeds"])
    values = of_ratio(gained, lost)
    found = t_interval(values) if len(values) > 1 else None
    low, high = (found.low, found.high) if found else (np.nan, np.nan)
    return pd.DataFrame([{"value": float(values.mean()), "low": low, "high": high, "seeds": len(values)}])


def _arms(chapter: HealingChapter) -> list[str]:
    """The second stages of the map, in the order of `LOOKS`."""
    there = set(chapter.tables.episodes["control"])
    return [arm for arm in LOOKS if arm in there and arm != BEFORE]


def levels(chapter: HealingChapter) -> Drawn:
    """Accuracy at the peak, at every start, and after every second stage: the figure of the whole book."""
    sheet = Sheet(chapter, len(SPLITS), height=3.4)
    ability = _able(chapter.tables)
    for axis, (split, title) in zip(sheet.axes, SPLITS.items(), strict=True):
        for tables, study in chapter.layers:
            for shift, arm in enumerate([BEFORE, *_arms(chapter)]):
                rows = _levels(tables, arm, split, ability)
                places = [[PEAK, *STATES].index(state) + 0.09 * shift for state in rows["state"]]
                sheet.mark(axis, places, rows, LOOKS[arm], study, series=f"{split}, {arm}")
        axis.set_xticks(
            range(1 + len(STATES)), ["peak", *(f"{state} % lost" for state in STATES)], fontsize=7
        )
        sheet.label(axis, title, "start", share=True)
    sheet.axes[0].set_ylabel("pass@4, format-agnostic")
    sheet.legend(sheet.axes[0])
    note = (
        "Starts are SFT checkpoints by the share of the peak's OOD ability that they have lost, chosen on one half of "
        "the hands and measured on the other. No second stage sees the OOD rule or the other unseen rule."
    )
    return sheet.finish("healing-levels", "What a second stage brings back", note)


def _levels(tables: HealingTables, arm: str, split: str, ability: float) -> pd.DataFrame:
    rows = []
    for state in (PEAK, *STATES):
        values = [
            one.accuracy(arm, state, arm != BEFORE, split=split, ability=ability)
            for one in tables.once(by_seed).values()
        ]
        if known := [value for value in values if np.isfinite(value)]:
            found = t_interval(known) if len(known) > 1 else None
            ends = {"low": found.low, "high": found.high} if found else {"low": np.nan, "high": np.nan}
            rows.append({"state": state, "value": float(np.mean(known)), "seeds": len(known), **ends})
    return pd.DataFrame(rows, columns=["state", "value", "low", "high", "seeds"])


def _able(tables: HealingTables) -> float:
    return float(tables.steps["ability"].max())


def map_of_healing(chapter: HealingChapter) -> Drawn:
    """The map: ability of the base against amount of SFT; colour and number are the share of the loss regained."""
    arms = [arm for arm in _arms(chapter) if "familiar" not in arm]
    sheet = Sheet(chapter, max(1, len(arms)), height=2.6)
    tables = chapter.tables
    abilities = sorted((float(one) for one in tables.steps["ability"].unique()), reverse=True)
    for axis, arm in zip(sheet.axes, arms, strict=False):
        grid = np.full((len(abilities), len(STATES)), np.nan)
        for (row, ability), (column, state) in _cells(abilities):
            found = shares(tables, arm, state, ability=ability)
            said = "no data\nhere"
            if len(found):
                grid[row, column] = found["value"].iloc[0]
                said = _said(found.iloc[0])
                sheet.keep(found, study=chapter.study, arm=arm, state=state, ability=ability, interval=SHARES)
            axis.text(column, row, said, ha="center", va="center", fontsize=6)
        axis.imshow(grid, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        axis.grid(visible=False)
        axis.set_xticks(range(len(STATES)), [f"{state} % lost" for state in STATES], fontsize=7)
        axis.set_yticks(range(len(abilities)), [f"{ability:g}" for ability in abilities], fontsize=7)
        axis.set_title(LOOKS[arm].label, fontsize=8)
    sheet.axes[0].set_ylabel("ability of the base")
    sheet.marks[chapter.study] = "numbers with their intervals"
    note = "Share of the OOD pass@4 that SFT lost, regained: 1 is the peak, 0 the start. Blue regains, red loses more."
    return sheet.finish("healing-map", "When RL heals", note)


def _cells(abilities: list[float]) -> Iterator[tuple[tuple[int, float], tuple[int, int]]]:
    return ((row, column) for row in enumerate(abilities) for column in enumerate(STATES))


def _said(row: pd.Series) -> str:
    ends = "" if np.isnan(row["low"]) else f"\n[{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.2f}{ends}"


def arms(chapter: HealingChapter) -> Drawn:
    """Every second stage from the middle start: the share of the loss that it regains."""
    tables, state = chapter.tables, STATES[1]
    there = tables.episodes[(tables.episodes["start"] == state) & (tables.episodes["run"] >= 0)][
        "control"
    ].unique()
    found = {arm: shares(tables, arm, state) for arm in there if not str(arm).startswith("edit")}
    found = {arm: table for arm, table in found.items() if len(table)}
    order = sorted(found, key=lambda arm: float(found[arm]["value"].iloc[0]))
    sheet = Sheet(chapter, height=0.24 * max(2, len(order)) + 0.9)
    (axis,) = sheet.axes
    for place, arm in enumerate(order):
        look = LOOKS.get(arm, Look("", PURPLE, "s"))
        sheet.draw(axis, [place], found[arm], look.named(""), chapter.study, upright=False)
        sheet.keep(found[arm], study=chapter.study, arm=arm, interval=SHARES)
    axis.set_yticks(
        range(len(order)), [LOOKS[arm].label if arm in LOOKS else arm for arm in order], fontsize=7
    )
    level(axis, 0, upright=False)
    level(axis, 1, upright=False)
    axis.set_xlabel(f"share of the loss regained (start: {state} % lost)")
    note = (
        "1 is the peak of SFT, 0 the start; arms with an SFT of their own are measured from their own start."
    )
    return sheet.finish("healing-arms", "Second stages from the same loss", note)


def why(chapter: HealingChapter) -> Drawn:
    """What comes back: the rule is read, the arithmetic is right, feedback is used."""
    parts = {
        "rule": "values of the rule stated",
        "arithmetic": "solved, if values right",
        "success5": "success@5 with feedback",
    }
    sheet = Sheet(chapter, len(parts), height=3.0)
    tables = chapter.tables
    for axis, (measure, title) in zip(sheet.axes, parts.items(), strict=True):
        for shift, arm in enumerate([BEFORE, *_arms(chapter)]):
            rows = []
            for state in STATES:
                values = [
                    one.accuracy(arm, state, arm != BEFORE, measure=measure)
                    for one in tables.once(by_seed).values()
                ]
                known = [value for value in values if np.isfinite(value)]
                interval = t_interval(known) if len(known) > 1 else None
                if known:
                    ends = (interval.low, interval.high) if interval else (np.nan, np.nan)
                    rows.append((state, float(np.mean(known)), *ends, len(known)))
            table = pd.DataFrame(rows, columns=["state", "value", "low", "high", "seeds"])
            places = [STATES.index(state) + 0.09 * shift for state in table["state"]]
            sheet.mark(axis, places, table, LOOKS[arm], chapter.study, series=f"{measure}, {arm}")
        axis.set_xticks(range(len(STATES)), [f"{state} % lost" for state in STATES], fontsize=7)
        sheet.label(axis, title, "start", share=True)
    sheet.legend(sheet.axes[0])
    return sheet.finish("healing-why", "What comes back on OOD hands", "Shares of OOD hands, first attempts.")


def gradients(chapter: HealingChapter) -> Drawn:
    """What RL sees: how many groups of episodes differ in their return, beside what is gained."""
    sheet = Sheet(chapter, 2, height=2.8)
    tables, (left, right) = chapter.tables, sheet.axes
    early = tables.log[tables.log["update"] <= 5] if len(tables.log) else tables.log
    for arm in [one for one in _arms(chapter) if one in set(tables.log.get("control", ()))]:
        mine = early[early["control"] == arm]
        by = mine.groupby(["seed", "start"])[["zero_variance", "entropy"]].mean().reset_index()
        for _, row in by.iterrows():
            one: Healing = tables.once(by_seed)[int(row["seed"])]
            gained = one.gain(arm, int(row["start"]))
            for axis, value in ((left, 1 - row["zero_variance"]), (right, row["entropy"])):
                axis.plot(value, gained, LOOKS[arm].marker, color=LOOKS[arm].color, markersize=4)
            drawn = pd.DataFrame(
                [{"value": gained, "groups": 1 - row["zero_variance"], "entropy": row["entropy"]}]
            )
            sheet.keep(drawn, study=chapter.study, arm=arm, state=int(row["start"]), seed=int(row["seed"]))
    for axis in sheet.axes:
        level(axis)
    sheet.label(left, x="groups with a gradient, first iterations", y="gain in OOD pass@4")
    sheet.label(right, x="entropy of answers (nats per token)")
    sheet.marks[chapter.study] = "one mark per base seed, second stage and start"
    return sheet.finish(
        "healing-gradients", "What RL sees", "A group without a gradient: all its episodes earn the same."
    )


def paths(chapter: HealingChapter) -> Drawn:
    """Do singular vectors turn back toward the peak's? The same distance from the start, healed or not."""
    tables = chapter.tables
    there = sorted(int(state) for state in tables.path["start"].unique()) if len(tables.path) else []
    sheet = Sheet(chapter, max(1, len(there)), height=2.8)
    for axis, state in zip(sheet.axes, there, strict=False):
        for arm in ("rl", UNHEALED, HEALED):
            for seed, one in tables.once(by_seed).items():
                size, angle = (one.path(arm, state, seen_from) for seen_from in (-1, PEAK))
                if size.empty:
                    continue
                line = pd.DataFrame({"size": size["size"], "value": angle["angle"]})
                axis.plot(line["size"], line["value"], LOOKS[arm].line, color=LOOKS[arm].color, linewidth=0.8)
                sheet.keep(line, study=chapter.study, arm=arm, state=state, seed=seed)
        sheet.label(
            axis, f"{state} % lost", "|dW| from the start", "angle to the peak's singular vectors (degrees)"
        )
    sheet.marks[chapter.study] = "one line per base seed"
    note = "Blue heals, light blue does not, red is RL on the ID rule; lower is nearer to the peak."
    return sheet.finish("healing-paths", "Which way the weights go", note)


def mixed(chapter: HealingChapter) -> Drawn:
    """Parts of the healed run put into the one that did not heal, and the reverse, beside controls of equal size."""
    tables = chapter.tables
    names = [str(name) for name in tables.episodes["control"].unique() if str(name).startswith("edit of ")]
    sheet = Sheet(chapter, 2, height=0.26 * max(2, len(names) // 2) + 1.0)
    for axis, target in zip(sheet.axes, (UNHEALED, HEALED), strict=True):
        mine = [name for name in names if name.startswith(f"edit of {target}: ")]
        listed = [*mine, target]
        for place, name in enumerate(listed):
            values = [one.accuracy(name, STATES[1], True) for one in tables.once(by_seed).values()]
            look = (
                LOOKS[target].named("")
                if name == target
                else Look("", BLACK if "directions" in name else GREY, "s")
            )
            sheet.forest_row(axis, place, values, look, chapter.study)
            known = pd.DataFrame({"value": [value for value in values if np.isfinite(value)]})
            sheet.keep(known, study=chapter.study, target=target, edit=name)
        axis.set_yticks(range(len(listed)), [_short(name) for name in listed], fontsize=6)
        axis.set_title(f"into: {LOOKS[target].label}", fontsize=8)
        axis.set_xlabel("OOD pass@4")
    note = "An edit puts parts of the other run into this one; 'like': scaled to the size of that edit."
    return sheet.finish("healing-mixed", "Weights of one run in the other", note)


def _short(name: str) -> str:
    edit = name.partition(": ")[2] or "unedited"
    return edit.replace(" @ kinds=q,k,v,o,gate,up,down", "").replace(",embed,head", " and ends")


HEALING: tuple[Callable[[HealingChapter], Drawn], ...] = (
    levels, map_of_healing, arms, why, gradients, paths, mixed,
)  # fmt: skip
