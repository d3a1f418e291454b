"""What an interval says about a claim: a pure function of the interval and of the margin set beforehand."""

from __future__ import annotations

import math
from typing import Literal, get_args

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval

Verdict = Literal["holds", "holds in part", "open", "not here"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best to the worst for the claim."""


def verdict(interval: Interval, margin: float, partly: bool = True) -> Verdict:
    """The verdict on a claim phrased so that "effect > margin" (margin >= 0) is what it says.

    |                    | high <= margin (claimed size excluded) | high > margin (claimed size possible) |
    | ------------------ | -------------------------------------- | ------------------------------------- |
    | low > margin       | cannot be                              | holds                                 |
    | 0 < low <= margin  | holds in part                          | holds in part                         |
    | low <= 0           | not here                               | open                                  |

    More seeds could decide what is open; they would not bring back what is not here, such as [-0.01, 0.02]
    against a margin of 0.05.  The claim is a strict inequality, hence the <=; with margin 0 the row "holds in
    part" is empty.  Without `partly` nothing holds in part: the margin is a limit, low > margin holds, high <= margin
    is not here, else open.  Shifting the interval up never worsens the verdict; a narrower interval inside never turns
    "holds" into another verdict, nor "not here" into "holds".
    Raises BadInput for a margin that is negative or not finite.

    >>> verdict(Interval(0.34, 0.31, 0.37), margin=0.05)
    'holds'
    >>> verdict(Interval(0.06, 0.02, 0.10), margin=0.05)
    'holds in part'
    >>> verdict(Interval(0.06, -0.02, 0.14), margin=0.05)
    'open'
    >>> verdict(Interval(0.005, -0.01, 0.02), margin=0.05)
    'not here'
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise BadInput(f"verdict: margin {margin}; accepted: finite numbers of at least 0")
    if interval.low > margin:
        return "holds"
    if interval.low > 0 and partly:
        return "holds in part"
    return "not here" if interval.high <= margin else "open"
