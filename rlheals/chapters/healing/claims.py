"""Estimators of chapter 05: each takes one base seed's measurements and returns one number, so that "number > margin".

A share of a loss is a ratio of sums over base seeds, H = sum(after - start) / sum(peak - start). "H > s" is tested as
"mean of (after - start) - s (peak - start) > 0", which needs no ratio and has one value per base seed (Fieller 1954).
"""

from __future__ import annotations

from typing import Any

from rlheals.chapters.healing.measures import Healing, by_seed
from rlheals.chapters.healing.runs import HEALED, UNHEALED, HealingTables, edit_arm
from rlheals.study.claims import ChapterClaims, estimator


@estimator("healing")
def loss(measured: Healing, state: int, **options: Any) -> float:
    """Accuracy of the peak minus that of a start."""
    return measured.lost(state, **options)


@estimator("healing")
def loss_beside(measured: Healing, state: int, share: float, split: str = "control") -> float:
    """A share of the loss of OOD accuracy minus the loss on another split."""
    return share * measured.lost(state) - measured.lost(state, split=split)


@estimator("healing")
def regained(measured: Healing, arm: str, state: int, share: float, **options: Any) -> float:
    """Gain beyond a share of what the start has lost."""
    return measured.gain(arm, state, **options) - share * measured.lost(state, arm, **options)


@estimator("healing")
def regained_over(measured: Healing, arm: str, other: str, state: int, share: float, **options: Any) -> float:
    """Gain of one second stage minus that of another from the same start, beyond a share of what the start has lost."""
    between = measured.gain(arm, state, **options) - measured.gain(other, state, **options)
    return between - share * measured.lost(state, **options)


@estimator("healing")
def regained_alike(
    measured: Healing, arm: str, other: str, state: int, share: float, **options: Any
) -> float:
    """A share of what the start has lost, minus the difference between two second stages, whichever gains more."""
    between = measured.gain(arm, state, **options) - measured.gain(other, state, **options)
    return share * measured.lost(state, **options) - abs(between)


@estimator("healing")
def regained_by_ability(
    measured: Healing, arm: str, state: int, able: float, other: float, share: float
) -> float:
    """Share of the loss that an able base regains minus that of another base, less `share`; both have to have lost."""
    shares = [
        measured.gain(arm, state, ability=one) / measured.lost(state, ability=one) for one in (able, other)
    ]
    return shares[0] - shares[1] - share


@estimator("healing")
def slope(measured: Healing, arm: str, early: int, late: int) -> float:
    """Share of the loss that a second stage regains from an early start minus that from a late one."""
    return measured.gain(arm, early) / measured.lost(early) - measured.gain(arm, late) / measured.lost(late)


@estimator("healing")
def turns_back(measured: Healing, state: int) -> float:
    """Angle to the peak's singular vectors of the run that does not heal minus that of the run that does (degrees).

    At equal distance from their start: that of the shorter of the two.
    """
    size = min(measured.reach(arm, state) for arm in (HEALED, UNHEALED))
    return measured.angle(UNHEALED, state, size) - measured.angle(HEALED, state, size)


@estimator("healing")
def restores(measured: Healing, state: int, edit: str, than: str) -> float:
    """Accuracy of the run that does not heal with one edit by the run that does, minus that with another edit."""
    one, other = (edit_arm(UNHEALED, entry) for entry in (edit, than))
    return measured.accuracy(one, state, True) - measured.accuracy(other, state, True)


@estimator("healing")
def edit_regains(measured: Healing, state: int, edit: str, share: float) -> float:
    """What an edit of the run that does not heal by the one that does gains, beyond a share of what lies between."""
    edited = measured.accuracy(edit_arm(UNHEALED, edit), state, True)
    without, healed = (measured.accuracy(arm, state, True) for arm in (UNHEALED, HEALED))
    return edited - without - share * (healed - without)


def _results(tables: HealingTables) -> Any:
    rows = tables.episodes[tables.episodes["run"] >= 0]
    return rows[rows["control"] == UNHEALED]


CLAIMS = ChapterClaims("healing", by_seed, _results, plan=("runs",))
