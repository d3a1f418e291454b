"""Estimators of chapter 02: each takes one base seed's measurements and returns one number, so that "number > margin".

A gain is OOD accuracy after RL minus that of its start, hand by hand on the same sampling noise, averaged over RL
and sampling seeds. Where a start is chosen, for its accuracy or for its state, it is chosen on one half of the hands
and measured on the other, both ways, so that the choice does not flatter it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from rlheals.chapters.rl.measures import ABILITY, Accuracies, by_seed
from rlheals.chapters.rl.runs import MAIN, RLTables
from rlheals.chapters.rows import only
from rlheals.errors import BadInput
from rlheals.study.claims import ChapterClaims, Ratio, estimator


@estimator("recovery")
def regained(measured: Accuracies, state: int, measure: str = ABILITY) -> Ratio:
    """Share of the loss regained by RL from the first start that has lost `state` per cent of the peak."""
    pairs = [measured.regained(measured.start_at(state, 1 - half), half, measure) for half in (0, 1)]
    return Ratio(*np.mean(pairs, axis=0).tolist())


@estimator("recovery")
def gain(measured: Accuracies, state: int, measure: str = "success@5") -> float:
    """Gain from the first start that has lost `state` per cent of the peak."""
    return measured.at_state(state, lambda start, half: measured.gain(start, measure=measure, half=half))


@estimator("recovery")
def no_gain(
    measured: Accuracies, start: Literal["first", "last"], tolerance: float, measure: str = "success@5"
) -> float:
    """Tolerance minus the gain from the first start, which lies before the peak, or from the last one."""
    return tolerance - measured.gain(measured.starts[0 if start == "first" else -1], measure=measure)


@estimator("recovery")
def feedback_lacks(measured: Accuracies, state: int, k: int) -> float:
    """pass@k - success@k, format-agnostic, of the first start that has lost `state` per cent of the peak."""
    feedback = f"feedback@{k} either"
    return -measured.at_state(
        state, lambda at, half: measured.accuracy(at, False, measure=feedback, half=half)
    )


@estimator("recovery")
def below_peak(measured: Accuracies, tolerance: float, measure: str = "success@5") -> float:
    """Peak of the starts, plus a tolerance, minus the best result of RL."""
    return measured.best(False, measure) + tolerance - measured.best(True, measure)


@estimator("recovery")
def marks_window(measured: Accuracies, known: str, low: float, high: float, gained: float) -> float:
    """Balanced accuracy, less one half, of "RL gains if what is known at the start lies between low and high".

    known: `Accuracies.known_at`. A base seed where all starts gain, or none, cannot speak for the rule: 0.
    """
    values = np.array([measured.known_at(start, known) for start in measured.starts])
    if np.isnan(values).any():
        return float("nan")
    said = (low <= values) & (values <= high)
    is_so = np.array([measured.gain(start) > gained for start in measured.starts])
    if is_so.all() or not is_so.any():
        return 0.0
    return float((said[is_so].mean() + (~said[~is_so]).mean()) / 2 - 0.5)


@estimator("recovery")
def limit_unseen(measured: Accuracies, early: int, late: int, tolerance: float) -> float:
    """Tolerance minus by which share the loss on held-out ID hands is higher at a later start than at an earlier one.

    early, late: their states.
    """
    first, last = (
        measured.at_state(state, lambda start, half: measured.known_at(start, "loss test"))
        for state in (early, late)
    )
    return tolerance - (last / first - 1)


@estimator("recovery")
def falls_with_sft(measured: Accuracies, measure: str = ABILITY) -> float:
    """Minus the slope of the gain over starts, per doubling of SFT, from the first start after the peak on.

    The peak is chosen on one half of the hands, gains are measured on the other. Raises BadInput for fewer than three
    starts after the peak.
    """
    slopes = []
    for half in (0, 1):
        peak = measured.peak(1 - half, measure)
        after = [start for start in measured.starts if start > peak]
        if len(after) < 3:
            raise BadInput(f"{len(after)} RL start checkpoints lie after the peak, a slope needs three")
        gains = [measured.gain(start, measure=measure, half=half) for start in after]
        slopes.append(np.polyfit(np.log2(after), gains, 1)[0])
    return -float(np.mean(slopes))


@estimator("recovery")
def over_control(measured: Accuracies, control: str, measure: str = "success@5") -> float:
    """OOD accuracy after RL minus that after a control from the same start, or of the start where that is higher.

    So a control that harms is no evidence for RL.
    """
    start = measured.start_of(control)
    others = [measured.accuracy(start, True, measure=measure, control=control)]
    others.append(measured.accuracy(start, False, measure=measure))
    return measured.accuracy(start, True, measure=measure) - float(np.max(others))


def _after_rl(tables: RLTables) -> pd.DataFrame:
    rows = only(tables.episodes, control=MAIN)
    return rows[rows["run"] >= 0]


CLAIMS = ChapterClaims("recovery", by_seed, _after_rl, plan=("runs",))
