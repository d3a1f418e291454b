"""Estimators of protected SFT: each takes one base seed's points and returns one number, so that "number > margin"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rlheals import protection_measures as measured
from rlheals.claims import ChapterClaims, Claim, ClaimsFile, StudyPlan
from rlheals.protection import ProtectionTables


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
    values = {seed: run(rows[rows["seed"] == seed], **claim.options) for seed in tables.seeds}
    return {seed: value for seed, value in values.items() if np.isfinite(value)}


def missing(tables: ProtectionTables, claims: ProtectionFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    found = []
    for seed in claims.study.seeds:
        mine = tables.accuracy[tables.accuracy["seed"] == seed]
        if seed not in tables.seeds:
            found.append(f"base seed {seed}")
        elif (decodes := mine["decode"].nunique()) < claims.study.decodes:
            found.append(f"base seed {seed}: {decodes} of {claims.study.decodes} decodes")
    for claim in claims.claims:
        known = set(estimates(claim, tables)) if tables.seeds else set()
        if lacking := sorted(set(tables.seeds) & set(claims.study.seeds) - known):
            found.append(f"base seed {lacking[0]}: what {claim.id} needs")
    return found


CLAIMS = ChapterClaims("protection", ProtectionFile, estimates, missing)
