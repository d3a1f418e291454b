"""GRPO, RLOO and expert iteration: one loss, which differs in the weights of attempts only (`episodes.py`).

With w the weight of the attempt that wrote a token, ratio = p / p_old of the token, c = `clip_range`, and E episodes of
an iteration:

    loss = -sum over written tokens of min(ratio w, clip(ratio, 1 - c, 1 + c) w) / (E max_new_tokens)

This is TRL's `dr_grpo` loss: a constant normaliser, since dividing by lengths would weigh short episodes more. Of
expert iteration w is 1 for the attempt that solved and 0 for all others. Every epoch is one optimiser step over the
whole iteration, its gradient accumulated over slices of episodes of similar length, so that one long episode is not
everybody's padding. Episodes that weigh nothing are left out, which changes no gradient.

Processes that hold the weights together (FSDP) have a slice each at a time, as many to each: a layer that is shared is
put together by all of them at once.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from rlheals.engines import fsdp
from rlheals.training.rl.episodes import padded
from rlheals.training.rl.session import Batch, Session

Slice = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Token ids and mask, (rows, tokens); the weight of the token that follows, (rows, tokens - 1), 0 for feedback."""


def train(session: Session) -> None:
    """Play and learn until the session's last iteration."""
    session.begin()
    session.train(lambda batch: learn(session, batch))


def learn(session: Session, batch: Batch) -> float:
    """One iteration's epochs; returns the last gradient norm."""
    settings, model = session.settings, session.model
    clip, temperature = settings.used_clip_range, settings.sampling.temperature
    parts = slices(batch, settings.micro_batch_size, session.tokenizer.pad_token_id, model.device)
    parts = parts[fsdp.rank() :: fsdp.processes()]
    share = fsdp.processes() / (settings.episodes * settings.sampling.max_new_tokens)
    before: list[torch.Tensor] = []  # log-probabilities in the first epoch, of the weights that played
    norm = 0.0
    for epoch in range(settings.used_epochs):
        session.optimizer.zero_grad()
        for place, (ids, mask, weights) in enumerate(parts):
            logp = logprobs(model, ids, mask, weights != 0, temperature)
            if epoch == 0:
                before.append(logp.detach())
            ratio = (logp - before[place]).exp()
            gained = torch.minimum(ratio * weights, ratio.clamp(1 - clip, 1 + clip) * weights)
            (-gained.sum() * share).backward()  # gradients are means over processes
        norm = session.clip_gradient(batch)
        session.optimizer.step()
    return norm


def slices(batch: Batch, size: int, pad: int, device: torch.device) -> list[Slice]:
    """The episodes that weigh something in slices of at most `size`, short ones first; as many for every process.

    A process that would have none gets an episode that weighs nothing.
    """
    lengths = np.array([len(row.prompt) + len(row.completion) for row in batch.rows])
    idle = np.array([not weight.any() for weight in batch.weights])
    weigh, processes = int((~idle).sum()), fsdp.processes()
    count = max(1, -(-weigh // (size * processes))) * processes
    chosen = np.argsort(idle, kind="stable")[: max(count, weigh)]
    chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
    return [_slice(batch, part, pad, device) for part in np.array_split(chosen, count)]


def _slice(batch: Batch, chosen: np.ndarray, pad: int, device: torch.device) -> Slice:
    ids, mask = padded([batch.rows[i] for i in chosen], pad, device)
    weights = torch.zeros((len(ids), ids.shape[1] - 1))
    for place, i in enumerate(chosen):
        start, given = len(batch.rows[i].prompt) - 1, torch.from_numpy(batch.token_weights(i))
        weights[place, start : start + len(given)] = given
    return ids, mask, weights.to(device)


def logprobs(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, counted: torch.Tensor, temperature: float
) -> torch.Tensor:
    """log p of every token but the first where it is counted, 0 elsewhere: (rows, tokens - 1), float32."""
    first = int(
        counted.any(0).byte().argmax()
    )  # logits of what stands before, questions mostly, are not needed
    kept = ids.shape[1] - first
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
    logits = logits[:, :-1].float() / temperature
    labels = ids[:, 1 + first :].masked_fill(~counted[:, first:], -100)
    logp = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return torch.nn.functional.pad(logp.view(labels.shape), (first, 0))
