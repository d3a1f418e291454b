"""What chapter 03 measures of one base seed: angles and values of pairs, and trajectories at matched size.

Angles are means over the matrices of the blocks (q, k, v, o, gate, up, down), over both sides, of the leading
subspaces of a part (1/16, 1/8, 1/4, 1/2) of a matrix's smaller side, in degrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlheals.chapters.rows import only, solved_shares
from rlheals.chapters.spectra.runs import SFT, SpectraTables
from rlheals.errors import BadInput
from rlheals.weights.spectra import CHANGE, part_of

BLOCKS = ("q", "k", "v", "o", "gate", "up", "down")
PART = 4
"""Angles of the leading quarter of all singular vectors decide."""
TRAJECTORY = ["branch", "start"]
DELTAS = ("ood", "id", "held_out", "angle", "excess", "kl")
TAUGHT_OOD = "ood-rule"
"""The branch trained on the OOD rule itself: shown apart, since it says nothing about who forgets less."""
ALONG = ("angle", "size", "step")
"""What grows along plain SFT."""
SCALES = ("size", "angle", "kl")
"""On which plain SFT goes on and on, so that a place on them is a place along it."""


def angles(tables: SpectraTables, part: int = PART, end: str = "top") -> pd.DataFrame:
    """Mean angle by (seed, pair, what) over whole matrices of the blocks, with the mean range of the draws."""
    rows = only(tables.angles, head=-1, end=end, kind=BLOCKS)
    rows = rows[rows["k"] == part_of(rows[["rows", "columns"]].min(axis=1), part)]
    keys = [rows[key].astype(object) for key in ("seed", "pair", "what")]
    return rows.groupby(keys)[["mean", "low", "high"]].mean().reset_index()


def angle(tables: SpectraTables, pair: str, what: str = CHANGE, part: int = PART, end: str = "top") -> float:
    """The same of one base seed, one pair; not a number when there is no such pair."""
    return float(only(angles(tables, part, end), pair=pair, what=what)["mean"].mean())


def value_change(tables: SpectraTables, pair: str, what: str = CHANGE, by: str = "mean") -> float:
    """Relative change of singular values, mean over the matrices of the blocks.

    by: of one matrix the "mean" or "median" of |d sigma| / sigma, or "energy", sum |d sigma| / sum sigma, which tiny
    singular values hardly enter.
    """
    rows, column = only(tables.changes, pair=pair, what=what, head=-1, kind=BLOCKS), f"value_change_{by}"
    if column not in rows:
        raise BadInput(f"there is no column {column} in the recorded changes")
    return float(rows[column].mean())


def end_energy(tables: SpectraTables, pair: str) -> dict[str, float]:
    """Mean square entry of U^T dW V, in units of that of dW, where either direction is among the first quarter of the
    base's ("top") or the last ("bottom"), and where both are in the half between ("bulk"); over the blocks."""
    rows = only(tables.heat, pair=pair, kind=BLOCKS).astype({"kind": object})
    size = rows.groupby("kind")[["left", "right"]].transform("max") + 1
    place = (rows[["left", "right"]] + 0.5) / size
    top, bottom = (place < 0.25).any(axis=1), (place > 0.75).any(axis=1)
    parts = {"top": top & ~bottom, "bottom": bottom & ~top, "bulk": ~top & ~bottom}
    return {name: float(rows.loc[chosen, "energy"].mean()) for name, chosen in parts.items()}


def points(tables: SpectraTables) -> pd.DataFrame:
    """One row per (seed, branch, start, step): size, angle, excess, kl, ood, id, held_out.

    size: |dW| / |W| of all block matrices together; excess: angle minus that of Gaussian changes of equal norm; ood, id
    (seen: hands of the SFT split) and held_out (ID hands of values that SFT never sees): success@5.
    """
    keys = ["seed", *TRAJECTORY, "step"]
    found = moved(only(tables.path, kind=BLOCKS).astype({"branch": object}), keys)
    known = tables.behaviour.astype({"branch": object}).set_index(keys)["kl"].astype(float)
    counts = only(tables.accuracy, split=("ood", "sft", "held_out")).astype(
        {"branch": object, "split": object}
    )
    shares = solved_shares(counts, [*keys, "split"])["value"].unstack("split").rename(columns={"sft": "id"})
    return found.join(known).join(shares.reindex(columns=["ood", "id", "held_out"])).reset_index()


