"""GRPO, RLOO and rejection sampling by several processes that hold the weights together: the loss of `grpo.py`.

TRL's trainer deals out episodes before they are played and gathers them in its own way; here they are a session's,
as with one process. With w the weight of the attempt that wrote a token, ratio = p / p_old of the token, c =
`clip_range`, and E episodes of an update:

    loss = -sum over written tokens of min(ratio w, clip(ratio, 1 - c, 1 + c) w) / (E max_new_tokens)

Slices of episodes of similar length are dealt out to the processes, as many to each: a layer that is shared is put
together by all of them at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from rlheals.engines import fsdp as sharded
from rlheals.training.rl.session import Batch, Session


def train(session: Session) -> None:
    """Play and learn until the session's last update; `session.finish` is called at the end of each."""
    while session.done < session.settings.iterations:
        batch = session.play(session.done + 1)
        began = time.perf_counter()
        norm = learn(session, batch)
        session.finish(batch, norm, time.perf_counter() - began)


def learn(session: Session, batch: Batch) -> float:
    """One update's epochs; returns the last gradient norm, which is what TRL's trainer logs."""
    settings, model = session.settings, session.model
    clip, temperature = settings.used_clip_range, settings.sampling.temperature
    parts = slices(batch, settings.episodes // settings.micro_batch_size, session.tokenizer.pad_token_id)
    parts = [part.on(model.device) for part in parts[sharded.rank() :: sharded.processes()]]
    share = sharded.processes() / (settings.episodes * settings.sampling.max_new_tokens)

    before: list[torch.Tensor | None] = [None] * len(parts)
    if settings.used_epochs > 1:
        with torch.no_grad():
            before = [scored(model, part, temperature) for part in parts]
    norm = 0.0
    for _ in range(settings.used_epochs):
        session.optimizer.zero_grad()
        for part, old in zip(parts, before, strict=True):
            logp = scored(model, part, temperature)
            ratio = (logp - (logp.detach() if old is None else old)).exp()
            gained = torch.minimum(ratio * part.weights, ratio.clamp(1 - clip, 1 + clip) * part.weights)
            (-gained.sum() * share).backward()  # gradients are means over processes
        norm = session.clip_gradient(batch)
        session.optimizer.step()
    return norm


@dataclass(frozen=True)
class Slice:
    """Episodes of similar length. ids, mask: (rows, tokens), padded on the right; weights: (rows, tokens - 1), of the
    token that follows, 0 for what the model did not write."""

    ids: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor

    def on(self, device: torch.device) -> Slice:
        """The same on a device."""
        return Slice(self.ids.to(device), self.mask.to(device), self.weights.to(device))


def slices(batch: Batch, count: int, pad: int) -> list[Slice]:
    """The episodes of an update that weigh something (others only to make up `count`), short ones first."""
    lengths = np.array([len(row.prompt) + len(row.completion) for row in batch.rows])
    idle = np.array([not weight.any() for weight in batch.weights])
    weigh = np.argsort(idle, kind="stable")[: max(count, int((~idle).sum()))]
    order = weigh[np.argsort(lengths[weigh], kind="stable")]
    return [_slice(batch, chosen, int(lengths[chosen].max()), pad) for chosen in np.array_split(order, count)]


def _slice(batch: Batch, chosen: np.ndarray, longest: int, pad: int) -> Slice:
    ids = torch.full((len(chosen), longest), pad)
    mask = torch.zeros((len(chosen), longest), dtype=torch.long)
    weights = torch.zeros((len(chosen), longest - 1))
    for place, i in enumerate(chosen):
        row = batch.rows[i]
        tokens, start = [*row.prompt, *row.completion], len(row.prompt) - 1
        ids[place, : len(tokens)] = torch.tensor(tokens)
        mask[place, : len(tokens)] = 1
        weights[place, start : start + len(row.completion)] = torch.from_numpy(batch.token_weights(i))
    return Slice(ids, mask, weights)


def scored(model: PreTrainedModel, part: Slice, temperature: float) -> torch.Tensor:
    """log p of every token but the first: (rows, tokens - 1), float32."""
    logits = model(input_ids=part.ids, attention_mask=part.mask, use_cache=False).logits[:, :-1]
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    return logp.gather(-1, part.ids[:, 1:, None])[:, :, 0]
