"""How fast runs were computed: tokens per second, beside what the machine could do at most.

*Generated*: tokens that a model wrote in evaluations and in the episodes of RL. *Trained on*: tokens that went forward
and backward in pretraining and SFT. Peaks and bandwidths of GPUs are those of data sheets; the peak of a processor is
measured, if it is the one of this machine.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.benchmark import Timer

from rlheals.display.markup import Block, Table
from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.planning import dry_run
from rlheals.planning.budget import GB, SINGLE
from rlheals.profiles.hardware import GPUS, Gpu
from rlheals.profiles.profile import Profile
from rlheals.store.machine import Machine, this_machine
from rlheals.store.runs import Run
from rlheals.store.store import Store
from rlheals.tasks import load_task
from rlheals.training import sft
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

GENERATED, TRAINED_ON = "generated", "trained on"
OPERATIONS = {GENERATED: 2, TRAINED_ON: 6}
"""Per weight and token."""
STAGES = ("pretrain", "sft", "evaluate", "evaluate_vllm", "rl", "rl_vllm")
SAMPLE = 256
"""Examples of SFT whose mean length stands for all."""
SHARES = ["of_peak", "of_ceiling"]
EXPLAINED = (
    "Share of the peak: two operations per weight and generated token, six per token trained on, over the machine's "
    "peak in the number format (of a processor: what a product of matrices reaches on one of its cores now, where it "
    "is the one that computed the runs). The ceiling is set by reading the weights once per token and batch; it is "
    "stated for GPUs. Machine: {}."
)


def speeds(runs: Iterable[Run], store: Store) -> pd.DataFrame:
    """One row per stage and kind of machine, in the order of the runs; stages without tokens are left out.

    Columns: stage, work, machine, runs, tokens, seconds (of an evaluation, loading and writing included; of RL, of its
    rollouts alone), tokens_per_second, of_peak and of_ceiling (shares; NaN where they are not known).
    """
    rows = [_measured(run, _work(run, store)) for run in runs if run.manifest.stage in STAGES]
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["stage", "work", "machine"], sort=False)
    found = groups[["runs", "tokens", "seconds"]].sum()
    found["tokens_per_second"] = found["tokens"] / found["seconds"]
    found[SHARES] = groups[SHARES].agg(lambda least: least.sum(skipna=False)).div(found["seconds"], axis=0)
    return found.reset_index()


def of_profile(profile: Profile, store: Store) -> pd.DataFrame:
    """The speeds of the runs of a profile that are in the store; BadInput when there are none."""
    found = speeds([store.load(run) for run in dry_run.planned(profile, store) if store.has(run)], store)
    if found.empty:
        command = f"rlheals study --profile {profile.name}"
        raise BadInput(f"no run of profile {profile.name} is in the store; {command} computes them")
    return found


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """For people; shares in percent, empty where they are not known."""
    shares = found[SHARES].map(lambda share: "" if np.isnan(share) else f"{100 * share:.2g} %")
    return pd.DataFrame(
        {
            "stage": found["stage"],
            "runs": found["runs"].astype(str),
            "tokens": found["tokens"].map("{:,}".format) + " " + found["work"],
            "tokens per second": found["tokens_per_second"].map("{:,.0f}".format),
            "of the peak": shares["of_peak"],
            "of the ceiling": shares["of_ceiling"],
        }
    )


def as_json(found: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain values; None where something is not known."""
    return json.loads(found.to_json(orient="records", double_precision=15))


def blocks(runs: Iterable[Run], store: Store) -> list[Block]:
    """The table with the sentence that explains it."""
    found = speeds(runs, store)
    if found.empty:
        return ["No run that generates or trains on tokens."]
    table = shown(found.assign(stage="`" + found["stage"] + "`"))
    rows = tuple(table.itertuples(index=False, name=None))
    return [Table(tuple(table.columns), rows), EXPLAINED.format("; ".join(sorted(found["machine"].unique())))]


class Work(NamedTuple):
    """What a run did with the model in a folder: `kind` of work, tokens, seconds.

    rows: sequences generated at once; width: bytes of the numbers that are multiplied, None: as the weights are stored.
    """

    kind: str
    model: Path
    tokens: int
    seconds: float
    rows: int = 1
    width: int | None = None


