"""How fast runs were computed: tokens per second, beside what the machine could do at most.

Two kinds of work. *Written*: tokens that a model wrote in censuses and in the episodes of RL. *Learnt from*: tokens
that went forward and backward in pretraining and SFT. The share of the peak counts two operations per weight and token
written and six per token learnt from (what is recomputed does not count), over the machine's peak. A model that writes
has to read its weights once per token and batch; the ceiling is what reading the weights alone would allow.

Peaks of GPUs are those of data sheets; that of a processor is measured, if it is the one of this machine.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rlheals.display.markup import Block, Table
from rlheals.engines import models
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.planning.budget import GB, SINGLE
from rlheals.profiles.hardware import GPUS, Gpu
from rlheals.store.machine import Machine, this_machine
from rlheals.store.runs import Run
from rlheals.store.store import Store
from rlheals.tasks import load_task
from rlheals.training import sft
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

WRITTEN, LEARNT = "written", "learnt from"
OPERATIONS = {WRITTEN: 2, LEARNT: 6}
SAMPLE = 256
"""Examples of SFT whose mean length stands for all."""


@dataclass(frozen=True)
class Speed:
    """Runs of one stage on one kind of machine.

    of_peak: share of the machine's peak, of_ceiling: share of the ceiling that reading the weights sets; None where it
    is not known. seconds: of a census, loading and writing included; of RL, of playing alone.
    """

    stage: str
    work: str
    runs: int
    tokens: int
    seconds: float
    machine: str
    of_peak: float | None
    of_ceiling: float | None

    @property
    def per_second(self) -> float:
        """Tokens per second."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class _Counted:
    """One run. width: bytes of the numbers that are multiplied; rows: sequences that are written at once."""

    work: str
    tokens: int
    seconds: float
    parameters: int
    weights_bytes: int
    width: int
    rows: int = 1

    @property
    def operations(self) -> float:
        return float(OPERATIONS[self.work]) * self.parameters * self.tokens


def speeds(runs: Iterable[Run], store: Store) -> list[Speed]:
    """One line per stage and kind of machine, in the order of the runs; stages without tokens are left out."""
    groups: dict[tuple[str, Machine], list[_Counted]] = {}
    for run in runs:
        if run.manifest.stage in COUNTED:
            counted = COUNTED[run.manifest.stage](run, store)
            groups.setdefault((run.manifest.stage, run.manifest.machine), []).append(counted)
    return [_summed(stage, machine, counted) for (stage, machine), counted in groups.items()]


def table(found: Iterable[Speed]) -> Table:
    """For people; shares in percent, empty where they are not known."""

    def percent(share: float | None) -> str:
        return "" if share is None else f"{100 * share:.2g} %"

    rows = tuple(
        (
            f"`{one.stage}`",
            str(one.runs),
            f"{one.tokens:,} {one.work}",
            f"{one.per_second:,.0f}",
            percent(one.of_peak),
            percent(one.of_ceiling),
        )
        for one in found
    )
    return Table(("stage", "runs", "tokens", "tokens per second", "of the peak", "of the ceiling"), rows)


def blocks(runs: Iterable[Run], store: Store) -> list[Block]:
    """The table with the sentence that explains it."""
    found = speeds(runs, store)
    where = sorted({one.machine for one in found})
    said = (
        "Share of the peak: two operations per weight and token written, six per token learnt from, over the machine's "
        "peak in the number format (of a processor: what a product of matrices reaches on one of its cores now, where "
        "it is the one that computed the runs). The ceiling is set by reading the weights once per token and batch; it "
        "is stated for GPUs."
    )
    return [table(found), f"{said} Machine: {'; '.join(where) or 'none'}."]


