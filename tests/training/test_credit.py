"""Advantages: the estimators against the exact gradient of a game written out in full, and laws of weights."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lab_helpers import one_line

from rlheals.errors import BadInput
from rlheals.training.rl.episodes import AdvantageEstimator, Baseline, discounted, weights

DISCOUNT = 0.9
FIRST = np.array([5.0, -1.0, -3.0])  # rewards of the first attempt; answer 0 solves
SECOND = np.array([5.0, 1.0, -2.0])  # of the second one, after either failure
ANSWERS = len(FIRST)
LOGITS = np.array(
    [[0.3, 0.9, -0.4], [0.2, -0.7, 0.5], [-0.9, 0.1, 0.8]]
)  # at first, after answer 1, after answer 2

# Every episode of the game: the answers given.
EPISODES = [(0,), *product(range(1, ANSWERS), range(ANSWERS))]
REWARDS = [[float(table[a]) for table, a in zip((FIRST, SECOND), e, strict=False)] for e in EPISODES]


def softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.exp() / logits.exp().sum(-1, keepdim=True)


def chances(logits: torch.Tensor) -> torch.Tensor:
    """The probability of every episode."""
    p = softmax(logits)
    return torch.stack([p[0, e[0]] if len(e) == 1 else p[0, e[0]] * p[e[0], e[1]] for e in EPISODES])


def exact_gradient() -> np.ndarray:
    """The derivative of the expected return, which is a finite sum, by automatic differentiation: no score in it."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    returns = [sum(r * DISCOUNT**t for t, r in enumerate(rewards)) for rewards in REWARDS]
    (chances(logits) * torch.tensor(returns, dtype=torch.float64)).sum().backward()
    return logits.grad.numpy()


def score(episode: tuple[int, ...], attempt: int) -> np.ndarray:
    """The gradient of an attempt's log-probability."""
    state = 0 if attempt == 0 else episode[0]
    made = np.zeros_like(LOGITS)
    made[state] = -softmax(torch.tensor(LOGITS))[state].numpy()
    made[state, episode[attempt]] += 1
    return made


P = chances(torch.tensor(LOGITS)).numpy()
GRADIENT = exact_gradient()
SCORES = np.array(
    [[score(e, t) if t < len(e) else np.zeros_like(LOGITS) for t in range(2)] for e in EPISODES]
)


def estimates(groups: np.ndarray, made: list[np.ndarray]) -> np.ndarray:
    """Per group (a row of episode numbers) the estimate of the gradient: mean over episodes of sum_t weight * score."""
    wide = np.array([[*w, 0.0][:2] for w in made]).reshape(*groups.shape, 2)
    return np.einsum("git,gitsa->gsa", wide, SCORES[groups]) / groups.shape[1]


def of_library(groups: np.ndarray, estimator: AdvantageEstimator, baseline: Baseline) -> np.ndarray:
    paid = [REWARDS[episode] for episode in groups.ravel()]
    return estimates(groups, weights(paid, groups.shape[1], DISCOUNT, estimator, baseline))


# Expectation over every possible group, without noise -----------------------------------------------------------------


def expected(size: int, estimator) -> np.ndarray:
    groups = np.array(list(product(range(len(EPISODES)), repeat=size)))
    return np.einsum("g,gsa->sa", P[groups].prod(1), estimator(groups))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("estimator", ["episode", "attempt"])
