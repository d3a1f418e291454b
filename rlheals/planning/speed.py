"""How fast runs were computed: tokens per second, beside what the machine could do at most.

*Generated*: tokens that a model wrote in evaluations and in the episodes of RL. *Trained on*: tokens that went forward
and backward in pretraining and SFT. Peaks and bandwidths are those of the data sheets of GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlheals.display.markup import Block, Table
from rlheals.engines import models
from rlheals.engines.models import Precision
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.planning import dry_run
from rlheals.planning.budget import GB, SINGLE
from rlheals.profiles.hardware import GPUS, Gpu
from rlheals.profiles.profile import Profile
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
SHARES = {"of_peak": "of the peak", "of_ceiling": "of the ceiling"}
EXPLAINED = (
    "Share of the peak: two operations per weight and generated token, six per token trained on, over the GPU's peak "
    "in the number format. The ceiling is set by reading the weights once per token and batch. "
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
    for share in SHARES:
        found[share] = groups[share].agg(lambda least: least.sum(skipna=False)) / found["seconds"]
    return found.reset_index()


def of_profile(profile: Profile, store: Store) -> pd.DataFrame:
    """The speeds of the runs of a profile that are in the store; BadInput when there are none."""
    found = speeds([store.load(run) for run in dry_run.planned(profile, store) if store.has(run)], store)
    if found.empty:
        command = f"rlheals study --profile {profile.name}"
        raise BadInput(f"no run of profile {profile.name} is in the store; {command} computes them")
    return found


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """For people; shares in percent, left out where none is known."""
    table = pd.DataFrame(
        {
            "stage": found["stage"],
            "runs": found["runs"].astype(str),
            "tokens": found["tokens"].map("{:,}".format) + " " + found["work"],
            "tokens per second": found["tokens_per_second"].map("{:,.0f}".format),
        }
    )
    for share, title in SHARES.items():
        if found[share].notna().any():
            table[title] = [f"{100 * value:.2g} %" if value == value else "" for value in found[share]]
    return table


def blocks(runs: Iterable[Run], store: Store) -> list[Block]:
    """The table with the sentence that explains it."""
    found = speeds(runs, store)
    if found.empty:
        return ["No run that generates or trains on tokens."]
    table = shown(found.assign(stage="`" + found["stage"] + "`"))
    rows = tuple(table.itertuples(index=False, name=None))
    said = EXPLAINED if set(SHARES.values()) & set(table.columns) else ""
    machines = "; ".join(sorted(found["machine"].unique()))
    return [Table(tuple(table.columns), rows), f"{said}Machine: {machines}."]


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
    stage, asked = run.manifest.stage.removesuffix("_vllm"), run.manifest.settings
    seconds = run.manifest.seconds
    if stage == "pretrain":
        tokens = json.loads(run.file("ability.json").read_text())[-1]["tokens"]
        return Work(TRAINED_ON, run.path / "base", tokens, seconds)
    if stage == "sft":
        settings = SFTSettings.model_validate(asked)
        folder = run.path / sft.checkpoint_name(settings.checkpoints[-1])
        dialect = dialect_for(models.load_tokenizer(folder), load_task(settings.task), settings.prompts)
        few = settings.model_copy(update={"checkpoints": (-(-SAMPLE // settings.batch),)})
        length = np.mean(list(map(len, sft.examples(dialect, few, run.manifest.seed)["input_ids"])))
        tokens = round(settings.checkpoints[-1] * settings.batch * float(length))
        return Work(TRAINED_ON, folder, tokens, seconds, width=_width(settings.precision))
    inside = store.load(run.manifest.inputs["model"]).path
    if stage == "rl":
        rl, log = RLSettings.model_validate(asked), pd.read_parquet(run.file("log.parquet"))
        seconds, rows = float(log["seconds_rollout"].sum()), min(rl.play_rows, rl.episodes)
        return Work(
            GENERATED, inside / rl.folder, int(log["tokens"].sum()), seconds, rows, _width(rl.precision)
        )
    census = EvaluateSettings.model_validate(asked)
    tokens = generated(pd.read_parquet(run.file("attempts.parquet")))
    return Work(GENERATED, inside / census.folder, tokens, seconds, census.rows, _width(census.precision))


def _width(precision: Precision) -> int | None:
    return None if precision == "own" else 2


def _measured(run: Run, work: Work) -> dict[str, Any]:
    """A row of one run; `of_peak` and `of_ceiling` are here the least seconds that the work takes."""
    weights = sum(int(np.prod(shape)) for shape in models.tensor_shapes(work.model).values())
    size = sum(file.stat().st_size for file in work.model.glob("*.safetensors"))
    machine = run.manifest.machine
    card = card_of(machine.model) if machine.kind == "gpu" else None
    narrow = (work.width or round(size / weights)) == 2
    peak = np.nan if card is None else card.peak * 1e12 * (1.0 if narrow else SINGLE)
    read = work.width * weights if work.width else size
    reads = np.nan if card is None or work.kind != GENERATED else read / (card.bandwidth * GB)
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


def generated(attempts: pd.DataFrame) -> int:
    """Tokens that an evaluation had a model generate: what both protocols share was generated once."""
    target = attempts[attempts["protocol"] == "target"]
    plain = target[target["layout"] == "plain"].groupby("item")["attempt"].min()
    again = attempts[attempts["protocol"] == "either"]
    own = again[again["attempt"] > plain.reindex(again["item"]).to_numpy(dtype=float)]
    return int(target["tokens"].sum() + own["tokens"].sum())
