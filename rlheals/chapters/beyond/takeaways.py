"""What the figures of chapter 06 show, in one sentence each; about the tasks that have rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.beyond.runs import CARDS
from rlheals.chapters.healing.runs import BEFORE, HEALED, MIDDLE
from rlheals.chapters.sentences import Absent, Estimate
from rlheals.chapters.sft.takeaways import SHAPES

NAMES = {CARDS: "cards", "navigation": "navigation", "determinant_rules": "determinants"}
Found = TypeVar("Found")


def _by_task(measure: Callable[[str], Found]) -> dict[str, Found]:
    """What is found of every task that has it, by what the task is called; `Absent` where none has."""
    found = {}
    for task, name in NAMES.items():
        with suppress(LookupError):
            found[name] = measure(task)
    if not found:
        raise Absent("no task")
    return found


def stages(frame: pd.DataFrame) -> str:
    def pair(task: str) -> tuple[Estimate, Estimate]:
        rows = say.pick(frame, series=f"{task}, ood", state=MIDDLE)
        return say.estimate(rows, arm=BEFORE), say.estimate(rows, arm="rl")

    pairs = _by_task(pair)
    listed = (
        f"{name} {say.percent(before.value)} to {say.percent(after.value)}"
        for name, (before, after) in pairs.items()
    )
    count = say.risen(list(pairs.values()), "tasks")
    return f"RL on the ID rule raises OOD success in {count}: {', '.join(listed)}"


def curves(frame: pd.DataFrame) -> str:
    def course(task: str) -> str:
        rows = say.pick(frame)
        found = say.curve(rows[rows["series"].astype(str).str.startswith(f"{task}, ood, success")])
        ends = found[0], max(found), found[-1]
        order = say.compare(*ends[:2]), say.compare(*ends[1:])
        numbers = ", ".join(say.percent(one.value) for one in ends)
        if None in order:
            return f"is {numbers}"
        whole = say.RISES[say.compare(found[0], found[-1])]
        return f"{whole if order == (0, 0) else SHAPES[order]} ({numbers})"  # type: ignore[index]

    said = (f"{course} in {name}" for name, course in _by_task(course).items())
    return f"OOD success during SFT (first, highest, last) {' and '.join(said)}"


def routes(frame: pd.DataFrame) -> str:
    first, later, whole = (
        say.curve(frame, series=name)[-1] for name in ("first turn", "later turns", "routes")
    )
    beside = f"{say.BESIDE[say.compare(later, first)]} the {say.percent(later.value)} of later turns"
    solved = f"{say.percent(first.value)} of OOD first turns are solved, {beside}"
    return f"at step {first.at:,}, {solved}; whole routes: {say.percent(whole.value)}"


def healed(frame: pd.DataFrame) -> str:
    def pair(task: str) -> tuple[Estimate, Estimate]:
        rl, varied = (say.estimate(frame, series=f"{task}, {arm}", state=MIDDLE) for arm in ("rl", HEALED))
        return rl, varied

    pairs = _by_task(pair)
    listed = ", ".join(f"{name} {say.percent(varied.value)}" for name, (_, varied) in pairs.items())
    more = f"more than ID-rule RL in {say.risen(list(pairs.values()), 'tasks')}"
    return f"with {MIDDLE} % lost, RL on other rules regains {more}: {listed}"


def weights(frame: pd.DataFrame) -> str:
    changes = _by_task(lambda task: say.estimate(frame, series=f"{task}, directions(all)"))
    said = " and ".join(
        f"by {say.points(one.value)}{say.effect(one)} in {name}" for name, one in changes.items()
    )
    return f"restoring the peak's singular vectors changes OOD success {said}"


TAKEAWAYS = say.named("beyond", stages, curves, routes, healed, weights)
