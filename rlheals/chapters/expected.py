"""Where the recorded base seeds say that a fresh run falls, so that figures and checks can say when it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts load when they are first used

LEVEL = 0.95
FEWEST_SEEDS = 3


def prediction_interval(values: np.ndarray, numbers: int, seeds: int = 1) -> tuple[float, float]:
    """Where the mean of `seeds` more draws falls; with `numbers` such intervals at once, all hold in `LEVEL` of cases.

    >>> low, high = prediction_interval(np.array([0.1, 0.2, 0.3]), numbers=1)
    >>> f"{low:.3f} {high:.3f}"
    '-0.297 0.697'
    """
    count = len(values)
    factor = scipy.stats.t.ppf(1 - (1 - LEVEL) / (2 * numbers), count - 1) * math.sqrt(1 / seeds + 1 / count)
    half = float(factor * np.std(values, ddof=1))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def cut_down(recorded: Any, fresh: Any) -> Any:
    """Recorded tables with only the sampling and RL seeds that the fresh ones have: the same draw as theirs."""
    frames = {}
    for field in fields(recorded):
        mine, frame = getattr(fresh, field.name), getattr(recorded, field.name)
        for column in {"decode", "run"} & set(frame) & set(mine):
            if not (known := frame[column].isin(mine[column].unique())).all():
                frame = frames[field.name] = frame[known]
    return replace(recorded, **frames) if frames else recorded


def expected(recorded: pd.DataFrame, fresh: pd.DataFrame, by: Sequence[str] = ("step",)) -> pd.DataFrame:
    """Between which bounds the mean of the fresh base seeds falls in 95 % of cases, group by group.

    Both with columns seed, by..., value and, for shares of hands, n; the bounds are never nearer to the mean than one
    hand. Returns expected_low and expected_high by `by`, for groups that `FEWEST_SEEDS` recorded base seeds have.
    """
    mine, rows = dict(list(fresh.groupby(list(by), observed=True))), []
    for key, group in recorded.groupby(list(by), observed=True):
        if len(group) < FEWEST_SEEDS or key not in mine:
            continue
        own, mean = mine[key], group["value"].mean()
        least = 1 / own["n"].sum() if "n" in own else 0.0
        low, high = prediction_interval(group["value"].to_numpy(), 1, len(own))
        rows.append((*key, min(low, mean - least), max(high, mean + least)))
    table = pd.DataFrame(rows, columns=[*by, "expected_low", "expected_high"])
    return table.astype({name: recorded[name].dtype for name in by}).set_index(list(by)).astype(float)
