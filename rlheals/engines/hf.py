"""Engines continue token sequences: `generate` gives tokens, log-probabilities and entropies; weights change in place.

Every sequence carries its own key. All its randomness is a counter-based stream of that key, and it is computed in a
chunk whose width depends on its own length only. So the tokens of a sequence do not depend on which other sequences are
asked for, in which order, or whether a run was interrupted. Where the products of a machine give a row the same numbers
whatever stands beside it, from 16 rows up (`rows_alike`, tried on the model itself), chunks hold only rows that are
needed, and rows that have ended leave; elsewhere every chunk keeps its full number of rows.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
LARGE_VOCABULARY, BLOCK = 4096, 512


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
    (2 * layers, heads, tokens, width). shared: by all prompts that begin so."""

    tokens: tuple[int, ...]
    states: tuple[torch.Tensor, ...]
    shared: bool = False


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
        beginning: Sequence[int] = (),
    ) -> list[Generation]: ...

    def load_weights(self, file: Path) -> None: ...


Opens = Callable[[Path, int, models.Precision], Engine]
"""Opens an engine: of a model's folder, with so many sequences at once, and products in a number format."""


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

    rows: sequences per chunk at most; bucket: prompt lengths are padded to a multiple of this;
    remember: return the key-value caches as pasts. By default if a token's keys and values take at most 4 KiB: the 512
    episodes that a census has in flight would need gigabytes with a language model of half a billion parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        rows: int = 128,
        bucket: int = 16,
        remember: bool | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.rows = rows
        self.bucket = bucket
        self.remember = _bytes_per_token(model) <= REMEMBERED_BYTES if remember is None else remember
        self._memory = torch.empty(0, dtype=model.dtype, device=model.device)

    @cached_property
    def alike(self) -> bool:
        """`rows_alike` of this model, tried once."""
        return rows_alike(self.model, self.rows)

    def load_weights(self, file: Path) -> None:
        """Replace the weights in place by those of a safetensors file with the same names and shapes."""
        models.load_weights(self.model, file)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None] | None = None,
        beginning: Sequence[int] = (),
    ) -> list[Generation]:
        """Continue every prompt until its end token or `max_new_tokens`; results come in the order of the prompts.

        pasts: what earlier generations remember of the beginnings of these prompts, under the same weights.
        beginning: tokens that prompts have in common; they are read once, for those that begin so and have no past. It
        is for the caller to say, since what is read apart must not depend on which prompts are asked for together.
        """
        pasts = [None] * len(prompts) if pasts is None else pasts
        check_request(prompts, keys, sampling, getattr(self.model.config, "max_position_embeddings", None))

        def made(rows: int) -> list[Generation]:
            if rows < self.rows:
                self._memory = torch.empty(0, dtype=self.model.dtype, device=self.model.device)
            self.rows = rows
            return self._generate(prompts, keys, sampling, self._begun(prompts, pasts, tuple(beginning)))

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

    @torch.inference_mode()
    def _begun(
        self, prompts: Sequence[Sequence[int]], pasts: Sequence[Past | None], beginning: tuple[int, ...]
    ) -> Sequence[Past | None]:
        """The pasts, with that of the beginning in every place where there was none and the prompt goes on from it."""
        size = len(beginning)
        if size < self.bucket:
            return pasts
        fits = [
            past is None and len(p) > size and tuple(p[:size]) == beginning
            for p, past in zip(prompts, pasts, strict=True)
        ]
        if not any(fits):
            return pasts
        ids = torch.tensor([beginning], device=self.model.device)
        cache = self.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        config = self.model.config.get_text_config()
        heads, width = _cache_shape(config)
        states = torch.zeros(
            (2 * config.num_hidden_layers, heads, size, width),
            dtype=self.model.dtype,
            device=self.model.device,
        )
        for index, layer in enumerate(cache.layers):
            if layer.keys is not None:  # of attention to pictures there is nothing
                states[2 * index], states[2 * index + 1] = layer.keys[0], layer.values[0]
        shared = Past(beginning, (states,), shared=True)
        return [shared if fit else past for fit, past in zip(fits, pasts, strict=True)]

    def workspace(self, *shape: int) -> torch.Tensor:
        """Zeros for one chunk's keys and values; the memory is used again, since fresh pages cost more than zeroing."""
        size = math.prod(shape)
        if self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=self.model.dtype, device=self.model.device)
        return self._memory[:size].view(shape).zero_()

    def _shape(self, prompt: Sequence[int], past: Past | None) -> tuple[int, int]:
        """Columns of a chunk for what is remembered and for what is read of a prompt: a function of its own lengths."""
        known = 0 if past is None else len(past.tokens)
        if past is not None and past.shared:
            return known, _padded(len(prompt), self.bucket) - known
        if past is not None and (known >= len(prompt) or past.tokens != tuple(prompt[:known])):
            raise BadInput("a remembered sequence is not the beginning of its prompt")
        fresh = _padded(len(prompt) - known, SHORT_BUCKET)
        if past is None or fresh >= len(prompt):
            return 0, _padded(len(prompt), self.bucket)
        return _padded(len(prompt) - fresh, self.bucket), fresh


