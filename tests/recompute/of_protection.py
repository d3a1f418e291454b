"""Estimators of protected SFT: OOD accuracy against plain SFT where that has the same ID accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tables import Tables


def measured(tables: Tables) -> pd.DataFrame:
    """success@5: columns ood, held_out and id (seen hands, or the ID hands that there are); index (way, step)."""
    counts = tables["accuracy"].groupby(["way", "step", "split"])[["solved", "hands"]].sum()
    shares = (counts["solved"] / counts["hands"]).unstack("split")
    return shares.assign(id=shares.get("sft", shares["held_out"]))


def _plain_at(plain: pd.DataFrame, by: str, value: float) -> float:
    """The highest OOD accuracy of plain SFT wherever its ID accuracy has a value, linear between its steps."""
    found = []
    for (_, one), (_, other) in zip(plain.iloc[:-1].iterrows(), plain.iloc[1:].iterrows(), strict=True):
        low, high = sorted((one[by], other[by]))
        if low <= value <= high:
            way = (value - one[by]) / (other[by] - one[by]) if low < high else np.array([0, 1])
            found.append(np.max(one["ood"] + way * (other["ood"] - one["ood"])))
    return max(found, default=np.nan)


def over_early_stopping(seed: pd.DataFrame, way: str, by: str = "id") -> float:
    """Mean over steps of acc(way) - acc(plain SFT at the same ID accuracy); without steps out of plain SFT's range."""
    own, plain = (seed[seed.index.get_level_values("way") == name].sort_index() for name in (way, "sft"))
    gaps = own["ood"] - [_plain_at(plain, by, value) for value in own[by]]
    return float(gaps.mean())


def over_way(seed: pd.DataFrame, way: str, other: str, by: str = "id") -> float:
    """The same of one way minus that of another."""
    return over_early_stopping(seed, way, by) - over_early_stopping(seed, other, by)
