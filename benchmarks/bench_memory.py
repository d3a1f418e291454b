"""The memory that `rlheals doctor --profile` foresees, beside what a stage took: `python benchmarks/bench_memory.py`.

A model of Qwen2's make with random weights goes through SFT, a census and RL, every stage in a process of its own, in
several settings. Measured is the most that torch had allocated at once, on the GPU, or without one on the processor.
Foreseen is the arithmetic of `rlheals.planning.budget` less its allowance for a GPU's context, with questions and
answers as long as this tokenizer makes them. The score is foreseen / measured: below 1, a run that should fit would
not; far above
1, one that would fit is refused. The arithmetic is that of GPUs; on a processor TRL's output head scores every position
instead of those that are learnt from, so that SFT takes more there. JSON comes last; exit status 1 when a score on a
GPU is below 0.9.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from rlheals.chapters.rl.runs import plan
from rlheals.engines import models
from rlheals.evaluation.dialects import dialect_for
from rlheals.planning.budget import EMPTY, budget
from rlheals.profiles.hardware import Hardware, Shape
from rlheals.profiles.profile import Profile
from rlheals.stage import no_tick
from rlheals.store.machine import this_machine
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study.jobs import run_unit
from rlheals.tasks.general_points.task import GeneralPoints

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tiny_models

SHAPE = Shape(hidden=256, layers=4, kv_width=128, mlp=768, vocabulary=16_000, tied=True, bias=True)
SIZES = {
    "hidden_size": SHAPE.hidden, "intermediate_size": SHAPE.mlp, "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.hidden // 64, "num_key_value_heads": SHAPE.kv_width // 64,
    "vocab_size": SHAPE.vocabulary, "max_position_embeddings": 4096,
}  # fmt: skip
"""The same for transformers; the vocabulary is larger than the tokenizer's, as Qwen's own is."""
LOWEST = 0.9
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "float32": {"model": {"dtype": "float32"}},
    "float32, recomputed": {
        "model": {"dtype": "float32"}, "sft": {"gradient_checkpointing": True}, "rl": {"gradient_checkpointing": True},
    },
    "bfloat16": {"model": {"dtype": "bfloat16"}},
    "float32, more rows": {
        "model": {"dtype": "float32"}, "sft": {"micro_batch_size": 16}, "evaluate": {"rows": 16},
        "rl": {"micro_batch_size": 4, "play_rows": 16},
    },
    "float32, KL logged": {"model": {"dtype": "float32"}, "rl": {"log_kl": True}},
}  # fmt: skip


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--unit", nargs=2, metavar=("SPEC", "STORE"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.unit:
        print(measured(RunSpec.model_validate_json(options.unit[0]), Store(options.unit[1])))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_models.folder(Path(scratch) / "model", "qwen2", tied=SHAPE.tied, **SIZES)
        found = [row for name in CASES for row in case(name, folder)]
    report = {
        "machine": {**this_machine().model_dump(mode="json"), "torch": torch.__version__,
                    "load_before": round(os.getloadavg()[0], 1)},
        "weights": SHAPE.parameters,
        "rows": found,
        "passed": not torch.cuda.is_available() or all(row["score"] >= LOWEST for row in found),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def case(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """SFT, a census and RL of the model in a folder, in these settings."""
    profile, store = profile_of(folder, CASES[name]), Store(folder.parent / name.replace(" ", "-"))
    made = plan(profile, 1, store)
    assert sum(math.prod(shape) for shape in models.tensor_shapes(folder).values()) == SHAPE.parameters
    (reinforced,) = made.runs.values()
    asked = next(iter(made.censuses.values()))
    foreseen = budget(profile).stages
    run_unit(made.before.base, store, lambda line: None, no_tick)
    for stage, spec in (("sft", made.before.sft), ("census", asked), ("rl", reinforced)):
        command = [sys.executable, __file__, "--unit", spec.model_dump_json(), str(store.root)]
        took = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        wanted = foreseen[stage].memory - EMPTY
        row = {
            "settings": name, "stage": stage, "foreseen_mb": round(wanted / 1e6),
            "measured_mb": round(took / 1e6), "score": round(wanted / took, 2),
        }  # fmt: skip
        print(row, file=sys.stderr)
        yield row


def profile_of(folder: Path, changes: dict[str, dict[str, Any]]) -> Profile:
    """A small study of that model: two steps of SFT, one census, two updates of RL."""
    prompt, answer, feedback = lengths(folder)
    sampling = {"max_new_tokens": 64}
    groups: dict[str, Any] = {
        "model": {"name": str(folder)},
        "sft": {"checkpoints": (0, 2), "batch": 16, "micro_batch_size": 8, "loss_examples": 4},
        "evaluate": {"splits": ("ood",), "hands": 16, "rows": 8, "attempts": 2, "sampling": sampling},
        "rl": {
            "checkpoints": (2,), "episodes": 16, "group": 4, "micro_batch_size": 2, "play_rows": 8, "attempts": 2,
            "sampling": {"temperature": 1.0, **sampling}, "log_kl": False, "loss_examples": 4,
        },
    }  # fmt: skip
    groups = {key: group | changes.get(key, {}) for key, group in groups.items()}
    return Profile.model_validate({
        "name": "memory", "shape": SHAPE, "seeds": (1,), "shipped_base": False, "evaluated": (0, 2),
        "hardware": Hardware(
            gpu="L4", hours=1, prompt_tokens=prompt, answer_tokens=answer, feedback_tokens=feedback
        ),
        "rl_starts": {"starts": (2,), "runs": 1, "decodes": 1, "rl": groups.pop("rl")},
        **groups,
    })  # fmt: skip


def lengths(folder: Path) -> tuple[int, int, int]:
    """Tokens of a question, of an expert's answer, and of a feedback turn, at most, as this tokenizer cuts them."""
    task = GeneralPoints()
    dialect = dialect_for(models.load_tokenizer(folder), task)
    items = task.items("sft")[::50]
    prompts = [len(dialect.prompt(item)) for item in items]
    answers = [len(dialect.reply(task.expert(item))) for item in items]
    wrong = task.grade(items[0], "no answer")
    return max(prompts), max(answers), len(dialect.retry([], wrong))


def measured(spec: RunSpec, store: Store) -> float:
    """Bytes that torch has allocated at most while one unit is computed."""
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        run_unit(spec, store, lambda line: None, no_tick)
        return float(torch.cuda.max_memory_allocated())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run_unit(spec, store, lambda line: None, no_tick)
    events = profiled.profiler.kineto_results.events()
    return float(max(accumulate(event.nbytes() for event in events if event.name() == "[memory]")))


if __name__ == "__main__":
    sys.exit(main())
