"""How a token is drawn: the temperature, noise that belongs to a sequence and a position, and what it picks."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from pydantic import Field

from rlheals.settings import Float, Int, Settings

LARGE_VOCABULARY, BLOCK = 4096, 512


class Sampling(Settings):
    """How the next token is drawn; temperature 0 is greedy.

    >>> Sampling(temperature=0).max_new_tokens
    28
    """

    temperature: Float = Field(0.7, ge=0, le=10, description="of the softmax; 0 takes the likeliest token")
    max_new_tokens: Int = Field(28, ge=1, le=4096, description="an answer longer than this is cut")


def uniforms(key: str, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on `key` and their position only (Philox, a counter-based generator).

    >>> bool((uniforms("seed 1/id/A-5-J-K/0/0", 5)[:3] == uniforms("seed 1/id/A-5-J-K/0/0", 3)).all())
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(count)


def draw(
    logits: torch.Tensor, noise: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token per row by inverting the cumulative distribution at `noise`, with its log-probability and the entropy.

    logits (rows, vocabulary), noise (rows,) in [0, 1) -> three tensors (rows,); float64 inside; entropy in nats, not
    finite where a logit is NaN or infinite (a logit of minus infinity is a token that never comes).
    """
    if logits.shape[-1] > LARGE_VOCABULARY:
        return _draw_by_blocks(logits.float() / (temperature or 1.0), noise, temperature == 0)
    logp = torch.log_softmax(logits.double() / (temperature or 1.0), dim=-1)
    p = logp.exp()
    if temperature == 0:
        token = logp.argmax(-1)
    else:
        cumulative = p.cumsum(-1)
        token = (cumulative <= noise[:, None] * cumulative[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
    entropy = -(p * logp.clamp(min=-1e4)).sum(-1)
    return token, logp.gather(-1, token[:, None])[:, 0], entropy


def _draw_by_blocks(
    logits: torch.Tensor, noise: torch.Tensor, greedy: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`draw` with nothing but sums in float64: no table of the vocabulary's size, cumulative sums within one block."""
    rows, size = logits.shape
    logp = torch.log_softmax(logits, dim=-1)
    p = logp.exp()
    entropy = -(p * logp.clamp(min=-1e4)).sum(-1, dtype=torch.float64)
    if greedy:
        token = logp.argmax(-1)
    else:
        blocks = torch.nn.functional.pad(p, (0, -size % BLOCK)).view(rows, -1, BLOCK)
        ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
        wanted = noise[:, None] * ends[:, -1:]
        block = (ends <= wanted).sum(-1, keepdim=True).clamp(max=ends.shape[-1] - 1)
        begun = torch.where(block > 0, ends.gather(-1, (block - 1).clamp(min=0)), 0.0)
        inside = blocks[torch.arange(rows, device=p.device), block[:, 0]].double().cumsum(-1)
        token = (block[:, 0] * BLOCK + (begun + inside <= wanted).sum(-1)).clamp(max=size - 1)
    return token, logp.gather(-1, token[:, None])[:, 0].double(), entropy
