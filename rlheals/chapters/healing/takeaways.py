"""What the figures of chapter 05 show, in one sentence each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.healing.runs import BEFORE, HEALED, IMITATED, MIDDLE, UNHEALED, edit_arm
from rlheals.chapters.sentences import Absent
from rlheals.study.peaks import PEAK

RL = "RL on rules up to 13"
PARTS = {"reading": "rule", "arithmetic": "arithmetic"}


def levels(frame: pd.DataFrame) -> str:
    before, after, rl = (
        say.estimate(frame, series=f"ood, {arm}", state=MIDDLE) for arm in (BEFORE, HEALED, "rl")
    )
    peak = say.estimate(frame, series=f"ood, {BEFORE}", state=PEAK)
    beside = f"ID rule: {say.percent(rl.value)}, peak: {say.percent(peak.value)}"
    return f"with {RL}, OOD pass@4 {say.moved(before, after)}; {beside}"


def map_(frame: pd.DataFrame) -> str:
    """Of the ablest bases."""
    able = frame[frame["ability"] == frame["ability"].max()]
    ones, others = ({one.at: one for one in say.curve(able, "state", arm=arm)} for arm in (HEALED, "rl"))
    both = sorted(ones.keys() & others.keys())
    if not both:
        raise Absent("no loss with both")
    parts = (
        [f"{state} %" for state in both],
        *([say.percent(of[at].value) for at in both] for of in (ones, others)),
    )
    losses, given, rl = map(_listed, parts)
    return f"of losses of {losses}, {RL} regains {given}; ID rule: {rl}"


def _listed(parts: list[str]) -> str:
    """
    >>> _listed(["1 %"]), _listed(["1 %", "2 %", "3 %"])
    ('1 %', '1 %, 2 % and 3 %')
    """
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def numbers(frame: pd.DataFrame) -> str:
    ood, control = (say.estimate(frame, arm=UNHEALED, split=split) for split in ("ood", "control"))
    beside = f"{say.BESIDE[say.compare(control, ood)]} the {say.percent(control.value)} for 7, 8, 9"
    return f"RL on other rules up to 10 regains {say.percent(ood.value)} of losses for 11, 12, 13, {beside}"


def imitation(frame: pd.DataFrame) -> str:
    rl, sft, expert = (
        say.estimate(frame, arm=arm, state=MIDDLE) for arm in (HEALED, IMITATED, "expert-varied")
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
    (less,) = pairs.keys() - {most}
    return (
        f"from a {MIDDLE} % loss, {RL} changes {most} more than {less}: its share {say.moved(before, after)}"
    )


def gradients(frame: pd.DataFrame) -> str:
    rows = say.pick(frame)[["value", "groups", "entropy"]]
    groups, entropy = (say.number(round(one, 2)) for one in rows.rank().corr()["value"].iloc[1:])
    said = f"{groups} with the share of groups with a gradient and {entropy} with entropy"
    return f"over {len(rows)} runs (RL, expert iteration), OOD gain has rank correlation {said}"


def arms(frame: pd.DataFrame) -> str:
    """Those after another SFT apart: they start from another accuracy."""
    rl, rows = say.estimate(frame, arm="rl"), frame[frame["arm"] != "rl"]
    common = frame.loc[frame["arm"] == "rl", "start_value"].iloc[0]
    same = rows["start_value"].isna() | (rows["start_value"] == common)
    parts = list[str]()
    for own, start in ((rows[same], "second stages from the same start"), (rows[~same], "from another")):
        if own.empty:
            continue
        others = say.curve(own, "arm")
        orders = [say.compare(rl, one) for one in others]
        above = sum(one.value > rl.value for one in others) if None in orders else orders.count(1)
        said = f"of {len(others)} {start}, {above}"
        if not parts:
            ends = f"{say.percent(rl.value)}; highest: {say.percent(max(others).value)}"
            said += f" end {'clearly ' * (None not in orders)}above RL on the ID rule ({ends})"
        parts.append(said)
    if not parts:
        raise Absent("no other second stage")
    return "; ".join(parts)


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
    equal = frame[frame["edit"] == edit_arm(UNHEALED, "rollback() like directions(all) @ blocks")]
    beside = [f"singular values: {say.percent(values.value)}"]
    if equal["value"].notna().any():
        beside.append(f"an equal step toward that run: {say.percent(say.estimate(equal).value)}")
    return f"OOD pass@4 of RL up to 10 {said} ({'; '.join(beside)})"


TAKEAWAYS = say.named("healing", levels, map_, numbers, imitation, why, gradients, arms, paths, mixed)
