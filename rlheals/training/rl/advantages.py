"""Advantages: which weight every attempt of an episode gets in the policy gradient. Pure functions of the rewards.

The objective is the expected discounted return of an episode, J = E sum_t gamma^t reward_t (t from 0). An estimator
multiplies the score (gradient of the log-probability) of attempt t by its weight and sums over attempts and episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from rlheals.errors import BadInput

AdvantageEstimator = Literal["episode", "attempt"]
Baseline = Literal["mean", "leave_one_out"]
Scale = Literal["none", "group"]


def discounted(rewards: Sequence[float], gamma: float) -> float:
    """sum_t gamma^t reward_t.

    >>> discounted([-2.0, 5.0], 0.9)
    2.5
    """
    return float(sum(gamma**t * reward for t, reward in enumerate(rewards)))


def weights(
    rewards: Sequence[Sequence[float]],
    group: int,
    gamma: float,
    estimator: AdvantageEstimator = "episode",
    baseline: Baseline = "mean",
    scale: Scale = "none",
) -> list[np.ndarray]:
    """One weight per attempt of every episode; `group` consecutive episodes are of the same item.

    estimator="episode": every attempt gets the episode's discounted return less the group's. estimator="attempt":
    attempt t gets gamma^t times what comes from t on, less what came from t on in those episodes of the group that
    reached t. A baseline must not mix attempts: whether a second attempt exists depends on the first one's outcome,
    and a baseline that saw it would be biased.

    baseline="leave_one_out" is unbiased; "mean" includes the episode itself, which with estimator="episode" only
    shrinks every weight by (group - 1) / group. scale="group" divides by the standard deviation of the group's returns.

    >>> [w.tolist() for w in weights([[5.0], [-2.0, 5.0]], group=2, gamma=0.5)]
    [[2.25], [-2.25, -2.25]]
    """
    if group < 2 or len(rewards) % group:
        raise BadInput(f"{len(rewards)} episodes do not divide into groups of {group} (2 or more)")
    result: list[np.ndarray] = []
    for at in range(0, len(rewards), group):
        members = [_to_go(episode, gamma) for episode in rewards[at : at + group]]
        totals = np.array([member[0] for member in members])
        made = (
            [
                np.full(len(m), value)
                for m, value in zip(members, totals - _baseline(totals, baseline), strict=True)
            ]
            if estimator == "episode"
            else _per_attempt(members, baseline)
        )
        spread = totals.std(ddof=1) + 1e-4 if scale == "group" else 1.0
        result += [weight / spread for weight in made]
    return result


def _to_go(rewards: Sequence[float], gamma: float) -> np.ndarray:
    """sum_{s >= t} gamma^s reward_s for every t: what attempt t can still change of the episode's return."""
    terms = np.array(rewards, dtype=np.float64) * gamma ** np.arange(len(rewards))
    return np.cumsum(terms[::-1])[::-1]


def _baseline(values: np.ndarray, kind: Baseline) -> np.ndarray:
    """What each value is compared with; 0 when there is nothing to compare it with."""
    if kind == "mean":
        return np.full(len(values), values.mean())
    return (values.sum() - values) / (len(values) - 1) if len(values) > 1 else np.zeros(len(values))


def _per_attempt(members: list[np.ndarray], kind: Baseline) -> list[np.ndarray]:
    made = [np.zeros(len(member)) for member in members]
    for t in range(max(map(len, members))):
        reached = [index for index, member in enumerate(members) if len(member) > t]
        values = np.array([members[index][t] for index in reached])
        for index, value in zip(reached, values - _baseline(values, kind), strict=True):
            made[index][t] = value
    return made
