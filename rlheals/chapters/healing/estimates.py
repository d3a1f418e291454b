"""What the figures of chapter 05 are drawn from: estimates over base seeds, and how second stages look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.drawing import Sheet
from rlheals.chapters.healing.measures import Healing, by_seed
from rlheals.chapters.healing.runs import BEFORE, HEALED, IMITATED, UNHEALED, HealingChapter, HealingTables
from rlheals.display.looks import AFTER_RL, BLUE, GREEN, ORANGE, PLAIN_SFT, SKY, Look
from rlheals.display.style import Drawn, with_intervals
from rlheals.errors import BadInput
from rlheals.stats.intervals import of_ratio, t_interval

LOOKS = {
    BEFORE: PLAIN_SFT.named("SFT (the start)"),
    "rl": AFTER_RL.named("RL, ID rule"),
    UNHEALED: Look("RL, other rules up to 10", SKY, "v", ":"),
    HEALED: Look("RL, other rules up to 13", BLUE, "^", "-"),
    "imitate-familiar": Look("SFT, other rules up to 10", GREEN, "<", ":"),
    IMITATED: Look("SFT, other rules up to 13", GREEN, ">", "-"),
    "expert-varied": Look("expert iteration, up to 13", ORANGE, "D", "-."),
}
"""Second stages of the map: what their questions are about, and how they learn."""
LOST = "OOD pass@4 that SFT has lost (%)"
SHARES = "95 % t intervals of a ratio of sums over base seeds"
NOTHING = "no data here"
COLUMNS = ["value", "low", "high", "seeds"]


def second_stages(chapter: HealingChapter) -> list[str]:
    """Those of the map that there are, in the order of `LOOKS`."""
    there = set(chapter.tables.episodes["control"].unique())
    return [arm for arm in LOOKS if arm in there and arm != BEFORE]


def values(tables: HealingTables, measure: Callable[[Healing], Any]) -> Iterator[Any]:
    """measure(base seed) of every base seed that has it: whose SFT reached the state, and where it is recorded."""
    for one in tables.once(by_seed).values():
        with suppress(BadInput):
            if np.isfinite(found := measure(one)).all():
                yield found


def over_seeds(tables: HealingTables, measure: Callable[[Healing], float]) -> pd.DataFrame:
    """Mean and interval over base seeds: one row value, low, high, seeds, interval; none where nothing is known."""
    rows = pd.DataFrame({"value": list(values(tables, measure)), "row": 0})
    return with_intervals(rows, ["row"]).drop(columns="row")


def shares(tables: HealingTables, arm: str, state: int, **options: object) -> pd.DataFrame:
    """Share of the loss that a second stage regains, sum(after - start) / sum(peak - start): value, low, high, seeds.

    No row where nothing was measured or nothing was lost; no interval for one base seed.
    """
    pairs = list(
        values(tables, lambda one: (one.gain(arm, state, **options), one.lost(state, arm, **options)))
    )
    gained, lost = (list(side) for side in zip(*pairs, strict=True)) if pairs else ([], [])
    if sum(lost) <= 0:
        return pd.DataFrame(columns=COLUMNS)
    each = of_ratio(gained, lost)
    found = t_interval(each) if len(each) > 1 else None
    low, high = (found.low, found.high) if found else (np.nan, np.nan)
    return pd.DataFrame([(float(each.mean()), low, high, len(each))], columns=COLUMNS)


def accuracy(one: Healing, arm: str, state: int, **options: Any) -> float:
    """Of a start (arm `BEFORE`), or of what a second stage made of it."""
    return one.accuracy(arm, state, arm != BEFORE, **options)


def by_state(
    sheet: Sheet, axis: Axes, states: Sequence[int], arms: Sequence[str], series: str, **options: Any
) -> None:
    """Accuracies: a mark per state and second stage, side by side, with its interval over base seeds."""
    for shift, arm in enumerate(arms):
        aside = 0.1 * (shift - len(arms) / 2 + 0.5)
        for study, table in sheet.estimates(
            partial(_at_states, arm=arm, states=states, **options), ["state"]
        ):
            places = [states.index(state) + (aside if state else 0) for state in table["state"]]
            sheet.mark(axis, places, table, LOOKS[arm], study, series=f"{series}, {arm}")
    axis.set_xticks(range(len(states)), [str(state) if state else "peak" for state in states])
    axis.set_xlim(-0.5, len(states) - 0.5)


def _at_states(tables: HealingTables, arm: str, states: Sequence[int], **options: Any) -> pd.DataFrame:
    """Columns seed, state, value; rows where it is known."""
    rows = []
    for seed, one in tables.once(by_seed).items():
        for state in states:
            with suppress(BadInput):
                rows.append((seed, state, accuracy(one, arm, state, **options)))
    return pd.DataFrame(rows, columns=["seed", "state", "value"]).dropna()


def finish(sheet: Sheet, name: str, title: str, note: str) -> Drawn:
    """The figure; a panel into which nothing was drawn says so."""
    for axis in sheet.axes:
        if (
            axis.get_visible() and not np.isfinite(axis.dataLim.get_points()).all()
        ):  # lines across are no data
            axis.text(0.5, 0.5, NOTHING, transform=axis.transAxes, ha="center", va="center", fontsize=8)
    return sheet.finish(name, title, note)
