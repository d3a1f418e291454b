"""What the figures of chapter 02 show, as tables: one value per base seed and start (column `step`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlheals.chapters.rl.runs import MAIN, RecoveryTables
from rlheals.chapters.sft.measures import PARTS, Solved, within_five
from rlheals.stats.bootstrap import largest_bound
from rlheals.stats.intervals import simultaneous_level, t_interval
from rlheals.study.claims import half_of

MEASURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "within_five": lambda rows: rows["solved_at"] > 0,
    "first_try": lambda rows: rows["solved_at"] == 1,
    "either": lambda rows: rows["solved_at_either"] > 0,
    "revision": lambda rows: (rows["solved_at"] > 1).where(rows["solved_at"] != 1),
}
"""success@5 with feedback; pass@1; format-agnostic success@5; solved later, among those whose first attempt failed."""


@dataclass(frozen=True)
class Accuracies:
    """One base seed's accuracies: before and after RL, by control, start and half of the hands."""

    table: pd.DataFrame

    @classmethod
    def of(cls, tables: RecoveryTables, seed: int) -> Accuracies:
        rows = tables.episodes[tables.episodes["seed"] == seed]
        halves = {item: half_of(str(item)) for item in rows["item"].unique()}
        rows = rows.assign(half=rows["item"].map(halves).astype(int))
        keys = ["control", "start", "run", "split", "half"]
        frames = []
        for name, measure in MEASURES.items():
            hits = measure(rows).astype("float64")
            grouped = hits.groupby([rows[key] for key in keys], observed=True).agg(["sum", "count"])
            frames.append(grouped.reset_index().assign(measure=name))
        return cls(pd.concat(frames, ignore_index=True))

    @classmethod
    def by_seed(cls, tables: RecoveryTables) -> dict[int, Accuracies]:
        """Those of every base seed; made one time and kept with the tables."""
        return tables.once(_by_seed)

    def accuracy(
        self,
        start: int,
        after: bool,
        *,
        split: str = "ood",
        measure: str = "within_five",
        control: str = MAIN,
        half: int | None = None,
    ) -> float:
        """Share of hands solved by a start (after=False) or by RL from it, all RL and sampling seeds together.

        Not a number where nothing was measured.
        """
        table = self.table
        chosen = (
            (table["control"] == control)
            & (table["start"] == start)
            & (table["split"] == split)
            & (table["measure"] == measure)
            & ((table["run"] >= 0) == after)
        )
        if half is not None:
            chosen &= table["half"] == half
        count = table.loc[chosen, "count"].sum()
        return float(table.loc[chosen, "sum"].sum() / count) if count else float("nan")

    def gain(self, start: int, **options: str) -> float:
        """Accuracy after RL from a start minus before."""
        return self.accuracy(start, True, **options) - self.accuracy(start, False, **options)  # type: ignore[arg-type]

    @property
    def starts(self) -> list[int]:
        mine = self.table[(self.table["control"] == MAIN) & (self.table["run"] >= 0)]
        return sorted(int(start) for start in mine["start"].unique())

    def best(self, after: bool) -> float:
        """Highest OOD accuracy over the starts, before or after RL, cross-fitted."""
        found = []
        for half in (0, 1):
            chosen = max(self.starts, key=lambda start: self.accuracy(start, after, half=1 - half))
            found.append(self.accuracy(chosen, after, half=half))
        return float(np.mean(found))


def _by_seed(tables: RecoveryTables) -> dict[int, Accuracies]:
    return {seed: Accuracies.of(tables, seed) for seed in tables.seeds}


def _episodes(tables: RecoveryTables, split: str, after: bool, control: str = MAIN) -> pd.DataFrame:
    rows = tables.episodes
    chosen = (rows["control"] == control) & (rows["split"] == split) & ((rows["run"] >= 0) == after)
    return rows[chosen]


def _shares(rows: pd.DataFrame, hit: pd.Series) -> pd.DataFrame:
    grouped = hit.astype(float).groupby([rows["seed"], rows["start"]], observed=True)
    return grouped.agg(value="mean", n="size").reset_index().rename(columns={"start": "step"})


def accuracy(
    tables: RecoveryTables,
    split: str,
    after: bool,
    solved: Solved = within_five,
    column: str = "solved_at",
) -> pd.DataFrame:
    """Share of hands solved by the starts (after=False) or by RL from them; RL and sampling seeds together."""
    rows = _episodes(tables, split, after)
    return _shares(rows, solved(rows[column]))


def part(tables: RecoveryTables, split: str, after: bool, name: str) -> pd.DataFrame:
    """One of `measures.PARTS`: format, rule, arithmetic, revision."""
    rows = _episodes(tables, split, after)
    among, hit = PARTS[name](rows)
    return _shares(rows[among], hit[among])


def early_log(tables: RecoveryTables, column: str, updates: int = 5) -> pd.DataFrame:
    """Mean of a logged quantity over the first iterations: what RL finds at its start."""
    log = tables.log[(tables.log["control"] == MAIN) & (tables.log["update"] <= updates)]
    grouped = log.groupby(["seed", "start"])[column].mean().reset_index()
    return grouped.rename(columns={"start": "step", column: "value"})


