"""Estimators of chapter 05: each takes one base seed's measurements and returns one number, so that "number > margin".

Shares of a loss are ratios of sums over base seeds, H = sum(after - start) / sum(peak - start).
"""

from __future__ import annotations

from typing import Any

from rlheals.chapters.healing.measures import Healing, by_seed
from rlheals.chapters.healing.runs import HEALED, UNHEALED, HealingTables, edit_arm
from rlheals.study.claims import ChapterClaims, Ratio, estimator


@estimator("healing")
def loss_unlike(measured: Healing, state: int, split: str) -> float:
    """Loss of OOD accuracy minus the loss on another split, at the same start."""
    return measured.lost(state) - measured.lost(state, split=split)


@estimator("healing")
def regained(measured: Healing, arm: str, state: int, **options: Any) -> Ratio:
    """Share of what the start has lost that a second stage brings back."""
    return Ratio(measured.gain(arm, state, **options), measured.lost(state, arm, **options))


@estimator("healing")
def regained_over(measured: Healing, arm: str, other: str, state: int, **options: Any) -> Ratio:
    """The same share of one second stage minus that of another from the same start."""
    between = measured.gain(arm, state, **options) - measured.gain(other, state, **options)
    return Ratio(between, measured.lost(state, **options))


@estimator("healing")
def regained_alike(
    measured: Healing, arm: str, other: str, state: int, share: float, **options: Any
) -> Ratio:
    """A share of the loss minus the difference between two second stages, whichever brings back more."""
    between = measured.gain(arm, state, **options) - measured.gain(other, state, **options)
    lost = measured.lost(state, **options)
    return Ratio(share * lost - abs(between), lost)


@estimator("healing")
def regained_by_ability(measured: Healing, arm: str, state: int, able: float, other: float) -> float:
    """Share of the loss that an able base regains minus that of a less able one from the same pretraining."""
    shares = [
        measured.gain(arm, state, ability=one) / measured.lost(state, ability=one) for one in (able, other)
    ]
    return shares[0] - shares[1]


@estimator("healing")
def ends_over(measured: Healing, arm: str, other: str, state: int, **options: Any) -> float:
    """Accuracy after one second stage minus that after another, whatever their starts."""
    return measured.accuracy(arm, state, True, **options) - measured.accuracy(other, state, True, **options)


@estimator("healing")
def turns_back(measured: Healing, state: int) -> float:
    """Angle to the peak's singular vectors of the run that does not heal minus that of the run that does (degrees).

    At equal distance from their start: that of the shorter of the two.
    """
    size = min(measured.reach(arm, state) for arm in (HEALED, UNHEALED))
    return measured.angle(UNHEALED, state, size) - measured.angle(HEALED, state, size)


@estimator("healing")
def restores(measured: Healing, state: int, edit: str, than: str, into: str = UNHEALED) -> float:
    """Accuracy of a run with one edit by the run of the other outcome, minus that with another edit."""
    one, other = (edit_arm(into, entry) for entry in (edit, than))
    return measured.accuracy(one, state, True) - measured.accuracy(other, state, True)


@estimator("healing")
def edit_regains(measured: Healing, state: int, edit: str) -> Ratio:
    """Share of what lies between a run that heals and one that does not that an edit of the latter brings."""
    edited = measured.accuracy(edit_arm(UNHEALED, edit), state, True)
    without, healed = (measured.accuracy(arm, state, True) for arm in (UNHEALED, HEALED))
    return Ratio(edited - without, healed - without)


@estimator("healing")
def edit_regains_little(measured: Healing, state: int, edit: str, share: float) -> Ratio:
    """A share of what lies between the two runs minus what an edit brings of it."""
    brought, between = edit_regains(measured, state, edit)
    return Ratio(share * between - brought, between)


def _results(tables: HealingTables) -> Any:
    rows = tables.episodes[tables.episodes["run"] >= 0]
    return rows[rows["control"] == "rl"]


CLAIMS = ChapterClaims("healing", by_seed, _results, plan=("runs",))
