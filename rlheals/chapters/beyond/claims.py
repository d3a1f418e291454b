"""Estimators of chapter 06: those of the other chapters, asked of one task, and what only whole routes can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from rlheals.chapters.beyond.runs import BeyondTables
from rlheals.chapters.edits.claims import CLAIMS as SWAPS
from rlheals.chapters.healing.claims import CLAIMS as HEALING
from rlheals.chapters.rows import only
from rlheals.chapters.sft.claims import CLAIMS as SFT
from rlheals.chapters.sft.claims import fall
from rlheals.chapters.sft.measures import Curves
from rlheals.chapters.spectra.claims import CLAIMS as ROTATION
from rlheals.errors import BadInput
from rlheals.study.claims import ESTIMATORS, ChapterClaims, Ratio, estimator
from rlheals.study.tables import Tables

Measured = Mapping[tuple[str, str], Any]
"""Of one base seed: by task and part of `claims.yaml`, what that part's estimators take."""
ASKED = {one.key: one for one in (SFT, HEALING, ROTATION, SWAPS)}


@estimator("beyond")
def in_task(measured: Measured, task: str, chapter: str, estimate: str, **options: Any) -> float | Ratio:
    """What an estimator of another chapter gives for a task."""
    if estimate not in ESTIMATORS.get(chapter, {}):
        raise BadInput(f"{chapter!r:.40} has no estimator {estimate!r:.40}")
    if (task, chapter) not in measured:
        return float("nan")  # not recorded (yet)
    return ESTIMATORS[chapter][estimate](measured[task, chapter], **options)


@estimator("beyond")
def first_turn_falls_more(measured: Measured, measure: str) -> float:
    """Fall of OOD accuracy from its peak to the end of SFT at the first turns of routes minus that at later ones.

    Before the first turn a prompt shows no action; later ones show the listed words in use.
    """
    if ("navigation", "sft") not in measured:
        return float("nan")
    curves: Curves = measured["navigation", "sft"]
    first, later = (
        replace(curves, episodes=curves.episodes[(curves.episodes["turn"] == 1) == is_first])
        for is_first in (True, False)
    )
    return fall(first, measure) - fall(later, measure)


def by_seed(tables: BeyondTables) -> Mapping[int, Measured]:
    """Those of every base seed; through `tables.once`, made one time."""
    found: dict[int, dict[tuple[str, str], Any]] = {seed: {} for seed in tables.seeds}
    for task, parts in tables.counted.items():
        for key in ASKED.keys() & parts.keys():
            for seed, measured in parts[key].once(ASKED[key].by_seed).items():
                if seed in found:
                    found[seed][task, key] = measured
    return found


def repeated(tables: BeyondTables) -> pd.DataFrame:
    """Sampling seeds that every task has."""
    each = [
        only(parts["sft"].episodes, seed=tables.seeds)[["seed", "decode"]].drop_duplicates()
        for parts in tables.counted.values()
        if isinstance(parts["sft"], Tables)
    ]
    common = each[0]
    for one in each[1:]:
        common = common.merge(one)
    return common


CLAIMS = ChapterClaims("beyond", by_seed, repeated)
