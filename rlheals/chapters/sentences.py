"""How the one sentence above a figure, its takeaway, is made from the rows that the figure drew.

It says rises, falls, above or below only where 95 % intervals do not overlap, "not clearly" where they do, and states
numbers alone where there are no intervals, as with one base seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlheals.chapters import captions
from rlheals.chapters.rows import only
from rlheals.stats.intervals import t_interval

Takeaway = Callable[[pd.DataFrame], str]
"""From rows to a sentence without capital and full stop; a LookupError says that there is none."""
RISES = {1: "rises", -1: "falls", 0: "does not clearly change", None: "goes"}
BESIDE = {1: "above", -1: "below", 0: "not clearly different from", None: "against"}
SIDES = {1: " (interval above {:g})", -1: " (interval below {:g})", 0: " (interval includes {:g})", None: ""}


class Absent(LookupError):
    """A figure does not have the rows that its takeaway is about."""


class Estimate(NamedTuple):
    """A value with its interval (nan: none), and the step, edit or other thing that it is about."""

    value: float
    low: float = np.nan
    high: float = np.nan
    at: Any = None


def takeaways_of(chapter: type) -> Mapping[str, Takeaway]:
    """By name of a figure, what makes the sentence above it from its data; empty for a folder that has none."""
    package = chapter.__module__.rpartition(".")[0]
    if not package.startswith("rlheals.chapters.") or find_spec(f"{package}.takeaways") is None:
        return {}
    found: Mapping[str, Takeaway] = import_module(f"{package}.takeaways").TAKEAWAYS
    return found


def named(prefix: str, *takeaways: Takeaway) -> dict[str, Takeaway]:
    """By the names of the figures, which are those of the functions."""
    return {f"{prefix}-{one.__name__.strip('_').replace('_', '-')}": one for one in takeaways}


def said(takeaway: Takeaway | None, frame: pd.DataFrame, seeds: Mapping[str, int] | None = None) -> str:
    """The sentence about the study that a figure shows: the recorded one, else the fresh run, which it then says.

    frame: all rows drawn; seeds: number of base seeds by study. "" without takeaway or without the rows for it.
    """
    there = captions.drawn(frame)
    if takeaway is None or ("study" in frame and not there):
        return ""
    rows = (frame[frame["study"] != "fresh"] if "recorded" in there else frame).reset_index(drop=True)
    one_seed = bool(there) and (seeds or {}).get(there[0]) == 1
    if {"low", "high"} <= set(rows):
        kind = rows.get("interval", pd.Series("unnamed", rows.index))  # missing: the band of a null's draws
        none = (rows.get("seeds", kind) == 1) | (kind == "")
        if one_seed:
            none |= kind.notna() & (rows["study"] != "paper")
        rows = rows.assign(low=rows["low"].mask(none), high=rows["high"].mask(none))
    try:
        clause = takeaway(rows)
    except LookupError:  # a row, series or column that this profile does not have
        return ""
    if there == ["fresh"]:
        clause = f"in this {'one-seed ' * one_seed}fresh run, {clause}"
    elif one_seed:
        clause = f"with one base seed, {clause}"
    return f"{clause[0].upper()}{clause[1:]}."


def pick(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows that have a value, and these in other columns; `Absent` where there are none."""
    if {"value", *wanted} <= set(frame):
        rows = frame[frame["value"].notna()]
        if len(rows := only(rows, **wanted) if wanted else rows):
            return rows
    raise Absent(f"no rows {wanted}")


def last(frame: pd.DataFrame, by: str = "step", **wanted: Any) -> pd.DataFrame:
    """Those of the last step."""
    rows = pick(frame, **wanted)
    return rows[rows[by] == rows[by].max()]


def curve(frame: pd.DataFrame, at: str = "step", **wanted: Any) -> list[Estimate]:
    """All rows that are wanted as estimates, in order of their steps."""
    rows = pick(frame, **wanted).sort_values(at, kind="stable")
    ends = [rows.get(end, pd.Series(np.nan, rows.index)) for end in ("low", "high")]
    return [Estimate(*one) for one in zip(rows["value"], *ends, rows[at], strict=True)]


def estimate(frame: pd.DataFrame, **wanted: Any) -> Estimate:
    """The one row that is wanted."""
    return curve(frame.assign(one=0), "one", **wanted)[0]


