"""Rows of tables: those that are asked for, and shares of hands by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlheals.store.store import Store
from rlheals.study.claims import half_of
from rlheals.study.tables import Frames, joined


def collector(of_plan: Callable[[Any, Store], Frames], kind: type[Frames]) -> Callable[..., Frames]:
    """From plans and the store that has their runs to their tables."""
    return lambda plans, store: joined([of_plan(one, store) for one in plans], kind)


def only(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows whose columns have these values (a tuple, list or set: one of them).

    >>> only(pd.DataFrame({"seed": [1, 1, 2], "step": [0, 5, 5]}), seed=1, step=(5, 9)).values.tolist()
    [[1, 5]]
    """
    chosen = [
        frame[column].isin(value) if isinstance(value, (tuple, list, set)) else frame[column] == value
        for column, value in wanted.items()
    ]
    return frame[np.logical_and.reduce(chosen)]


def halved(episodes: pd.DataFrame) -> pd.DataFrame:
    """With a column half: to which half of the hands an item belongs, so that one can choose and the other measure."""
    codes, items = pd.factorize(episodes["item"])  # a hand has many episodes
    return episodes.assign(half=np.array([half_of(str(item)) for item in items], int)[codes])


def shares(table: pd.DataFrame, hit: pd.Series, by: Sequence[str] = ("seed", "step")) -> pd.DataFrame:
    """Share of True in `hit` per group, without missing ones, and their count: columns by..., value, n."""
    grouped = hit.astype(float).groupby([table[column] for column in by], observed=True)
    return grouped.agg(value="mean", n="count").dropna().reset_index()


def pass_at(episodes: pd.DataFrame, k: int, by: Sequence[str], column: str = "solved_at") -> pd.DataFrame:
    """pass@k of first attempts over sampling seeds: columns by..., value, n (hands).

    The chance that one of k of a hand's d first attempts, drawn without return, solves it: 1 - C(d - c, k) / C(d, k)
    where c do; unbiased, mean over hands. Hands with fewer than k sampling seeds do not count. column: "solved_at", or
    "solved_at_either" for format-agnostic. Source: Chen et al. 2021 (arXiv 2107.03374).

    >>> rows = pd.DataFrame({"item": "h", "solved_at": [1, 0, 2, 0], "step": 0})
    >>> pass_at(rows, 2, ["step"])["value"].tolist()
    [0.5]
    """
    keys = [episodes[name] for name in (*by, "item")]
    hands = (episodes[column] == 1).groupby(keys, observed=True).agg(["sum", "size"])
    hands = hands[hands["size"] >= k]
    left = [(hands["size"] - hands["sum"] - at).clip(lower=0) / (hands["size"] - at) for at in range(k)]
    grouped = (1 - np.prod(left, axis=0) * pd.Series(1.0, hands.index)).groupby(level=list(by))
    return grouped.agg(value="mean", n="size").reset_index()


def solved_shares(counts: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Of hands counted by evaluation: the share solved and n, by group."""
    sums = counts.groupby(list(by))[["solved", "hands"]].sum()
    return pd.DataFrame({"value": sums["solved"] / sums["hands"], "n": sums["hands"]})
