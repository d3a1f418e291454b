"""Engines continue token sequences: `generate` gives tokens, log-probabilities and entropies; weights change in place.

Every sequence carries its own key. All its randomness is a counter-based stream of that key, and it is computed in a
chunk whose shape depends on its own length only. So at a fixed chunk shape the tokens of a sequence do not depend on
which other sequences are asked for, in which order, or whether a run was interrupted.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, StaticCache
from transformers.cache_utils import StaticLayer

from rlheals.engines import fsdp, models
from rlheals.errors import BadInput
from rlheals.settings import Float, Int, Settings

NOT_FINITE = (
    "the model's logits are not finite: its training has diverged, or its number format is too narrow for it "
    "(float16 overflows above 65504)"
)
SHORT_BUCKET, ROW_BUCKET = 4, 16
REMEMBERED_BYTES = 4096


class Sampling(Settings):
    """How the next token is drawn; temperature 0 is greedy.

    >>> Sampling(temperature=0).max_new_tokens
    28
    """

    temperature: Float = Field(0.7, ge=0, le=10, description="of the softmax; 0 takes the likeliest token")
    max_new_tokens: Int = Field(28, ge=1, le=4096, description="an answer longer than this is cut")


@dataclass(frozen=True)
class Past:
    """What an engine remembers of a sequence: its tokens, and their keys and values in consecutive pieces, each
    (2 * layers, heads, tokens, width)."""

    tokens: tuple[int, ...]
    states: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Generation:
    """One continuation. `tokens` ends with the end token unless it was cut; log-probabilities and entropies (nats)
    are those of the distribution that was sampled from (temperature 1 when greedy), one per token. `past` is what the
    engine remembers of the sequence; handed back with a longer prompt, only what is new has to be read."""

    tokens: tuple[int, ...]
    logprobs: np.ndarray
    entropies: np.ndarray
    past: Past | None = None


class Engine(Protocol):
    """What evaluation and RL need of a model."""

    tokenizer: PreTrainedTokenizerFast

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None] | None = None,
    ) -> list[Generation]: ...

    def load_weights(self, file: Path) -> None: ...


Opens = Callable[[Path, int], Engine]
"""Opens an engine: of a model's folder, with so many sequences at once."""