def over_seeds(values: Iterable[float]) -> Estimate:
    """Mean and t interval of one value per base seed; those that are not numbers do not count."""
    known = [value for value in values if np.isfinite(value)]
    if len(known) < 2:
        return Estimate(float(np.mean(known)) if known else np.nan)
    found = t_interval(known)
    return Estimate(found.estimate, found.low, found.high)


def compare(one: Estimate, other: Estimate) -> int | None:
    """1 where `other` lies above, -1 below, 0 where the intervals overlap, None where either has none.

    >>> compare(Estimate(0.1, 0.0, 0.2), Estimate(0.5, 0.4, 0.6)), compare(Estimate(0.1), Estimate(0.5))
    (1, None)
    """
    if np.isnan([one.low, one.high, other.low, other.high]).any():
        return None
    return int(other.low > one.high) - int(other.high < one.low)


def sign(one: Estimate, level: float = 0.0) -> int | None:
    """The same of a level and an estimate."""
    return compare(Estimate(level, level, level), one)


def number(value: float) -> str:
    """Two digits, or all those before the point.

    >>> number(0.0314), number(1280), number(-0.0001)
    ('0.031', '1,280', '0')
    """
    if not np.isfinite(value):
        raise Absent("no number")
    value = round(value, 3) + 0.0  # no minus before a zero
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.2g}"


def percent(share: float, sign: bool = False) -> str:
    size = number(round(100 * share, 1))
    return f"{'+' * (sign and share > 0 and size != '0')}{size} %"


def points(difference: float) -> str:
    """A difference of shares, with its sign.

    >>> points(0.154), points(-0.01), points(0.0)
    ('+15 points', '-1 point', '0 points')
    """
    size = percent(difference, sign=True).removesuffix(" %")
    return f"{size} point{'s' * (size.strip('+-') != '1')}"


def effect(one: Estimate, level: float = 0.0) -> str:
    """In brackets, on which side of a level the interval of an estimate lies."""
    return SIDES[sign(one, level)].format(level)


def moved(before: Estimate, after: Estimate, say: Callable[[float], str] = percent) -> str:
    """rises from 5 % to 20 %."""
    order, ends = compare(before, after), f"{say(before.value)} to {say(after.value)}"
    return f"{RISES[order]} ({ends})" if order == 0 else f"{RISES[order]} from {ends}"


def course(found: Sequence[Estimate], say: Callable[[float], str] = percent, lowest: bool = False) -> str:
    """A curve from its first step over its highest (or lowest) to the last.

    >>> course([Estimate(0.1, 0, 0.2, 0), Estimate(0.5, 0.4, 0.6, 10), Estimate(0.2, 0.1, 0.3, 1280)])
    'rises from 10 % to 50 % at step 10 and falls to 20 % by step 1,280'
    """
    first, turn, end = found[0], (min if lowest else max)(found), found[-1]
    start, middle, until = say(first.value), f"{say(turn.value)} at step {turn.at:,}", f"step {end.at:,}"
    there, back, whole = compare(first, turn), compare(turn, end), compare(first, end)
    if there is None or back is None:
        via = f" via {middle}" if turn.at not in (first.at, end.at) else ""
        return f"goes from {start}{via} to {say(end.value)} at {until}"
    if there and back:
        return f"{RISES[there]} from {start} to {middle} and {RISES[back]} to {say(end.value)} by {until}"
    if there:
        return f"{RISES[there]} from {start} to {middle}{f', not clearly different at {until}' * (turn.at != end.at)}"
    since, order = (turn, back) if back and not whole else (first, whole)
    return f"{RISES[order]} from {say(since.value)} at step {since.at:,} to {say(end.value)} at {until}"


def extremes(found: Sequence[Estimate], say: Callable[[float], str] = percent) -> str:
    """The highest and the lowest of several, by what they are about."""
    high, low = max(found), min(found)
    if compare(low, high) == 0:
        return f"does not clearly differ: {say(low.value)} ({low.at}) to {say(high.value)} ({high.at})"
    return f"is highest for {high.at} ({say(high.value)}) and lowest for {low.at} ({say(low.value)})"


def risen(pairs: Sequence[tuple[Estimate, Estimate]], of: str = "starts", apart: str = "clearly") -> str:
    """Of pairs (before, after): how many rise, and how many of these clearly."""
    orders = [compare(*pair) for pair in pairs]
    sure = "" if None in orders else f" ({orders.count(1)} {apart})"
    return f"{sum(after.value > before.value for before, after in pairs)} of {len(pairs)} {of}{sure}"
