"""Where the time of an RL update goes, beside TRL's generation: `python benchmarks/bench_rl.py [--rounds N]`.

A checkpoint is trained on the spot from the shipped base; from it, updates of 512 episodes are played and learnt from
through the stage, and the time of the last one is split into generating, grading, learning and the rest. The peer of
the rollout is TRL's GRPOTrainer without our `rollout_func`: the same first attempts (64 hands, 8 episodes each, one
turn) through its own generation; rounds alternate, and the ratio is taken within a round, so that a busy machine slows
both. Last, two such runs side by side are timed against one. Times of one process are process times of one thread,
those of two are wall times. JSON comes last; exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from rlheals.engines import models
from rlheals.engines.hf import HFEngine
from rlheals.stage import Work
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import sft
from rlheals.training.rl import grpo, session
from rlheals.training.rl import stage as rl
from rlheals.training.rl.settings import RLSettings

MOST_SECONDS = 10.0  # of an update
LEAST_RATIO = 0.6  # to the peer, which keeps no log-probabilities and draws in float32
Parts = dict[str, float]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5, help="rounds of both ways to generate")
    arguments.add_argument("--steps", type=int, default=640, help="SFT steps of the start")
    arguments.add_argument(
        "--updates", type=int, default=3, help="updates of a run; the last one is reported"
    )
    arguments.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    if options.child:
        print(json.dumps(walls(options.child, options.updates)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        begin(folder, options.steps)
        report: dict[str, Any] = {
            "machine": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "threads": 1,
                "cores": os.cpu_count(),
                "load_before": round(os.getloadavg()[0], 1),
            },
            "update": update(folder, options.updates),
            "first_attempts": first_attempts(folder, options.rounds),
            "processes": side_by_side(folder, options.updates),
        }
    report["passed"] = bool(
        report["update"]["process_seconds"] <= MOST_SECONDS
        and report["first_attempts"]["ratio_to_trl_median"] >= LEAST_RATIO
    )
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def begin(folder: Path, steps: int) -> None:
    """The inputs of a run: the shipped base, and what so many SFT steps with the lab's settings make of it."""
    model, dialect = models.load(models.SHIPPED_BASE), Compact()
    models.save(folder / "pretrain" / "base", model, dialect.tokenizer)
    sft.train(
        model,
        dialect,
        sft.SFTSettings(checkpoints=(steps,)),
        0,
        lambda step: models.save(folder / "sft" / "start", model, dialect.tokenizer),
    )


def work_of(folder: Path, name: str, updates: int, tick: Callable[[int, int, str], object]) -> Work:
    for part in ("out", "scratch"):
        (folder / name / part).mkdir(parents=True)
    settings = RLSettings(folder="start", checkpoints=(updates,)).model_dump(mode="json")
    inputs = {"model": folder / "sft", "base": folder / "pretrain"}
    return Work(folder / name / "out", folder / name / "scratch", settings, 1, inputs, tick)


