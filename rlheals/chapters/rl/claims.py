"""Estimators of chapter 02: each takes one base seed's measurements and returns one number, so that "number > margin".

A gain is OOD accuracy after RL minus that of its start, hand by hand on the same sampling noise, averaged over RL
and sampling seeds. Where the best of several starts is meant, it is chosen on one half of the hands and measured on
the other, both ways, so that the choice does not flatter it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlheals.chapters.rl.measures import Accuracies, by_seed
from rlheals.chapters.rl.runs import MAIN, RLTables
from rlheals.chapters.rows import only
from rlheals.study.claims import ChapterClaims, estimator


@estimator("recovery")
def gain(measured: Accuracies, starts: Sequence[int], measure: str = "within_five") -> float:
    """Mean gain over some starts."""
    return float(np.mean([measured.gain(start, measure=measure) for start in starts]))


@estimator("recovery")
def no_gain(measured: Accuracies, starts: Sequence[int], tolerance: float) -> float:
    """Tolerance minus the mean gain over some starts."""
    return tolerance - gain(measured, starts)


@estimator("recovery")
def below_peak(measured: Accuracies, tolerance: float) -> float:
    """Peak of the starts, plus a tolerance, minus the best result of RL."""
    return measured.best(after=False) + tolerance - measured.best(after=True)


@estimator("recovery")
def id_rule(measured: Accuracies, low: float, high: float, gained: float) -> float:
    """Balanced accuracy, less one half, of "RL gains if the start's ID accuracy lies between low and high".

    A base seed where all starts gain, or none, cannot speak for the rule: 0.
    """
    said = np.array(
        [low <= measured.accuracy(start, False, split="sft") <= high for start in measured.starts]
    )
    is_so = np.array([measured.gain(start) > gained for start in measured.starts])
    if is_so.all() or not is_so.any():
        return 0.0
    return float((said[is_so].mean() + (~said[~is_so]).mean()) / 2 - 0.5)


@estimator("recovery")
def over_control(measured: Accuracies, control: str, start: int) -> float:
    """OOD accuracy after RL from a start minus that after the control from the same start."""
    return measured.accuracy(start, True) - measured.accuracy(start, True, control=control)


def _after_rl(tables: RLTables) -> pd.DataFrame:
    rows = only(tables.episodes, control=MAIN)
    return rows[rows["run"] >= 0]


CLAIMS = ChapterClaims("recovery", by_seed, _after_rl, plan=("runs",))
