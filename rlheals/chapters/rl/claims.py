"""Estimators of chapter 02: each takes one base seed's measurements and returns one number, so that "number > margin".

A gain is OOD accuracy after RL minus that of its start, hand by hand on the same sampling noise, averaged over RL
seeds and decodes. Where the best of several starts is meant, it is chosen on one half of the hands and measured on
the other, both ways, so that the choice does not flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from rlheals.chapters.rl.measures import Accuracies
from rlheals.chapters.rl.runs import MAIN, RecoveryTables
from rlheals.study.claims import ChapterClaims, Claim, ClaimsFile, StudyPlan, finite


def gain(measured: Accuracies, starts: Sequence[int], measure: str = "within_five") -> float:
    """Mean gain over some starts."""
    return float(np.mean([measured.gain(start, measure=measure) for start in starts]))


def no_gain(measured: Accuracies, starts: Sequence[int], tolerance: float) -> float:
    """Tolerance minus the mean gain over some starts."""
    return tolerance - gain(measured, starts)


def below_peak(measured: Accuracies, tolerance: float) -> float:
    """Peak of the starts, plus a tolerance, minus the best result of RL."""
    return measured.best(after=False) + tolerance - measured.best(after=True)


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


def over_control(measured: Accuracies, control: str, start: int) -> float:
    """OOD accuracy after RL from a start minus that after the control from the same start."""
    return measured.accuracy(start, True) - measured.accuracy(start, True, control=control)


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (gain, no_gain, below_peak, id_rule, over_control)
}


class RecoveryClaim(Claim):
    """A claim of chapter 02."""

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        return ESTIMATORS


class RecoveryStudy(StudyPlan):
    """Which runs decide about chapter 02."""

    runs: int = Field(ge=1)


class RecoveryFile(ClaimsFile):
    """The part of `claims.yaml` about chapter 02."""

    study: RecoveryStudy
    claims: tuple[RecoveryClaim, ...]


def estimates(claim: Claim, tables: RecoveryTables) -> dict[int, float]:
    """The claim's number for every base seed that has what it needs."""
    run, measured = ESTIMATORS[claim.estimator], Accuracies.by_seed(tables)
    return finite(tables.seeds, lambda seed: run(measured[seed], **claim.options))


def missing(tables: RecoveryTables, claims: RecoveryFile) -> list[str]:
    """What is not recorded yet of what decides, in words."""
    plan, found = claims.study, []
    rows = tables.episodes
    controls = {claim.options["control"] for claim in claims.claims if "control" in claim.options}
    for seed in plan.seeds:
        mine = rows[rows["seed"] == seed]
        main = mine[mine["control"] == MAIN]
        runs = set(main.loc[main["run"] >= 0, "run"])
        if len(runs) < plan.runs:
            found.append(f"base seed {seed}: {len(runs)} of {plan.runs} RL seeds")
        elif main["decode"].nunique() < plan.decodes:
            found.append(f"base seed {seed}: {main['decode'].nunique()} of {plan.decodes} decodes")
        if lacking := sorted(controls - set(mine["control"])):
            found.append(f"base seed {seed}: controls {', '.join(lacking)}")
    return found


CLAIMS = ChapterClaims("recovery", RecoveryFile, estimates, missing)
