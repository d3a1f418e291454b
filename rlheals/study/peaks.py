"""Points of SFT from which later chapters start: the OOD peak, and states after it by what has been lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.errors import BadInput
from rlheals.settings import STATES
from rlheals.study import record, tables
from rlheals.study.claims import half_of
from rlheals.study.tables import Tables

PEAK = 0
"""The state of the peak itself."""


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


def has_lost(state: int, left: float) -> bool:
    """Whether so many per cent are lost where a share of the peak is left; rounding decides nothing.

    >>> has_lost(10, 0.9), has_lost(10, 0.91)
    (True, False)
    """
    return round(100 * (1 - left), 9) >= state


def states_of(ability: pd.Series) -> dict[int, int]:
    """By state the SFT step: that of the peak, and the first one after it at which so many per cent of it are lost.

    ability: by step. A state that SFT does not reach is missing.

    >>> states_of(pd.Series({0: 0.7, 20: 0.8, 160: 0.75, 640: 0.7, 1280: 0.3}))
    {0: 20, 10: 640, 50: 1280}
    """
    curve = ability.sort_index()
    peak = peak_of(curve)
    left = curve[curve.index > peak] / curve[peak]
    reached = {state: left.index[[has_lost(state, share) for share in left]] for state in STATES}
    return {PEAK: peak, **{state: int(steps[0]) for state, steps in reached.items() if len(steps)}}


def starts_of(study: Tables) -> dict[int, dict[int, int]]:
    """The states of every base seed by OOD pass@k, k the number of sampling seeds, in either layout.

    Chosen on one half of the hands (`half_of` is 0), so that the other half measures without having chosen.
    """
    rows = study.episodes[study.episodes["split"] == "ood"]
    rows = rows[rows["item"].map(lambda item: half_of(str(item)) == 0).astype(bool)]
    first = (rows["solved_at_either"] == 1).groupby([rows["seed"], rows["step"], rows["item"]], observed=True)
    ability = first.any().groupby(level=[0, 1]).mean()
    return {int(str(seed)): states_of(group.droplevel(0)) for seed, group in ability.groupby(level=0)}


POINTS: dict[str, Callable[[Tables], dict[int, Any]]] = {"peaks": peaks_of, "starts": starts_of}
"""What `Part.from_sft` may name."""


def recorded_points(what: str, name: str, seeds: Sequence[int], results: Path) -> dict[int, Any]:
    """Those of `POINTS` for some base seeds from the recorded study of chapter 01; BadInput when one is missing."""
    study, _ = record.find(name, tables.SFT, results)
    known = {} if study is None else POINTS[what](study)
    if lacking := sorted(set(seeds) - set(known)):
        raise BadInput(
            f"base seed {lacking[0]} of {name} is not in {results.name}/{name}, so its {what} are not known; record it "
            f"first: rlheals study --profile {name} --seeds {lacking[0]} --record {results.name}"
        )
    return {seed: known[seed] for seed in seeds}
