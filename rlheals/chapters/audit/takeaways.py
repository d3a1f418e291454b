"""What the figures of the page on released artefacts show, in one sentence each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.audit.numbers import line


def _off(points: pd.DataFrame, curve: pd.DataFrame) -> pd.Series:
    """How far points lie from a curve, both by index."""
    return (points["value"] - np.interp(points["index"], curve["index"], curve["value"])).abs()


def spectra(frame: pd.DataFrame) -> str:
    released = say.pick(frame, series="released")
    laws = {file: say.pick(frame, series="law", file=file) for file in released["file"].unique()}
    off = max(_off(own, laws[file]).max() for file, own in released.groupby("file"))
    said = f"differ from the law for Gaussian matrices by at most {say.number(off)}"
    return f"{len(released)} released singular values, up to {say.number(released['value'].max())}, {said}"


def largest(frame: pd.DataFrame) -> str:
    names = ("Llama", "null, Llama's shape", "Qwen", "null, Qwen's shape, law")
    groups = [say.pick(frame.assign(value=frame["high"]), series=name).groupby("matrix") for name in names]
    (low, llama), (null, high), (_, qwen), (_, law) = (
        (own["low"].min(), own["high"].max()) for own in groups
    )
    error = frame["error"].max()
    reach, times = (llama + error >= null) & (low - error <= high), say.number((qwen / law).max())
    said = f"in {reach.sum()} of {len(reach)} projections; Qwen's are up to {times} times their law"
    return f"Llama's largest singular values reach into the range of Gaussian matrices {said}"


def angles(frame: pd.DataFrame) -> str:
    first, second = "independent matrices", "updates of one base"
    nearer = []
    for (matrix, k, _), own in say.pick(frame, series="released").groupby(["matrix", "k", "file"]):
        nulls = [say.pick(frame, series=f"{name}, draws", matrix=matrix, k=k) for name in (first, second)]
        nearer.append(_off(own, nulls[0]).mean() < _off(own, nulls[1]).mean())
    said = f"{sum(nearer)} lie nearer to {first} and {len(nearer) - sum(nearer)} to {second}"
    return f"of {len(nearer)} released angle curves, {said}"


def counts(frame: pd.DataFrame) -> str:
    return f"{(~frame['whole']).sum()} of {len(frame)} published accuracies match no whole number of solved hands"


def copy(frame: pd.DataFrame) -> str:
    groups = frame.groupby(["series", "model"])
    off = pd.Series({name: say.number(float(line(own["ood"], own["id"])[2])) for name, own in groups})
    published = " and ".join(f"{size} ({model})" for model, size in off["published"].items())
    said = f"{published} points off a straight line in the OOD curve"
    return f"the published ID curve lies {said}; curves sampled apart lie {' and '.join(off['sampled'])} points off"


def resolution(frame: pd.DataFrame) -> str:
    found = say.pick(frame, series="published")
    drop, curves = abs(found["value"].iloc[0]), frame[frame["chance"].notna()]
    design = curves["series"].iloc[0]
    first = curves[curves["series"] == design]
    sure = (found["low"] * found["high"] > 0).sum()
    chance = f"{say.number(drop)} points is {say.percent(np.interp(drop, first['drop'], first['chance']))}"
    said = f"with {design}, the chance of detecting a true drop of {chance}"
    return f"{sure} of {len(found)} published differences have intervals without 0; {said}"


TAKEAWAYS = say.named("audit", spectra, largest, angles, counts, copy, resolution)
