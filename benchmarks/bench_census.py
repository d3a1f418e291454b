"""The census engine beside plain `model.generate`: `python benchmarks/bench_census.py [--rounds N] [--steps N]`.

Both continue the same prompts with the same weights and temperature; the peer is what one would write first: fixed
left-padded batches through transformers' own `generate`. Rounds alternate, and the ratio is taken within a round, so
that a busy machine slows both. Times are process times of one thread. A checkpoint is trained on the spot from the
shipped base, then its full census is timed, and other batch shapes are compared with the usual one: largest difference
of a log-probability, and tokens that differ. JSON comes last; exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.evaluation import evaluate
from rlheals.stage import Work
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import sft

ROWS = 64
SAMPLING = Sampling()
SHAPES = ((ROWS, 64), (1, 16), (16, 16), (128, 8), (ROWS, 1))
MOST_SECONDS, MOST_FLIPS_PER_TOKEN = 10.0, 1e-5


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7, help="rounds of both engines")
    arguments.add_argument("--steps", type=int, default=160, help="SFT steps of the checkpoint")
    arguments.add_argument("--prompts", type=int, default=256, help="prompts per round")
    arguments.add_argument(
        "--base", action="store_true", help="also time the base, whose every attempt fails"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint, training = trained(folder, options.steps)
        model, tokenizer = models.load(checkpoint), models.load_tokenizer(checkpoint)
        report: dict[str, Any] = {
            "machine": {"python": platform.python_version(), "torch": torch.__version__, "threads": 1},
            "checkpoint": {"sft_steps": options.steps, "train_process_seconds": round(training, 1)},
            "generation": generation(model, tokenizer, options.prompts, options.rounds),
            "census": {"trained": census(folder / "trained", checkpoint)},
            "batch_shapes": batch_shapes(model, tokenizer, options.prompts),
        }
        if options.base:
            report["census"]["base"] = census(folder / "untrained", models.SHIPPED_BASE)
    report["passed"] = bool(
        report["census"]["trained"]["process_seconds"] <= MOST_SECONDS
        and report["batch_shapes"]["flips"] <= MOST_FLIPS_PER_TOKEN * report["batch_shapes"]["tokens"]
    )
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def trained(folder: Path, steps: int) -> tuple[Path, float]:
    """The shipped base after so many SFT steps with the lab's settings, and the process time of that."""
    model = models.load(models.SHIPPED_BASE)
    dialect = Compact(models.load_tokenizer(models.SHIPPED_BASE))
    settings = sft.SFTSettings(checkpoints=(steps,))
    target = folder / "checkpoint"
    _, seconds = timed(
        lambda: sft.train(
            model, dialect, settings, 0, lambda step: models.save(target, model, dialect.tokenizer)
        )
    )
    return target, seconds


def questions(size: int) -> tuple[list[list[int]], list[str]]:
    """First-try prompts of ID and OOD hands, mixed, and a key for each."""
    task, dialect = GeneralPoints(), Compact()
    items = task.items("id") + task.items("ood")
    chosen = np.random.default_rng(0).permutation(len(items))[:size]
    return [dialect.prompt(items[i]) for i in chosen], [f"bench/{items[i].id}" for i in chosen]


def generation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, size: int, rounds: int
) -> dict[str, Any]:
    """Tokens per second of both, rounds alternating; tokens after the end token count for neither."""
    prompts, keys = questions(size)
    engine = HFEngine(model, tokenizer, rows=ROWS)

    def ours() -> int:
        return sum(len(made.tokens) for made in engine.generate(prompts, keys, SAMPLING))

    def plain() -> int:
        return sum(
            plain_generate(model, tokenizer, prompts[start : start + ROWS])
            for start in range(0, len(prompts), ROWS)
        )

    ours(), plain()
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds):
        pair: list[tuple[str, Callable[[], int]]] = [("ours", ours), ("plain", plain)]
        for name, call in pair if number % 2 == 0 else reversed(pair):
            tokens, seconds = timed(call)
            rates[name].append(tokens / seconds)
    ratios = [one / other for one, other in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "rounds": rounds,
        "prompts": size,
        "rows": ROWS,
        "tokens_per_second_ours": round(statistics.median(rates["ours"])),
        "tokens_per_second_generate": round(statistics.median(rates["plain"])),
        "ratio_to_generate_median": round(statistics.median(ratios), 2),
        "ratio_to_generate_lowest": round(min(ratios), 2),
        "ratio_to_generate_highest": round(max(ratios), 2),
        "only_ours": "log-probability and entropy of every token; noise by key, so no dependence on the batch",
    }


def plain_generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> int:
    """Number of tokens up to the end token that `model.generate` makes for one left-padded batch."""
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    settings = GenerationConfig(
        do_sample=True,
        temperature=SAMPLING.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=SAMPLING.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.inference_mode():
        made = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=settings
        )[:, batch["input_ids"].shape[1] :]
    return int((made != tokenizer.pad_token_id).sum())


def census(folder: Path, checkpoint: Path) -> dict[str, Any]:
    """The full census of a checkpoint, through the stage: 2,032 hands, up to five attempts, both protocols."""
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    settings = evaluate.EvaluateSettings(folder=checkpoint.name).model_dump(mode="json")
    work = Work(folder / "out", folder / "scratch", settings, 0, {"model": checkpoint.parent})
    _, seconds = timed(lambda: evaluate.run(work))
    summary = json.loads((folder / "out" / "summary.json").read_text())
    rows = pd.read_parquet(folder / "out" / "attempts.parquet", columns=["tokens"])
    return {
        "hands": len(pd.read_parquet(folder / "out" / "episodes.parquet", columns=["item"])),
        "attempts": len(rows),
        "tokens": int(rows["tokens"].sum()),
        "process_seconds": round(seconds, 2),
        "tokens_per_second": round(int(rows["tokens"].sum()) / seconds),
        "within_five": {name: round(part["within_five"], 3) for name, part in summary.items()},
    }


def batch_shapes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, size: int) -> dict[str, Any]:
    """The same prompts and keys in chunks of other shapes, token by token against the usual shape.

    A sequence is compared up to its first differing token, which counts as one flip. Log-probabilities are those of
    the softmax at the sampling temperature, so a difference of logits enters divided by it.
    """
    prompts, keys = questions(size)
    usual = HFEngine(model, tokenizer, rows=ROWS).generate(prompts, keys, SAMPLING)
    tokens = flips = 0
    largest = 0.0
    for rows, bucket in SHAPES:
        few = size if rows > 1 else size // 8
        other = HFEngine(model, tokenizer, rows, bucket).generate(prompts[:few], keys[:few], SAMPLING)
        for one, two in zip(usual, other, strict=False):
            agree = [a == b for a, b in zip(one.tokens, two.tokens, strict=False)]
            same = agree.index(False) if False in agree else len(agree)
            flips += same < len(agree)
            tokens += min(same + 1, len(agree))
            if same:
                largest = max(largest, float(np.abs(one.logprobs[:same] - two.logprobs[:same]).max()))
    return {
        "shapes": [f"{rows} rows, prompts padded to a multiple of {bucket}" for rows, bucket in SHAPES],
        "tokens": tokens,
        "flips": flips,
        "largest_logprob_difference": largest,
    }


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the process time in seconds."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
