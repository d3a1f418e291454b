"""The scale trend: SFT and RL in lab models of several sizes, trained from scratch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch

from rlheals.chapters.rl import measures as rl_measures
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rl.runs import RLTables
from rlheals.chapters.sft import measures
from rlheals.chapters.sft.claims import CLAIMS
from rlheals.chapters.sft.measures import Curves, by_seed
from rlheals.display.markup import Block, Table
from rlheals.display.style import with_intervals
from rlheals.engines import models
from rlheals.engines.models import ModelSettings
from rlheals.profiles import larger, load_profile
from rlheals.study import record, tables
from rlheals.study.tables import Frames, Part, Tables
from rlheals.tasks import load_task

LEVELS: dict[str, Callable[[Curves], float]] = {
    "OOD, base, format-agnostic": measures.base_level,
    "OOD, peak": measures.peak_level,
    "OOD, last checkpoint": measures.end_level,
    "ID, last checkpoint": lambda curves: float(curves.accuracy("sft")[curves.end]),
}
ABOUT_LEVELS = (
    "Accuracy is success@5 with feedback: solved in at most five attempts. The peak is chosen on one half of the hands "
    "and measured on the other, both ways. 95 % t intervals over base seeds; for a single base seed, Wilson's interval "
    "over hands and sampling seeds, which says nothing about other base seeds."
)
ABOUT_GAINS = (
    "What RL adds to OOD accuracy (success@5) from SFT checkpoints that RL started from at all sizes. 95 % t intervals "
    "over base seeds that hold for all start checkpoints of a row together; none for a single base seed. The same "
    "number of steps is not the same amount of learning in models of other sizes: read each row beside the accuracy "
    "before RL."
)


@lru_cache(maxsize=64)
def weights(model: ModelSettings, task: str = "general_points") -> int:
    """How many weights a lab model has.

    >>> weights(ModelSettings())
    193984
    """
    with torch.device("meta"):
        return models.create(model, load_task(task).dialect().tokenizer, 0).num_parameters()


def studies(part: Part[Frames], results: Path) -> dict[str, Frames]:
    """A part of the recorded studies of the lab and of larger lab models, where there is one; small models first."""
    lab = CLAIMS.read().study.profile
    ours = [load_profile(lab), *(one for one in larger() if one.model is None)]
    sized = {one.name: weights(one.pretrain.model) for one in ours}
    found = {name: record.find(name, part, results)[0] for name in sorted(sized, key=sized.__getitem__)}
    return {name: study for name, study in found.items() if study is not None}


def trend(recorded: dict[str, Tables]) -> pd.DataFrame:
    """Columns profile, level, value, low, high, seeds: t intervals over base seeds; of a single one, over hands."""
    rows = []
    for name, study in recorded.items():
        for seed, curves in study.once(by_seed).items():
            for level, measured in LEVELS.items():
                split = "sft" if level.startswith("ID") else "ood"
                hands = curves.episodes.loc[curves.episodes["split"] == split, "step"] == curves.end
                row = {"profile": name, "level": level, "seed": seed, "n": int(hands.sum())}
                rows.append({**row, "value": measured(curves)})
    table = pd.DataFrame(rows, columns=["profile", "level", "seed", "n", "value"])
    return with_intervals(table, by=("profile", "level"))


def scale_table(results: Path) -> list[Block]:
    """The trend as tables; in words when nothing but the lab itself is recorded."""
    recorded = studies(tables.SFT, results)
    shown = [*_levels_table(recorded), *_gains_table(studies(rl_runs.STUDY, results))]
    return shown if len(recorded) > 1 else [*shown, "No study of another size is recorded."]


def _levels_table(recorded: dict[str, Tables]) -> list[Block]:
    table = trend(recorded).set_index(["profile", "level"])
    rows = []
    for name, study in recorded.items():
        levels = [table.loc[(name, level)] for level in LEVELS]
        cells = [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in levels]
        size = weights(load_profile(name).pretrain.model)
        rows.append((f"`{name}`", f"{size:,}", str(len(study.seeds)), *cells))
    return [Table(("profile", "weights", "base seeds", *LEVELS), tuple(rows)), ABOUT_LEVELS] if rows else []


def _gains_table(recorded: dict[str, RLTables]) -> list[Block]:
    starts = sorted(set.intersection(*(set(study.starts) for study in recorded.values()))) if recorded else []
    if len(recorded) < 2 or not starts:
        return []
    rows = []
    for name, study in recorded.items():
        before = rl_measures.accuracy(study, "ood", after=False).groupby("step")["value"].mean()
        gained = rl_measures.gains(study).set_index("step").loc[starts]
        cells = [
            f"{one.value:.3f}" + (f" [{one.low:.3f}, {one.high:.3f}]" if one.seeds > 1 else "")
            for one in gained.itertuples()
        ]
        known = " / ".join(f"{before[start]:.3f}" for start in starts)
        rows.append((f"`{name}`", str(len(study.seeds)), known, *cells))
    heads = ("profile", "base seeds", f"OOD at steps {' / '.join(map(str, starts))}")
    return [Table((*heads, *(f"RL from {start}" for start in starts)), tuple(rows)), ABOUT_GAINS]
