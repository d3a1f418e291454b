"""Episodes as training rows, and their advantages: against sampling, and against the exact gradient of a small game."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lab_helpers import one_line
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.hf import Generation, HFEngine, Sampling
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.evaluation.rollout import Attempt, Episode, rollout
from rlheals.tasks.base import Reply, Verdict
from rlheals.tasks.general_points.cards import ID_RULE, item_of
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.rl.episodes import (
    AdvantageEstimator,
    Baseline,
    Row,
    advantage_statistics,
    discounted,
    row,
    statistics,
    token_logprobs,
    weights,
)

LAST_BITS = 3e-5  # as in test_engines.py: float32 logits, added up in another order
TEMPERATURES = [0.7, 1.0, 1.5]
ITEM = item_of(("A", "2", "3", "4"), ID_RULE, "sft")


@pytest.fixture(scope="module")
def played(dialect: Compact, task: GeneralPoints) -> dict[float, list[Episode]]:
    """Episodes of one to four attempts of the shipped base, some with answers that were cut, by temperature."""
    engine = HFEngine(models.load(SHIPPED_BASE), dialect.tokenizer, 64)
    items = random.Random(4).sample(task.items("id"), 40)
    return {
        temperature: rollout(
            engine,
            dialect,
            task,
            items,
            [f"1/{item.id}" for item in items],
            Sampling(temperature=temperature, max_new_tokens=18),
            attempts=4,
            protocol="either",
        )
        for temperature in TEMPERATURES
    }


def episode(*attempts: tuple[list[int], list[int], float, bool]) -> Episode:
    """An episode made by hand: prompt, tokens, reward and whether solved, for every attempt."""
    made = [
        Attempt(
            tuple(prompt),
            Generation(tuple(tokens), -np.arange(1.0, len(tokens) + 1), np.arange(len(tokens)) / 4),
            Reply("", "none"),
            Verdict(solved, reward, "", ""),
        )
        for prompt, tokens, reward, solved in attempts
    ]
    return Episode(ITEM, "key", made)


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_exactly_what_the_model_wrote_is_marked_with_its_attempt(
    played: dict[float, list[Episode]], dialect: Compact, temperature: float
) -> None:
    assert {1, 2, 4} <= {len(one.attempts) for one in played[temperature]}
    for one in played[temperature]:
        made, last = row(one), one.attempts[-1]
        assert made.prompt == dialect.prompt(one.item)
        assert made.prompt + made.completion == [*last.prompt, *last.generation.tokens]
        start, wanted = len(made.prompt), np.full(len(made.completion), -1)
        for number, attempt in enumerate(one.attempts):
            first = len(attempt.prompt) - start
            written = attempt.generation.tokens
            wanted[first : first + len(written)] = number
            assert made.completion[first : first + len(written)] == list(written)
            assert [made.completion[i] for i in np.flatnonzero(made.attempt == number)] == list(written)
            assert made.logprobs[made.attempt == number].tolist() == attempt.generation.logprobs.tolist()
        assert made.attempt.tolist() == wanted.tolist()
        assert made.written.tolist() == (wanted >= 0).tolist()
        assert np.isnan(made.logprobs).tolist() == (wanted < 0).tolist()
        told = dialect.words([t for t, who in zip(made.completion, made.attempt, strict=True) if who < 0])
        assert len(told) == 3 * (len(one.attempts) - 1)
        assert set(told[::3]) <= {"wrong"}
        assert set(told[2::3]) <= {"answer"}


def test_the_end_that_a_chat_template_writes_itself_is_not_the_models() -> None:
    """The template closes the first answer with 90 instead of the model's 2, and a cut second answer with 2."""
    one = episode(
        ([7, 8], [11, 12, 2], -1.0, False),
        ([7, 8, 11, 12, 90, 91], [13, 14], -1.0, False),
        ([7, 8, 11, 12, 90, 91, 13, 14, 2, 91], [15, 2], 5.0, True),
    )
    made = row(one)
    assert made.completion == [11, 12, 90, 91, 13, 14, 2, 91, 15, 2]
    assert made.attempt.tolist() == [0, 0, -1, -1, 1, 1, -1, -1, 2, 2]
    assert made.logprobs[made.written].tolist() == [-1, -2, -1, -2, -1, -2]


# Log-probabilities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("micro_batch_size", [1, 7, 64])
def test_log_probabilities_are_those_of_sampling_whatever_the_slices_and_the_order(
    base: PreTrainedModel,
    played: dict[float, list[Episode]],
    dialect: Compact,
    temperature: float,
    micro_batch_size: int,
) -> None:
    rows = [row(one) for one in played[temperature]]
    if micro_batch_size == 1:
        rows = rows[:10]
    random.Random(micro_batch_size).shuffle(rows)
    made = token_logprobs(base, rows, dialect.tokenizer.pad_token_id, temperature, micro_batch_size)
    assert len(made) == len(rows)
    for one, ours in zip(rows, made, strict=True):
        assert len(ours) == len(one.completion)
        assert np.abs(ours[one.written] - one.logprobs[one.written]).max() < LAST_BITS


