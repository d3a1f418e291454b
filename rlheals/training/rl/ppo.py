"""PPO in the paper's form, in one file: one action per answer, a value head on the model, GAE over the attempts.

An action is a whole attempt. log pi is the sum of its tokens' log-probabilities at the sampling temperature, V is read
off the model's last hidden state where the attempt is asked for. With ratio = pi / pi_old, A the advantage normalised
over the iteration, R = advantage + V_old, c = `clip_range`, and means over all attempts of the iteration:

    loss = -mean min(ratio A, clip(ratio, 1 - c, 1 + c) A)
           + value_weight mean 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)

Every epoch is one optimiser step over the whole iteration, its gradient accumulated over slices of episodes of similar
length: four steps per iteration, as many as the released Llama runs take, and no order of mini-batches to draw. In the
first epoch all ratios are 1, so the clip is at work in the other three.

An episode that used up its attempts is over, just as one that solved its hand: V after it is 0. Five attempts are the
task (the other algorithms and the evaluation count no more either), and nothing is ever asked or paid after the fifth;
to bootstrap would pay a failure with the value of a state that does not occur.

The released code differs, in part by accident:
- a hand whose attempts are used up gets value and advantage from the next hand in the buffer;
- log pi is rounded to bf16 (steps of a third of the clip range), leaves out an answer's first two tokens and weighs
  what precedes the formula 0.5; here it is float32, and every token of the answer counts 1;
- it samples at temperature 0.2, with the checkpoint's own top-p and penalties that log pi does not know of; here one
  distribution does both. pi_old comes from the forward pass that pi comes from: engines differ in the last bits;
- the learning rate is a cosine that its libraries turn into a cycle, and the wanted gradient norm of 0.01 is not used;
  here both are constant, `learning_rate` and `max_grad_norm`;
- mini-batches of one attempt in random order, a step per 128; above a ratio of 10 only the clipped term counts;
- attempts with NaN are left out in silence, here they end the run; an entropy coefficient is read and never used.

Logged per iteration, besides what every algorithm logs (`advantage_*` are of all attempts, before normalisation;
`gradient_norm` is the first epoch's):
    value_mean, value_loss     of V_old; mean 1/2 (V_old - R)^2
    value_explained            1 - var(R - V_old) / var(R); 1 is a perfect value head, 0 is none
    ratio_clipped              share of attempts whose ratio is outside 1 +- c in the last epoch
    policy_moved               mean of ratio - 1 - log ratio in the last epoch: KL(pi_old, pi) per attempt, nats
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from rlheals.engines import fsdp
from rlheals.training.rl.episodes import advantage_statistics, padded, rewards
from rlheals.training.rl.session import Batch, Session


class ValueHead(torch.nn.Module):
    """h -> h/4 -> h/8 -> 1 with ReLU: the expected discounted reward from a hidden state on."""

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(hidden, hidden // 4),
                torch.nn.ReLU(),
                torch.nn.Linear(hidden // 4, hidden // 8),
                torch.nn.ReLU(),
                torch.nn.Linear(hidden // 8, 1),
            )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) -> (...)"""
        return self.layers(states.float())[..., 0]


def train(session: Session) -> None:
    """Play and learn until the session's last iteration."""
    hidden = session.model.config.get_text_config().hidden_size
    head = ValueHead(hidden, session.work.seed).to(session.model.device)
    session.begin(value_head=head)
    session.train(lambda batch: learn(session, head, batch))


def learn(session: Session, head: ValueHead, batch: Batch) -> float:
    """One iteration's epochs; fills in the log and the session's advantages, returns the first gradient norm."""
    settings, clip = session.settings, session.settings.used_clip_range
    temperature, device = settings.sampling.temperature, session.model.device
    parts = slices(batch, settings.micro_batch_size, session.tokenizer.pad_token_id, device)
    count = sum(len(part.actions) for part in parts)
    parts = parts[fsdp.rank() :: fsdp.processes()]

    old, values = torch.zeros(count, device=device), torch.zeros(count, device=device)
    with torch.no_grad():
        for part in parts:
            old[part.actions], values[part.actions] = judged(session.model, head, part, temperature)
    old, values = fsdp.summed(old), fsdp.summed(values)
    paid = [rewards(episode) for episode in batch.episodes]
    found = advantages(paid, values.double().cpu().numpy(), settings.gamma, settings.gae_lambda)
    returns = torch.from_numpy(found).to(values) + values
    normalised = torch.from_numpy((found - found.mean()) / (found.std() + 1e-5)).to(values)

    norms = []
    for _ in range(settings.used_epochs):
        outside, moved = 0.0, 0.0
        session.optimizer.zero_grad()
        for part in parts:
            at = part.actions
            logp, value = judged(session.model, head, part, temperature)
            lost = policy_loss(logp, old[at], normalised[at], clip)
            lost = lost + settings.value_weight * value_loss(value, values[at], returns[at], clip)
            (lost.sum() * fsdp.processes() / count).backward()  # gradients are means over processes
            shift = (logp - old[at]).detach()
            outside += float(((shift.exp() - 1).abs() > clip).sum()) / count
            moved += float((shift.exp() - 1 - shift).sum()) / count
        fsdp.average_gradients(head.parameters())
        outside, moved = fsdp.summed(torch.tensor([outside, moved], dtype=torch.float64)).tolist()
        norms.append(session.clip_gradient(batch))
        session.optimizer.step()

    batch.log |= advantage_statistics(found) | {
        "value_mean": float(values.mean()),
        "value_loss": float(0.5 * (found**2).mean()),
        "value_explained": float(1 - found.var() / max(1e-12, float(returns.double().var(correction=0)))),
        "ratio_clipped": outside,
        "policy_moved": moved,
    }
    if str(batch.iteration) in session.advantages:
        session.advantages[str(batch.iteration)] = [float(one) for one in np.round(found, 6)]
    return norms[0]


