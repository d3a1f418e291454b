"""Every spectral number in the released files beside what matrices give that have nothing to do with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlheals.audit_spectra import (
    KEY_SHAPE,
    QUARTER,
    QUERY_SIZE,
    SPREAD,
    Floats,
    Nulls,
    angle_law,
    chordal_law,
    released,
    singular_law,
)

MATRICES, UPDATES = "independent matrices", "updates of one base"
LAW, FULL, PART = "law", "simulation", "simulation, quarter size"


def comparison(found: Nulls) -> pd.DataFrame:
    """Every released point beside its nulls, one row per null.

    Columns: quantity, file, how, unit, value, error, null, by, low, high (of the draws; equal for a law), inside: the
    reading, with its error, reaches into the null.
    """
    rows = [*_value_rows(found), *_angle_rows(found)]
    frame = pd.DataFrame(rows)
    reach = (frame["value"] + frame["error"] >= frame["low"]) & (
        frame["value"] - frame["error"] <= frame["high"]
    )
    return frame.assign(inside=reach)


def _value_rows(found: Nulls) -> list[dict[str, Any]]:
    facts = released()
    rows = []
    for one in facts["singular_values"]:
        law, square = singular_law(*one["shape"]), tuple(one["shape"]) != KEY_SHAPE
        for index, value in one["points"].items():
            null = law[index : index + 1] if square else found.values[:, index]
            rows.append(
                _row(one, f"{one['what']}: {index}", value, "", null, MATRICES, LAW if square else FULL)
            )
    for one in facts["singular_value_changes"]:
        for value in one["points"].values():
            rows.append(_row(one, one["what"], value, "", found.changes.std(1), MATRICES, FULL))
    for one in facts["diagonal"]:
        for index, value in one["points"].items():
            null = found.diagonal[:, index]
            rows.append(_row(one, f"{one['what']}: {index}", value, "", null, MATRICES, FULL))
    for one in facts["largest_two"]:
        for kind, table in one["matrices"].items():
            for place, values in enumerate((table["first"], [table["second"]])):
                for value in sorted(set(values)):
                    what = f"singular value {place + 1} of {kind}_proj, randomised PCA"
                    rows.append(_row(one, what, value, "", found.largest[kind][:, place], MATRICES, FULL))
    for one in facts["chordal"]:
        law = np.array([chordal_law(one["n"], one["k"])])
        rows.append(_row(one, f"chordal distance, {one['what']}", one["value"], "", law, MATRICES, LAW))
    return rows


def _angle_rows(found: Nulls) -> list[dict[str, Any]]:
    rows = []
    for one in released()["angles"]:
        in_unit = np.rad2deg if one["unit"] == "degrees" else np.asarray
        kind, k = one["matrix"], one["k"]
        n, part = (QUERY_SIZE, QUARTER) if kind == "q" else (KEY_SHAPE[0], 1)
        if "forced" in one:
            what = f"angles of {kind}_proj that are 0, k = {k}"
            forced = np.array([2 * k - n])
            exact = {**one, "error": 0}
            rows += [_row(exact, what, one["forced"], "", forced, null, LAW) for null in (MATRICES, UPDATES)]
        for index, value in one["points"].items():
            what = f"angle {index} of {kind}_proj, k = {k}"
            law = in_unit(angle_law(n, k)[index : index + 1])
            drawn = in_unit(found.updates[kind][k // part][:, index // part])
            by = FULL if part == 1 else PART
            rows.append(_row(one, what, value, one["unit"], law, MATRICES, LAW))
            rows.append(_row(one, what, value, one["unit"], drawn, UPDATES, by))
    return rows


def _row(
    one: dict[str, Any], what: str, value: float, unit: str, draws: Floats, null: str, by: str
) -> dict[str, Any]:
    return {
        "quantity": what, "file": one["file"], "how": one["how"], "unit": unit, "value": value, "error": one["error"],
        "null": null, "by": by, "low": float(draws.min()), "high": float(draws.max()),
    }  # fmt: skip


def movement() -> pd.DataFrame:
    """How far training can move the entries of a weight, and how far independent matrices are apart, in spreads."""
    facts = released()["training"]
    first, last = facts["steps"]
    most = (last - first) * largest_adam_step(facts["learning_rate"], facts["betas"])
    return pd.DataFrame(
        {
            "what": [f"Adam, steps {first} to {last}, at most", "two independent matrices"],
            "relative_change": [most / SPREAD, math.sqrt(2)],
        }
    )


def largest_adam_step(learning_rate: float, betas: Sequence[float]) -> float:
    """The most by which Adam without weight decay can move an entry in one step, whatever the gradients.

    learning_rate (1 - b1) / sqrt(1 - b2) / sqrt(1 - b1^2 / b2), by Cauchy and Schwarz on its two running means.

    >>> round(largest_adam_step(1.0, (0.9, 0.98)), 2)
    1.7
    """
    b1, b2 = betas
    return learning_rate * (1 - b1) / math.sqrt(1 - b2) / math.sqrt(1 - b1 * b1 / b2)
