"""A profile without running it: its runs, a question as the model would see it, what it takes, and this machine."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from rlheals.chapters.rl import runs as rl_runs
from rlheals.engines import models
from rlheals.engines.vllm_server import SERVER
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.planning.budget import GB, Budget, budget
from rlheals.profiles.hardware import CORE
from rlheals.profiles.profile import Profile
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study.plan import plan
from rlheals.tasks import load_task


class Here(NamedTuple):
    """What this machine has: its GPU's name and memory in bytes (0 without one), and free bytes for the store.

    peak: TFLOP/s of one core's products in bfloat16, measured where the processor is to do the work, whose memory is
    meant then.
    """

    gpu: str
    memory: float
    bfloat16: bool
    disk: float
    peak: float | None = None


def here(store: Store, processor: bool = False) -> Here:
    """This machine; processor: seen as one without a GPU."""
    existing = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = float(shutil.disk_usage(existing).free)
    if processor:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Here(CORE, float(memory), True, free, multiplied())
    if not torch.cuda.is_available():
        return Here("none", 0.0, False, free)
    card = torch.cuda.get_device_properties(0)
    return Here(card.name, float(card.total_memory), torch.cuda.is_bf16_supported(), free)


def multiplied() -> float:
    """TFLOP/s of one core's products of two bfloat16 matrices, the best of some tries: what no data sheet says."""
    one, other, best = torch.zeros(1024, 576).bfloat16(), torch.zeros(576, 1536).bfloat16(), math.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(10):
            began = time.perf_counter()
            one @ other
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return 2 * 1024 * 576 * 1536 / best / 1e12


def examine(profile: Profile, store: Store, machine: Here | None = None) -> dict[str, Any]:
    """Everything about a profile that can be known before it runs; `problems`: why it would not run here."""
    machine = machine or here(store, profile.hardware is not None and profile.hardware.gpu == CORE)
    specs = planned(profile, store)
    found: dict[str, Any] = {
        "profile": profile.name,
        "about": profile.about,
        "seeds": list(profile.seeds),
        "runs": dict(Counter(spec.stage for spec in specs.values())),
        "in_store": len(specs.keys() & set(store.ids())),
        "question": _question(profile),
        "machine": machine._asdict(),
        "model": None,
        "made_for": None,
        "budget": None,
    }
    needed = None
    if profile.model is not None and profile.hardware is not None:
        needed = budget(profile, machine.peak)
        found |= {
            "model": profile.model.name,
            "made_for": profile.hardware.gpu,
            "hours_counted_on": profile.hardware.hours,
            "budget": {
                "parameters": needed.parameters,
                "disk_gb": round(needed.disk / GB, 1),
                "hours": round(needed.hours, 1),
                "stages": {
                    name: {"memory_gb": round(need.memory / GB, 1), "hours": round(need.seconds / 3600, 2)}
                    for name, need in needed.stages.items()
                },
            },
        }
    troubles = list(_troubles(profile, needed, machine))
    changes = [change for _, changes in troubles for change in changes]
    return found | {"problems": [problem for problem, _ in troubles], "changes": changes}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"profile   {found['profile']}: {found['about']}"
    told = ", ".join(f"{count} {stage}" for stage, count in found["runs"].items())
    yield f"runs      {sum(found['runs'].values())} for {len(found['seeds'])} seed(s): {told}"
    yield f"in store  {found['in_store']} of them"
    for number, line in enumerate(found["question"].splitlines()):
        yield f"{'question' if number == 0 else '':9} {line}"
    needed, machine = found["budget"], found["machine"]
    if needed is not None:
        yield f"model     {found['model']}, {needed['parameters'] / 1e9:.2f} billion parameters"
        for name, stage in needed["stages"].items():
            on = f"{stage['hours']:6.2f} h on a {found['made_for']}"
            yield f"{name:9} {stage['memory_gb']:6.1f} GB of memory, {on}"
        yield f"disk      {needed['disk_gb']:.0f} GB, {machine['disk'] / GB:.0f} GB free here"
        yield f"hours     {needed['hours']:.1f} by arithmetic; a session should last {found['hours_counted_on']}"
    speed = f", {machine['peak']:.2f} TFLOP/s in bfloat16, measured" if machine["peak"] else ""
    memory = f", {machine['memory'] / GB:.0f} GB" if machine["memory"] else ""
    yield f"{'here' if speed else 'gpu here':9} {machine['gpu']}{memory}{speed}"
    for problem in found["problems"]:
        yield f"PROBLEM   {problem}"
    for change in found["changes"]:
        yield f"change    {change}"
    yield "it does not run here as it is" if found["problems"] else "it runs here"