def as_json(found: Iterable[Speed]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [{**asdict(one), "tokens_per_second": one.per_second} for one in found]


def _summed(stage: str, machine: Machine, counted: list[_Counted]) -> Speed:
    seconds = max(sum(one.seconds for one in counted), 1e-9)
    card = card_of(machine.model) if machine.kind == "gpu" else None
    peaks = [_peak(machine, card, one.width) for one in counted]
    least = [one.operations / peak for one, peak in zip(counted, peaks, strict=True) if peak]
    ceiling = None
    if card is not None and counted[0].work == WRITTEN:
        read = sum(one.tokens / one.rows * one.weights_bytes for one in counted)
        ceiling = read / (card.bandwidth * GB) / seconds
    return Speed(
        stage=stage,
        work=counted[0].work,
        runs=len(counted),
        tokens=sum(one.tokens for one in counted),
        seconds=seconds,
        machine=f"{machine.model} ({machine.isa}), threads: {machine.threads}",
        of_peak=sum(least) / seconds if len(least) == len(counted) else None,
        of_ceiling=ceiling,
    )


def card_of(name: str) -> Gpu | None:
    """The data sheet of a GPU by the name that its driver gives.

    >>> card_of("NVIDIA A100-SXM4-80GB") == GPUS["A100-80GB"], card_of("Tesla T4") == GPUS["T4"]
    (True, True)
    >>> card_of("NVIDIA L40S") is None
    True
    """
    words = name.replace("-", " ").split()
    fitting = [one for one in GPUS if set(one.split("-")) <= set(words)]
    return GPUS[fitting[0]] if len(fitting) == 1 else None


def _peak(machine: Machine, card: Gpu | None, width: int) -> float | None:
    """Operations per second on numbers of so many bytes; None where that is not known."""
    if machine.kind == "gpu":
        return None if card is None else card.peak * 1e12 * (1.0 if width == 2 else SINGLE)
    mine = this_machine()
    known = width == 4 and (mine.model, mine.isa) == (machine.model, machine.isa)
    return measured_peak() * machine.threads if known else None


@functools.cache
def measured_peak(size: int = 512, times: int = 8) -> float:
    """Operations per second of products of matrices in float32 on one core of this machine, at best."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(size, size), torch.ones(size, size)
        best = float("inf")
        for _ in range(times):
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / best


# What a run of each stage counts --------------------------------------------------------------------------------------


def _pretrained(run: Run, store: Store) -> _Counted:
    measured = json.loads(run.file("ability.json").read_text())
    return _Counted(LEARNT, measured[-1]["tokens"], run.manifest.seconds, *_size(run.path / "base"))


def _fine_tuned(run: Run, store: Store) -> _Counted:
    settings = SFTSettings.model_validate(run.manifest.settings)
    folder = run.path / sft.checkpoint_name(settings.checkpoints[-1])
    dialect = dialect_for(models.load_tokenizer(folder), load_task(settings.task))
    few = settings.model_copy(update={"checkpoints": (-(-SAMPLE // settings.batch),)})
    length = np.mean([len(tokens) for tokens in sft.examples(dialect, few, run.manifest.seed)["input_ids"]])
    count, size, width = _size(folder)
    return _Counted(
        LEARNT,
        round(settings.checkpoints[-1] * settings.batch * float(length)),
        run.manifest.seconds,
        count,
        size,
        width if settings.precision == "own" else 2,
    )


def _asked(run: Run, store: Store) -> _Counted:
    settings = EvaluateSettings.model_validate(run.manifest.settings)
    folder = store.load(run.manifest.inputs["model"]).path / settings.folder
    tokens = written(pd.read_parquet(run.file("attempts.parquet")))
    return _Counted(WRITTEN, tokens, run.manifest.seconds, *_size(folder), settings.rows)


def _reinforced(run: Run, store: Store) -> _Counted:
    settings = RLSettings.model_validate(run.manifest.settings)
    folder = store.load(run.manifest.inputs["model"]).path / settings.folder
    log = pd.read_parquet(run.file("log.parquet"))
    rows = min(settings.play_rows, settings.episodes)
    seconds = float(log["seconds_rollout"].sum())
    return _Counted(WRITTEN, int(log["tokens"].sum()), seconds, *_size(folder), rows)


COUNTED = {
    "pretrain": _pretrained,
    "sft": _fine_tuned,
    "evaluate": _asked,
    "evaluate_vllm": _asked,
    "rl": _reinforced,
    "rl_vllm": _reinforced,
}


def written(attempts: pd.DataFrame) -> int:
    """Tokens that a census had a model write: what both protocols share was written once."""
    target = attempts[attempts["protocol"] == "target"]
    plain = target[target["layout"] == "plain"].groupby("item")["attempt"].min()
    again = attempts[attempts["protocol"] == "either"]
    own = again[again["attempt"] > plain.reindex(again["item"]).to_numpy(dtype=float)]
    return int(target["tokens"].sum() + own["tokens"].sum())


def _size(folder: Path) -> tuple[int, int, int]:
    """Weights of a model, their bytes together, and those of one."""
    count = sum(int(np.prod(shape)) for shape in models.tensor_shapes(folder).values())
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return count, size, max(1, round(size / count))
