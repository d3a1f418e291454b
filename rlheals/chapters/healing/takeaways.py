"""What the figures of chapter 05 show, in one sentence each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.healing.figures import HEALS
from rlheals.chapters.healing.runs import BEFORE, HEALED, MIDDLE, UNHEALED, edit_arm
from rlheals.chapters.sentences import Absent, Estimate
from rlheals.study.peaks import PEAK

RL = "RL on other rules up to 13"
PARTS = {"reading of the rule": "rule", "arithmetic": "arithmetic"}


def levels(frame: pd.DataFrame) -> str:
    before, after, rl = (
        say.estimate(frame, series=f"ood, {arm}", state=MIDDLE) for arm in (BEFORE, HEALED, "rl")
    )
    peak = say.estimate(frame, series=f"ood, {BEFORE}", state=PEAK)
    beside = f"ID rule: {say.percent(rl.value)}, peak: {say.percent(peak.value)}"
    return f"with {RL}, OOD pass@4 {say.moved(before, after)}; {beside}"


def map_(frame: pd.DataFrame) -> str:
    ones, others = (_cells(frame, arm) for arm in (HEALED, "rl"))
    both = sorted(ones.keys() & others.keys())
    if not both:
        raise Absent("no cell with both")
    most = say.percent(max(ones[at] for at in both).value)
    over, rl = (_over([found[at] for at in both]) for found in (ones, others))
    given = f"RL on other rules regains over {say.percent(HEALS)} in {over}, at most {most}"
    return f"of {len(both)} losses, {given}; on the ID rule in {rl}"


def _cells(frame: pd.DataFrame, arm: str) -> dict[tuple[int, float], Estimate]:
    """Shares regained by state and ability."""
    rows = say.pick(frame, arm=arm)
    cells = list(zip(rows["state"], rows["ability"], strict=True))
    return {one.at: one for one in say.curve(rows.assign(at=cells), "at")}


def _over(found: list[Estimate]) -> str:
    """How many shares lie above that from which on RL is said to heal."""
    orders = [say.sign(one, HEALS) for one in found]
    apart = "" if None in orders else f" ({orders.count(1)} clearly)"
    return f"{sum(one.value > HEALS for one in found)}{apart}"


def numbers(frame: pd.DataFrame) -> str:
    ood, control = (say.estimate(frame, arm=UNHEALED, split=split) for split in ("ood", "control"))
    beside = f"{say.BESIDE[say.compare(control, ood)]} the {say.percent(control.value)} for 7, 8, 9"
    return f"RL on other rules up to 10 regains {say.percent(ood.value)} of losses for 11, 12, 13, {beside}"


def imitation(frame: pd.DataFrame) -> str:
    rl, sft, expert = (
        say.estimate(frame, arm=arm, state=MIDDLE) for arm in (HEALED, "imitate-varied", "expert-varied")
    )
    beside = f"{say.BESIDE[say.compare(sft, rl)]} the {say.percent(sft.value)} of SFT"
    given = f"RL regains {say.percent(rl.value)} of a {MIDDLE} % loss, {beside}"
    return f"on other rules up to 13, {given}; expert iteration regains {say.percent(expert.value)}"


def why(frame: pd.DataFrame) -> str:
    pairs = {
        part: (
            say.estimate(frame, series=f"{name}, {BEFORE}", state=MIDDLE),
            say.estimate(frame, series=f"{name}, {HEALED}", state=MIDDLE),
        )
        for part, name in PARTS.items()
    }
    most, (before, after) = max(pairs.items(), key=lambda one: abs(one[1][1].value - one[1][0].value))
    return f"on OOD hands, {RL} changes {most} most: its share {say.moved(before, after)}"


def gradients(frame: pd.DataFrame) -> str:
    rows = say.pick(frame)[["value", "groups", "entropy"]]
    groups, entropy = (say.number(round(one, 2)) for one in rows.rank().corr()["value"].iloc[1:])
    said = f"{groups} with the share of groups with a gradient and {entropy} with entropy"
    return f"over {len(rows)} second stages, OOD gain has rank correlation {said}"


def arms(frame: pd.DataFrame) -> str:
    rl = say.estimate(frame, arm="rl")
    others = say.curve(frame[frame["arm"] != "rl"], "arm")
    orders = [say.compare(rl, one) for one in others]
    above, below = (f"{orders.count(order)} {end}clearly" for order, end in ((1, "end "), (-1, "")))
    if None in orders:
        above = f"{sum(one.value > rl.value for one in others)} end"
        below = f"{sum(one.value < rl.value for one in others)}"
    highest = f"RL on the ID rule (highest: {say.percent(max(others).value)})"
    beside = f"{above} above the {say.percent(rl.value)} OOD pass@4 of {highest}, {below} below"
    return f"of {len(others)} other second stages, {beside}"


def paths(frame: pd.DataFrame) -> str:
    """At equal distance from the start: that of the shorter of both runs of a base seed."""
    ends = []
    for _, own in say.pick(frame, state=MIDDLE).groupby("seed"):
        lines = [own[own["arm"] == arm] for arm in (UNHEALED, HEALED)]
        if all(map(len, lines)):
            size = min(line["size"].iloc[-1] for line in lines)
            ends.append([np.interp(size, line["size"], line["value"]) for line in lines])
    if not ends:
        raise Absent("no two runs of one base seed")
    other, one = np.mean(ends, axis=0)
    order = say.sign(say.over_seeds([after - before for before, after in ends]))
    beside = f"{say.BESIDE[order]} the {say.number(other)} of rules up to 10"
    return f"at equal size, rules up to 13 leave RL {say.number(one)} degrees from the peak, {beside}"


def mixed(frame: pd.DataFrame) -> str:
    edits = (edit_arm(UNHEALED, f"{part}(all) @ blocks") for part in ("directions", "values"))
    before, vectors, values = (say.estimate(frame, target=UNHEALED, edit=edit) for edit in (UNHEALED, *edits))
    said = f"{say.moved(before, vectors)} with singular vectors of RL up to 13"
    return f"OOD pass@4 of RL up to 10 {said} (singular values: {say.percent(values.value)})"


TAKEAWAYS = say.named("healing", levels, map_, numbers, imitation, why, gradients, arms, paths, mixed)
