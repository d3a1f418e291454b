"""Estimators of protected SFT: each takes one base seed's `measures.points`, so that "number > margin"."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.runs import ProtectedTables
from rlheals.chapters.rows import only
from rlheals.study.claims import ChapterClaims, by_seed, estimator


@estimator("protection")
def over_early_stopping(rows: pd.DataFrame, way: str, by: str = "id") -> float:
    """OOD accuracy under a regulariser less that of plain SFT stopped at the same ID accuracy, seen or held-out."""
    return float(only(measured.at_equal_id(rows, by), way=way)["gained"].mean())


@estimator("protection")
def over_way(rows: pd.DataFrame, way: str, other: str, by: str = "id") -> float:
    """The same, less that of another regulariser."""
    return over_early_stopping(rows, way, by) - over_early_stopping(rows, other, by)


def _points(tables: ProtectedTables) -> dict[int, pd.DataFrame]:
    return by_seed(measured.points(tables), tables.seeds)


CLAIMS = ChapterClaims("protection", _points, lambda tables: tables.accuracy)
