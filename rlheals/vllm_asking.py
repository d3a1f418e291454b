"""What both ways of asking vLLM share: the engine in this process (`vllm_engine`), and the server (`vllm_server`).

What is asked, what is refused, how vLLM is started, and how what it says becomes a `Generation`.
"""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rlheals import models
from rlheals.errors import BadInput
from rlheals.hf_engine import Generation, Past, Sampling, check_request

WHOLE = 512  # words; every generated token brings the whole distribution through lists of Python numbers
COOLEST = 0.01
CPU_CACHE_GB = 0.25
QUIET = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
"""Environment. Threads stay where OMP_NUM_THREADS and the caller put them."""


def started_with(
    config: Any, on_cpu: bool, rows: int, positions: int | None, cache_gb: float | None
) -> dict[str, Any]:
    """The settings that make vLLM say what an `Engine` says, by the names that its `LLM` gives them.

    rows: sequences that are continued at a time; positions: longest episode in tokens, None: what the model allows;
    cache_gb: memory for keys and values, None: 0.25 on a processor, and on a GPU what vLLM takes (nearly all of it).
    """
    cache_gb = CPU_CACHE_GB if cache_gb is None and on_cpu else cache_gb
    chosen: dict[str, Any] = {
        "load_format": "safetensors",  # "auto" would also read pickles
        "dtype": str(config.dtype or torch.float32).removeprefix("torch."),
        "max_model_len": positions,
        "max_num_seqs": rows,
        "max_logprobs": words(config),
        "logprobs_mode": "processed_logprobs",  # after the temperature: what is sampled from
        "generation_config": "vllm",  # no sampling defaults from the model's folder
        "enforce_eager": on_cpu,  # compiling takes a minute there and gains nothing
    }
    if cache_gb is not None:
        chosen["kv_cache_memory_bytes"] = int(cache_gb * 2**30)
    if on_cpu:  # a prompt read in pieces winds its generator back, which those of processors cannot
        chosen |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, positions or 0)}
    return chosen


def local(folder: str | Path) -> Path:
    """The folder of a model; of one on the hub ("owner/name"), its local copy."""
    if Path(folder).is_dir():
        return Path(folder)
    try:
        return Path(snapshot_download(str(folder), allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise BadInput(f"model {str(folder)!r}: {last_line(error)}") from error


def read_config(folder: Path) -> Any:
    """The configuration of a model in a folder."""
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BadInput(f"model {str(folder)!r}: {last_line(error)}") from error


def longest(config: Any) -> int | None:
    """How many positions a model has, where it says so."""
    return getattr(config, "max_position_embeddings", None)


def words(config: Any) -> int:
    """Log-probabilities asked for beside that of the token itself: all, or none."""
    size = int(config.get_text_config().vocab_size)
    return size if size <= WHOLE else 0


def refuse_unfit(config: Any, folder: Path, name: str) -> None:
    """BadInput when the tensors in a folder are not those of the architecture: vLLM would go on without some."""
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    models._check_keys(name, skeleton, models.tensor_shapes(folder))


class Asking(ABC):
    """An engine whose tokens vLLM makes, wherever it runs. positions: the longest episode in tokens, None: any."""

    tokenizer: PreTrainedTokenizerFast
    config: Any
    positions: int | None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        sampling: Sampling,
        pasts: Sequence[Past | None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt until its end token or `max_new_tokens`; the order of the results is that asked for."""
        check_request(prompts, keys, sampling, self.positions)
        size = self.config.get_text_config().vocab_size
        strange = next((token for prompt in prompts for token in prompt if not 0 <= token < size), None)
        if strange is not None:
            raise BadInput(f"token {strange} is not one of the model's {size}")
        if 0 < sampling.temperature < COOLEST:
            raise BadInput(
                f"temperature {sampling.temperature}: vLLM samples at {COOLEST} and above; 0 is greedy"
            )
        asked = [(prompt, self._asked(key, sampling)) for prompt, key in zip(prompts, keys, strict=True)]
        return self._continued(asked) if asked else []

    @abstractmethod
    def _continued(self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> list[Generation]:
        """Prompts, each with what is asked of it, continued."""

    def _asked(self, key: str, sampling: Sampling) -> dict[str, Any]:
        """What is asked of one prompt, by vLLM's names."""
        return {
            "temperature": sampling.temperature,
            "seed": seed(key),
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": [self.tokenizer.eos_token_id],
            "ignore_eos": True,  # a model's configuration may name other end tokens than the tokenizer does
            "logprobs": words(self.config),
        }

    @contextmanager
    def _alone(self, file: Path) -> Iterator[Path]:
        """A folder with the weights of a file and nothing else; BadInput when they are not of the model's shape."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "model.safetensors").symlink_to(file.resolve())
            refuse_unfit(self.config, folder, file.name)
            yield folder


def seed(key: str) -> int:
    """A seed of 63 bits that depends on the key only.

    >>> seed("1/id/A-5-J-K/0/0") == seed("1/id/A-5-J-K/0/1")
    False
    """
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def generation(tokens: Sequence[int], table: np.ndarray) -> Generation:
    """Of vLLM's answer: per token a row with its own log-probability first, then those of all words if asked for."""
    entropies = np.full(len(tokens), np.nan)
    if table.shape[1] > 1:
        whole = table[:, 1:].clip(min=-1e4)
        entropies = -(np.exp(whole) * whole).sum(1)
    return Generation(tuple(tokens), table[:, 0].copy(), entropies)


def last_line(error: Exception) -> str:
    """The line of an error that says what was wrong: vLLM's and torch's messages end with it."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
