"""What protected SFT is judged by: OOD accuracy at the ID accuracy that plain SFT has when it is stopped early."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from rlheals.chapters.protected.runs import SFT, ProtectedTables
from rlheals.chapters.rows import only, solved_shares


def points(tables: ProtectedTables) -> pd.DataFrame:
    """One row per (seed, way, step): accuracies id (SFT hands, or what ID hands there are), held_out (ID) and ood."""
    rows = tables.accuracy.astype({"way": object, "split": object})
    shares = solved_shares(rows, ["seed", "way", "step", "split"])["value"].unstack("split")
    known = shares.get("sft", shares.get("held_out"))
    columns = {"id": known, "held_out": shares.get("held_out"), "ood": shares.get("ood")}
    return pd.DataFrame(columns, index=shares.index).astype(float).reset_index()


def at_equal_id(measured: pd.DataFrame, by: str = "id") -> pd.DataFrame:
    """Every regulariser against plain SFT at equal ID accuracy: columns seed, way, n, gained, kept.

    measured: `points`; by: "id" (seen hands) or "held_out"; points without it do not count. gained: mean over its
    points of ood minus the highest of plain SFT wherever its ID accuracy is the same (interpolated between its steps;
    of the n points within the range that plain SFT passes). kept: the same of the last point, nan where it lies outside
    of the range. Of plain SFT itself both are 0.
    """
    rows = []
    for seed, group in measured.dropna(subset=[by]).groupby("seed"):
        line = only(group, way=SFT).sort_values("step")
        at, ood = line[by].to_numpy(), line["ood"].to_numpy()
        for way, own in group.groupby("way"):
            own = own.sort_values("step")
            plain = np.array([_highest(at, ood, value) for value in own[by]])
            gaps = own["ood"].to_numpy() - plain
            inside = ~np.isnan(plain)
            gaps = np.zeros(len(gaps)) if way == SFT else gaps
            row = {"seed": seed, "way": way, "n": int(inside.sum())}
            row["gained"] = float(gaps[inside].mean()) if inside.any() else np.nan
            row["kept"] = float(gaps[-1]) if inside[-1] else np.nan
            rows.append(row)
    return pd.DataFrame(rows, columns=["seed", "way", "n", "gained", "kept"])


def _highest(at: np.ndarray, ood: np.ndarray, value: float) -> float:
    """The highest OOD accuracy on the path through (at, ood) wherever `at` has a value; nan where it never has.

    >>> _highest(np.array([0.2, 0.6, 0.4]), np.array([0.1, 0.5, 0.2]), 0.5)
    0.4
    """
    found = [float("nan")]
    for (one, other), (low, high) in zip(pairwise(at), pairwise(ood), strict=True):
        if min(one, other) <= value <= max(one, other):
            share = (value - one) / (other - one) if other != one else float(high > low)
            found.append(float(low + share * (high - low)))
    return round(float(np.nanmax(found)), 12) if len(found) > 1 else found[0]