def moved(path: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """size, angle and excess by group, from rows of single matrices as `weights.trajectory.distances` gives them."""
    numbers = dict.fromkeys(("angle", "gaussian", "change_norm", "norm"), float)
    rows = only(path, part=PART).astype(numbers)
    squares = rows.assign(change=rows["change_norm"] ** 2, whole=rows["norm"] ** 2)
    found = squares.groupby(list(keys)).agg(
        {"change": "sum", "whole": "sum", "angle": "mean", "gaussian": "mean"}
    )
    found["size"] = np.sqrt(found["change"] / found["whole"])
    found["excess"] = found["angle"] - found["gaussian"]
    return found[["size", "angle", "excess"]]


def along(tables: SpectraTables) -> pd.DataFrame:
    """Correlation with OOD accuracy over the checkpoints of plain SFT from its peak on: columns seed and `ALONG`.

    size and step in logarithms. Whatever goes one way in time correlates: this is no evidence for any of them.
    """
    rows, found = only(tables.once(points), branch=SFT), []
    for seed, peak in tables.peaks.set_index("seed")["peak"].items():
        mine = only(rows[rows["step"] >= max(1, peak)], seed=seed)
        mine = mine.assign(size=np.log(mine["size"]), step=np.log(mine["step"]))
        found.append({"seed": seed, **{name: correlation(mine, name) for name in ALONG}})
    return pd.DataFrame(found, columns=["seed", *ALONG])


def matched(measured: pd.DataFrame, by: str = "size") -> pd.DataFrame:
    """Every trajectory but plain SFT against plain SFT of the same base at the same |dW|: one row per trajectory.

    measured: `points`. Columns seed, branch, start, n (its points within the range that plain SFT passes), then for
    each of `DELTAS` the mean over these points of its value minus that of plain SFT, interpolated. `by`: matched in
    the logarithm of another column. Trajectories without a point in the range are left out.
    """
    rows = []
    for seed, group in measured.groupby("seed"):
        line = group[(group["branch"] == SFT) & (group[by] > 0)].sort_values("step")
        if len(line) < 2:
            raise BadInput(f"base seed {seed}: plain SFT needs at least two checkpoints after the base")
        at = np.maximum.accumulate(np.log(line[by].to_numpy()))
        others = group[(group["branch"] != SFT) & group["ood"].notna() & (group[by] > 0)]
        others = others[np.log(others[by]).between(at[0], at[-1])]
        for (branch, start), own in others.groupby(TRAJECTORY):
            place = np.log(own[by].to_numpy())
            row = {"seed": seed, "branch": branch, "start": start, "n": len(own)}
            for name in DELTAS:
                row[name] = float(np.mean(own[name].to_numpy() - np.interp(place, at, line[name].to_numpy())))
            rows.append(row)
    return pd.DataFrame(rows, columns=["seed", *TRAJECTORY, "n", *DELTAS])


def prediction_errors(measured: pd.DataFrame) -> pd.DataFrame:
    """How far OOD accuracy of other trajectories lies from what plain SFT has at the same place on a scale.

    Columns seed, scale, value: root mean square over trajectories, each counted by the mean over its points. Scale
    "mean": predicted is plain SFT's mean accuracy whatever the place. The same trajectories for all scales.
    """
    rows = []
    for seed, group in measured.groupby("seed"):
        tables = {scale: matched(group, scale).set_index(TRAJECTORY)["ood"] for scale in SCALES}
        common = pd.concat(tables, axis=1).dropna()
        others = group[group["branch"] != SFT].groupby(TRAJECTORY)["ood"].mean()
        level = only(group[group["size"] > 0], branch=SFT)["ood"].mean()
        common["mean"] = others.reindex(common.index) - level
        rows += [{"seed": seed, "scale": scale, "value": float((rest**2).mean() ** 0.5)}
                 for scale, rest in common.items()]  # fmt: skip
    return pd.DataFrame(rows)


def correlation(rows: pd.DataFrame, predictor: str, given: Sequence[str] = ()) -> float:
    """Correlation of a predictor with OOD accuracy over the trajectories of one base seed, other columns held fixed.

    Partial: what a linear fit on `given` leaves of either. Not a number for fewer than len(given) + 4 trajectories, or
    where nothing is left.
    """
    table = rows[["ood", predictor, *given]].dropna().to_numpy(dtype=float)
    return float(_correlations(table, table[None, :, 0])[0])


def permuted(rows: pd.DataFrame, predictor: str, given: Sequence[str] = (), draws: int = 2000) -> np.ndarray:
    """Mean correlation over base seeds with OOD accuracies permuted among the trajectories of each: (draws,)."""
    random = np.random.default_rng([0, 3])
    found = []
    for _, group in rows.groupby("seed"):
        table = group[["ood", predictor, *given]].dropna().to_numpy(dtype=float)
        found.append(_correlations(table, random.permuted(np.tile(table[:, 0], (draws, 1)), axis=1)))
    judged = [values for values in found if np.isfinite(values).all()]
    return np.mean(judged, axis=0) if judged else np.full(draws, np.nan)


def _correlations(table: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Of several versions of the accuracies (draws, n) with column 1 of table (n, 2 + given), given the others."""
    n, columns = table.shape
    if n < columns + 2:
        return np.full(len(accuracies), np.nan)
    fit = np.column_stack([np.ones(n), table[:, 2:]])
    rest = np.eye(n) - fit @ np.linalg.pinv(fit)
    predictor, left = rest @ table[:, 1], accuracies @ rest
    spreads = np.std(table[:, 1]) * np.std(accuracies, axis=1) * n
    lengths = np.linalg.norm(predictor) * np.linalg.norm(left, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(lengths > 1e-9 * spreads, left @ predictor / lengths, np.nan)
