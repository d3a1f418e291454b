"""Estimators of chapter 3. Means are over the matrices of the blocks, those of angles over both sides, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tables import NoData, Tables

BLOCKS = ("q", "k", "v", "o", "gate", "up", "down")
RUN = ["branch", "start"]


def measured(tables: Tables) -> Tables:
    return {
        name: rows[rows["kind"].isin(BLOCKS)] if "kind" in rows else rows for name, rows in tables.items()
    }


def _change(seed: Tables, pair: str, what: str, by: str) -> float:
    """Relative change of singular values, mean over whole matrices."""
    rows, column = seed["changes"], f"value_change_{by}"
    if column not in rows:
        raise NoData(f"changes has no column {column}")
    return float(
        rows.loc[(rows["pair"] == pair) & (rows["what"] == what) & (rows["head"] == -1), column].mean()
    )


def _angle(seed: Tables, pair: str, what: str = "change", part: int = 4, end: str = "top") -> float:
    """Mean principal angle of the subspaces of 1/part of the smaller side, in degrees."""
    rows = seed["angles"]
    rows = rows[(rows["pair"] == pair) & (rows["what"] == what) & (rows["head"] == -1) & (rows["end"] == end)]
    k = np.maximum(1, np.minimum(rows["rows"], rows["columns"]) // part)
    return float(rows.loc[rows["k"] == k, "mean"].mean())


def _ratio(one: float, other: float) -> float:
    """Not a number where a change is so small that its null is 0."""
    return one / other if other else float("nan")


def values_small(seed: Tables, pair: str, below: float, by: str = "mean") -> float:
    """below - change."""
    return below - _change(seed, pair, "change", by)


def values_below_null(seed: Tables, pair: str, by: str = "mean") -> float:
    """1 - change / change under the Gaussian null."""
    return 1 - _ratio(_change(seed, pair, "change", by), _change(seed, pair, "gaussian", by))


def rotation_over_null(seed: Tables, pair: str, part: int, end: str = "top") -> float:
    """angle / angle under the Gaussian null - 1."""
    return _ratio(_angle(seed, pair, "change", part, end), _angle(seed, pair, "gaussian", part, end)) - 1


def both_ends_over_null(seed: Tables, pair: str, part: int) -> float:
    """The same at the end of the spectrum where it is smaller."""
    return float(np.min([rotation_over_null(seed, pair, part, end) for end in ("top", "bottom")]))


def ends_over_bulk(seed: Tables, pair: str) -> float:
    """min(energy at the top, energy at the bottom) / energy in the bulk - 1."""
    rows = seed["heat"][seed["heat"]["pair"] == pair]
    cells = (
        rows.groupby("kind")["left"].transform("max") + 1,
        rows.groupby("kind")["right"].transform("max") + 1,
    )
    left, right = (rows["left"] + 0.5) / cells[0], (rows["right"] + 0.5) / cells[1]
    top, bottom = (left < 0.25) | (right < 0.25), (left > 0.75) | (right > 0.75)
    ends = rows["energy"][top & ~bottom].mean(), rows["energy"][bottom & ~top].mean()
    return _ratio(np.min(ends), rows["energy"][~top & ~bottom].mean()) - 1


def _points(seed: Tables) -> pd.DataFrame:
    """One row per checkpoint of a training run: |dW|, angle to the base, OOD, seen and held-out ID accuracy."""
    path = seed["path"][seed["path"]["part"] == 4]
    point = [*RUN, "step"]
    size = path.groupby(point)["change_norm"].apply(np.linalg.norm)
    whole = path.groupby(point)["norm"].apply(np.linalg.norm)
    counts = seed["accuracy"].groupby([*point, "split"])[["solved", "hands"]].sum()
    solved = (counts["solved"] / counts["hands"]).unstack("split").reindex(columns=["ood", "sft", "held_out"])
    found = pd.DataFrame({"size": size / whole, "angle": path.groupby(point)["angle"].mean()})
    return found.join(solved.rename(columns={"sft": "id"})).reset_index()


def tracks(seed: Tables, predictor: str, given: Sequence[str] = ()) -> float:
    """-correlation over training runs of predictor and OOD accuracy, each minus that of plain SFT at equal |dW|.

    Interpolated in log |dW|; a run counts once, by the mean over its points inside the range of plain SFT; not the one
    trained on the OOD rule. given: partial correlation, residuals of a linear fit on these.
    """
    points = _points(seed)
    points = points[(points["size"] > 0) & points["ood"].notna()]
    plain = points[points["branch"] == "sft"].sort_values("step")
    if len(plain) < 2:
        raise NoData("plain SFT has fewer than two checkpoints")
    place = np.maximum.accumulate(np.log(plain["size"]))
    others = points[~points["branch"].isin(["sft", "ood-rule"])]
    others = others[np.log(others["size"]).between(place.iloc[0], place.iloc[-1])]
    columns = ["ood", predictor, *given]
    less = {name: others[name] - np.interp(np.log(others["size"]), place, plain[name]) for name in columns}
    runs = others.assign(**less).groupby(RUN)[columns].mean().dropna()
    if len(runs) < len(given) + 4:
        return float("nan")
    fit = np.column_stack([np.ones(len(runs)), *(runs[name] for name in given)])
    rest = [runs[name] - fit @ np.linalg.lstsq(fit, runs[name], rcond=None)[0] for name in columns[:2]]
    return -float(np.corrcoef(*rest)[0, 1])


def _nearer(seed: Tables, start: int, pair: str, what: str = "change") -> float:
    """(angle to the peak of another checkpoint - angle after RL) / angle of the start."""
    back = f"back-{start}"
    return _ratio(_angle(seed, pair, what) - _angle(seed, back), _angle(seed, back, "start"))


def rotates_back(seed: Tables, starts: Sequence[int]) -> float:
    """1 - angle to the peak after RL / before, mean over starts."""
    return float(np.mean([_nearer(seed, start, f"back-{start}", "start") for start in starts]))


def nearer_than_null(seed: Tables, starts: Sequence[int]) -> float:
    """(angle to the peak after a Gaussian change - after RL) / before."""
    return float(np.mean([_nearer(seed, start, f"back-{start}", "gaussian") for start in starts]))


def nearer_than_sft(seed: Tables, starts: Sequence[int]) -> float:
    """(angle to the peak after four times as many SFT steps - after RL) / before."""
    return float(np.mean([_nearer(seed, start, f"on-{start}") for start in starts]))