@contextmanager
def timed_calls(parts: Parts, **calls: tuple[Any, str]) -> Iterator[None]:
    """Adds the process time spent in each of the named methods to `parts`."""

    def watching(name: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                parts[name] = parts.get(name, 0.0) + time.process_time() - began

        return call

    kept = {name: getattr(*where) for name, where in calls.items()}
    for name, (owner, method) in calls.items():
        setattr(owner, method, watching(name, kept[name]))
    try:
        yield
    finally:
        for name, (owner, method) in calls.items():
            setattr(owner, method, kept[name])


def update(folder: Path, updates: int) -> dict[str, Any]:
    """The last update of a run: its process time and where it went."""
    parts: Parts = {}
    marks: list[tuple[float, Parts]] = []

    def tick(done: int, total: int, unit: str) -> None:
        marks.append((time.process_time(), dict(parts)))

    with timed_calls(
        parts,
        generating=(HFEngine, "generate"),
        grading=(GeneralPoints, "grade"),
        playing=(session.Session, "play"),
        learning=(grpo, "learn"),
    ):
        rl.run(work_of(folder, "update", updates, tick))
    (start, before), (end, after) = marks[-2:]
    spent = {name: after[name] - before[name] for name in after}
    whole = end - start
    shares = {name: spent[name] for name in ("generating", "grading", "learning")}
    shares["rest"] = whole - sum(shares.values())
    log = pd.read_parquet(folder / "update" / "out" / "log.parquet").iloc[-1]
    return {
        "episodes": RLSettings().episodes,
        "attempts_per_episode": round(float(log["attempts"]), 2),
        "tokens_written": int(log["tokens"]),
        "process_seconds": round(whole, 2),
        "shares": {name: round(seconds / whole, 3) for name, seconds in shares.items()},
        "tokens_per_second_generating": round(float(log["tokens"]) / spent["generating"]),
        "tokens_per_second_rollout": round(float(log["tokens"]) / spent["playing"]),
        "peak_mb": round(float(log["peak_mb"])),
    }


def first_attempts(folder: Path, rounds: int) -> dict[str, Any]:
    """Tokens per second of the first attempts of an update: our engine, and TRL's own generation of one turn."""
    work = work_of(folder, "peer", 1, lambda *_: None)
    settings = RLSettings.model_validate(work.settings)
    ours = session.Session(work, settings)
    items = ours.items_of(1)
    prompts = [ours.dialect.prompt(item) for item in items]
    keys = [f"bench/{i}" for i in range(len(prompts))]
    trainer = GRPOTrainer(
        model=models.load(folder / "sft" / "start"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=str(folder / "peer" / "scratch"),
            per_device_train_batch_size=settings.episodes,
            num_generations=settings.group,
            max_completion_length=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": [""]}),
        processing_class=models.load_tokenizer(folder / "sft" / "start"),
    )
    trainer.remove_callback(PrinterCallback)

    def of_ours() -> int:
        return sum(len(made.tokens) for made in ours.engine.generate(prompts, keys, settings.sampling))

    def of_trl() -> int:
        written, _ = trainer._generate_single_turn(prompts, None, {}, settings.group)
        return sum(map(len, written))

    of_ours(), of_trl()
    rates: dict[str, list[float]] = {"ours": [], "trl": []}
    for number in range(rounds):
        pair = [("ours", of_ours), ("trl", of_trl)]
        for name, call in pair if number % 2 == 0 else reversed(pair):
            began = time.process_time()
            tokens = call()
            rates[name].append(tokens / (time.process_time() - began))
    ratios = [one / other for one, other in zip(rates["ours"], rates["trl"], strict=True)]
    return {
        "rounds": rounds,
        "prompts": len(prompts),
        "tokens_per_second_ours": round(statistics.median(rates["ours"])),
        "tokens_per_second_trl": round(statistics.median(rates["trl"])),
        "ratio_to_trl_median": round(statistics.median(ratios), 2),
        "ratio_to_trl_lowest": round(min(ratios), 2),
        "ratio_to_trl_highest": round(max(ratios), 2),
        "only_ours": "further attempts with feedback; log-probability and entropy of every token; noise by key",
    }


def walls(folder: Path, updates: int) -> list[float]:
    """Wall seconds of every update of a run but the first, which also warms up."""
    ends: list[float] = []
    name = f"child-{os.getpid()}"
    rl.run(work_of(folder, name, updates, lambda *_: ends.append(time.perf_counter())))
    return [later - sooner for sooner, later in pairwise(ends)]


def side_by_side(folder: Path, updates: int) -> dict[str, Any]:
    """Median wall seconds per update of one run alone, and of two runs at once, each in its own process."""

    def together(count: int) -> float:
        command = [sys.executable, __file__, "--child", str(folder), "--updates", str(updates)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        said = [child.communicate()[0] for child in running]
        if any(child.returncode for child in running):
            raise SystemExit("a run beside this one failed; see its message above")
        return statistics.median(second for text in said for second in json.loads(text.splitlines()[-1]))

    alone, both = together(1), together(2)
    return {
        "wall_seconds_per_update_alone": round(alone, 2),
        "wall_seconds_per_update_two_at_once": round(both, 2),
        "updates_per_second_of_two_to_one": round(2 * alone / both, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
