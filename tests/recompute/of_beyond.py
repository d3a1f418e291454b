"""Estimators of chapter 6: those of the other chapters, asked of one task.

What they take is, by (task, part), what that part's module makes of the tables of `lab-TASK`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import of_edits
import of_healing
import of_sft
import of_spectra

TASKS = ("navigation", "determinant_rules")
CHAPTERS: dict[str, tuple[str, ModuleType]] = {
    "sft": ("", of_sft),
    "healing": ("-healing", of_healing),
    "rotation": ("-rotation", of_spectra),
    "swaps": ("-swaps", of_edits),
}
"""By part: the end of its folders' names, its estimators."""
Seed = dict[tuple[str, str], Any]


def in_task(seed: Seed, task: str, chapter: str, estimate: str, **options: Any) -> Any:
    if (task, chapter) not in seed:
        return float("nan")
    return getattr(CHAPTERS[chapter][1], estimate)(seed[task, chapter], **options)


def first_turn_falls_more(seed: Seed, measure: str) -> float:
    """fall at turns with `turn` 1 - fall at the others."""
    if ("navigation", "sft") not in seed:
        return float("nan")
    tables = seed["navigation", "sft"]
    rows = tables["episodes"]
    one, other = (
        of_sft.fall(tables | {"episodes": rows[(rows["turn"] == 1) == first]}, measure)
        for first in (True, False)
    )
    return float(np.subtract(one, other))
