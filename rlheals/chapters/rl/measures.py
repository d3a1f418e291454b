"""What the figures of chapter 02 show, as tables: one value per base seed and start (column `step`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlheals.chapters.rl.runs import MAIN, RLTables
from rlheals.chapters.rows import halved, only, shares
from rlheals.chapters.sft.measures import MEASURES, SOLVED
from rlheals.stats.bootstrap import largest_bound
from rlheals.stats.intervals import simultaneous_level, t_interval


@dataclass(frozen=True)
class Accuracies:
    """One base seed's accuracies: before and after RL, by control, start and half of the hands."""

    table: pd.DataFrame

    @classmethod
    def of(cls, tables: RLTables, seed: int) -> Accuracies:
        rows = halved(only(tables.episodes, seed=seed))
        keys = ["control", "start", "run", "split", "half"]
        frames = []
        for name, measure in SOLVED.items():
            hits = measure(rows).astype(float).groupby([rows[key] for key in keys], observed=True)
            grouped = hits.agg(["sum", "count"])
            frames.append(grouped.reset_index().assign(measure=name))
        return cls(pd.concat(frames, ignore_index=True))

    def accuracy(
        self, start: int, after: bool, *, split: str = "ood", measure: str = "within_five", control: str = MAIN,
        half: int | None = None,
    ) -> float:  # fmt: skip
        """Share of hands solved by a start (after=False) or by RL from it, all RL and sampling seeds together.

        Not a number where nothing was measured.
        """
        halves = {} if half is None else {"half": half}
        rows = only(self.table, start=start, split=split, measure=measure, control=control, **halves)
        rows = rows[(rows["run"] >= 0) == after]
        count = rows["count"].sum()
        return float(rows["sum"].sum() / count) if count else float("nan")

    def gain(self, start: int, **options: str) -> float:
        """Accuracy after RL from a start minus before."""
        return self.accuracy(start, True, **options) - self.accuracy(start, False, **options)  # type: ignore[arg-type]

    @property
    def starts(self) -> list[int]:
        mine = only(self.table, control=MAIN)
        return sorted(int(start) for start in mine.loc[mine["run"] >= 0, "start"].unique())

    def best(self, after: bool) -> float:
        """Highest OOD accuracy over the starts, before or after RL, cross-fitted."""
        found = []
        for half in (0, 1):
            chosen = max(self.starts, key=lambda start: self.accuracy(start, after, half=1 - half))
            found.append(self.accuracy(chosen, after, half=half))
        return float(np.mean(found))


def by_seed(tables: RLTables) -> dict[int, Accuracies]:
    """Those of every base seed; through `tables.once`, made one time."""
    return {seed: Accuracies.of(tables, seed) for seed in tables.seeds}


def accuracy(tables: RLTables, split: str, after: bool, measure: str = "within_five") -> pd.DataFrame:
    """Share of hands that a measure counts, by the starts (after=False) or by RL from them, over all RL seeds."""
    rows = only(tables.episodes, control=MAIN, split=split)
    rows = rows[(rows["run"] >= 0) == after]
    return shares(rows, MEASURES[measure](rows), ("seed", "start")).rename(columns={"start": "step"})


def _means(rows: pd.DataFrame, step: str, column: str) -> pd.DataFrame:
    """Columns seed, step, value."""
    mean = rows.groupby(["seed", step])[column].mean().reset_index()
    return mean.rename(columns={step: "step", column: "value"})


def early_log(tables: RLTables, column: str, iterations: int = 5) -> pd.DataFrame:
    """Mean of a logged quantity over the first iterations: what RL finds at its start.

    Column "revision": share of failed first attempts corrected after feedback, on training hands.
    """
    if column == "revision":
        solved, first = (early_log(tables, name, iterations) for name in ("solved", "first_try"))
        return solved.assign(value=(solved["value"] - first["value"]) / (1 - first["value"]))
    log = only(tables.log, control=MAIN)
    return _means(log[log["update"] <= iterations], "start", column)


def learning_curve(tables: RLTables, column: str, start: int, smooth: int = 5) -> pd.DataFrame:
    """A logged quantity against iterations, per base seed, as a running mean: every iteration plays other hands."""
    mean = _means(only(tables.log, control=MAIN, start=start), "update", column)
    smoothed = mean.groupby("seed")["value"].rolling(smooth, min_periods=1).mean()
    return mean.assign(value=smoothed.to_numpy())


def loss(tables: RLTables, name: str, start: int) -> pd.DataFrame:
    """Cross-entropy of one set of expert answers during RL from a start."""
    return _means(only(tables.losses, control=MAIN, start=start, set=name), "update", "loss")


