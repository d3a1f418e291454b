"""Estimators of chapter 04: each takes one base seed's effects and returns one number, so that "number > margin"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import EditTables
from rlheals.chapters.rows import only
from rlheals.study.claims import ChapterClaims, Ratio, by_seed, estimator
from rlheals.weights.edit_parser import parse
from rlheals.weights.selection import Where


def _row(rows: pd.DataFrame, kind: str, edit: str, where: str) -> pd.Series:
    """The edit's row of `measured.effects`; a row of missing values when it is not there."""
    found = only(rows, kind=kind, edit=str(parse(edit)), where=str(Where.parse(where)))
    return found.iloc[0] if len(found) else pd.Series(dict.fromkeys(rows.columns, np.nan))


@estimator("swaps")
def gained(rows: pd.DataFrame, kind: str, edit: str, where: str) -> float:
    """Accuracy of the edited checkpoint minus that of its target."""
    return float(_row(rows, kind, edit, where)["effect"])


@estimator("swaps")
def lost(rows: pd.DataFrame, edit: str, where: str) -> float:
    """Accuracy of RL's result minus that of the same edited."""
    return -gained(rows, "swap", edit, where)


@estimator("swaps")
def no_effect(rows: pd.DataFrame, kind: str, edit: str, where: str, tolerance: float) -> float:
    """Tolerance minus the size of the change of accuracy."""
    return tolerance - abs(gained(rows, kind, edit, where))


@estimator("swaps")
def over_control(rows: pd.DataFrame, kind: str, edit: str, control: str, where: str) -> float:
    """Accuracy after an edit minus that after a control."""
    return float(_row(rows, kind, edit, where)["value"] - _row(rows, kind, control, where)["value"])


@estimator("swaps")
def restored(rows: pd.DataFrame, edit: str, where: str) -> Ratio:
    """What an edit restores of the OOD accuracy lost between peak and late checkpoint."""
    row = _row(rows, "restore", edit, where)
    return Ratio(float(row["effect"]), float(row["other"] - row["target"]))


@estimator("swaps")
def alike(
    rows: pd.DataFrame,
    kind: str,
    edit: str,
    where: str,
    share: float,
    control: str = "",
    control_kind: str = "",
) -> float:
    """A share of the distance in accuracy between both checkpoints, minus the size of the difference of two edits.

    control: another edit; control_kind: the same edit made with another checkpoint.
    """
    one, other = _row(rows, kind, edit, where), _row(rows, control_kind or kind, control or edit, where)
    return float(share * abs(one["other"] - one["target"]) - abs(one["value"] - other["value"]))


@estimator("swaps")
def over_rollback_per_size(rows: pd.DataFrame, edit: str, where: str) -> float:
    """Effect per size of an edit minus that of restoring the whole matrices; sizes in units of the distance."""
    one, other = (_row(rows, "restore", each, where) for each in (edit, "rollback()"))
    return float(one["effect"] / one["size"] - other["effect"] / other["size"])


def _by_seed(tables: EditTables) -> dict[int, pd.DataFrame]:
    return by_seed(measured.effects(tables), tables.seeds)


CLAIMS = ChapterClaims("swaps", _by_seed, lambda tables: tables.effects)