def open_engine(folder: str | Path, rows: int = 128, precision: models.Precision = "own") -> HFEngine:
    """The engine for a local folder, or a hub id, on the GPU if there is one."""
    model = models.load(folder, models.device(), models.DTYPES[precision])
    return HFEngine(model, models.load_tokenizer(folder), rows)


@torch.inference_mode()
def rows_alike(model: PreTrainedModel, rows: int) -> bool:
    """Whether this machine computes a row with 15 others or more as it does with all, to the last bit.

    Tried with one token per row and with several, for the first, the last, and every other number of `ROW_BUCKET` rows.
    """
    vocabulary = model.config.get_text_config().vocab_size
    random = torch.Generator().manual_seed(0)
    for length in (1, 5):
        ids = torch.randint(vocabulary, (rows, length), generator=random).to(model.device)
        every = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        for count in range(ROW_BUCKET, rows, 2 * ROW_BUCKET):
            for part in (slice(0, count), slice(rows - count, rows)):
                if not torch.equal(
                    model(input_ids=ids[part], use_cache=False, logits_to_keep=1).logits, every[part]
                ):
                    return False
    return True


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
        self.rows = min(engine.rows, _padded(self.real, ROW_BUCKET)) if engine.alike else engine.rows
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
        here = torch.arange(rows, device=device)  # the rows that are still computed
        alive = here < self.real
        cache, states = self._cache(self.width + count)
        step, seen, width = self.ids.to(device), self.known, self.width
        tokens = torch.full((rows, count), end, device=device)
        numbers = torch.zeros((2, rows, count), dtype=torch.float64, device=device)
        made: dict[int, Generation] = {}

        def leave(at: torch.Tensor) -> None:
            """Rows by their place in the cache are done, or nobody asked for them."""
            written, others = tokens.cpu().numpy(), numbers.cpu().numpy()
            for place in at.tolist():
                row = int(here[place])
                if row < self.real:
                    made[row] = self._generation(row, written[row], others[:, row], end, states[:, place])

        for position in range(count):
            logits = model(
                input_ids=step,
                attention_mask=mask[:, :width],
                position_ids=positions[:, seen:width],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            token, *found = draw(logits, noise[:, position], sampling.temperature)
            tokens[here, position] = token
            numbers[:, here, position] = torch.stack(found)
            alive = alive & (token != end)
            if not alive.any():
                break
            left = _padded(int(alive.sum()), ROW_BUCKET)
            if self.engine.alike and 2 * left <= len(here):
                order = torch.argsort(
                    ~alive, stable=True
                )  # the living first, some that have ended to fill up
                leave(order[left:])
                stay = order[:left].sort().values
                states[:, :left] = states[:, stay]
                states = states[:, :left]
                for index, layer in enumerate(cache.layers):
                    assert isinstance(layer, StaticLayer)
                    layer.keys, layer.values = states[2 * index], states[2 * index + 1]
                here, alive, token = here[stay], alive[stay], token[stay]
                mask, positions, noise = mask[stay], positions[stay], noise[stay]
            step, seen, width = token[:, None], width, width + 1
        leave(torch.arange(len(here)))
        return [made[row] for row in range(self.real)]

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

    def _generation(
        self, row: int, written: np.ndarray, numbers: np.ndarray, end: int, states: torch.Tensor
    ) -> Generation:
        """numbers: log-probabilities and entropies; states: keys and values of the row."""
        stops = np.flatnonzero(written == end)
        n = int(stops[0]) + 1 if len(stops) else len(written)
        if not np.isfinite(numbers[1, :n]).all():
            raise BadInput(NOT_FINITE)
        tokens = tuple(written[:n].tolist())
        past = self._past(row, tokens, states) if self.engine.remember else None
        return Generation(tokens, numbers[0, :n].copy(), numbers[1, :n].copy(), past)

    def _past(self, row: int, written: tuple[int, ...], states: torch.Tensor) -> Past:
        """What is remembered of a row now: all but the last token, of which there are no keys and values yet."""
        before, prompt = self.pasts[row], self.prompts[row]
        known = 0 if before is None else len(before.tokens)
        start, stop = self.width - len(prompt) + known, self.width + len(written) - 1
        pieces = () if before is None else before.states
        return Past((*prompt, *written[:-1]), (*pieces, states[:, :, start:stop].clone()))


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