def planned(profile: Profile, store: Store) -> dict[str, RunSpec]:
    """By id, the runs of SFT, RL and spectra of every seed; those of edits follow from what these find."""
    specs: dict[str, RunSpec] = {}
    for seed in profile.seeds:
        listed = plan(profile, seed, store).specs()
        if profile.rl_starts.starts:
            for run in range(profile.rl_starts.runs):
                listed += rl_runs.plan(profile, seed, store, run).specs()
        specs |= {store.key(spec): spec for spec in listed}
    return specs


def _question(profile: Profile) -> str:
    """The first OOD question, through the model's own template where its tokenizer is at hand."""
    task = load_task(profile.task)
    item = task.items("ood")[0]
    model = profile.model
    name, revision = (models.SHIPPED_BASE, None) if model is None else (model.name, model.revision)
    try:
        tokenizer = models.load_tokenizer(name, revision, fetch=False)
        return str(tokenizer.decode(dialect_for(tokenizer, task, profile.evaluate.prompts).prompt(item)))
    except BadInput:
        form = task.short_form if profile.evaluate.prompts == "short" else None
        return f"{task.prompt(item, form or 0)}\n(without the model's template, because its tokenizer is not here)"


def _troubles(profile: Profile, needed: Budget | None, machine: Here) -> Iterator[tuple[str, list[str]]]:
    """Why a profile would not run on a machine, each with the settings that would change that."""
    if profile.engine == "vllm" and not os.environ.get(SERVER) and find_spec("vllm") is None:
        problem = f"engine vllm: vLLM is not installed here, and {SERVER} names no server that has it"
        yield problem, ["--set engine=hf (the same distribution, slower)"]
    if needed is None:
        return
    memory, there = needed.memory / GB, machine.memory / GB
    if not machine.memory:
        yield f"there is no GPU; {memory:.0f} GB of GPU memory are needed", []
    elif needed.memory > machine.memory:
        changes = list(_that_fit(profile, needed, machine.memory))
        kind = "memory" if machine.peak else "GPU memory"
        yield f"{kind}: {memory:.1f} GB are needed, {there:.1f} GB are available", changes
    others = {
        "evaluate": (profile.evaluate.precision, "fp16"),
        "rl_starts.rl": (profile.rl_starts.rl.precision, "own"),
    }
    short = {name: instead for name, (precision, instead) in others.items() if precision == "bf16"}
    wants_bfloat16 = profile.sft.precision == "bf16" or (profile.model and profile.model.dtype == "bfloat16")
    if machine.memory and not machine.bfloat16 and (wants_bfloat16 or short):
        settings = {"sft": "fp16", **short} if wants_bfloat16 else short
        said = " ".join(f"--set {name}.precision={instead}" for name, instead in settings.items())
        yield "this GPU has no bfloat16", [f"--set model.dtype=float32 {said} (twice the memory for weights)"]
    if needed.disk > machine.disk:
        problem = f"disk: {needed.disk / GB:.0f} GB are needed, {machine.disk / GB:.0f} GB are free"
        yield problem, ["fewer sft.checkpoints, or RLHEALS_STORE on another disk"]


def _that_fit(profile: Profile, needed: Budget, memory: float) -> Iterator[str]:
    """The mildest settings that make each stage fit, found by trying; a line for a stage that nothing makes fit."""
    for stage in (name for name, need in needed.stages.items() if need.memory > memory):
        fitting = (
            change
            for change in _changes(profile, stage)
            if budget(_changed(profile, change)).stages[stage].memory <= memory
        )
        if change := next(fitting, None):
            settings = " ".join(f"--set {key}={str(value).lower()}" for key, value in change.items())
            yield f"{settings} makes {stage} fit"
        else:
            yield f"nothing makes {stage} fit but a smaller model or model.dtype=bfloat16"


def _changes(profile: Profile, stage: str) -> list[dict[str, Any]]:
    """Ways to make a stage smaller, the mildest first: settings by their full names."""
    sft, rl, powers = profile.sft, profile.rl_starts.rl, (128, 64, 32, 16, 8, 4)
    if stage == "sft":
        sizes = [rows for rows in range(sft.rows - 1, 0, -1) if sft.batch % rows == 0]
        return [{"sft.micro_batch_size": rows, "sft.gradient_checkpointing": True} for rows in sizes]
    if stage == "census":
        return [{"evaluate.rows": rows} for rows in powers if rows < profile.evaluate.rows]
    return [
        {
            "rl_starts.rl.play_rows": rows,
            "rl_starts.rl.micro_batch_size": min(rl.micro_batch_size, max(1, rows // 16)),
            "rl_starts.rl.gradient_checkpointing": True,
            "rl_starts.rl.log_kl": False,
        }
        for rows in powers
        if rows < rl.play_rows
    ]


def _changed(profile: Any, change: dict[str, Any]) -> Any:
    """The profile with some settings changed, unchecked."""
    for path, value in change.items():
        group, _, rest = path.partition(".")
        new = _changed(getattr(profile, group), {rest: value}) if rest else value
        profile = profile.model_copy(update={group: new})
    return profile
