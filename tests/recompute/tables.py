"""Reading recorded tables, halves of the hands, and accuracies: what the estimators of all parts share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import comb

Tables = dict[str, pd.DataFrame]
RULE_READ = ("first_values_right", "first_direction_right", "first_products_right")
UNREADABLE = ("illegal_formula", "illegal", "unreadable")


class NoData(Exception):
    """The study is recorded, but has nothing of what a claim is about."""


def read(folders: Sequence[Path], seed: int) -> Tables:
    """The tables of one base seed, those of all its units together; empty where nothing is recorded of it."""
    units = [
        unit
        for folder in folders
        for name in (f"seed-{seed}", f"seed-{seed}-*")
        for unit in folder.glob(name)
    ]
    files = [file for unit in sorted(units) for file in sorted(unit.glob("*.parquet"))]
    return {
        name: pd.concat([plain(pd.read_parquet(file)) for file in files if file.stem == name], ignore_index=True)
        for name in {file.stem for file in files}
    }  # fmt: skip


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Categories as words, short floats as long ones."""
    words = table.select_dtypes("category").columns
    return table.astype(
        dict.fromkeys(words, object) | dict.fromkeys(table.select_dtypes("float32"), "float64")
    )


def halved(episodes: pd.DataFrame) -> pd.DataFrame:
    """With a column half: the first byte of the SHA-256 of `item`, even (0) or odd (1)."""
    half = {item: hashlib.sha256(item.encode()).digest()[0] % 2 for item in episodes["item"].unique()}
    return episodes.assign(half=episodes["item"].map(half))


def rate(episodes: pd.DataFrame, measure: str) -> float:
    """Share of hands that a measure counts, over all sampling seeds and RL seeds; not a number without rows.

    success@k    solved_at is 1 to k
    pass@k       mean over hands and RL seeds of 1 - C(d - c, k) / C(d, k): c of d first attempts solve the hand
    feedback@k   success@k - pass@k
    revision     solved later, among the episodes whose first attempt failed
    rule: read right, if readable    the column that says so, among the episodes whose first attempt was read
    " either": solved_at_either instead.
    """
    if episodes.empty:
        return float("nan")
    if measure == "rule: read right, if readable":
        (column,) = [name for name in RULE_READ if name in episodes]
        return float(episodes.loc[~episodes["first"].isin(UNREADABLE), column].astype(float).mean())
    if measure == "revision":
        return float((episodes.loc[episodes["solved_at"] != 1, "solved_at"] > 1).mean())
    kind, number, either = re.fullmatch(r"(\w+)@(\d)( either)?", measure).groups()
    k, at = int(number), episodes["solved_at_either" if either else "solved_at"]
    success = float(at.between(1, k).mean())
    if kind == "success":
        return success
    tries = (at == 1).groupby([episodes["run"], episodes["item"]]).agg(["sum", "count"])
    tries = tries[tries["count"] >= k]
    failing = comb(tries["count"] - tries["sum"], k) / comb(tries["count"], k)
    passed = float(np.mean(1 - failing)) if len(tries) else float("nan")
    return passed if kind == "pass" else success - passed
