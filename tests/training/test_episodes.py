"""Episodes as training rows: nothing lost, only the model's own tokens marked, log-probabilities as when sampled."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.hf import Generation, HFEngine, Sampling
from rlheals.engines.models import SHIPPED_BASE
from rlheals.evaluation.rollout import Attempt, Episode, rollout
from rlheals.tasks.base import Reply, Verdict
from rlheals.tasks.general_points.cards import ID_RULE, item_of
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.rl.episodes import Row, advantage_statistics, row, statistics, token_logprobs

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