def test_leave_one_out_is_unbiased(size: int, estimator: AdvantageEstimator) -> None:
    made = expected(size, lambda groups: of_library(groups, estimator, "leave_one_out"))
    np.testing.assert_allclose(made, GRADIENT, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_groups_own_mean_only_shrinks_the_gradient_of_episodes(size: int) -> None:
    made = expected(size, lambda groups: of_library(groups, "episode", "mean"))
    np.testing.assert_allclose(made, GRADIENT * (size - 1) / size, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_groups_own_mean_shrinks_first_attempts_alike_and_later_ones_by_how_many_reached_them(
    size: int,
) -> None:
    """Of k episodes that reach the second attempt a share 1/k of their gradient is lost; all reach the first."""
    made = expected(size, lambda groups: of_library(groups, "attempt", "mean"))
    np.testing.assert_allclose(made[0], GRADIENT[0] * (size - 1) / size, atol=1e-12)
    fails = 1 - P[0]
    reach = [binomial(size - 1, k, fails) for k in range(size)]  # k others reach it too
    kept = sum(chance * k / (k + 1) for k, chance in enumerate(reach))
    np.testing.assert_allclose(made[1:], GRADIENT[1:] * kept, atol=1e-12)


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


# Laws -----------------------------------------------------------------------------------------------------------------

reward = st.integers(-6, 6).map(lambda half: half / 2)
GROUP = 4
paid = st.lists(st.lists(reward, min_size=1, max_size=4), min_size=2 * GROUP, max_size=2 * GROUP)
every_kind = pytest.mark.parametrize(
    ("estimator", "baseline", "scale"),
    list(product(("episode", "attempt"), ("mean", "leave_one_out"), ("none", "group"))),
)


def flat(made: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(made)


def spread_of(rewards: list[list[float]]) -> float:
    """The smallest spread of a group's returns."""
    totals = np.array([discounted(one, DISCOUNT) for one in rewards]).reshape(-1, GROUP)
    return float(totals.std(axis=1).min())


@every_kind
@settings(max_examples=40, deadline=None)
@given(rewards=paid)
def test_there_is_a_finite_weight_for_every_attempt(rewards, estimator, baseline, scale) -> None:
    made = weights(rewards, GROUP, DISCOUNT, estimator, baseline, scale)
    assert [len(one) for one in made] == [len(one) for one in rewards]
    assert np.isfinite(flat(made)).all()


@settings(max_examples=60, deadline=None)
@given(rewards=paid)
def test_weights_of_episodes_are_return_less_mean_and_sum_to_zero_in_every_group(rewards) -> None:
    made = weights(rewards, GROUP, DISCOUNT)
    for at in (0, GROUP):
        totals = [sum(r * DISCOUNT**t for t, r in enumerate(one)) for one in rewards[at : at + GROUP]]
        mean = sum(totals) / GROUP
        for one, total in zip(made[at : at + GROUP], totals, strict=True):
            assert one == pytest.approx(np.full(len(one), total - mean), abs=1e-12)
        assert sum(one[0] for one in made[at : at + GROUP]) == pytest.approx(0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rewards=paid)
def test_leave_one_out_is_the_mean_of_the_others(rewards) -> None:
    made = weights(rewards, GROUP, DISCOUNT, "attempt", "leave_one_out")
    for at in (0, GROUP):
        group = rewards[at : at + GROUP]
        for i, one in enumerate(group):
            for t in range(len(one)):
                to_go = {
                    j: discounted(g[t:], DISCOUNT) * DISCOUNT**t for j, g in enumerate(group) if len(g) > t
                }
                others = [value for j, value in to_go.items() if j != i]
                wanted = to_go[i] - (sum(others) / len(others) if others else 0)
                assert made[at + i][t] == pytest.approx(wanted, abs=1e-12)


@every_kind
@settings(max_examples=30, deadline=None)
@given(rewards=paid, order=st.permutations(range(GROUP)))
def test_the_order_within_a_group_and_of_groups_does_not_matter(
    rewards, order, estimator, baseline, scale
) -> None:
    made = weights(rewards, GROUP, DISCOUNT, estimator, baseline, scale)
    places = [GROUP + i for i in order] + list(range(GROUP))
    moved = weights([rewards[i] for i in places], GROUP, DISCOUNT, estimator, baseline, scale)
    assert flat(moved) == pytest.approx(flat([made[i] for i in places]), abs=1e-9)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@settings(max_examples=40, deadline=None)
@given(rewards=paid, constant=st.integers(-5, 5))
def test_a_constant_on_all_returns_changes_no_weight_of_an_episode(rewards, constant, baseline) -> None:
    moved = [[one[0] + constant, *one[1:]] for one in rewards]
    assert flat(weights(moved, GROUP, DISCOUNT, "episode", baseline)) == pytest.approx(
        flat(weights(rewards, GROUP, DISCOUNT, "episode", baseline)), abs=1e-10
    )


@pytest.mark.parametrize("estimator", ["episode", "attempt"])
@settings(max_examples=40, deadline=None)
@given(rewards=paid, factor=st.sampled_from([0.25, 3.0, 40.0]))
def test_scaling_by_the_spread_makes_the_unit_of_rewards_irrelevant(rewards, factor, estimator) -> None:
    """Up to the 1e-4 that keeps the division finite, a share 1e-4 / spread: 4e-3 for the smallest one here."""
    assume(spread_of(rewards) > 0.1)
    scaled = [[factor * r for r in one] for one in rewards]
    one = flat(weights(rewards, GROUP, DISCOUNT, estimator, scale="group"))
    other = flat(weights(scaled, GROUP, DISCOUNT, estimator, scale="group"))
    assert other == pytest.approx(one, rel=5e-3, abs=1e-9)
    if estimator == "episode":
        whole = np.array([w[0] for w in weights(rewards, GROUP, DISCOUNT, scale="group")]).reshape(-1, GROUP)
        assert whole.std(axis=1, ddof=1) == pytest.approx(1, rel=5e-3)


@every_kind
@settings(max_examples=30, deadline=None)
@given(one=st.lists(reward, min_size=1, max_size=4), other=st.lists(reward, min_size=1, max_size=4))
def test_a_group_whose_episodes_are_alike_teaches_nothing(one, other, estimator, baseline, scale) -> None:
    made = weights([one] * GROUP + [other] * GROUP, GROUP, DISCOUNT, estimator, baseline, scale)
    assert np.abs(flat(made)).max() < 1e-9  # rounding of the mean, divided by 1e-4 under scale="group"


@pytest.mark.parametrize(("count", "group"), [(4, 1), (4, 0), (4, -2), (5, 2), (3, 4)])
def test_groups_that_do_not_fit_are_refused_on_one_line(count: int, group: int) -> None:
    with pytest.raises(BadInput) as caught:
        weights([[1.0]] * count, group, DISCOUNT)
    assert f"{count} episodes do not divide into groups of {group}" in one_line(caught.value)
    assert weights([], 2, DISCOUNT) == []
