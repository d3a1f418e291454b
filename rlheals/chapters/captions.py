"""Captions that follow from what a figure drew: its data say which study each row is of and where it was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from rlheals.display.looks import SPLITS
from rlheals.tasks import load_task

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

COUNTS = ("no", "one", "two", "three", "four", "five")
FIVE = len(COUNTS) - 1
STUDIES = {"recorded": "recorded study", "fresh": "fresh run"}


def drawn(frame: pd.DataFrame) -> list[str]:
    """The studies that a figure's data hold: recorded, fresh, both or neither."""
    there = set(frame["study"]) if "study" in frame else set()
    return [name for name in STUDIES if name in there]


def described(frame: pd.DataFrame, marks: Mapping[str, str], seeds: Mapping[str, int]) -> str:
    """One sentence on how each study is drawn, of how many base seeds, and with which kind of interval.

    marks, seeds: by study; marks are empty where a figure's own note says it.

    Where `frame` says of how many base seeds its rows are, that counts: some may be of fewer.

    >>> rows = pd.DataFrame({"study": ["recorded", "fresh"], "interval": ["95 % t intervals", ""]})
    >>> described(rows, {"recorded": "lines in bands", "fresh": "open marks"}, {"recorded": 5, "fresh": 1})
    'Recorded study, 5 base seeds: lines in bands (95 % t intervals); fresh run, 1 base seed: open marks.'
    """
    there = drawn(frame)
    if not there:
        return ""
    counted = {
        name: f"{STUDIES[name]}, {_seeds(frame[frame['study'] == name], seeds[name])}" for name in there
    }
    if not set(there) <= set(marks):
        return f"Drawn from the {' and the '.join(counted.values())}."
    parts = []
    for name in there:
        kind = _intervals(frame[frame["study"] == name])
        parts.append(f"{counted[name]}: {marks[name]}{f' ({kind})' if kind else ''}")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _seeds(rows: pd.DataFrame, known: int) -> str:
    """Rows without a value are of no base seed and do not count; where rows are of one base seed each, those count.

    >>> _seeds(pd.DataFrame({"seeds": [5, 2, 0, None]}), 5), _seeds(pd.DataFrame({"seeds": [0]}), 1)
    ('2 to 5 base seeds', '1 base seed')
    >>> _seeds(pd.DataFrame({"seed": [11, 11, 12]}), 5)
    '2 base seeds'
    """
    if "seed" in rows and rows["seed"].nunique():
        known = rows["seed"].nunique()
    counts = rows.loc[rows["seeds"] > 0, "seeds"] if "seeds" in rows else pd.Series(dtype=float)
    least, most = (int(counts.min()), int(counts.max())) if len(counts) else (known, known)
    return f"{f'{least} to ' * (least != most)}{most} base seed{'s' * (most != 1)}"


def _intervals(rows: pd.DataFrame) -> str:
    """What the intervals of these rows are, as their column `interval` says; "" when there are none."""
    said = rows["interval"].dropna().unique() if "interval" in rows else ()
    return " and ".join(filter(None, said))


def outside(frame: pd.DataFrame, words: Mapping[str, str]) -> str:
    """How many points of the fresh run lie outside where the recorded base seeds say that it falls.

    frame: with columns value, series, study, expected_low and expected_high; "" without them. words: what the figure
    calls a series.
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
        f"{words.get(str(name)) or _words(str(name))}: {row['sum']} of {row['size']}"
        for name, row in each[each["sum"] > 0].iterrows()
    )
    chance = f"about {0.05 * len(rows):.0f}" if len(rows) >= 10 else "fewer than 1"
    verb = "lies" if out.sum() == 1 else "lie"
    counted = f"{out.sum()} of {len(rows)} points of the fresh run {verb} outside {what}"
    return f"{counted} ({chance} expected by chance): {said}."


def _words(series: str) -> str:
    """The name of a series, with its split and category in words.

    >>> _words("ood, wrong_rule"), _words("held_out, format: readable")
    ('OOD, wrong rule', 'held-out ID, format: readable')
    """
    named = re.sub(r"\b(ood|held_out)\b", lambda found: SPLITS[found[1]].label, series)
    return named.replace("_", " ")


def worded(text: str, profile: Profile) -> str:
    """A figure's words, written for hands of cards and five attempts, as they are for the profile's task.

    >>> from rlheals.profiles import load_profile
    >>> worded("share of face-card hands, success@5", load_profile("smoke-navigation"))
    'share of nodes, success@2'
    """
    one, several = load_task(profile.task).called
    if one != "hand":
        text = re.sub(r"\b(?:face-card )?hand(s?)\b", lambda found: several if found[1] else one, text)
    attempts = min(profile.evaluate.attempts, FIVE)  # the measure counts no further
    counted = f"{COUNTS[attempts]} attempt{'s' if attempts != 1 else ''}"
    return text.replace("success@5", f"success@{attempts}").replace("five attempts", counted)
