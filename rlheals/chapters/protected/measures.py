"""What protected SFT is judged by: OOD accuracy at the ID accuracy that plain SFT has when it is stopped early."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters.protected.runs import SFT, ProtectedTables
from rlheals.chapters.rows import only, solved_shares


def points(tables: ProtectedTables) -> pd.DataFrame:
    """One row per (seed, way, step): accuracies id (SFT hands, or what ID hands there are) and ood."""
    rows = tables.accuracy.astype({"way": object, "split": object})
    shares = solved_shares(rows, ["seed", "way", "step", "split"])["value"].unstack("split")
    known = shares.get("sft", shares.get("held_out"))
    return pd.DataFrame({"id": known, "ood": shares.get("ood")}).astype(float).reset_index()


def at_equal_id(measured: pd.DataFrame) -> pd.DataFrame:
    """Every regulariser against plain SFT at equal ID accuracy: columns seed, way, n, gained, kept, beyond.

    measured: `points`. gained: mean over its points of ood minus that of plain SFT where its ID accuracy was the
    same (interpolated along its steps; of the n points within the range that plain SFT passes). kept: the same of the
    last point, nan where it lies outside of the range. Of plain SFT itself both are 0. beyond: of a last point
    whose ID accuracy is above all that plain SFT has, ood minus the best of plain SFT at its own highest; else nan.
    """
    rows = []
    for seed, group in measured.groupby("seed"):
        line = only(group, way=SFT).sort_values("step")
        at = np.maximum.accumulate(line["id"].to_numpy())
        for way, own in group.groupby("way"):
            own = own.sort_values("step")
            inside = own["id"].between(at[0], at[-1]).to_numpy()
            gaps = own["ood"].to_numpy() - np.interp(own["id"], at, line["ood"])
            gaps = np.zeros(len(gaps)) if way == SFT else gaps
            row = {"seed": seed, "way": way, "n": int(inside.sum())}
            row["gained"] = float(gaps[inside].mean()) if inside.any() else np.nan
            row["kept"] = float(gaps[-1]) if inside[-1] else np.nan
            last = own.iloc[-1]
            highest = line["ood"].to_numpy()[at == at[-1]].max()
            row["beyond"] = float(last["ood"] - highest) if last["id"] > at[-1] else np.nan
            rows.append(row)
    return pd.DataFrame(rows, columns=["seed", "way", "n", "gained", "kept", "beyond"])
