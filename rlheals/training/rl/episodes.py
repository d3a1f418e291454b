"""Episodes as training rows, and the weight that every attempt of an episode gets in the policy gradient.

A row is one token sequence; it knows which tokens the model wrote, and in which attempt. Weights are pure functions of
the rewards. The objective is the expected discounted return of an episode, J = E sum_t gamma^t reward_t (t from 0). An
estimator multiplies the score (gradient of the log-probability) of attempt t by its weight and sums over attempts and
episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.evaluation.rollout import Episode

AdvantageEstimator = Literal["episode", "attempt"]
Baseline = Literal["mean", "leave_one_out"]
Scale = Literal["none", "group"]


@dataclass(frozen=True)
class Row:
    """An episode as tokens. `attempt[i]` is the attempt (from 0) that wrote token i of `completion`, -1 for feedback;
    `logprobs` are those of the sampling distribution, NaN for feedback."""

    prompt: list[int]
    completion: list[int]
    attempt: np.ndarray
    logprobs: np.ndarray

    @property
    def written(self) -> np.ndarray:
        """Which tokens of the completion the model wrote."""
        return self.attempt >= 0


def row(episode: Episode) -> Row:
    """The episode's last prompt and answer hold all that came before."""
    prompt, last = episode.attempts[0].prompt, episode.attempts[-1]
    whole = [*last.prompt, *last.generation.tokens]
    start = len(prompt)
    attempt = np.full(len(whole) - start, -1)
    logprobs = np.full(len(whole) - start, np.nan)
    for number, one in enumerate(episode.attempts):
        at = len(one.prompt)
        # a chat template may write the end of an answer in its own way; such a token was not the model's
        kept = [i for i, token in enumerate(one.generation.tokens) if whole[at + i : at + i + 1] == [token]]
        places = [at - start + i for i in kept]
        attempt[places], logprobs[places] = number, one.generation.logprobs[kept]
    return Row(list(prompt), whole[start:], attempt, logprobs)


def statistics(episodes: Sequence[Episode], group: int, gamma: float) -> dict[str, Any]:
    """What an iteration's log says about its episodes."""
    returns = np.array([discounted(rewards(episode), gamma) for episode in episodes])
    solved = np.array([episode.solved_at for episode in episodes])
    groups = returns.reshape(-1, group)
    made = [attempt.generation for episode in episodes for attempt in episode.attempts]
    return {
        "return": float(returns.mean()),
        "solved": float((solved > 0).mean()),
        "first_try": float((solved == 1).mean()),
        "attempts": float(np.mean([len(episode.attempts) for episode in episodes])),
        "zero_variance": float((groups.std(axis=1) < 1e-9).mean()),
        "all_solved": float((solved.reshape(-1, group) == 1).all(axis=1).mean()),
        "none_solved": float((solved.reshape(-1, group) == 0).all(axis=1).mean()),
        "entropy": float(np.concatenate([one.entropies for one in made]).mean()),
        "tokens": sum(len(one.tokens) for one in made),
    }


def rewards(episode: Episode) -> list[float]:
    """The verifier's reward of every attempt."""
    return [attempt.verdict.reward for attempt in episode.attempts]


def advantage_statistics(advantages: np.ndarray, bins: int = 41, reach: float = 10.0) -> dict[str, float]:
    """Entropy (bits) of the histogram of episode advantages on a fixed grid, share above zero, spread.

    >>> advantage_statistics(np.zeros(8))["advantage_entropy"]
    0.0
    """
    counts, _ = np.histogram(np.clip(advantages, -reach, reach), bins=bins, range=(-reach, reach))
    shares = counts[counts > 0] / counts.sum()
    return {
        "advantage_entropy": float(max(0.0, -(shares * np.log2(shares)).sum())),
        "advantage_positive": float((advantages > 1e-9).mean()),
        "advantage_std": float(advantages.std()),
    }


def padded(rows: Sequence[Row], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of some episodes, (rows, tokens), padded on the right."""
    tokens = [torch.tensor([*row.prompt, *row.completion]) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True)
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def token_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Row],
    pad: int,
    temperature: float = 1.0,
    micro_batch_size: int = 64,
) -> list[np.ndarray]:
    """Log-probability of every completion token under a model, in slices of rows of similar length."""
    was_training = model.training
    model.eval()
    results: list[np.ndarray] = [np.empty(0)] * len(rows)
    lengths = [len(row.prompt) + len(row.completion) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])
    at_once = min(micro_batch_size, models.rows_at_once(model, max(lengths, default=1)))
    for at in range(0, len(order), at_once):
        chosen = order[at : at + at_once]
        ids, mask = padded([rows[i] for i in chosen], pad, model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        logp = torch.log_softmax(logits.float() / temperature, dim=-1)
        picked = logp.gather(-1, ids[:, 1:, None])[:, :, 0].cpu().numpy()
        for place, i in enumerate(chosen):
            start = len(rows[i].prompt) - 1
            results[i] = picked[place, start : start + len(rows[i].completion)]
    model.train(was_training)
    return results


# Weights --------------------------------------------------------------------------------------------------------------


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
        if estimator == "attempt":
            made = _per_attempt(members, baseline)
        else:
            values = totals - _baseline(totals, baseline)
            made = [np.full(len(member), value) for member, value in zip(members, values, strict=True)]
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
