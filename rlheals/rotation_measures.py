"""What chapter 03 measures of one base seed: angles and values of pairs, and trajectories at matched size.

Angles are means over the matrices of the blocks (q, k, v, o, gate, up, down), over both sides, of the leading
subspaces of a part (1/16, 1/8, 1/4, 1/2) of a matrix's smaller side, in degrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlheals.errors import BadInput
from rlheals.rotation import SFT, RotationTables
from rlheals.spectra import CHANGE, part_of

BLOCKS = ("q", "k", "v", "o", "gate", "up", "down")
PART = 4
"""Angles of the leading quarter of all directions decide."""
TRAJECTORY = ["branch", "start"]
DELTAS = ("ood", "id", "angle", "excess", "kl")


def angles(
    tables: RotationTables, part: int = PART, end: str = "top", kinds: Sequence[str] = BLOCKS
) -> pd.DataFrame:
    """Mean angle by (seed, pair, what) over whole matrices of some kinds, with the mean range of the draws."""
    rows = tables.angles
    rows = rows[(rows["head"] == -1) & (rows["end"] == end) & rows["kind"].isin(kinds)]
    rows = rows[rows["k"] == part_of(rows[["rows", "columns"]].min(axis=1), part)]
    keys = [rows[key].astype(object) for key in ("seed", "pair", "what")]
    return rows.groupby(keys)[["mean", "low", "high"]].mean().reset_index()


def angle(tables: RotationTables, pair: str, what: str = CHANGE, part: int = PART) -> float:
    """The same of one base seed, one pair; not a number when there is no such pair."""
    found = angles(tables, part)
    return float(found.loc[(found["pair"] == pair) & (found["what"] == what), "mean"].mean())


def value_change(tables: RotationTables, pair: str, what: str = CHANGE) -> float:
    """Mean relative change of a singular value, over the matrices of the blocks."""
    rows = tables.changes
    chosen = (rows["pair"] == pair) & (rows["what"] == what) & (rows["head"] == -1)
    return float(rows.loc[chosen & rows["kind"].isin(BLOCKS), "value_change_mean"].mean())


def points(tables: RotationTables, part: int = PART) -> pd.DataFrame:
    """One row per (seed, branch, start, step): size, angle, excess, kl, ood, id.

    size: |dW| / |W| of all block matrices together; excess: angle minus that of Gaussian changes of equal norm; ood and
    id: hands solved within five (id: of the SFT split, or what there is of ID hands).
    """
    keys = ["seed", *TRAJECTORY, "step"]
    rows = tables.path[(tables.path["part"] == part) & tables.path["kind"].isin(BLOCKS)]
    rows = rows.astype({"branch": object, "angle": float, "gaussian": float})
    squares = rows.assign(
        change=rows["change_norm"].astype(float) ** 2, whole=rows["norm"].astype(float) ** 2
    )
    found = squares.groupby(keys)[["change", "whole", "angle", "gaussian"]].agg(
        {"change": "sum", "whole": "sum", "angle": "mean", "gaussian": "mean"}
    )
    found["size"] = np.sqrt(found["change"] / found["whole"])
    found["excess"] = found["angle"] - found["gaussian"]
    known = tables.behaviour.astype({"branch": object}).set_index(keys)["kl"].astype(float)
    counts = tables.accuracy.astype({"branch": object, "split": object})
    counts = counts[counts["split"].isin(["ood", "sft"])]
    solved = counts.groupby([*keys, "split"])[["solved", "hands"]].sum()
    shares = (solved["solved"] / solved["hands"]).unstack("split").rename(columns={"sft": "id"})
    table = found[["size", "angle", "excess"]].join(known).join(shares.reindex(columns=["ood", "id"]))
    return table.reset_index()


def matched(measured: pd.DataFrame) -> pd.DataFrame:
    """Every trajectory but plain SFT against plain SFT of the same base at the same |dW|: one row per trajectory.

    measured: `points`. Columns seed, branch, start, n (its points within the sizes that plain SFT passes), then for
    each of `DELTAS` the mean over these points of its value minus that of plain SFT, interpolated in log size; `size`
    is the mean of log size minus the log size at which plain SFT has the same angle. Trajectories without such a
    point are left out.
    """
    rows = []
    for seed, group in measured.groupby("seed"):
        line = group[(group["branch"] == SFT) & (group["size"] > 0)].sort_values("size")
        if len(line) < 2:
            raise BadInput(f"base seed {seed}: plain SFT needs at least two checkpoints after the base")
        at = np.log(line["size"].to_numpy())
        others = group[(group["branch"] != SFT) & group["ood"].notna()]
        others = others[others["size"].between(line["size"].iloc[0], line["size"].iloc[-1])]
        for (branch, start), own in others.groupby(TRAJECTORY):
            place = np.log(own["size"].to_numpy())
            row = {"seed": seed, "branch": branch, "start": start, "n": len(own)}
            for name in DELTAS:
                expected = np.interp(place, at, line[name].to_numpy())
                row[name] = float(np.mean(own[name].to_numpy() - expected))
            turned = np.maximum.accumulate(line["angle"].to_numpy())
            row["size"] = float(np.mean(place - np.interp(own["angle"].to_numpy(), turned, at)))
            rows.append(row)
    return pd.DataFrame(rows, columns=["seed", *TRAJECTORY, "n", *DELTAS, "size"])


def correlation(rows: pd.DataFrame, predictor: str, given: Sequence[str] = ()) -> float:
    """Correlation of a predictor with OOD accuracy over the trajectories of one base seed, other columns held fixed.

    Partial: what a linear fit on `given` leaves of either. Not a number for fewer than len(given) + 4 trajectories, or
    where nothing is left.
    """
    table = rows[["ood", predictor, *given]].dropna().to_numpy(dtype=float)
    if len(table) < len(given) + 4:
        return float("nan")
    fit = np.column_stack([np.ones(len(table)), table[:, 2:]])
    left = table[:, :2] - fit @ np.linalg.lstsq(fit, table[:, :2], rcond=None)[0]
    lengths = np.linalg.norm(left, axis=0)
    whole = np.linalg.norm(table[:, :2] - table[:, :2].mean(axis=0), axis=0)
    if (lengths <= 1e-9 * np.maximum(whole, 1e-300)).any():
        return float("nan")
    return float(left[:, 0] @ left[:, 1] / lengths.prod())


def permuted(
    rows: pd.DataFrame, predictor: str, given: Sequence[str] = (), draws: int = 2000, seed: int = 0
) -> np.ndarray:
    """Mean correlation over base seeds with OOD accuracies permuted among the trajectories of each: (draws,)."""
    random = np.random.default_rng([seed, 3])
    groups = [group for _, group in rows.groupby("seed")]
    found = np.empty(draws)
    for draw in range(draws):
        values = []
        for group in groups:
            order = random.permutation(len(group))
            shuffled = group.assign(ood=group["ood"].to_numpy()[order])
            values.append(correlation(shuffled, predictor, given))
        found[draw] = np.nanmean(values) if np.isfinite(values).any() else np.nan
    return found
