"""The scale trend: what SFT gives and takes in lab models of several sizes, each trained from scratch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch

from rlheals import measures, models, record, tables
from rlheals.dialects import Compact
from rlheals.drawing import with_intervals
from rlheals.markup import Block, Table
from rlheals.models import ModelSettings
from rlheals.profiles import PROFILES, load_profile, names
from rlheals.sft_claims import CLAIMS, Curves, by_seed
from rlheals.tables import Tables


def _id_end(curves: Curves) -> float:
    return float(curves.accuracy("sft")[curves.end])


LEVELS: dict[str, Callable[[Curves], float]] = {
    "OOD, base, either layout": measures.base_level,
    "OOD, peak": measures.peak_level,
    "OOD, last checkpoint": measures.end_level,
    "ID, last checkpoint": _id_end,
}


@lru_cache(maxsize=64)
def weights(model: ModelSettings) -> int:
    """How many weights a lab model has.

    >>> weights(ModelSettings())
    193984
    """
    with torch.device("meta"):
        return models.create(model, Compact().tokenizer, 0).num_parameters()


def studies(results: Path) -> dict[str, Tables]:
    """The lab's recorded study and those of larger lab models, as far as there are any; small models first."""
    lab = CLAIMS.read().study.profile
    sized = {
        name: weights(load_profile(name).pretrain.model)
        for name in (lab, *names())
        if name == lab or (name not in PROFILES and load_profile(name).model is None)
    }
    found = {name: record.find(name, tables.SFT, results)[0] for name in sorted(sized, key=sized.__getitem__)}
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
    """The trend as a table; in words when nothing but the lab itself is recorded."""
    recorded = studies(results)
    table = trend(recorded).set_index(["profile", "level"])
    rows = []
    for name, study in recorded.items():
        cells = [
            f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
            for one in (table.loc[(name, level)] for level in LEVELS)
        ]
        size = weights(load_profile(name).pretrain.model)
        rows.append((f"`{name}`", f"{size:,}", str(len(study.seeds)), *cells))
    about = (
        "Solved within five attempts; the peak is chosen on one half of the hands and measured on the other, both "
        "ways. 95 % t intervals over base seeds; of a single base seed, Wilson's interval over hands and decodes, "
        "which knows nothing of other seeds."
    )
    shown: list[Block] = (
        [Table(("profile", "weights", "base seeds", *LEVELS), tuple(rows)), about] if rows else []
    )
    if len(recorded) < 2:
        shown.append("No study of another size is recorded.")
    return shown
