"""Estimators of chapter 1. The peak is chosen on one half of the OOD hands and measured on the other, both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tables import Tables, halved, rate


def measured(tables: Tables) -> Tables:
    return tables | {"episodes": halved(tables["episodes"]).assign(run=-1)}


def curve(seed: Tables, split: str, measure: str = "success@5", half: int | None = None) -> pd.Series:
    """A measure by SFT step, of all hands of a split or of one half of them."""
    rows = seed["episodes"]
    rows = rows[(rows["split"] == split) & (True if half is None else rows["half"] == half)]
    return pd.Series({step: rate(own, measure) for step, own in rows.groupby("step")})


def peaks(seed: Tables, measure: str = "success@5") -> dict[int, int]:
    """By half of the hands the step of highest OOD accuracy on the *other* half; step 0 is the base and no peak."""
    return {half: int(curve(seed, "ood", measure, 1 - half).drop(0).idxmax()) for half in (0, 1)}


def end(seed: Tables) -> int:
    return int(seed["episodes"]["step"].max())


def _peak_over(seed: Tables, step: int, measure: str) -> float:
    """mean over halves of acc(peak) - acc(step)."""
    found = peaks(seed, measure)
    curves = {half: curve(seed, "ood", measure, half) for half in found}
    return float(np.mean([curves[half][peak] - curves[half][step] for half, peak in found.items()]))


def rise(seed: Tables, measure: str) -> float:
    """acc(peak) - acc(base)."""
    return _peak_over(seed, 0, measure)


def fall(seed: Tables, measure: str) -> float:
    """acc(peak) - acc(end)."""
    return _peak_over(seed, end(seed), measure)


def feedback_lacks(seed: Tables, k: int) -> float:
    """pass@k - success@k at the peak, in either format, all OOD hands."""
    added = curve(seed, "ood", f"feedback@{k} either")
    return -float(np.mean([added[peak] for peak in peaks(seed).values()]))


def id_gain(seed: Tables, split: str) -> float:
    """acc(end) - acc(peak) on an ID split."""
    accuracy = curve(seed, split)
    return accuracy[end(seed)] - float(np.mean([accuracy[peak] for peak in peaks(seed).values()]))


def _loss(seed: Tables, set: str) -> pd.Series:
    """By step, at the steps that were evaluated."""
    rows = seed["losses"]
    losses = rows[rows["set"] == set].set_index("step")["loss"]
    return losses[losses.index.isin(seed["episodes"]["step"])]


def loss_drop(seed: Tables, set: str) -> float:
    """1 - loss(end) / loss(peak)."""
    loss = _loss(seed, set)
    return float(np.mean([1 - loss[end(seed)] / loss[peak] for peak in peaks(seed).values()]))


def loss_regret(seed: Tables, set: str) -> float:
    """acc(peak) - acc(checkpoint of lowest loss); the base does not count."""
    return _peak_over(seed, int(_loss(seed, set).drop(0).idxmin()), "success@5")


def format_lead(seed: Tables, share: float) -> float:
    """log2(peak / first step after the base with less than `share` unreadable first attempts); never: the end."""
    rows = seed["episodes"][seed["episodes"]["split"] == "ood"]
    unreadable = (rows["first"] == "illegal_formula").groupby(rows["step"]).mean().drop(0)
    first = min(unreadable.index[unreadable < share], default=end(seed))
    return float(np.mean([np.log2(peak / first) for peak in peaks(seed).values()]))
