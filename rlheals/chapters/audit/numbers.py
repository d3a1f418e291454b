"""Checks of the released accuracies that need nothing but the published numbers, and the counts they come down to.

Spectra: `audit_spectra.py` (nulls), `audit_compared.py`. Loading of Llama: `audit_loading.py`. What a sample of hands
can tell apart: `audit_resolution.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from rlheals.chapters.audit.loading import AUTO, MEMORY
from rlheals.chapters.audit.spectra import MATRICES, UPDATES, Nulls, comparison, released
from rlheals.chapters.checks import Report
from rlheals.chapters.drawing import paper_points
from rlheals.errors import BadInput
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE, Rule, census
from rlheals.tasks.general_points.formula import evaluate, evaluate_float
from rlheals.tasks.general_points.solver import TARGET, Values, solutions, solved_table

HANDS = 234
CURVES = ("ood_accuracy_llama", "ood_accuracy_after_rl_llama")
MODELS = ("Llama", "Qwen")

Floats = npt.NDArray[np.float64]


def nearest_count(percent: str, n: int) -> tuple[int, bool]:
    """The k for which 100 k / n is nearest to a printed percentage, and whether it rounds to it.

    Rounded half up or down at the last printed digit; in fractions, so nothing hangs on floating point.

    >>> nearest_count("17.52", 234), nearest_count("6.92", 234)
    ((41, True), (16, False))
    """
    value, digits = Fraction(percent), len(percent.partition(".")[2])
    k = round(value * n / 100)
    return k, abs(Fraction(100 * k, n) - value) <= Fraction(1, 2 * 10**digits)


def accuracies() -> pd.DataFrame:
    """Every published accuracy and the nearest count behind it.

    Columns: file, point, n, printed (text, per cent), k (nearest), whole (100 k / n rounds to it), off (points).
    """
    facts = released()
    rows = []
    for one in facts["accuracies"]:
        rows += [(one["file"], point, one["n"], value) for point, value in one["points"].items()]
    for key in CURVES:
        curve = paper_points()[key]
        file, _, series = curve["source"].partition(",")
        what = series.partition(";")[0].strip()
        points = curve["points"].items()
        rows += [
            (file, f"{what}, checkpoint {step}", curve["hands"], f"{value:.2f}") for step, value in points
        ]
    put_back = facts["restored_values"]
    for model in MODELS:
        for split, file in put_back["files"].items():
            values = zip(put_back["k"], put_back[model][split], strict=False)  # Qwen's curve ends one earlier
            rows += [(file, f"{model} {split.upper()}, k = {k}", put_back["n"], value) for k, value in values]
    frame = pd.DataFrame(rows, columns=["file", "point", "n", "printed"])
    found = [nearest_count(printed, n) for printed, n in zip(frame["printed"], frame["n"], strict=True)]
    nearest = np.array([100 * k / n for (k, _), n in zip(found, frame["n"], strict=True)])
    return frame.assign(
        k=[k for k, _ in found],
        whole=[whole for _, whole in found],
        off=frame["printed"].astype(float) - nearest,
    )


@dataclass(frozen=True)
class Line:
    """A straight line through the points of two curves: slope, intercept (points), root mean squared residual."""

    slope: float
    intercept: float
    residual: float


def line(x: npt.ArrayLike, y: npt.ArrayLike) -> Line:
    """Least squares of y on x.

    >>> line([1, 2, 3], [3, 5, 7.0]).slope.__round__(6)
    2.0
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if xs.shape != ys.shape or xs.ndim != 1 or len(xs) < 3 or np.ptp(xs) == 0:
        raise BadInput(
            f"line: {xs.shape} and {ys.shape}; accepted are two curves of 3 or more points, the first not flat"
        )
    slope = float(((xs - xs.mean()) * (ys - ys.mean())).sum() / ((xs - xs.mean()) ** 2).sum())
    intercept = float(ys.mean() - slope * xs.mean())
    return Line(slope, intercept, float(np.sqrt(((ys - intercept - slope * xs) ** 2).mean())))


def restored(model: str) -> tuple[Floats, Floats]:
    """OOD and ID accuracy (per cent) after singular values were put back, by k."""
    curves = released()["restored_values"][model]
    return np.array(curves["ood"], dtype=float), np.array(curves["id"], dtype=float)


