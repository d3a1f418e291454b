"""What the figures of chapter 02 show, in one sentence each."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.rl.figures import control_label
from rlheals.chapters.rl.runs import MAIN
from rlheals.chapters.sentences import Absent, Estimate
from rlheals.display.looks import AFTER, BEFORE

BESIDE = (f", {BEFORE.label}", f", {AFTER.label}")
"""How the two series of a quantity end: RL start checkpoints, and RL from them."""


def _pairs(
    frame: pd.DataFrame, series: str, names: tuple[str, str] = BESIDE
) -> list[tuple[Estimate, Estimate]]:
    """Start checkpoints and what RL makes of them; `Absent` without any."""
    before, after = ({one.at: one for one in say.curve(frame, series=f"{series}{name}")} for name in names)
    if pairs := [(before[step], after[step]) for step in before if step in after]:
        return pairs
    raise Absent(f"no RL in {series}")


def ood(frame: pd.DataFrame) -> str:
    before, after = (max(say.curve(frame, series=f"OOD, success@5 with feedback{name}")) for name in BESIDE)
    reached = f"{say.percent(after.value)} after RL (from step {after.at:,})"
    beside = f"{say.BESIDE[say.compare(before, after)]} the {say.percent(before.value)} before RL"
    return f"the highest OOD success@5 is {reached}, {beside} (step {before.at:,})"


def id_(frame: pd.DataFrame) -> str:
    names = {"rl": "RL-only", "held_out": "held-out", "sft": "SFT"}
    known = [name for name in names if f"{name}{BESIDE[1]}" in set(say.pick(frame)["series"])][:2]
    ends = {name: _pairs(frame, name)[-1] for name in known}
    said = " and ".join(f"on {names[name]} hands {say.moved(*pair)}" for name, pair in ends.items())
    return f"with RL from step {ends[known[0]][0].at:,}, success@5 {said}"


def window(frame: pd.DataFrame) -> str:
    gains = say.curve(frame, series="success@5 with feedback")
    most, count = max(gains, key=lambda one: abs(one.value)), [say.sign(one) for one in gains].count
    if count(None):
        largest = f"from step {most.at:,}: by {say.points(most.value)}"
        return f"among {len(gains)} starts, RL changes OOD success@5 most {largest}"
    said = f"from {count(1)} of {len(gains)} starts, clearly lowers it from {count(-1)}"
    largest = f"{say.points(most.value)}, from step {most.at:,}"
    return f"RL clearly raises OOD success@5 {said}; the largest change is {largest}"


def paper(frame: pd.DataFrame) -> str:
    pairs = [_pairs(frame, "OOD, this book")]
    if "paper" in set(frame["study"]):
        pairs.append(_pairs(frame, "ood_accuracy", ("_llama", "_after_rl_llama")))
    # Not "clearly": both curves are of the same runs, so that their intervals say little of the gain.
    said, *theirs = (say.risen(each, apart="with intervals apart") for each in pairs)
    beside = f"; the paper's from {theirs[0]}" if theirs else ""
    return f"RL raises mean OOD accuracy from {said}{beside}"


def stages(frame: pd.DataFrame) -> str:
    rows = say.last(frame, "start", series="ood, lab (this book)")
    lab, *paper = (
        say.moved(say.estimate(own, stage="start"), say.estimate(own, stage="rl"))
        for own in (rows, frame[frame["series"] == "ood, Llama (paper)"])
        if len(own)
    )
    beside = f"; in the paper's Llama it {paper[0]}" if paper else ""
    return f"OOD accuracy {lab} with RL from step {rows['start'].iloc[0]:,.0f}{beside}"


def parts(frame: pd.DataFrame) -> str:
    names = {name.removesuffix(BESIDE[1]) for name in say.pick(frame)["series"] if name.endswith(BESIDE[1])}
    found = {name.partition(":")[0]: _pairs(frame, name) for name in sorted(names)}
    if not found:
        raise Absent("no RL")
    said = list[str]()
    for at in dict.fromkeys((0, min(map(len, found.values())) - 1)):  # the first start and the last
        part, pair = max(
            ((part, pairs[at]) for part, pairs in found.items()),
            key=lambda one: abs(one[1][1].value - one[1][0].value),
        )
        what = f"RL changes {part} on OOD hands most" if not said else part
        said.append(f"from step {pair[0].at:,}, {what}: its share {say.moved(*pair)}")
    return "; ".join(said)


def why(frame: pd.DataFrame) -> str:
    course = say.course(say.curve(frame, series="zero_variance"))
    return f"the share of groups without gradient when RL starts {course}"


def advantages(frame: pd.DataFrame) -> str:
    rows = say.pick(frame.rename(columns={"share": "value"}))
    near = say.curve(say.last(rows[rows["advantage"] <= 0], "advantage"), "start")  # the bin that holds 0
    first, end = (f"{say.percent(one.value)} from step {one.at:,}" for one in (near[0], near[-1]))
    return f"at RL's first iteration the share of advantages near zero is {first} and {end}"


def learning(frame: pd.DataFrame) -> str:
    starts = sorted(say.pick(frame, series="solved")["start"].unique())
    curves = [say.curve(frame, series="solved", start=start) for start in starts]
    ends = [(one[0], one[-1]) for one in curves]
    said = f"from {say.risen(ends)}; from step {starts[-1]:,} it {say.moved(*ends[-1])}"
    return f"RL raises success on training hands {said}"


def losses(frame: pd.DataFrame) -> str:
    names = [name for name in say.pick(frame)["series"].unique() if name.startswith("ood, start ")]
    curves = {int(name.split()[-1]): say.curve(frame, series=name) for name in (names[0], names[-1])}
    said = [f"from step {start:,} {say.moved(one[0], one[-1], say.number)}" for start, one in curves.items()]
    return f"OOD loss in nats during RL {' and '.join(said)}"


def controls(frame: pd.DataFrame) -> str:
    levels = say.pick(frame).pivot_table(index="seed", columns="control", values="value")
    changes = {name: say.over_seeds(levels[name] - levels["start"]) for name in levels if name != "start"}
    rl = changes.pop("RL")
    name, most = sorted(changes.items(), key=lambda one: abs(one[1].value))[-1]
    seeds = int(levels[name].notna().sum())
    few = f" ({seeds} base seed{'s' * (seeds != 1)})" if seeds < len(levels) else ""
    largest = f"{control_label(name)}{few} changes it most: {say.points(most.value)}{say.effect(most)}"
    return f"RL changes OOD success@5 by {say.points(rl.value)}{say.effect(rl)}; of the controls, {largest}"


def entropy(frame: pd.DataFrame) -> str:
    rows = say.pick(frame).astype({"control": str})
    after = say.pick(rows[rows["run"] >= 0], control=MAIN).groupby("seed")["value"].mean()
    is_start = (rows["run"] < 0) & rows["control"].str.match(f"{MAIN}$|temperature")
    levels = rows[is_start].pivot_table(index="seed", columns="control", values="value")
    best = levels[levels.mean().idxmax()]
    beside = f"{say.BESIDE[say.sign(say.over_seeds(after - best))]} the {say.percent(best.mean())}"
    return (
        f"OOD success@5 is {say.percent(after.mean())} after RL, {beside} of its start at the best of "
        f"{levels.shape[1]} temperatures"
    )


TAKEAWAYS = say.named(
    "rl", ood, id_, window, paper, stages, parts, why, advantages, learning, losses, controls, entropy
)
