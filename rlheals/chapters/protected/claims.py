"""Estimators of protected SFT: each takes one base seed's points and returns one number, so that "number > margin"."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.runs import ProtectionTables
from rlheals.study.claims import ChapterClaims, Claim, ClaimsFile, StudyPlan, finite, unrecorded


def _of(rows: pd.DataFrame, way: str) -> float:
    found = measured.at_equal_id(rows)
    return float(found.loc[found["way"] == way, "gained"].mean())


def over_early_stopping(rows: pd.DataFrame, way: str) -> float:
    """OOD accuracy of a way less that of plain SFT stopped at the same ID accuracy."""
    return _of(rows, way)


def over_way(rows: pd.DataFrame, way: str, other: str) -> float:
    """The same, less that of another way."""
    return _of(rows, way) - _of(rows, other)


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (over_early_stopping, over_way)
}


class ProtectionClaim(Claim):
    """A claim about protected SFT."""

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        return ESTIMATORS


class ProtectionFile(ClaimsFile):
    """The part of `claims.yaml` about protected SFT."""

    study: StudyPlan
    claims: tuple[ProtectionClaim, ...]


def estimates(claim: Claim, tables: ProtectionTables) -> dict[int, float]:
    """The claim's number for every base seed that has what it needs."""
    rows, run = measured.points(tables), ESTIMATORS[claim.estimator]
    return finite(tables.seeds, lambda seed: run(rows[rows["seed"] == seed], **claim.options))


def missing(tables: ProtectionTables, claims: ProtectionFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    return unrecorded(claims, tables.accuracy, lambda claim: estimates(claim, tables))


CLAIMS = ChapterClaims("protection", ProtectionFile, estimates, missing)
