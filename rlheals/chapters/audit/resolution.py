"""Which differences 234 sampled hands with one sampling seed can resolve, and which a census of all hands can.

Three sources of noise are kept apart: which hands are drawn (a census has none of it), which answer is sampled for a
hand (a census has this noise, too), and training (which only several training seeds show). `decodes` is the number of
sampling seeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from rlheals.chapters.audit.spectra import released
from rlheals.errors import BadInput
from rlheals.stats.intervals import mcnemar, newcombe
from rlheals.tasks.general_points.cards import census

WANTED = 0.8
STEP = 0.0005


def differences() -> pd.DataFrame:
    """Drop (end of SFT - peak) and recovery (RL - end) of published OOD accuracies, with Newcombe's intervals.

    Columns: model, file, what, hands (by which the counts differ), value, low, high (points of accuracy). As if the
    hands of the two were drawn apart; they are the same, but which of them were solved is not released.
    """
    stages = dict(released()["stages"])
    n, rows = stages["n"], []
    for model, one in stages.items():
        if not isinstance(one, dict):
            continue
        for what, after, before in (("end of SFT - peak", "end", "peak"), ("RL - end of SFT", "rl", "end")):
            found = newcombe(one[after], n, one[before], n)
            points = (100 * found.estimate, 100 * found.low, 100 * found.high)
            rows.append((model, one["file"], what, one[after] - one[before], *points))
    return pd.DataFrame(rows, columns=["model", "file", "what", "hands", "value", "low", "high"])


def most_other_changes(net: int, level: float = 0.05) -> int:
    """How many hands may change the other way before McNemar's paired test no longer sees a net change of hands.

    -1 where it never sees one.

    >>> most_other_changes(6), most_other_changes(5)
    (0, -1)
    """
    if net < 1:
        raise BadInput(f"most_other_changes: net = {net}, at least 1 hand has to change sides")
    others = -1
    while mcnemar(net + others + 1, others + 1) <= level:
        others += 1
    return others


def standard_error(p: float, hands: int, decodes: int, sampled: bool, between: float = 0.0) -> float:
    """Standard error of one accuracy p, as a share.

    sampling answers: (1 - between) p (1 - p) / (hands decodes); drawing hands: between p (1 - p) / hands, 0 in a
    census; the root of their sum. `between` is the share of the variance p (1 - p) that lies between hands: 0 when all
    are equally hard, 1 when each is always or never solved.

    >>> round(standard_error(0.175, 234, 1, sampled=True), 3)
    0.025
    """
    answers = (1 - between) * p * (1 - p) / (hands * decodes)
    drawing = between * p * (1 - p) / hands if sampled else 0.0
    return math.sqrt(answers + drawing)


def power(before: float, drop: float, hands: int, decodes: int, between: float = 0.0) -> float:
    """Chance that two checkpoints on the same hands, truly `drop` apart, are told apart (two-sided, 5 %).

    Normal approximation; the noise is that of sampling, (1 - between) (p q + p' q') / (hands decodes). For drawn
    hands this speaks about those hands only.
    """
    after = before - drop
    spread = before * (1 - before) + after * (1 - after)
    shift = drop / math.sqrt((1 - between) * spread / (hands * decodes))
    z = norm.ppf(0.975)
    return float(norm.cdf(shift - z) + norm.cdf(-shift - z))


def smallest_drop(before: float, hands: int, decodes: int, between: float = 0.0) -> float:
    """The smallest drop that is seen with a chance of 0.8, to 0.05 points, as a share; nan where none is."""
    drops = (float(drop) for drop in np.arange(STEP, before, STEP))
    return next((drop for drop in drops if power(before, drop, hands, decodes, between) >= WANTED), math.nan)


def designs() -> dict[str, dict[str, Any]]:
    """Ways of measuring OOD accuracy: hands, sampling seeds for each, whether the hands are drawn."""
    hands, whole = released()["stages"]["n"], len(census("ood"))
    return {
        f"{hands} hands, one sampling seed": {"hands": hands, "decodes": 1, "sampled": True},
        f"census of {whole} hands, one sampling seed": {"hands": whole, "decodes": 1, "sampled": False},
        f"census of {whole} hands, four sampling seeds": {"hands": whole, "decodes": 4, "sampled": False},
    }


def resolution(between: tuple[float, ...] = (0.0, 0.5)) -> pd.DataFrame:
    """Per design and share of variance between hands: standard error of one accuracy, smallest drop seen (points).

    At the height of Qwen's OOD accuracy at its peak.
    """
    stages = released()["stages"]
    p, rows = stages["Qwen"]["peak"] / stages["n"], []
    for name, design in designs().items():
        noise = {"hands": design["hands"], "decodes": design["decodes"]}
        for share in between:
            error = standard_error(p, **design, between=share)
            rows.append((name, share, 100 * error, 100 * smallest_drop(p, **noise, between=share)))
    return pd.DataFrame(rows, columns=["design", "between", "standard_error", "smallest_drop"])
