"""What the figures of chapter 01 show, in one sentence each."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.sentences import Absent
from rlheals.chapters.sft.figures import rule_label
from rlheals.display import looks

SHAPES = {
    (1, -1): "rises and then falls",
    (1, 0): "rises",
    (0, -1): "falls",
    (0, 0): "does not clearly change",
}
"""By the steps from the first value to the highest and from there to the last."""


def accuracy(frame: pd.DataFrame) -> str:
    found, seen = (say.curve(frame, series=f"{split}, success@5 with feedback") for split in ("ood", "sft"))
    return f"OOD success@5 {say.course(found)}; ID hands of SFT end at {say.percent(seen[-1].value)}"


def layout_free(frame: pd.DataFrame) -> str:
    agnostic, asked = (
        say.curve(frame, series=f"ood, {name}") for name in ("format-agnostic", "format asked for")
    )
    there = say.percent(asked[0].value)
    return (
        f"format-agnostic OOD success@5 {say.course(agnostic)}; in the required format it starts at {there}"
    )


def common_hands(frame: pd.DataFrame) -> str:
    known, other = (say.curve(frame, series=rule)[-1] for rule in ("id", "ood"))
    beside = f"{say.BESIDE[say.compare(known, other)]} the {say.percent(known.value)} under the ID rule"
    given = f"the same hands give success@5 of {say.percent(other.value)} under the OOD rule"
    return f"at step {other.at:,} {given}, {beside}"


def paper(frame: pd.DataFrame) -> str:
    ours, theirs = (_shape(frame, series) for series in ("this book", "ood_accuracy_llama"))
    if not theirs:
        return f"OOD success@5 {say.course(say.curve(frame, series='this book'))}"
    beside = ", as does the paper's" if ours == theirs else f"; the paper's {theirs}"
    return f"this book's OOD accuracy {ours} during SFT{beside}"


def _shape(frame: pd.DataFrame, series: str) -> str:
    """Of a curve in words; "" where it is not there."""
    try:
        found = say.curve(frame, series=series)
    except Absent:
        return ""
    order = say.compare(found[0], max(found)), say.compare(max(found), found[-1])
    peak = f"is highest at step {max(found).at:,} of {found[-1].at:,}"
    return peak if None in order else SHAPES[order]  # type: ignore[index]


def losses(frame: pd.DataFrame) -> str:
    ood, train = (say.curve(frame, series=series) for series in ("ood", "train"))
    end = say.number(train[-1].value)
    return f"OOD loss in nats {say.course(ood, say.number, lowest=True)}; training loss ends at {end}"


def format_(frame: pd.DataFrame) -> str:
    course = say.course(say.curve(frame, series="ood"), lowest=True)
    return f"the share of unreadable first attempts on OOD hands {course}"


def errors(frame: pd.DataFrame) -> str:
    rows = say.pick(frame)
    rows = rows.assign(series=rows["series"].str.extract("^ood, (.*)$", expand=False)).dropna(subset="series")
    rows = say.last(rows).sort_values("value", ascending=False)
    known, step = looks.verdicts(rows["series"]), rows["step"].iloc[0]
    first, *rest = (f'"{known[row.series].label}" ({say.percent(row.value)})' for row in rows.itertuples())
    after = f", then {rest[0]}" if rest else ""
    return f"at step {step:,} the most frequent verdict on OOD attempts is {first}{after}"


def parts(frame: pd.DataFrame) -> str:
    names = [name for name in say.pick(frame)["series"].unique() if name.startswith("ood, ")]
    found = {name[5:].partition(":")[0]: say.curve(frame, series=name) for name in names}
    worst = sorted(found, key=lambda name: max(found[name]).value - found[name][-1].value)[-1]
    before, end = max(found[worst]), found[worst][-1]
    listed = " and ".join(", ".join(found).rsplit(", ", 1))
    ends = f"{say.percent(before.value)} at step {before.at:,}, {say.percent(end.value)} at step {end.at:,}"
    order = say.compare(before, end)
    if order == 0 or before.value == end.value:
        said = f"none ends {'clearly ' * (order == 0)}below its highest value ({worst}: {ends})"
        return f"of {listed} on OOD hands, {said}"
    return f"of {listed} on OOD hands, {worst} ends furthest below its highest value ({ends})"


def rule_distance(frame: pd.DataFrame) -> str:
    steps = say.pick(frame)["step"]
    ends = steps.min(), steps.max()
    before, after = ({one.at: one for one in say.curve(frame, "rule", step=step)} for step in ends)
    pairs = {rule: (before[rule], after[rule]) for rule in before if rule in after}
    falls = say.risen([(end, best) for best, end in pairs.values()], "rules")
    worst = sorted(pairs, key=lambda rule: pairs[rule][1].value - pairs[rule][0].value)[0]
    most = f"{rule_label(worst)}: {' to '.join(say.percent(one.value) for one in pairs[worst])}"
    return f"from step {ends[0]:,} to {ends[1]:,}, success@5 goes down under {falls}; {most}"


def sensitivity(frame: pd.DataFrame) -> str:
    rows = say.pick(frame).pivot_table(index=["variant", "seed"], columns="what", values="value")
    base, peak, end = (rows[name] for name in ("base, format-agnostic", "peak", "last checkpoint"))
    return (
        f"in {(end < peak).sum()} of {len(rows)} runs OOD success@5 falls from the peak to the last checkpoint; in "
        f"{(peak > base).sum()} the peak is above the base's format-agnostic level"
    )


TAKEAWAYS = say.named(
    "sft", accuracy, layout_free, common_hands, paper, losses, format_, errors, parts, rule_distance, sensitivity,
)  # fmt: skip
