"""Captions that follow from what a figure drew: its data say which study each row is of and where it was expected."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

STUDIES = ("recorded", "fresh")


@dataclass(frozen=True)
class Marks:
    """How a figure draws the two studies; bars: whether the fresh run's intervals are drawn as well."""

    recorded: str = ""
    fresh: str = ""
    bars: bool = False


BANDS = Marks("lines in bands", "open marks", True)
CROSSES = Marks("filled marks", "crosses")
DOTTED = Marks("solid lines in bands", "dotted lines")
PLAIN = Marks()
"""A figure of one study, whose note says what its marks are."""


def drawn(frame: pd.DataFrame) -> list[str]:
    """The studies that a figure's data hold: recorded, fresh, both or neither."""
    there = set(frame["study"]) if "study" in frame else set()
    return [name for name in STUDIES if name in there]


def described(frame: pd.DataFrame, marks: Marks) -> str:
    """One sentence on which study is drawn how, with the kind of interval where an interval is drawn.

    >>> rows = pd.DataFrame({"study": ["recorded", "fresh"], "low": [0.1, 0.2], "high": [0.3, 0.2], "seeds": [5, 1]})
    >>> described(rows, BANDS)
    'Recorded study: lines in bands (95 % t intervals over base seeds); fresh run: open marks.'
    """
    names = {"recorded": "recorded study", "fresh": "fresh run"}
    there = drawn(frame)
    if not marks.fresh or not there:
        said = " and the ".join(names[name] for name in there)
        return f"Drawn from the {said}." if said else ""
    parts = []
    for name in there:
        kind = _intervals(frame[frame["study"] == name]) if name == "recorded" or marks.bars else ""
        parts.append(f"{names[name]}: {getattr(marks, name)}{f' ({kind})' if kind else ''}")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _intervals(rows: pd.DataFrame) -> str:
    """What the intervals of these rows are, "" when there are none."""
    if not {"low", "high", "seeds"} <= set(rows) or not (rows["high"] > rows["low"]).any():
        return ""
    many = rows.loc[rows["high"] > rows["low"], "seeds"].max() > 1
    return "95 % t intervals over base seeds" if many else "95 % Wilson intervals of the hands"


def outside(frame: pd.DataFrame) -> str:
    """How many points of the fresh run lie outside where the recorded base seeds say that it falls.

    frame: with columns value, series, study, expected_low and expected_high; "" without them.
    """
    if "expected_low" not in frame or "fresh" not in drawn(frame):
        return ""
    rows = frame[(frame["study"] == "fresh") & frame["expected_low"].notna()]
    if not len(rows):
        return ""
    out = (rows["value"] < rows["expected_low"]) | (rows["value"] > rows["expected_high"])
    what = "the 95 % prediction intervals that the recorded base seeds give"
    if not out.any():
        return f"All {len(rows)} points of the fresh run lie inside {what}."
    each = out.groupby(rows["series"], sort=False).agg(["sum", "size"])
    said = "; ".join(
        f"{name}: {row['sum']} of {row['size']}" for name, row in each[each["sum"] > 0].iterrows()
    )
    chance = f"about {0.05 * len(rows):.0f}" if len(rows) >= 10 else "fewer than 1"
    verb = "lies" if out.sum() == 1 else "lie"
    counted = f"{out.sum()} of {len(rows)} points of the fresh run {verb} outside {what}"
    return f"{counted} ({chance} expected by chance): {said}."
