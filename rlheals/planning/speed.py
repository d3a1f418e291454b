"""How fast runs were computed: tokens per second, beside what the machine could do at most.

*Generated*: tokens that a model wrote in evaluations and in the episodes of RL. *Trained on*: tokens that went forward
and backward in pretraining and SFT. The share of the peak counts two operations per weight and generated token and six
per token trained on (what is recomputed does not count), over the machine's peak. A model that generates has to read
its weights once per token and batch; the ceiling is what reading the weights alone would allow. Peaks of GPUs are those
of data sheets; that of a processor is measured, if it is the one of this machine.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

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
SAMPLE = 256
"""Examples of SFT whose mean length stands for all."""


def speeds(runs: Iterable[Run], store: Store) -> pd.DataFrame:
    """One row per stage and kind of machine, in the order of the runs; stages without tokens are left out.

    Columns: stage, work, machine, runs, tokens, seconds (of an evaluation, loading and writing included; of RL, of its
    rollouts alone), tokens_per_second, of_peak and of_ceiling (shares; NaN where they are not known).
    """
    rows = [_counted(run, store) for run in runs if run.manifest.stage in STAGES]
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["stage", "work", "machine"], sort=False)
    found = groups[["tokens", "seconds"]].sum()
    found.insert(0, "runs", groups.size())
    found["tokens_per_second"] = found["tokens"] / found["seconds"]
    for column in ("of_peak", "of_ceiling"):  # a sum with a part that is not known is not known
        found[column] = groups[column].agg(lambda least: least.sum(skipna=False)) / found["seconds"]
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
    shares = found[["of_peak", "of_ceiling"]].map(
        lambda share: "" if np.isnan(share) else f"{100 * share:.2g} %"
    )
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
    table = shown(found)
    table["stage"] = "`" + table["stage"] + "`"
    said = (
        "Share of the peak: two operations per weight and generated token, six per token trained on, over the "
        "machine's peak in the number format (of a processor: what a product of matrices reaches on one of its cores "
        "now, where it is the one that computed the runs). The ceiling is set by reading the weights once per token "
        f"and batch; it is stated for GPUs. Machine: {'; '.join(sorted(found['machine'].unique()))}."
    )
    return [Table(tuple(table.columns), tuple(table.itertuples(index=False, name=None))), said]


def _counted(run: Run, store: Store) -> dict[str, Any]:
    """One run; `of_peak` and `of_ceiling` are here the least seconds that the work takes."""
    folder, work, tokens, seconds, rows, width = STAGES[run.manifest.stage](run, store)
    weights = sum(int(np.prod(shape)) for shape in models.tensor_shapes(folder).values())
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    machine = run.manifest.machine
    card = card_of(machine.model) if machine.kind == "gpu" else None
    peak = _peak(machine, card, width or max(1, round(size / weights)))
    least = np.nan if card is None or work != GENERATED else tokens / rows * size / (card.bandwidth * GB)
    return {
        "stage": run.manifest.stage,
        "work": work,
        "machine": f"{machine.model} ({machine.isa}), threads: {machine.threads}",
        "tokens": tokens,
        "seconds": max(seconds, 1e-9),
        "of_peak": OPERATIONS[work] * weights * tokens / peak,
        "of_ceiling": least,
    }


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


def _peak(machine: Machine, card: Gpu | None, width: int) -> float:
    """Operations per second on numbers of so many bytes; NaN where that is not known."""
    if machine.kind == "gpu":
        return np.nan if card is None else card.peak * 1e12 * (1.0 if width == 2 else SINGLE)
    mine = this_machine()
    known = width == 4 and (mine.model, mine.isa) == (machine.model, machine.isa)
    return measured_peak() * machine.threads if known else np.nan


@functools.cache
def measured_peak(size: int = 512, times: int = 8) -> float:
    """Operations per second of products of matrices in float32 on one core of this machine, at best."""
    threads, best = torch.get_num_threads(), float("inf")
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(size, size), torch.ones(size, size)
        for _ in range(times):
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / best


# By stage: a model's folder, the work, tokens, seconds, sequences generated at once, and bytes of a number that is
# multiplied (0: as the weights are stored).


def _pretrained(run: Run, store: Store) -> tuple[Path, str, int, float, int, int]:
    tokens = json.loads(run.file("ability.json").read_text())[-1]["tokens"]
    return run.path / "base", TRAINED_ON, tokens, run.manifest.seconds, 1, 0


def _fine_tuned(run: Run, store: Store) -> tuple[Path, str, int, float, int, int]:
    settings = SFTSettings.model_validate(run.manifest.settings)
    folder = run.path / sft.checkpoint_name(settings.checkpoints[-1])
    dialect = dialect_for(models.load_tokenizer(folder), load_task(settings.task))
    few = settings.model_copy(update={"checkpoints": (-(-SAMPLE // settings.batch),)})
    length = np.mean([len(tokens) for tokens in sft.examples(dialect, few, run.manifest.seed)["input_ids"]])
    tokens = round(settings.checkpoints[-1] * settings.batch * float(length))
    return folder, TRAINED_ON, tokens, run.manifest.seconds, 1, 0 if settings.precision == "own" else 2


def _evaluated(run: Run, store: Store) -> tuple[Path, str, int, float, int, int]:
    settings = EvaluateSettings.model_validate(run.manifest.settings)
    folder = store.load(run.manifest.inputs["model"]).path / settings.folder
    tokens = generated(pd.read_parquet(run.file("attempts.parquet")))
    return folder, GENERATED, tokens, run.manifest.seconds, settings.rows, 0


def _reinforced(run: Run, store: Store) -> tuple[Path, str, int, float, int, int]:
    settings = RLSettings.model_validate(run.manifest.settings)
    folder = store.load(run.manifest.inputs["model"]).path / settings.folder
    log = pd.read_parquet(run.file("log.parquet"))
    seconds, rows = float(log["seconds_rollout"].sum()), min(settings.play_rows, settings.episodes)
    return folder, GENERATED, int(log["tokens"].sum()), seconds, rows, 0


STAGES = {
    "pretrain": _pretrained,
    "sft": _fine_tuned,
    "evaluate": _evaluated,
    "evaluate_vllm": _evaluated,
    "rl": _reinforced,
    "rl_vllm": _reinforced,
}


def generated(attempts: pd.DataFrame) -> int:
    """Tokens that an evaluation had a model generate: what both protocols share was generated once."""
    target = attempts[attempts["protocol"] == "target"]
    plain = target[target["layout"] == "plain"].groupby("item")["attempt"].min()
    again = attempts[attempts["protocol"] == "either"]
    own = again[again["attempt"] > plain.reindex(again["item"]).to_numpy(dtype=float)]
    return int(target["tokens"].sum() + own["tokens"].sum())
