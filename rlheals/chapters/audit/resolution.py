"""What one decode of 234 sampled hands can tell apart, and what a census of all hands can.

Three sources of noise are kept apart: which hands are drawn (a census has none of it), which answer is sampled at a
hand (decode noise, which a census has as well), and training (which neither sees; only several seeds do).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

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
    facts = released()["stages"]
    rows = []
    for name, one in facts.items():
        if not isinstance(one, dict):
            continue
        for what, after, before in (("end of SFT - peak", "end", "peak"), ("RL - end of SFT", "rl", "end")):
            found = newcombe(one[after], facts["n"], one[before], facts["n"])
            rows.append(
                {
                    "model": name, "file": one["file"], "what": what, "hands": one[after] - one[before],
                    "value": 100 * found.estimate, "low": 100 * found.low, "high": 100 * found.high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def most_other_changes(net: int, level: float = 0.05) -> int:
    """How many hands may change sides the other way before McNemar's paired test no longer sees a net change of hands.

    -1 where it never sees it.

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

    decoding: (1 - between) p (1 - p) / (hands decodes); drawing hands: between p (1 - p) / hands, 0 in a census;
    the root of their sum. `between` is the share of the variance p (1 - p) that lies between hands: 0 when all are
    equally hard, 1 when each is always or never solved.

    >>> round(standard_error(0.175, 234, 1, sampled=True), 3)
    0.025
    """
    decoding = (1 - between) * p * (1 - p) / (hands * decodes)
    drawing = between * p * (1 - p) / hands if sampled else 0.0
    return math.sqrt(decoding + drawing)


def power(before: float, drop: float, hands: int, decodes: int, between: float = 0.0) -> float:
    """Chance that two checkpoints on the same hands, truly `drop` apart, are told apart (two-sided, 5 %).

    Normal approximation; the noise is that of decoding, (1 - between) (p q + p' q') / (hands decodes). For drawn
    hands this speaks about those hands only.
    """
    after = before - drop
    spread = before * (1 - before) + after * (1 - after)
    error = math.sqrt((1 - between) * spread / (hands * decodes))
    z = NormalDist().inv_cdf(0.975)
    return _normal(drop / error - z) + _normal(-drop / error - z)


def smallest_drop(before: float, hands: int, decodes: int, between: float = 0.0) -> float:
    """The smallest drop that is seen with a chance of 0.8, to 0.05 points, as a share; nan where none is."""
    for drop in np.arange(STEP, before, STEP):
        if power(before, float(drop), hands, decodes, between) >= WANTED:
            return float(drop)
    return math.nan


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def designs() -> dict[str, dict[str, Any]]:
    """Ways of measuring OOD accuracy: hands, decodes of each, whether the hands are drawn."""
    hands, whole = released()["stages"]["n"], len(census("ood"))
    return {
        f"{hands} hands, one decode": {"hands": hands, "decodes": 1, "sampled": True},
        f"census of {whole} hands, one decode": {"hands": whole, "decodes": 1, "sampled": False},
        f"census of {whole} hands, four decodes": {"hands": whole, "decodes": 4, "sampled": False},
    }


def resolution(between: tuple[float, ...] = (0.0, 0.5)) -> pd.DataFrame:
    """Per design and share of variance between hands: standard error of one accuracy, smallest drop seen (points).

    At the height of Qwen's OOD accuracy at its peak.
    """
    one = released()["stages"]
    p = one["Qwen"]["peak"] / one["n"]
    rows = []
    for name, design in designs().items():
        for share in between:
            noise = {"hands": design["hands"], "decodes": design["decodes"], "between": share}
            rows.append(
                {
                    "design": name,
                    "between": share,
                    "standard_error": 100 * standard_error(p, sampled=design["sampled"], **noise),
                    "smallest_drop": 100 * smallest_drop(p, **noise),
                }
            )
    return pd.DataFrame(rows)
