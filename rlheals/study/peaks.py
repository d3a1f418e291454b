"""The peak of SFT: the step of highest OOD accuracy, from which later chapters measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlheals.errors import BadInput
from rlheals.study import record, tables
from rlheals.study.tables import Tables


def peak_of(accuracy: pd.Series) -> int:
    """The step of highest OOD accuracy among those after the base and before the last; ties: the earliest.

    >>> peak_of(pd.Series({0: 0.9, 10: 0.2, 20: 0.4, 40: 0.4, 80: 0.8}))
    20
    """
    inner = accuracy.sort_index().iloc[1:-1]
    if not len(inner):
        raise BadInput(
            f"a peak needs censuses at three SFT steps or more; there are {sorted(accuracy.index)}"
        )
    return int(inner.idxmax())


def peaks_of(study: Tables) -> dict[int, int]:
    """The OOD peak of every base seed of chapter 01's study."""
    rows = study.episodes[study.episodes["split"] == "ood"]
    solved = (rows["solved_at"] > 0).groupby([rows["seed"], rows["step"]]).mean()
    return {int(str(seed)): peak_of(group.droplevel(0)) for seed, group in solved.groupby(level=0)}


def recorded_peaks(name: str, seeds: Sequence[int], results: Path) -> dict[int, int]:
    """The peaks of some base seeds from the recorded study of chapter 01; BadInput when one is not recorded."""
    study, _ = record.find(name, tables.SFT, results)
    known = {} if study is None else peaks_of(study)
    if lacking := sorted(set(seeds) - set(known)):
        raise BadInput(
            f"base seed {lacking[0]} of {name} is not in {results.name}/{name}, so its peak is not known; record it "
            f"first: rlheals study --profile {name} --seeds {lacking[0]} --record {results.name}"
        )
    return {seed: known[seed] for seed in seeds}