def test_feedback_has_log_probabilities_too_and_they_are_those_of_a_plain_forward_pass(
    base: PreTrainedModel, played: dict[float, list[Episode]], dialect: Compact
) -> None:
    rows = [row(one) for one in played[1.0][:12]]
    made = token_logprobs(base, rows, dialect.tokenizer.pad_token_id, 1.0, 5)
    for one, ours in zip(rows, made, strict=True):
        tokens = one.prompt + one.completion
        with torch.inference_mode():
            logp = torch.log_softmax(base(torch.tensor([tokens])).logits[0].double(), -1)
        wanted = [float(logp[i - 1, tokens[i]]) for i in range(len(one.prompt), len(tokens))]
        assert np.abs(ours - wanted).max() < LAST_BITS


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace_in_the_model(
    base: PreTrainedModel, dialect: Compact, training: bool
) -> None:
    base.train(training)
    one = Row(dialect.prompt(ITEM), [5, 6], np.array([0, 0]), np.zeros(2))
    token_logprobs(base, [one], dialect.tokenizer.pad_token_id)
    assert base.training is training
    assert all(parameter.grad is None for parameter in base.parameters())
    assert token_logprobs(base, [], dialect.tokenizer.pad_token_id) == []


# Statistics -----------------------------------------------------------------------------------------------------------


def solving(*rewards_: float) -> Episode:
    """An episode whose attempts had these rewards; +5 is solved."""
    attempts = [([1] * (t + 1), [2] * (t + 1), r, r == 5.0) for t, r in enumerate(rewards_)]
    return episode(*attempts)


def test_statistics_by_hand() -> None:
    """Attempt t (from 0) has t + 1 tokens, with entropies 0, 1/4, 2/4, ..."""
    groups = [
        [solving(5.0), solving(5.0)],  # all at the first try: no variance
        [solving(-1.0, 5.0), solving(-3.0, -3.0, -3.0)],
        [solving(-2.0, -2.0, 5.0), solving(5.0)],
        [solving(-1.0, -1.0, -1.0), solving(-1.0, -1.0, -1.0)],  # none: no variance
    ]
    made = statistics([one for group in groups for one in group], group=2, gamma=0.5)
    returns = [5, 5, -1 + 2.5, -3 - 1.5 - 0.75, -2 - 1 + 1.25, 5, -1.75, -1.75]
    assert made["return"] == pytest.approx(sum(returns) / 8)
    assert made["solved"] == 5 / 8
    assert made["first_try"] == 3 / 8
    assert made["attempts"] == (1 + 1 + 2 + 3 + 3 + 1 + 3 + 3) / 8
    assert made["zero_variance"] == 2 / 4
    assert made["all_solved"] == 1 / 4
    assert made["none_solved"] == 1 / 4
    assert made["tokens"] == 3 * 1 + 3 + 4 * 6
    assert made["entropy"] == pytest.approx((4 * (1 / 4 + 3 / 4) + 1 / 4) / made["tokens"])


# Advantages -----------------------------------------------------------------------------------------------------------

WIDTH = 20 / 41


@pytest.mark.parametrize("bins", [1, 2, 3, 8, 41])
@pytest.mark.parametrize("each", [1, 5])
def test_entropy_of_advantages_spread_evenly_over_bins_is_the_logarithm_of_their_number(
    bins: int, each: int
) -> None:
    chosen = random.Random(bins).sample(range(41), bins)
    centres = [-10 + (b + 0.5) * WIDTH for b in chosen] * each
    made = advantage_statistics(np.array(centres))
    assert made["advantage_entropy"] == pytest.approx(math.log2(bins), abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, -2.5, 7.0, 100.0, -100.0])
def test_a_constant_has_no_entropy_and_no_spread(constant: float) -> None:
    made = advantage_statistics(np.full(16, constant))
    assert made["advantage_entropy"] == 0.0
    assert made["advantage_std"] == 0.0
    assert made["advantage_positive"] == float(constant > 0)


def test_rounding_of_a_mean_is_not_an_advantage_and_far_ones_count_at_the_edge() -> None:
    made = advantage_statistics(np.array([1e-16, -1e-16, 50.0, 10.0]))
    assert made["advantage_positive"] == 0.5
    assert made["advantage_entropy"] == 1.0  # two in the middle bin, two in the last one


# The gradient of a game written out in full --------------------------------------------------------------------------


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
def test_the_groups_own_mean_shrinks_the_gradient_as_theory_says(size: int) -> None:
    """Of k episodes that reach the second attempt a share 1/k of their gradient is lost; all reach the first."""
    made = expected(size, lambda groups: of_library(groups, "attempt", "mean"))
    np.testing.assert_allclose(made[0], GRADIENT[0] * (size - 1) / size, atol=1e-12)
    fails = 1 - P[0]
    reach = [binomial(size - 1, k, fails) for k in range(size)]  # k others reach it too
    kept = sum(chance * k / (k + 1) for k, chance in enumerate(reach))
    np.testing.assert_allclose(made[1:], GRADIENT[1:] * kept, atol=1e-12)
    made = expected(size, lambda groups: of_library(groups, "episode", "mean"))
    np.testing.assert_allclose(made, GRADIENT * (size - 1) / size, atol=1e-12)


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