def early_revision(tables: RecoveryTables) -> pd.DataFrame:
    """Share of failed first attempts corrected after feedback, on training hands in the first five iterations."""
    solved, first = early_log(tables, "solved"), early_log(tables, "first_try")
    return solved.assign(value=(solved["value"] - first["value"]) / (1 - first["value"]))


def learning_curve(tables: RecoveryTables, column: str, start: int, smooth: int = 5) -> pd.DataFrame:
    """A logged quantity against iterations, per base seed, as a running mean: every iteration plays other hands."""
    log = tables.log[(tables.log["control"] == MAIN) & (tables.log["start"] == start)]
    mean = log.groupby(["seed", "update"])[column].mean().reset_index()
    mean["value"] = mean.groupby("seed")[column].transform(
        lambda values: values.rolling(smooth, min_periods=1).mean()
    )
    return mean[["seed", "update", "value"]].rename(columns={"update": "step"})


def loss(tables: RecoveryTables, name: str, start: int) -> pd.DataFrame:
    """Cross-entropy of one set of expert answers during RL from a start."""
    rows = tables.losses
    rows = rows[(rows["control"] == MAIN) & (rows["start"] == start) & (rows["set"] == name)]
    mean = rows.groupby(["seed", "update"])["loss"].mean().reset_index()
    return mean.rename(columns={"update": "step", "loss": "value"})


def gains(tables: RecoveryTables, measure: str = "within_five") -> pd.DataFrame:
    """Gain of every start: mean over base seeds, with an interval that holds for all starts together.

    Columns step, value, low, high, seeds. With one base seed there is no interval: low and high are missing.
    """
    accuracies = list(Accuracies.by_seed(tables).values())
    rows = []
    for start in tables.starts:
        found = [one.gain(start, measure=measure) for one in accuracies if start in one.starts]
        values = [value for value in found if np.isfinite(value)] or [np.nan]
        low = high = np.nan
        if len(values) > 1:
            interval = t_interval(values, simultaneous_level(len(tables.starts)))
            low, high = interval.low, interval.high
        rows.append(
            {"step": start, "value": float(np.mean(values)), "low": low, "high": high, "seeds": len(values)}
        )
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


def excess_bound(tables: RecoveryTables) -> float:
    """How far RL from whichever start may lie above the OOD peak of SFT: an upper bound (95 %) over all starts.

    Per base seed, accuracy after RL from each start minus the cross-fitted peak; at least two base seeds.
    """
    accuracies = list(Accuracies.by_seed(tables).values())
    excess = [
        [one.accuracy(start, True) - one.best(after=False) for start in tables.starts] for one in accuracies
    ]
    complete = ~np.isnan(excess).any(axis=0)
    return largest_bound(np.array(excess)[:, complete])[0]


def entropies(tables: RecoveryTables, start: int) -> pd.DataFrame:
    """Entropy of first attempts at OOD hands (nats per token) and success@5 of everything from one start.

    Columns seed, control, start, run (-1: the start itself), entropy, value. The start sampled at other temperatures
    is a control of its own.
    """
    keys = ["seed", "control", "start", "run"]
    counted = tables.categories
    counted = counted[(counted["split"] == "ood") & (counted["attempt"] == 1) & (counted["start"] == start)]
    sums = counted.groupby(keys, observed=True)[["entropy", "attempts"]].sum()
    rows = tables.episodes
    rows = rows[(rows["split"] == "ood") & (rows["start"] == start)]
    solved = within_five(rows["solved_at"]).groupby([rows[key] for key in keys], observed=True).mean()
    frame = pd.DataFrame({"entropy": sums["entropy"] / sums["attempts"], "value": solved})
    return frame.dropna().reset_index()


def at_matched_entropy(tables: RecoveryTables, start: int) -> dict[int, float]:
    """Per base seed: accuracy of the start at the temperature that gives it the entropy of RL's first attempts.

    Interpolated between the temperatures that were sampled; seeds whose RL lies outside of them are left out.
    """
    found = {}
    for seed, frame in entropies(tables, start).groupby("seed"):
        after = frame.loc[(frame["control"] == MAIN) & (frame["run"] >= 0), "entropy"].mean()
        tempered = frame["control"].astype(str).str.startswith("temperature") | (frame["control"] == MAIN)
        curve = frame[tempered & (frame["run"] < 0)].sort_values("entropy")
        if len(curve) > 1 and curve["entropy"].iloc[0] <= after <= curve["entropy"].iloc[-1]:
            found[int(str(seed))] = float(np.interp(after, curve["entropy"], curve["value"]))
    return found


def control_levels(tables: RecoveryTables, control_start: int) -> dict[str, dict[int, float]]:
    """OOD success@5 by control and base seed, all of the same start; "start" and "RL" are those without a control."""
    rows = tables.episodes
    rows = rows[(rows["split"] == "ood") & (rows["start"] == control_start)]
    solved = within_five(rows["solved_at"])
    names = rows["control"].astype(str) + np.where(rows["run"] < 0, " (start)", "")
    names = names.replace({f"{MAIN} (start)": "start", MAIN: "RL"})
    table = solved.groupby([names, rows["seed"]], observed=True).mean()
    return {name: group.droplevel(0).to_dict() for name, group in table.groupby(level=0, sort=False)}
