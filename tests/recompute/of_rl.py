"""Estimators of chapter 2. Where a start is chosen, for its accuracy or for its state, it is chosen on one half of the
OOD hands and measured on the other, both ways."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from tables import NoData, Tables, halved, rate

ABILITY = "pass@4 either"
BOTH = (0, 1)


class Seed:
    """One base seed: `of` is an accuracy of a start (after=False) or of RL from it, all RL and sampling seeds alike."""

    def __init__(self, tables: Tables) -> None:
        rows = halved(tables["episodes"])
        rows = rows.assign(after=rows["run"] >= 0)
        self.log, self.losses = tables["log"], tables["losses"]
        self._rows = dict(tuple(rows.groupby(["control", "start", "after", "split", "half"])))
        self.starts = sorted(
            {start for control, start, after, *_ in self._rows if control == "main" and after}
        )
        self.of = lru_cache(maxsize=None)(self._of)

    def _of(self, start: int, after: bool, measure: str = "success@5", half: int | None = None,
            split: str = "ood", control: str = "main") -> float:  # fmt: skip
        halves = BOTH if half is None else (half,)
        found = [
            self._rows[key] for one in halves if (key := (control, start, after, split, one)) in self._rows
        ]
        return rate(pd.concat(found), measure) if found else float("nan")

    def gain(self, start: int, measure: str, half: int | None = None) -> float:
        """acc(after RL) - acc(start)."""
        return self.of(start, True, measure, half) - self.of(start, False, measure, half)

    def peak(self, measure: str, half: int, after: bool = False) -> int:
        """The start of highest accuracy on that half, the earliest of equal ones."""
        return max(self.starts, key=lambda start: self.of(start, after, measure, half))

    def start_at(self, state: int, half: int) -> int:
        """The first start after the peak with 1 - ability / ability(peak) >= state / 100 on that half."""
        peak = self.peak(ABILITY, half)
        top = self.of(peak, False, ABILITY, half)
        for start in self.starts:
            lost = top - self.of(start, False, ABILITY, half)
            if (
                start > peak and top > 0 and round(100 * lost - state * top, 9) >= 0
            ):  # a tenth exactly is a tenth
                return start
        raise NoData(f"no start has lost {state} % of the peak")


def measured(tables: Tables) -> Seed:
    return Seed(tables)


def regained(seed: Seed, state: int, measure: str = ABILITY) -> tuple[float, float]:
    """(after RL - start, peak - start), each the mean over halves."""
    pairs = []
    for half in BOTH:
        start, peak = seed.start_at(state, 1 - half), seed.peak(measure, 1 - half)
        before = seed.of(start, False, measure, half)
        pairs.append(
            (seed.of(start, True, measure, half) - before, seed.of(peak, False, measure, half) - before)
        )
    over, under = np.mean(pairs, axis=0)
    return float(over), float(under)


def gain(seed: Seed, state: int, measure: str = "success@5") -> float:
    """acc(after RL) - acc(start)."""
    return float(np.mean([seed.gain(seed.start_at(state, 1 - half), measure, half) for half in BOTH]))


def no_gain(seed: Seed, start: str, tolerance: float, measure: str = "success@5") -> float:
    """tolerance - gain from the first or the last start, all OOD hands."""
    return tolerance - seed.gain(seed.starts[{"first": 0, "last": -1}[start]], measure)


def feedback_lacks(seed: Seed, state: int, k: int) -> float:
    """pass@k - success@k of the start, in either format."""
    measure = f"feedback@{k} either"
    return -float(np.mean([seed.of(seed.start_at(state, 1 - half), False, measure, half) for half in BOTH]))


def below_peak(seed: Seed, tolerance: float, measure: str = "success@5") -> float:
    """acc(peak of the starts) + tolerance - acc(best after RL), each chosen and measured on different halves."""
    before, after = (
        np.mean([seed.of(seed.peak(measure, 1 - half, done), done, measure, half) for half in BOTH])
        for done in (False, True)
    )
    return float(before + tolerance - after)


def _known(seed: Seed, start: int, what: str) -> float:
    """An ID accuracy of the start, or the mean of a column of RL's log over its first five iterations."""
    if what in ("sft", "held_out"):
        return seed.of(start, False, split=what)
    log = seed.log[(seed.log["control"] == "main") & (seed.log["start"] == start)]
    return float(log.loc[log["update"] <= 5, what].mean())


def marks_window(seed: Seed, known: str, low: float, high: float, gained: float) -> float:
    """Balanced accuracy - 1/2 of the rule "gain > gained exactly where low <= known <= high"; 0 if all or none gain."""
    values = np.array([_known(seed, start, known) for start in seed.starts])
    gains = np.array([seed.gain(start, "success@5") > gained for start in seed.starts])
    if not np.isfinite(values).all():
        return float("nan")
    if gains.all() or not gains.any():
        return 0.0
    said = (values >= low) & (values <= high)
    return float((np.mean(said[gains]) + np.mean(~said[~gains])) / 2 - 0.5)


def limit_unseen(seed: Seed, early: int, late: int, tolerance: float) -> float:
    """tolerance - (loss(late) / loss(early) - 1), held-out ID loss of the starts, each the mean over halves."""
    rows = seed.losses
    rows = rows[(rows["control"] == "main") & (rows["update"] == 0) & (rows["set"] == "test")]
    loss = rows.groupby("start")["loss"].mean()
    first, last = (np.mean([loss[seed.start_at(state, half)] for half in BOTH]) for state in (early, late))
    return float(tolerance - (last / first - 1))


def falls_with_sft(seed: Seed, measure: str = ABILITY) -> float:
    """-slope of the gain over log2(start), starts after the peak; mean over halves."""
    slopes = []
    for half in BOTH:
        later = [start for start in seed.starts if start > seed.peak(measure, 1 - half)]
        if len(later) < 3:
            raise NoData("fewer than three starts lie after the peak")
        x, y = np.log2(later), np.array([seed.gain(start, measure, half) for start in later])
        slopes.append(np.cov(x, y)[0, 1] / np.var(x, ddof=1))
    return -float(np.mean(slopes))


def over_control(seed: Seed, control: str, measure: str = "success@5") -> float:
    """acc(after RL) - max(acc(after the control), acc(start)), all OOD hands."""
    starts = [start for name, start, *_ in seed._rows if name == control]
    if not starts:
        return float("nan")
    start = min(starts)
    others = (seed.of(start, True, measure, control=control), seed.of(start, False, measure))
    return seed.of(start, True, measure) - float(np.max(others))