def uniforms(key: str, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on `key` and their position only (Philox, a counter-based generator).

    >>> bool((uniforms("seed 1/id/A-5-J-K/0/0", 5)[:3] == uniforms("seed 1/id/A-5-J-K/0/0", 3)).all())
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(count)


def check_request(
    prompts: Sequence[Sequence[int]], keys: Sequence[str], sampling: Sampling, positions: int | None
) -> None:
    """BadInput for what no engine can continue; positions: the longest episode in tokens, None: any."""
    if len(prompts) != len(keys):
        raise BadInput(f"{len(prompts)} prompts but {len(keys)} keys; every prompt needs its own key")
    if not all(prompts):
        raise BadInput("an empty prompt cannot be continued")
    longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
    if positions is not None and longest > positions:
        raise BadInput(f"an episode of {longest} tokens does not fit the model's {positions} positions")


class HFEngine:
    """Generation with transformers: left-padded chunks of a fixed number of rows, key-value cache, own sampling.

    rows: sequences per chunk (short chunks are filled up with copies, so that every chunk has the same shape);
    bucket: prompt lengths are padded to a multiple of this;
    fill: with False a short chunk is rounded up to 16 rows only: less work, but the last bits depend on the company;
    remember: hand out pasts. By default when a token's keys and values take at most 4 KiB: the 512 episodes that a
    census has in flight would need gigabytes with a language model of half a billion parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        rows: int = 128,
        bucket: int = 16,
        remember: bool | None = None,
        fill: bool = True,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.rows = rows
        self.bucket = bucket
        self.fill = fill
        self.remember = _bytes_per_token(model) <= REMEMBERED_BYTES if remember is None else remember
        self._memory = torch.empty(0, dtype=model.dtype, device=model.device)

    def load_weights(self, file: Path) -> None:
        """Replace the weights in place by those of a safetensors file with the same names and shapes."""
        models.load_weights(self.model, file)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt until its end token or `max_new_tokens`; the order of the results is that asked for.

        pasts: what earlier generations remember of the beginnings of these prompts, under the same weights.
        """
        pasts = [None] * len(prompts) if pasts is None else pasts
        check_request(prompts, keys, sampling, getattr(self.model.config, "max_position_embeddings", None))

        def made(rows: int) -> list[Generation]:
            if rows < self.rows:
                self._memory = torch.empty(0, dtype=self.model.dtype, device=self.model.device)
            self.rows = rows
            return self._generate(prompts, keys, sampling, pasts)

        return models.retry_on_out_of_memory(made, self.rows, self.rows, "rows at once")

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None],
    ) -> list[Generation]:
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, (prompt, past) in enumerate(zip(prompts, pasts, strict=True)):
            by_shape.setdefault(self._shape(prompt, past), []).append(index)
        results: list[Generation | None] = [None] * len(prompts)
        for (known, new), indices in sorted(by_shape.items()):
            for at in range(0, len(indices), self.rows):
                chosen = indices[at : at + self.rows]
                chunk = _Chunk(self, [prompts[i] for i in chosen], [pasts[i] for i in chosen], known, new)
                made = chunk.generate([keys[i] for i in chosen], sampling)
                for index, generation in zip(chosen, made, strict=True):
                    results[index] = generation
        return [generation for generation in results if generation is not None]

    def workspace(self, *shape: int) -> torch.Tensor:
        """Zeros for one chunk's keys and values; the memory is used again, since fresh pages cost more than zeroing."""
        size = math.prod(shape)
        if self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=self.model.dtype, device=self.model.device)
        return self._memory[:size].view(shape).zero_()

    def _shape(self, prompt: Sequence[int], past: Past | None) -> tuple[int, int]:
        """Columns of a chunk for what is remembered and for what is read of a prompt: a function of its own lengths."""
        known = 0 if past is None else len(past.tokens)
        if past is not None and (known >= len(prompt) or past.tokens != tuple(prompt[:known])):
            raise BadInput("a remembered sequence is not the beginning of its prompt")
        fresh = _padded(len(prompt) - known, SHORT_BUCKET)
        if past is None or fresh >= len(prompt):
            return 0, _padded(len(prompt), self.bucket)
        return _padded(len(prompt) - fresh, self.bucket), fresh


def open_engine(folder: str | Path, rows: int = 128, fill: bool = True) -> HFEngine:
    """The engine for a local folder, or a hub id, on the GPU if there is one."""
    return HFEngine(models.load(folder, models.device()), models.load_tokenizer(folder), rows, fill=fill)


def refresh(engine: Engine, model: PreTrainedModel) -> None:
    """Give an engine the weights of a model in training, through a safetensors file that is deleted again.

    Processes that hold the model together call this together: one file for all of them.
    """
    weights = fsdp.whole(model) if fsdp.processes() > 1 else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(fsdp.of_first(scratch))
        if fsdp.rank() == 0:
            models.save(folder, model, weights=weights)
        fsdp.wait()
        engine.load_weights(folder / "model.safetensors")
        fsdp.wait()


