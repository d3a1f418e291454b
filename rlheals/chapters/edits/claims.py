"""Estimators of chapter 04: each takes one base seed's effects and returns one number, so that "number > margin"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import SwapTables
from rlheals.profiles.edit_grid import entry_text, read_entry
from rlheals.study.claims import ChapterClaims, Claim, ClaimsFile, StudyPlan, finite, unrecorded


def _row(rows: pd.DataFrame, kind: str, edit: str, where: str) -> pd.Series:
    """The edit's row of `measured.effects`; a row of missing values when it is not there."""
    wanted = read_entry(entry_text(edit, where))
    found = rows[(rows["kind"] == kind) & (rows["edit"] == wanted[0]) & (rows["where"] == wanted[1])]
    return found.iloc[0] if len(found) else pd.Series(dict.fromkeys(rows.columns, np.nan))


def gained(rows: pd.DataFrame, kind: str, edit: str, where: str) -> float:
    """Accuracy of the edited checkpoint minus that of its target."""
    return float(_row(rows, kind, edit, where)["effect"])


def lost(rows: pd.DataFrame, edit: str, where: str) -> float:
    """Accuracy of RL's result minus that of the same edited."""
    return -gained(rows, "swap", edit, where)


def recovered(rows: pd.DataFrame, edit: str, where: str) -> float:
    """Share of what lies between the late checkpoint and the peak."""
    return float(_row(rows, "restore", edit, where)["share"])


def no_effect(rows: pd.DataFrame, kind: str, edit: str, where: str, tolerance: float) -> float:
    """Tolerance minus the size of the change of accuracy."""
    return tolerance - abs(gained(rows, kind, edit, where))


def over_control(rows: pd.DataFrame, kind: str, edit: str, control: str, where: str) -> float:
    """Accuracy after an edit minus that after a control."""
    return float(_row(rows, kind, edit, where)["value"] - _row(rows, kind, control, where)["value"])


def alike(rows: pd.DataFrame, kind: str, edit: str, control: str, where: str, tolerance: float) -> float:
    """Tolerance minus the size of the difference between two edits."""
    return tolerance - abs(over_control(rows, kind, edit, control, where))


def as_with_other(rows: pd.DataFrame, edit: str, where: str, tolerance: float) -> float:
    """Tolerance minus the size of the difference to the same edit with another SFT run's checkpoint."""
    values = [float(_row(rows, kind, edit, where)["value"]) for kind in ("restore", "other")]
    return tolerance - abs(values[0] - values[1])


def over_rollback_per_size(rows: pd.DataFrame, edit: str, where: str) -> float:
    """Effect of an edit over its size minus that of the rollback over its own; sizes in units of the distance."""
    one, other = (_row(rows, "restore", each, where) for each in (edit, "rollback()"))
    return float(one["effect"] / one["size"] - other["effect"] / other["size"])


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        gained,
        lost,
        recovered,
        no_effect,
        over_control,
        alike,
        as_with_other,
        over_rollback_per_size,
    )
}


class SwapClaim(Claim):
    """A claim of chapter 04."""

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        return ESTIMATORS


class SwapFile(ClaimsFile):
    """The part of `claims.yaml` about chapter 04."""

    study: StudyPlan
    claims: tuple[SwapClaim, ...]


def estimates(claim: Claim, tables: SwapTables) -> dict[int, float]:
    """The claim's number for every base seed that has what it needs."""
    rows, run = measured.effects(tables), ESTIMATORS[claim.estimator]
    return finite(tables.seeds, lambda seed: run(rows[rows["seed"] == seed], **claim.options))


def missing(tables: SwapTables, claims: SwapFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    return unrecorded(claims, tables.effects, lambda claim: estimates(claim, tables))


CLAIMS = ChapterClaims("swaps", SwapFile, estimates, missing)