def sampled_lines(model: str, draws: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Lines through curves of the same heights whose points are independent counts of 234: residual, spread of OOD.

    Each point of either curve is Binomial(234, mean of that curve) / 234, in per cent: no effect of k, and nothing
    that ID and OOD share.
    """
    generator = np.random.default_rng(seed)
    x, y = (
        100 * generator.binomial(HANDS, curve.mean() / 100, (draws, len(curve))) / HANDS
        for curve in restored(model)
    )
    flat = np.ptp(x, axis=1) == 0
    x, y = x[~flat], y[~flat]
    return pd.DataFrame(
        {
            "residual": [line(a, b).residual for a, b in zip(x, y, strict=True)],
            "spread_ood": x.std(axis=1),
        }
    )


def copies() -> pd.DataFrame:
    """Per model: the line through the two published curves, and what rounding or sampling would leave as residual.

    by_rounding: root mean square that rounding both curves to two decimals leaves of an exact line. sampled_low: the
    2.5 % quantile of `sampled_lines`, spread_low that of the spread of OOD points (all in points of accuracy).
    """
    rows = []
    for model in MODELS:
        x, y = restored(model)
        fit, sampled = line(x, y), sampled_lines(model)
        step = 2 * released()["restored_values"]["error"]
        rows.append(
            {
                "model": model, "points": len(x), "slope": fit.slope, "intercept": fit.intercept,
                "residual": fit.residual, "by_rounding": step / math.sqrt(12) * math.hypot(1, fit.slope),
                "sampled_low": sampled["residual"].quantile(0.025),
                "spread_ood": float(x.std()), "spread_low": sampled["spread_ood"].quantile(0.025),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@cache
def rejected_by_float(values: Values) -> tuple[int, int]:
    """How many exact solutions of four values there are, and how many of them are not 24 in floating point.

    Both computed from the formula's own tree (`rlheals.tasks.general_points.formula`), never by Python's `eval`.

    >>> rejected_by_float((3, 3, 8, 8))
    (1, 1)
    """
    found = solutions(values)
    return len(found), sum(evaluate_float(text) != TARGET for text in found)


def float_against_exact() -> pd.DataFrame:
    """Hands and solutions that a comparison in floating point rejects, by set of hands."""
    sets = {
        "ID census": [_sorted(ID_RULE, hand) for hand in census("id")],
        "OOD census": [_sorted(OOD_RULE, hand) for hand in census("ood")],
        "all values, 1 to 10": [values for values in solved_table() if max(values) <= 10],
        "all values, 1 to 13": list(solved_table()),
    }
    rows = []
    for name, hands in sets.items():
        counts = np.array([rejected_by_float(values) for values in hands])
        rows.append(
            {
                "hands_of": name, "hands": len(hands), "solutions": int(counts[:, 0].sum()),
                "rejected": int(counts[:, 1].sum()), "hands_with_some": int((counts[:, 1] > 0).sum()),
                "hands_with_all": int((counts[:, 0] == counts[:, 1]).sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def unwinnable() -> list[tuple[str, str]]:
    """Formulas of hands none of whose solutions is accepted in floating point, with the value that it gets."""
    lost = [values for values in solved_table() if len(set(rejected_by_float(values))) == 1]
    return [
        (text, repr(evaluate_float(text)))
        for values in lost
        for text in solutions(values)
        if evaluate(text) == TARGET
    ]


def _sorted(rule: Rule, hand: tuple[str, ...]) -> Values:
    return tuple(sorted(rule.values(hand)))


def checks(nulls: Nulls, loading: pd.DataFrame) -> Report:
    """Counts that are the same on every machine, and whether released points lie inside of the nulls."""
    frame, exact, table = accuracies(), float_against_exact(), comparison(nulls)
    per_file = frame.groupby("file", sort=False)["whole"].agg(["size", "sum"])
    lines = [
        f"{file}: {int(whole)} of {int(size)} are whole counts" for file, size, whole in per_file.itertuples()
    ]
    lines += [
        f"{row.hands_of}: {row.hands} hands, {row.solutions} solutions, {row.rejected} rejected in floating point, of "
        f"{row.hands_with_some} hands; {row.hands_with_all} hands lose all"
        for row in exact.itertuples()
    ]
    spectral = table[table["unit"] == ""]
    forced = spectral[spectral["quantity"].str.contains("that are 0")]
    spectral = spectral.drop(forced.index)
    angles = table[table["unit"] != ""].groupby(["quantity", "file", "null"])["inside"].all().unstack("null")
    lines += [
        f"spectra: {_told(spectral['inside'])}; zeros forced by the shape: {_told(forced['inside'])}",
        f"angles that fit two {MATRICES}: {int(angles[MATRICES].sum())}, two {UPDATES}: {int(angles[UPDATES].sum())}, "
        f"neither: {int((~angles.any(axis=1)).sum())} of {len(angles)}",
    ]
    straight = copies()
    lines += [
        f"{row.model}: ID is a straight line of OOD within rounding: {_inside(row.residual <= row.by_rounding)}; "
        f"sampling would leave more: {_inside(row.residual < row.sampled_low)}"
        for row in straight.itertuples()
    ]
    by_names = loading[~loading["route"].isin([AUTO, MEMORY])]
    lines += [
        f"{row.route}: {row.left_at_random} of {row.tensors} text tensors at random"
        for row in by_names.itertuples()
    ]
    return Report(tuple(lines), True)


def _told(inside: pd.Series) -> str:
    return f"{int(inside.sum())} of {len(inside)} inside"


def _inside(fine: bool) -> str:
    return "yes" if fine else "no"