# --- one forward pass


@dataclass(frozen=True)
class Slice:
    """Episodes of similar length as tensors. `actions` numbers their attempts among all of the iteration, in its order.

    ids, mask: (rows, tokens), padded on the right; wrote: (rows, attempts, tokens - 1), 1 where attempt a wrote token
    t + 1; there: (rows, attempts), which attempts exist; row, asked: (actions,), where each attempt's prompt ends.
    """

    actions: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    wrote: torch.Tensor
    there: torch.Tensor
    row: torch.Tensor
    asked: torch.Tensor


def slices(batch: Batch, size: int, pad: int, device: torch.device) -> list[Slice]:
    """The episodes of an iteration in slices of `size`, short ones first."""
    lengths = [len(row.prompt) + len(row.completion) for row in batch.rows]
    order = np.argsort(lengths, kind="stable")
    return [_slice(batch, order[at : at + size], pad, device) for at in range(0, len(order), size)]


def _slice(batch: Batch, chosen: np.ndarray, pad: int, device: torch.device) -> Slice:
    first = np.cumsum([0, *(len(episode.attempts) for episode in batch.episodes)])
    most = max(len(batch.episodes[i].attempts) for i in chosen)
    ids, mask = padded([batch.rows[i] for i in chosen], pad, device)
    wrote = torch.zeros((len(chosen), most, ids.shape[1] - 1))
    there = torch.zeros((len(chosen), most), dtype=torch.bool)
    actions: list[int] = []
    places: list[int] = []
    asked: list[int] = []
    for place, i in enumerate(chosen):
        row, attempts = batch.rows[i], batch.episodes[i].attempts
        there[place, : len(attempts)] = True
        at = np.flatnonzero(row.written)
        wrote[place, row.attempt[at], len(row.prompt) + at - 1] = 1.0
        actions += range(first[i], first[i + 1])
        places += [place] * len(attempts)
        asked += [len(attempt.prompt) - 1 for attempt in attempts]
    whole = (torch.tensor(actions), ids, mask, wrote, there, torch.tensor(places), torch.tensor(asked))
    return Slice(*(tensor.to(device) for tensor in whole))


def judged(
    model: PreTrainedModel, head: ValueHead, part: Slice, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi and V of every attempt of a slice: two tensors (actions,), float32."""
    out = model(input_ids=part.ids, attention_mask=part.mask, use_cache=False, output_hidden_states=True)
    logp = torch.log_softmax(out.logits[:, :-1].float() / temperature, dim=-1)
    picked = logp.gather(-1, part.ids[:, 1:, None])[:, :, 0]
    summed = (picked[:, None] * part.wrote).sum(-1)[part.there]
    return summed, head(out.hidden_states[-1][part.row, part.asked])


# --- advantages and losses, one number per attempt


def advantages(paid: Sequence[Sequence[float]], values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """`gae` of every episode on its own; `values` has one number per attempt, episode after episode."""
    ends = np.cumsum([len(one) for one in paid])
    parts = np.split(values, ends[:-1])
    return np.concatenate([gae(one, value, gamma, lam) for one, value in zip(paid, parts, strict=True)])


def gae(paid: Sequence[float], values: Sequence[float] | np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantage estimates of an episode's attempts (Schulman et al. 2016); V after the last one is 0.

    A_t = sum_{s >= t} (gamma lam)^(s - t) (r_s + gamma V_{s+1} - V_s)

    >>> gae([-2.0, 5.0], [1.0, 3.0], 0.5, 1.0).tolist()
    [-0.5, 2.0]
    """
    made, later, after = np.zeros(len(paid)), 0.0, 0.0
    for t in reversed(range(len(paid))):
        later = paid[t] + gamma * after - values[t] + gamma * lam * later
        made[t], after = later, values[t]
    return made


def policy_loss(logp: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """-min(ratio A, clip(ratio) A): without gradient where the ratio has gone far enough in A's direction."""
    ratio = (logp - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def value_loss(value: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old) - R)^2): an iteration moves a value by little more than `clip`."""
    near = old + (value - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - returns) ** 2, (near - returns) ** 2)
