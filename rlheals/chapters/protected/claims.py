"""Estimators of protected SFT: each takes one base seed's `measures.at_equal_id`, so that "number > margin"."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.runs import ProtectedTables
from rlheals.chapters.rows import only
from rlheals.study.claims import ChapterClaims, by_seed, estimator


@estimator("protection")
def over_early_stopping(rows: pd.DataFrame, way: str) -> float:
    """OOD accuracy under a regulariser less that of plain SFT stopped at the same ID accuracy."""
    return float(only(rows, way=way)["gained"].mean())


@estimator("protection")
def over_way(rows: pd.DataFrame, way: str, other: str) -> float:
    """The same, less that of another regulariser."""
    return over_early_stopping(rows, way) - over_early_stopping(rows, other)


def _at_equal_id(tables: ProtectedTables) -> dict[int, pd.DataFrame]:
    return by_seed(measured.at_equal_id(measured.points(tables)), tables.seeds)


CLAIMS = ChapterClaims("protection", _at_equal_id, lambda tables: tables.accuracy)
