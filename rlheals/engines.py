"""Engines continue token sequences: `generate` gives tokens, log-probabilities and entropies; weights change in place.

Every sequence carries its own key. All its randomness is a counter-based stream of that key, and it is computed in a
chunk whose shape depends on its own length only. So at a fixed chunk shape the tokens of a sequence do not depend on
which other sequences are asked for, in which order, or whether a run was interrupted.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerFast, StaticCache

from rlheals import models
from rlheals.errors import BadInput
from rlheals.settings import Float, Int, Settings


class Sampling(Settings):
    """How the next token is drawn; temperature 0 is greedy.

    >>> Sampling(temperature=0).max_new_tokens
    28
    """

    temperature: Float = Field(
        0.7, ge=0, le=10, description="softmax temperature; 0 takes the likeliest token"
    )
    max_new_tokens: Int = Field(28, ge=1, le=4096, description="an answer longer than this is cut")


@dataclass(frozen=True)
class Generation:
    """One continuation. `tokens` ends with the end token unless it was cut; log-probabilities and entropies (nats)
    are those of the distribution that was sampled from (temperature 1 when greedy), one per token."""

    tokens: tuple[int, ...]
    logprobs: np.ndarray
    entropies: np.ndarray


class Engine(Protocol):
    """What evaluation and RL need of a model."""

    tokenizer: PreTrainedTokenizerFast

    def generate(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[str], sampling: Sampling
    ) -> list[Generation]: ...

    def load_weights(self, file: Path) -> None: ...


def uniforms(key: str, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on `key` and their position only (Philox, a counter-based generator).

    >>> bool((uniforms("seed 1/id/A-5-J-K/0/0", 5)[:3] == uniforms("seed 1/id/A-5-J-K/0/0", 3)).all())
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(count)


class HFEngine:
    """Generation with transformers: left-padded chunks of a fixed number of rows, key-value cache, own sampling.

    rows: sequences per chunk (short chunks are filled up with copies, so that every chunk has the same shape);
    bucket: prompt lengths are padded to a multiple of this.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        rows: int = 64,
        bucket: int = 16,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.rows = rows
        self.bucket = bucket

    def load_weights(self, file: Path) -> None:
        """Replace the weights in place by those of a safetensors file with the same names and shapes."""
        models.load_weights(self.model, file)

    def generate(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[str], sampling: Sampling
    ) -> list[Generation]:
        """Continue every prompt until its end token or `max_new_tokens`; the order of the results is that asked for."""
        if len(prompts) != len(keys):
            raise BadInput(f"{len(prompts)} prompts but {len(keys)} keys; every prompt needs its own key")
        if not all(prompts):
            raise BadInput("an empty prompt cannot be continued")
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_length.setdefault(-(-len(prompt) // self.bucket) * self.bucket, []).append(index)
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
        if limit is not None and longest > limit:
            raise BadInput(f"an episode of {longest} tokens does not fit the model's {limit} positions")
        results: list[Generation | None] = [None] * len(prompts)
        for length, indices in sorted(by_length.items()):
            for at in range(0, len(indices), self.rows):
                chunk = indices[at : at + self.rows]
                made = self._chunk([prompts[i] for i in chunk], [keys[i] for i in chunk], length, sampling)
                for index, generation in zip(chunk, made, strict=True):
                    results[index] = generation
        return [generation for generation in results if generation is not None]

    @torch.inference_mode()
    def _chunk(
        self, prompts: list[Sequence[int]], keys: list[str], length: int, sampling: Sampling
    ) -> list[Generation]:
        device, real = self.model.device, len(prompts)
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        ids = torch.full((self.rows, length), pad)
        mask = torch.zeros((self.rows, length + sampling.max_new_tokens), dtype=torch.long)
        mask[:, length:] = 1
        for row in range(self.rows):
            prompt = torch.tensor(prompts[row] if row < real else prompts[0])
            ids[row, -len(prompt) :] = prompt
            mask[row, length - len(prompt) : length] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        noise = torch.zeros((self.rows, sampling.max_new_tokens), dtype=torch.float64)
        if sampling.temperature > 0:
            noise[:real] = torch.from_numpy(
                np.stack([uniforms(key, sampling.max_new_tokens) for key in keys])
            )
        noise = noise.to(device)
        alive = torch.arange(self.rows, device=device) < real
        cache = StaticCache(config=self.model.config, max_cache_len=length + sampling.max_new_tokens)
        step, width = ids, length
        tokens, logprobs, entropies = [], [], []
        for position in range(sampling.max_new_tokens):
            logits = self.model(
                input_ids=step,
                attention_mask=mask[:, :width],
                position_ids=positions[:, width - step.shape[1] : width],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            token, logprob, entropy = draw(logits, noise[:, position], sampling.temperature)
            tokens.append(token)
            logprobs.append(logprob)
            entropies.append(entropy)
            alive = alive & (token != end)
            if not alive.any():
                break
            step, width = token[:, None], width + 1
        table = torch.stack(tokens, 1).cpu().numpy()
        log_table = torch.stack(logprobs, 1).cpu().numpy()
        entropy_table = torch.stack(entropies, 1).cpu().numpy()
        made = []
        for row in range(real):
            stops = np.flatnonzero(table[row] == end)
            n = int(stops[0]) + 1 if len(stops) else table.shape[1]
            made.append(
                Generation(tuple(table[row, :n].tolist()), log_table[row, :n], entropy_table[row, :n])
            )
        return made


def draw(
    logits: torch.Tensor, noise: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token per row by inverting the cumulative distribution at `noise`, with its log-probability and the entropy.

    logits (rows, vocabulary), noise (rows,) in [0, 1) -> three tensors (rows,); float64 inside; entropy in nats.
    """
    logp = torch.log_softmax(logits.double() / (temperature or 1.0), dim=-1)
    p = logp.exp()
    if temperature == 0:
        token = logp.argmax(-1)
    else:
        cumulative = p.cumsum(-1)
        token = (cumulative <= noise[:, None] * cumulative[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
    entropy = -(p * logp.clamp(min=-1e4)).sum(-1)
    return token, logp.gather(-1, token[:, None])[:, 0], entropy


def load_engine(model_or_folder: PreTrainedModel | str | Path, backend: Literal["hf"] = "hf") -> HFEngine:
    """An engine for a model object's folder, a local folder, or a hub id ("owner/name")."""
    if backend != "hf":
        raise BadInput(f"backend {backend!r} is not known; accepted: 'hf'")
    if isinstance(model_or_folder, PreTrainedModel):
        raise BadInput(
            "load_engine takes a folder or hub id; for a model in memory use HFEngine(model, tokenizer)"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return HFEngine(models.load(model_or_folder, device), models.load_tokenizer(model_or_folder))