def gains(tables: RLTables, measure: str = "within_five") -> pd.DataFrame:
    """Gain of every start: mean over base seeds, with an interval that holds for all starts together.

    Columns step, value, low, high, seeds. With one base seed there is no interval: low and high are missing.
    """
    rows, confidence = [], simultaneous_level(len(tables.starts))
    for start in tables.starts:
        each = [one.gain(start, measure=measure) for one in tables.once(by_seed).values()]
        values = [value for value in each if np.isfinite(value)] or [np.nan]
        found = t_interval(values, confidence) if len(values) > 1 else None
        low, high = (found.low, found.high) if found else (np.nan, np.nan)
        mean = float(np.mean(values))
        rows.append({"step": start, "value": mean, "low": low, "high": high, "seeds": len(values)})
    return pd.DataFrame(rows)


def window(gained: pd.DataFrame) -> dict[str, list[int]]:
    """Starts from which RL surely gains, surely loses, and those that are open, at the level of all intervals together.

    >>> frame = pd.DataFrame({"step": [10, 20, 40], "low": [0.1, -0.1, -0.3], "high": [0.2, 0.1, -0.2]})
    >>> window(frame)
    {'gain': [10], 'loss': [40], 'open': [20]}
    """
    sure, lost = gained["low"] > 0, gained["high"] < 0
    kinds = {"gain": sure, "loss": lost, "open": ~(sure | lost)}
    return {name: [int(step) for step in gained.loc[chosen, "step"]] for name, chosen in kinds.items()}


def excess_bound(tables: RLTables) -> float:
    """How far RL from whichever start may lie above the OOD peak of SFT: an upper bound (95 %) over all starts.

    Per base seed, accuracy after RL from each start minus the cross-fitted peak; at least two base seeds.
    """
    excess = [
        [one.accuracy(start, True) - one.best(after=False) for start in tables.starts]
        for one in tables.once(by_seed).values()
    ]
    return largest_bound(np.array(excess)[:, ~np.isnan(excess).any(axis=0)])[0]


def entropies(tables: RLTables, start: int) -> pd.DataFrame:
    """Entropy of first attempts at OOD hands (nats per token) and success@5 of everything from one start.

    Columns seed, control, start, run (-1: the start itself), entropy, value. The start sampled at other temperatures
    is a control of its own.
    """
    keys = ["seed", "control", "start", "run"]
    counted = only(tables.categories, split="ood", attempt=1, start=start)
    sums = counted.groupby(keys, observed=True)[["entropy", "attempts"]].sum()
    rows = only(tables.episodes, split="ood", start=start)
    solved = SOLVED["within_five"](rows).groupby([rows[key] for key in keys], observed=True).mean()
    frame = pd.DataFrame({"entropy": sums["entropy"] / sums["attempts"], "value": solved})
    return frame.dropna().reset_index()


def at_temperatures(entropies: pd.DataFrame) -> pd.DataFrame:
    """The rows of the start itself, as it is and at other temperatures."""
    control = entropies["control"].astype(str)
    return entropies[((control == MAIN) | control.str.startswith("temperature")) & (entropies["run"] < 0)]


def at_matched_entropy(tables: RLTables, start: int) -> dict[int, float]:
    """Per base seed: accuracy of the start at the temperature that gives it the entropy of RL's first attempts.

    Interpolated between the temperatures that were sampled; seeds whose RL lies outside of them are left out.
    """
    found = {}
    for seed, frame in entropies(tables, start).groupby("seed"):
        after = frame.loc[(frame["control"] == MAIN) & (frame["run"] >= 0), "entropy"].mean()
        curve = at_temperatures(frame).sort_values("entropy")
        if len(curve) > 1 and curve["entropy"].iloc[0] <= after <= curve["entropy"].iloc[-1]:
            found[int(str(seed))] = float(np.interp(after, curve["entropy"], curve["value"]))
    return found


def control_levels(tables: RLTables, control_start: int) -> dict[str, dict[int, float]]:
    """OOD success@5 by control and base seed, all of the same start; "start" and "RL" are those without a control."""
    rows = only(tables.episodes, split="ood", start=control_start)
    names = rows["control"].astype(str) + np.where(rows["run"] < 0, " (start)", "")
    names = names.replace({f"{MAIN} (start)": "start", MAIN: "RL"})
    table = SOLVED["within_five"](rows).groupby([names, rows["seed"]], observed=True).mean()
    return {name: group.droplevel(0).to_dict() for name, group in table.groupby(level=0, sort=False)}
