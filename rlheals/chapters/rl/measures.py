"""What the figures of chapter 02 show, as tables: one value per base seed and start (column `step`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rlheals.chapters.rl.runs import MAIN, RLTables
from rlheals.chapters.rows import halved, only
from rlheals.chapters.sft.measures import share
from rlheals.errors import BadInput
from rlheals.stats.bootstrap import largest_bound
from rlheals.stats.intervals import of_ratio, simultaneous_level, t_interval
from rlheals.study.claims import Ratio
from rlheals.study.peaks import has_lost

ABILITY = "pass@4 either"
"""The measure in which a start's state is told, and the share of a loss that RL regains."""
EARLY = 5
"""What RL finds at its start is the mean over its first iterations, as many as these."""


@dataclass(frozen=True)
class Accuracies:
    """One base seed's accuracies, before and after RL, by control, start, measure and half of the hands."""

    seed: int
    tables: RLTables
    kept: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    known: dict[str, dict[Any, tuple[float, int]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """Those of the seed, by half of the hands."""
        return halved(only(self.tables.episodes, seed=self.seed))

    def of_measure(self, measure: str) -> pd.DataFrame:
        """Columns control, start, run, split, half, value, n; computed once for every measure."""
        if measure not in self.kept:
            self.kept[measure] = share(self.episodes, measure, ("control", "start", "run", "split", "half"))
        return self.kept[measure]

    def counts(self, measure: str) -> dict[tuple[str, int, str, bool, int | None], tuple[float, int]]:
        """By control, start, split, whether after RL, and half (None: both): what counts, and of how many hands."""
        if measure not in self.known:
            rows = self.of_measure(measure)
            rows = rows.assign(after=rows["run"] >= 0, hits=rows["value"] * rows["n"])
            halves = rows.groupby(["control", "start", "split", "after", "half"], observed=True)[
                ["hits", "n"]
            ].sum()
            both = halves.groupby(level=[0, 1, 2, 3], observed=True).sum()
            found = dict(zip(halves.index, halves.itertuples(index=False, name=None), strict=True))
            whole = zip(both.index, both.itertuples(index=False, name=None), strict=True)
            self.known[measure] = found | {(*key, None): count for key, count in whole}
        return self.known[measure]

    def accuracy(
        self, start: int, after: bool, *, split: str = "ood", measure: str = "success@5", control: str = MAIN,
        half: int | None = None,
    ) -> float:  # fmt: skip
        """Share of hands solved by a start (after=False) or by RL from it, all RL and sampling seeds together.

        Not a number where nothing was measured.
        """
        hits, hands = self.counts(measure).get((control, start, split, after, half), (0.0, 0))
        return hits / hands if hands else float("nan")

    def gain(self, start: int, **options: Any) -> float:
        """Accuracy after RL from a start minus before."""
        return self.accuracy(start, True, **options) - self.accuracy(start, False, **options)

    @property
    def starts(self) -> list[int]:
        mine = only(self.of_measure("success@5"), control=MAIN)
        return sorted(int(start) for start in mine.loc[mine["run"] >= 0, "start"].unique())

    def start_of(self, control: str) -> int:
        """The start of a control; of several the first, and -1, which no start is, where it is not recorded."""
        known = only(self.of_measure("success@5"), control=control)["start"]
        return int(known.min()) if len(known) else -1

    def peak(self, half: int, measure: str, after: bool = False) -> int:
        """The start of highest OOD accuracy, before or after RL, on one half of the hands."""
        return max(self.starts, key=lambda start: self.accuracy(start, after, measure=measure, half=half))

    def best(self, after: bool, measure: str = "success@5") -> float:
        """Highest OOD accuracy over the starts, before or after RL, cross-fitted."""
        return float(np.mean([
            self.accuracy(self.peak(1 - half, measure, after), after, measure=measure, half=half) for half in (0, 1)
        ]))  # fmt: skip

    def start_at(self, state: int, half: int) -> int:
        """The first start after the peak that has lost `state` per cent of the peak's OOD `ABILITY` (`study.peaks`).

        Chosen on one half of the hands, to be measured on the other. Raises BadInput where no start has lost so much.
        """
        peak = self.peak(half, ABILITY)
        top = self.accuracy(peak, False, measure=ABILITY, half=half)
        for start in self.starts:
            left = self.accuracy(start, False, measure=ABILITY, half=half)
            if start > peak and top > 0 and has_lost(state, left / top):
                return start
        raise BadInput(f"no RL start checkpoint has lost {state} % of the OOD peak")

    def at_state(self, state: int, value: Callable[[int, int], float]) -> float:
        """Mean over both halves of value(start, half), the start chosen by its state on the other half."""
        return float(np.mean([value(self.start_at(state, 1 - half), half) for half in (0, 1)]))

    def regained(self, start: int, half: int | None = None, measure: str = ABILITY) -> Ratio:
        """(after RL - start, peak of SFT - start) on OOD hands; the peak is chosen where it is not measured."""
        halves = (0, 1) if half is None else (half,)
        pairs = []
        for one in halves:
            of = {"measure": measure, "half": one}
            before = self.accuracy(start, False, **of)  # type: ignore[arg-type]
            top = self.accuracy(self.peak(1 - one, measure), False, **of)  # type: ignore[arg-type]
            pairs.append((self.gain(start, **of), top - before))
        return Ratio(*np.mean(pairs, axis=0).tolist())

    def known_at(self, start: int, what: str) -> float:
        """What the start alone shows: "loss SET", seen or held-out ID accuracy ("sft", "held_out"), or, in the first
        iterations of RL, a column of the log."""
        if what in ("sft", "held_out"):
            return self.accuracy(start, False, split=what)
        of = {"seed": self.seed, "control": MAIN, "start": start}
        if what.startswith("loss "):
            return float(only(self.tables.losses, **of, update=0, set=what[5:])["loss"].mean())
        log = only(self.tables.log, **of)
        return float(log.loc[log["update"] <= EARLY, what].mean())


def by_seed(tables: RLTables) -> dict[int, Accuracies]:
    """Those of every base seed; through `tables.once`, made one time."""
    return {seed: Accuracies(seed, tables) for seed in tables.seeds}


def accuracy(tables: RLTables, split: str, after: bool, measure: str = "success@5") -> pd.DataFrame:
    """Share of hands that a measure counts, by the starts (after=False) or by RL from them, over all RL seeds."""
    rows = only(tables.episodes, control=MAIN, split=split)
    rows = rows[(rows["run"] >= 0) == after]
    found = share(rows, measure, ("seed", "start", "run"))
    weighted = (
        found.assign(value=found["value"] * found["n"]).groupby(["seed", "start"])[["value", "n"]].sum()
    )
    mean = weighted.assign(value=weighted["value"] / weighted["n"])
    return mean.reset_index().rename(columns={"start": "step"})


def regained(tables: RLTables, measure: str = ABILITY) -> pd.DataFrame:
    """Share of the loss regained from every start: columns step, value, low, high, seeds (95 % over base seeds).

    Without rows for starts that have lost nothing.
    """
    rows = []
    for start in tables.starts:
        pairs = [one.regained(start, measure=measure) for one in tables.once(by_seed).values()]
        known = [pair for pair in pairs if np.isfinite(pair).all()]
        if sum(pair.under for pair in known) > 0:
            values = of_ratio(*zip(*known, strict=True))
            found = t_interval(values) if len(values) > 1 else None
            low, high = (found.low, found.high) if found else (np.nan, np.nan)
            mean = float(values.mean())
            rows.append({"step": start, "value": mean, "low": low, "high": high, "seeds": len(values)})
    return pd.DataFrame(rows, columns=["step", "value", "low", "high", "seeds"])


def _means(rows: pd.DataFrame, step: str, column: str) -> pd.DataFrame:
    """Columns seed, step, value."""
    mean = rows.groupby(["seed", step])[column].mean().reset_index()
    return mean.rename(columns={step: "step", column: "value"})


def early_log(tables: RLTables, column: str, iterations: int = EARLY) -> pd.DataFrame:
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


def gains(tables: RLTables, measure: str = "success@5") -> pd.DataFrame:
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
    solved = share(rows, "success@5", keys).set_index(keys)["value"]
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
    table = share(rows.assign(control=names), "success@5", ("control", "seed")).set_index(
        ["control", "seed"]
    )["value"]
    return {name: group.droplevel(0).to_dict() for name, group in table.groupby(level=0, sort=False)}
