"""What the figures of chapter 03 show, in one sentence each."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.spectra.measures import PART
from rlheals.display.looks import PAIRS

PAIR = "peak-end"
FROM, NULL = f"from {PAIRS[PAIR].label}", "Gaussian changes of equal norm"


def _with_null(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Points of the pair's curves in whose names this is, beside their nulls: series, index, value, low, high."""
    rows = say.pick(frame)
    rows = rows[rows["series"].str.startswith(f"{PAIR}, ") & rows["series"].str.contains(what)]
    is_null = rows["series"].str.endswith(", null")
    null = rows[is_null].assign(series=rows["series"].str.removesuffix(", null"))
    return say.pick(
        rows[~is_null][["series", "index", "value"]].merge(null.drop(columns="value"), on=["series", "index"])
    )


def values(frame: pd.DataFrame) -> str:
    rows = _with_null(frame, "difference")
    above, below = (rows["value"] > rows["high"]).sum(), (rows["value"] < rows["low"]).sum()
    band = f"lie above the 95 % band of Gaussian changes, {below} below"
    return f"{FROM}, {above} of {len(rows)} changes of singular values {band}"


def changes(frame: pd.DataFrame) -> str:
    of = {"series": "value_change_mean", "pair": PAIR}
    change, null = (say.estimate(frame, what=what, **of) for what in ("change", "gaussian"))
    beside = f"{say.BESIDE[say.compare(null, change)]} the {say.percent(null.value)} of {NULL}"
    return f"singular values change by {say.percent(change.value)} {FROM}, {beside}"


def curves(frame: pd.DataFrame) -> str:
    value, low, high = say.last(_with_null(frame, ""), "index")[["value", "low", "high"]].mean()
    place = "above" if value > high else "below" if value < low else "inside"
    band = f"{place} the 95 % Gaussian band ({say.number(low)} to {say.number(high)})"
    return f"{FROM}, the leading half's largest angle averages {say.number(value)} times its null, {band}"


def by_size(frame: pd.DataFrame) -> str:
    ratio = say.estimate(frame, series=f"{PAIR}, top, over null", part=PART)
    said = f"{say.number(ratio.value)} times as far as {NULL}{say.effect(ratio, 1)}"
    return f"{FROM}, the leading 1/{PART} of vectors rotates {said}"


def where(frame: pd.DataFrame) -> str:
    rows = say.pick(frame, head=-1)
    layers = [f", layer {layer}" if layer >= 0 else "" for layer in rows["layer"]]
    found = say.curve(rows.assign(at=rows["kind"] + layers), "at")
    return f"{FROM}, rotation relative to its null {say.extremes(found, say.number)}"


def heat(frame: pd.DataFrame) -> str:
    rows = say.pick(frame.rename(columns={"energy": "value"}), pair=PAIR).astype({"kind": object})
    place = (rows[["left", "right"]] + 0.5) / (rows.groupby("kind")[["left", "right"]].transform("max") + 1)
    first, last = (place < 0.25).any(axis=1), (place > 0.75).any(axis=1)
    leading, trailing = (
        say.number(rows["value"][chosen].mean()) for chosen in (first & ~last, last & ~first)
    )
    said = (
        f"{leading} times white noise's energy in leading singular vectors, {trailing} times in trailing ones"
    )
    return f"{FROM}, the change has {said}"


def along(frame: pd.DataFrame) -> str:
    angle, null, excess, ood = (
        say.curve(frame, series=name)[-1] for name in ("angle", "null", "excess", "ood")
    )
    beside = f"{say.BESIDE[say.sign(excess)]} the {say.number(null.value)} of their null"
    rotated = f"singular vectors have rotated {say.number(angle.value)} degrees, {beside}"
    return f"at step {angle.at:,} {rotated}; OOD accuracy is {say.percent(ood.value)}"


def trajectories(frame: pd.DataFrame) -> str:
    size = say.number(frame[["ood", "size"]].rank().corr()["ood"].round(2)["size"])
    return f"over {len(frame)} checkpoints, OOD accuracy has a rank correlation of {size} with the size of the change"


def matched(frame: pd.DataFrame) -> str:
    found = {name: say.estimate(frame, series=name) for name in ("rotation", "held-out ID accuracy")}
    said = " and ".join(f"{say.number(one.value)}{say.effect(one)} for {name}" for name, one in found.items())
    return f"at equal size, the correlation with OOD accuracy is {said}"


def back(frame: pd.DataFrame) -> str:
    rl, null = (say.curve(frame, "start", series=f"{what}, share")[-1] for what in ("RL", "null"))
    side = {1: " (away from it)", -1: " (toward it)"}.get(say.sign(rl) or 0, say.effect(rl))
    said = f"by {say.percent(rl.value, sign=True)}{side}; noise of equal norm by {say.percent(null.value, sign=True)}"
    return f"RL from step {rl.at:,} changes the angle to the peak {said}"


TAKEAWAYS = say.named(
    "rotation", values, changes, curves, by_size, where, heat, along, trajectories, matched, back
)
