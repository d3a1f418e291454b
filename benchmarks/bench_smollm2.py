"""SmolLM2 beside bare transformers: `python benchmarks/bench_smollm2.py [--rounds N]`; needs `rlheals[smollm2]`.

The profile's settings, one thread, process times; ratios are taken within a round. Generating: 64 questions, against
`generate` of the same bfloat16 model. SFT: steps of a batch in the profile's micro-batches, against a plain loop with
AdamW and autocast, and against float32 products. Evaluation: 256 hands of the base, whose answers never end early.
Memory: of a process that does three steps of SFT, or one iteration of RL. JSON comes last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, open_engine
from rlheals.evaluation.dialects import Chat, dialect_for
from rlheals.evaluation.evaluate import attempts_table
from rlheals.profiles import load_profile
from rlheals.stage import Work
from rlheals.store.machine import this_machine
from rlheals.tasks import load_task
from rlheals.training import sft
from rlheals.training.rl import stage as rl

PROFILE = load_profile("smollm2")
TASK = load_task(PROFILE.task)
STEPS = 3
SFT = PROFILE.sft.model_copy(update={"checkpoints": (STEPS,), "loss_examples": 1})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    found: dict[str, Any] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        assert PROFILE.model is not None
        models.save(base, models.load(PROFILE.model.name), models.load_tokenizer(PROFILE.model.name))
        engine = open_engine(base, PROFILE.evaluate.rows, PROFILE.evaluate.precision)
        dialect = dialect_for(engine.tokenizer, TASK, PROFILE.evaluate.prompts)
        engine.alike  # noqa: B018, tried before
        found["generating"] = beside(rounds, lambda: ours(engine, dialect), lambda: bare(engine, dialect))
        found["evaluation_seconds"] = round(evaluation(engine, dialect), 1)
        found["sft"] = beside(rounds, lambda: trained(base, "bf16"), lambda: loop(base))
        found["sft_to_float32"] = beside(rounds, lambda: trained(base, "bf16"), lambda: trained(base, "own"))
        found["peak_gb"] = {"sft": alone(three_steps, base), "rl": alone(one_iteration, base)}
    print(json.dumps(found | {"machine": this_machine().model_dump(mode="json")}, indent=1))


def beside(rounds: int, one: Any, other: Any) -> dict[str, Any]:
    """Tokens per second of both (medians), and the ratios within each round."""
    pairs = [(one(), other()) for _ in range(rounds)]
    mine, theirs = (round(statistics.median(side), 1) for side in zip(*pairs, strict=True))
    return {"ours": mine, "beside": theirs, "ratios": sorted(round(a / b, 2) for a, b in pairs)}


def questions(dialect: Any) -> list[list[int]]:
    return [dialect.prompt(item) for item in TASK.items("ood")[: PROFILE.evaluate.rows]]


def ours(engine: HFEngine, dialect: Any) -> float:
    asked, sampling = questions(dialect), PROFILE.evaluate.sampling
    began = time.process_time()
    made = engine.generate(asked, [str(i) for i in range(len(asked))], sampling, None, dialect.beginning)
    return sum(len(one.tokens) for one in made) / (time.process_time() - began)


def bare(engine: HFEngine, dialect: Any) -> float:
    asked, pad, sampling = questions(dialect), engine.tokenizer.pad_token_id, PROFILE.evaluate.sampling
    width = max(map(len, asked))
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in asked])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in asked])
    how = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    began = time.process_time()
    with torch.inference_mode():
        made = engine.model.generate(ids, attention_mask=mask, max_new_tokens=sampling.max_new_tokens, **how)
    seconds, end = time.process_time() - began, engine.tokenizer.eos_token_id
    ended = (made[:, width:] == end).cumsum(1) - (made[:, width:] == end).long()
    return float((ended == 0).sum()) / seconds


def evaluation(engine: HFEngine, dialect: Any) -> float:
    began = time.process_time()
    attempts_table(engine, dialect, TASK, TASK.items("ood")[:256], PROFILE.evaluate, 0)
    return time.process_time() - began


def trained(base: Path, precision: Any) -> float:
    """Tokens of examples per second, from the first step's end to the last one's."""
    ends: list[float] = []
    chosen = SFT.model_copy(update={"precision": precision})
    dialect = dialect_for(models.load_tokenizer(base), TASK, chosen.prompts)
    sft.train(models.load(base), dialect, chosen, 0, id, lambda *_: ends.append(time.process_time()))
    lengths = map(len, sft.examples(dialect, chosen, 0)["input_ids"][chosen.batch :])
    return sum(lengths) / (ends[-1] - ends[0])


def loop(base: Path) -> float:
    """The same examples in a plain loop."""
    dialect, model = Chat(models.load_tokenizer(base), TASK, SFT.prompts), models.load(base).train()
    rows = sft.examples(dialect, SFT, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=SFT.learning_rate)
    pad, tokens, began = dialect.tokenizer.pad_token_id, 0, 0.0
    for step in range(STEPS):
        if step == 1:
            began = time.process_time()
        for at in range(step * SFT.batch, (step + 1) * SFT.batch, SFT.rows):
            part = rows[at : at + SFT.rows]
            width = max(map(len, part["input_ids"]))
            ids = torch.tensor([one + [pad] * (width - len(one)) for one in part["input_ids"]])
            labels = torch.tensor([one + [-100] * (width - len(one)) for one in part["labels"]])
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels).loss
            (loss * SFT.rows / SFT.batch).backward()
            tokens += sum(map(len, part["input_ids"])) if step else 0
        torch.nn.utils.clip_grad_norm_(model.parameters(), SFT.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return tokens / (time.process_time() - began)


def alone(work: Any, base: Path) -> float:
    """Peak memory in GB of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (base,))


def three_steps(base: Path) -> float:
    torch.set_num_threads(1)
    trained(base, "bf16")
    return peak()


def one_iteration(base: Path) -> float:
    torch.set_num_threads(1)
    settings = PROFILE.rl_starts.rl.model_copy(update={"checkpoints": (1,), "folder": "base"})
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: Path(scratch) / name for name in ("out", "scratch")}
        for place in places.values():
            place.mkdir()
        inputs = {"model": base.parent, "base": base.parent}
        rl.run(Work(**places, settings=settings.model_dump(mode="json"), seed=0, inputs=inputs))
    return peak()


def peak() -> float:
    """Of this program alone: the kernel's ru_maxrss begins with what its parent had."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(line) / 1e6, 2)


if __name__ == "__main__":
    main()
