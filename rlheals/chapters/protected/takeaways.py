"""What the figures of protected SFT show, in one sentence each."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.protected.figures import label_of
from rlheals.chapters.protected.runs import SFT


def plane(frame: pd.DataFrame) -> str:
    rows = say.last(frame).drop_duplicates("way").set_index("way")
    best = say.pick(rows.drop(index=SFT))["value"].idxmax()
    plain, other = ((say.percent(rows["value"][way]), say.percent(rows["id"][way])) for way in (SFT, best))
    said = f"the best regulariser, {label_of(str(best))}, has {other[0]} at {other[1]}"
    return f"at step {rows['step'].iloc[0]:,} plain SFT has {plain[0]} OOD accuracy at {plain[1]} ID; {said}"


def gains(frame: pd.DataFrame) -> str:
    found = say.curve(frame, "way", quantity="gained")
    best, count = max(found), [say.sign(one) for one in found].count
    said = f"{label_of(best.at)} does best ({say.points(best.value)})"
    over = "beat plain SFT's OOD accuracy at equal ID"
    if count(None):
        return f"{sum(one.value > 0 for one in found)} of {len(found)} regularisers {over}; {said}"
    return f"{count(1)} of {len(found)} regularisers clearly {over}, {count(-1)} clearly lose; {said}"


TAKEAWAYS = say.named("protection", plane, gains)