def _work(run: Run, store: Store) -> Work:
    stage, asked, seconds = (
        run.manifest.stage.removesuffix("_vllm"),
        run.manifest.settings,
        run.manifest.seconds,
    )
    if stage == "pretrain":
        tokens = json.loads(run.file("ability.json").read_text())[-1]["tokens"]
        return Work(TRAINED_ON, run.path / "base", tokens, seconds)
    if stage == "sft":
        settings = SFTSettings.model_validate(asked)
        folder = run.path / sft.checkpoint_name(settings.checkpoints[-1])
        dialect = dialect_for(models.load_tokenizer(folder), load_task(settings.task))
        few = settings.model_copy(update={"checkpoints": (-(-SAMPLE // settings.batch),)})
        length = np.mean(list(map(len, sft.examples(dialect, few, run.manifest.seed)["input_ids"])))
        tokens = round(settings.checkpoints[-1] * settings.batch * float(length))
        return Work(TRAINED_ON, folder, tokens, seconds, width=None if settings.precision == "own" else 2)
    inside = store.load(run.manifest.inputs["model"]).path
    if stage == "rl":
        rl, log = RLSettings.model_validate(asked), pd.read_parquet(run.file("log.parquet"))
        seconds, rows = float(log["seconds_rollout"].sum()), min(rl.play_rows, rl.episodes)
        return Work(GENERATED, inside / rl.folder, int(log["tokens"].sum()), seconds, rows)
    census = EvaluateSettings.model_validate(asked)
    tokens = generated(pd.read_parquet(run.file("attempts.parquet")))
    return Work(GENERATED, inside / census.folder, tokens, seconds, census.rows)


def _measured(run: Run, work: Work) -> dict[str, Any]:
    """A row of one run; `of_peak` and `of_ceiling` are here the least seconds that the work takes."""
    weights = sum(int(np.prod(shape)) for shape in models.tensor_shapes(work.model).values())
    size = sum(file.stat().st_size for file in work.model.glob("*.safetensors"))
    machine = run.manifest.machine
    card = card_of(machine.model) if machine.kind == "gpu" else None
    peak = _peak(machine, card, work.width or round(size / weights))
    reads = np.nan if card is None or work.kind != GENERATED else size / (card.bandwidth * GB)
    return {
        "stage": run.manifest.stage,
        "work": work.kind,
        "machine": f"{machine.model} ({machine.isa}), threads: {machine.threads}",
        "runs": 1,
        "tokens": work.tokens,
        "seconds": max(work.seconds, 1e-9),
        "of_peak": OPERATIONS[work.kind] * weights * work.tokens / peak,
        "of_ceiling": work.tokens / work.rows * reads,
    }


def card_of(name: str) -> Gpu | None:
    """The data sheet of a GPU by the name that its driver gives.

    >>> card_of("NVIDIA A100-SXM4-80GB") == GPUS["A100-80GB"], card_of("Tesla T4") == GPUS["T4"]
    (True, True)
    >>> card_of("NVIDIA L40S") is None
    True
    """
    words = set(name.replace("-", " ").split())
    return next((card for known, card in GPUS.items() if words.issuperset(known.split("-"))), None)


def _peak(machine: Machine, card: Gpu | None, width: int) -> float:
    """Operations per second on numbers of so many bytes; NaN where that is not known."""
    if card is not None:
        return card.peak * 1e12 * (1.0 if width == 2 else SINGLE)
    mine = this_machine()
    known = machine.kind == "cpu" and width == 4 and (mine.model, mine.isa) == (machine.model, machine.isa)
    return measured_peak() * machine.threads if known else np.nan


@functools.cache
def measured_peak(size: int = 512) -> float:
    """Operations per second of products of matrices in float32 on one core of this machine, at best."""
    timer = Timer("a @ a", globals={"a": torch.ones(size, size)}, num_threads=1)
    return 2 * size**3 / min(timer.blocked_autorange(min_run_time=0.1).times)


def generated(attempts: pd.DataFrame) -> int:
    """Tokens that an evaluation had a model generate: what both protocols share was generated once."""
    target = attempts[attempts["protocol"] == "target"]
    plain = target[target["layout"] == "plain"].groupby("item")["attempt"].min()
    again = attempts[attempts["protocol"] == "either"]
    own = again[again["attempt"] > plain.reindex(again["item"]).to_numpy(dtype=float)]
    return int(target["tokens"].sum() + own["tokens"].sum())