class _Chunk:
    """A batch of a fixed shape: left-padded prompts, of which the first `known` columns come from pasts."""

    def __init__(
        self,
        engine: HFEngine,
        prompts: list[Sequence[int]],
        pasts: list[Past | None],
        known: int,
        fresh: int,
    ) -> None:
        self.engine, self.prompts = engine, prompts
        self.pasts = pasts if known else [None] * len(pasts)
        self.known, self.width, self.real = known, known + fresh, len(prompts)
        self.rows = engine.rows if engine.fill else min(engine.rows, _padded(self.real, ROW_BUCKET))
        ids = torch.full((self.rows, self.width), engine.tokenizer.pad_token_id)
        self.mask = torch.zeros((self.rows, self.width), dtype=torch.long)
        for row in range(self.rows):
            prompt = prompts[row if row < self.real else 0]
            ids[row, self.width - len(prompt) :] = torch.tensor(prompt)
            self.mask[row, self.width - len(prompt) :] = 1
        self.ids = ids[:, known:]

    @torch.inference_mode()
    def generate(self, keys: list[str], sampling: Sampling) -> list[Generation]:
        model, count = self.engine.model, sampling.max_new_tokens
        device, rows, end = model.device, self.rows, self.engine.tokenizer.eos_token_id
        mask = torch.nn.functional.pad(self.mask, (0, count), value=1).to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        noise = torch.zeros((rows, count), dtype=torch.float64)
        if sampling.temperature > 0:
            noise[: self.real] = torch.from_numpy(np.stack([uniforms(key, count) for key in keys]))
        noise = noise.to(device)
        alive = torch.arange(rows, device=device) < self.real
        cache, states = self._cache(self.width + count)
        step, seen, width = self.ids.to(device), self.known, self.width
        tokens, logprobs, entropies = [], [], []
        for position in range(count):
            logits = model(
                input_ids=step,
                attention_mask=mask[:, :width],
                position_ids=positions[:, seen:width],
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
            step, seen, width = token[:, None], width, width + 1
        tables = [torch.stack(part, 1).cpu().numpy() for part in (tokens, logprobs, entropies)]
        return [self._generation(row, tables, end, states) for row in range(self.real)]

    def _cache(self, length: int) -> tuple[StaticCache, torch.Tensor]:
        """A cache that begins with what is remembered, and the tensor below it.

        The tensor holds keys and values: (2 * layers, rows, heads, length, width).
        """
        model = self.engine.model
        config = model.config.get_text_config()
        heads, width = _cache_shape(config)
        states = self.engine.workspace(2 * config.num_hidden_layers, self.rows, heads, length, width)
        for row, past in enumerate(self.pasts):
            at = self.width - len(self.prompts[row])
            for piece in () if past is None else past.states:
                stop = min(at + piece.shape[2], self.known)
                states[:, row, :, at:stop] = piece[:, :, : stop - at]
                at = stop
        cache = StaticCache(config=config, max_cache_len=length)
        cache.early_initialization(1, heads, width, model.dtype, model.device)
        for index, layer in enumerate(cache.layers):
            assert isinstance(layer, StaticLayer)
            layer.keys, layer.values = states[2 * index], states[2 * index + 1]
            layer.cumulative_length.fill_(self.known)
        return cache, states

    def _generation(self, row: int, tables: list[np.ndarray], end: int, states: torch.Tensor) -> Generation:
        written, logprobs, entropies = (table[row] for table in tables)
        stops = np.flatnonzero(written == end)
        n = int(stops[0]) + 1 if len(stops) else len(written)
        if not np.isfinite(entropies[:n]).all():
            raise BadInput(NOT_FINITE)
        tokens = tuple(written[:n].tolist())
        past = self._past(row, tokens, states) if self.engine.remember else None
        return Generation(tokens, logprobs[:n], entropies[:n], past)

    def _past(self, row: int, written: tuple[int, ...], states: torch.Tensor) -> Past:
        """What is remembered of a row now: all but the last token, of which there are no keys and values yet."""
        before, prompt = self.pasts[row], self.prompts[row]
        known = 0 if before is None else len(before.tokens)
        start, stop = self.width - len(prompt) + known, self.width + len(written) - 1
        pieces = () if before is None else before.states
        return Past((*prompt, *written[:-1]), (*pieces, states[:, row, :, start:stop].clone()))


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _cache_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Key-value heads and their width."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _bytes_per_token(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    heads, width = _cache_shape(config)
    return 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize


def draw(
    logits: torch.Tensor, noise: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token per row by inverting the cumulative distribution at `noise`, with its log-probability and the entropy.

    logits (rows, vocabulary), noise (rows,) in [0, 1) -> three tensors (rows,); float64 inside; entropy in nats, not
    finite where a logit is NaN or infinite (a logit of minus infinity is a token that never comes).
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
