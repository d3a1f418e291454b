"""Checks of the released accuracies that need nothing but the published numbers, and the checks of the whole page."""

from __future__ import annotations

import math
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
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE, census
from rlheals.tasks.general_points.formula import evaluate, evaluate_float
from rlheals.tasks.general_points.solver import TARGET, Values, solutions, solved_table

HANDS = 234
CURVES = ("ood_accuracy_llama", "ood_accuracy_after_rl_llama")
MODELS = ("Llama", "Qwen")

Floats = npt.NDArray[np.float64]


def nearest_count(percent: str, n: int) -> tuple[int, bool]:
    """The k for which 100 k / n is nearest to a printed percentage, and whether it rounds to it.

    Rounded half up or down at the last printed digit; in fractions, so nothing depends on floating point.

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
    rows = [
        (one["file"], point, one["n"], value)
        for one in facts["accuracies"]
        for point, value in one["points"].items()
    ]
    for key in CURVES:
        curve = paper_points()[key]
        file, _, series = curve["source"].partition(",")
        point = f"{series.partition(';')[0].strip()}, checkpoint "
        rows += [
            (file, f"{point}{step}", curve["hands"], f"{value:.2f}")
            for step, value in curve["points"].items()
        ]
    put_back = facts["restored_values"]
    for model in MODELS:
        for split, file in put_back["files"].items():
            values = zip(put_back["k"], put_back[model][split], strict=False)  # Qwen's curve ends one earlier
            rows += [(file, f"{model} {split.upper()}, k = {k}", put_back["n"], value) for k, value in values]
    frame = pd.DataFrame(rows, columns=["file", "point", "n", "printed"])
    found = [nearest_count(printed, n) for printed, n in zip(frame["printed"], frame["n"], strict=True)]
    frame["k"], frame["whole"] = zip(*found, strict=True)
    return frame.assign(off=frame["printed"].astype(float) - 100 * frame["k"] / frame["n"])


def line(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Least squares of y on x along the last axis, in points: slope, intercept, root mean squared residual.

    >>> slope, intercept, residual = line([1, 2, 3], [3, 5, 7])
    >>> float(slope), float(intercept), float(residual)
    (2.0, 1.0, 0.0)
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if xs.shape != ys.shape or xs.shape[-1] < 3 or (np.ptp(xs, axis=-1) == 0).any():
        raise BadInput(
            f"line: {xs.shape} and {ys.shape}; accepted: curves of 3 or more points, the first not flat"
        )
    dx, dy = xs - xs.mean(-1, keepdims=True), ys - ys.mean(-1, keepdims=True)
    slope = (dx * dy).sum(-1) / (dx**2).sum(-1)
    residual = np.sqrt(((dy - slope[..., None] * dx) ** 2).mean(-1))
    return slope, ys.mean(-1) - slope * xs.mean(-1), residual


def restored(model: str) -> tuple[Floats, Floats]:
    """OOD and ID accuracy (per cent) after singular values were restored, by k."""
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
    varied = np.ptp(x, axis=1) > 0
    return pd.DataFrame({"residual": line(x[varied], y[varied])[2], "spread_ood": x[varied].std(axis=1)})


def copies() -> pd.DataFrame:
    """Per model: the line through the two published curves, and what rounding or sampling would leave as residual.

    by_rounding: root mean square that rounding both curves to two decimals leaves of an exact line. sampled_low: the
    2.5 % quantile of `sampled_lines`, spread_low that of the spread of OOD points (all in points of accuracy).
    """
    rows = []
    for model in MODELS:
        x, y = restored(model)
        (slope, intercept, residual), sampled = line(x, y), sampled_lines(model)
        step = 2 * released()["restored_values"]["error"]
        rows.append(
            {
                "model": model, "points": len(x), "slope": slope, "intercept": intercept, "residual": residual,
                "by_rounding": step / math.sqrt(12) * np.hypot(1, slope),
                "sampled_low": sampled["residual"].quantile(0.025),
                "spread_ood": x.std(), "spread_low": sampled["spread_ood"].quantile(0.025),
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
        "ID census": [tuple(sorted(ID_RULE.values(hand))) for hand in census("id")],
        "OOD census": [tuple(sorted(OOD_RULE.values(hand))) for hand in census("ood")],
        "all values, 1 to 10": [values for values in solved_table() if max(values) <= 10],
        "all values, 1 to 13": list(solved_table()),
    }
    rows = []
    for name, hands in sets.items():
        found, rejected = np.array([rejected_by_float(values) for values in hands]).T
        rows.append(
            (name, len(hands), found.sum(), rejected.sum(), (rejected > 0).sum(), (found == rejected).sum())
        )
    columns = ["hands_of", "hands", "solutions", "rejected", "hands_with_some", "hands_with_all"]
    return pd.DataFrame(rows, columns=columns)


def unwinnable() -> list[tuple[str, str]]:
    """Formulas of hands none of whose solutions is accepted in floating point, with the value that it gets."""
    lost = [values for values in solved_table() if len(set(rejected_by_float(values))) == 1]
    found = [text for values in lost for text in solutions(values)]
    return [(text, repr(evaluate_float(text))) for text in found if evaluate(text) == TARGET]


def checks(nulls: Nulls, loading: pd.DataFrame) -> Report:
    """Counts that are the same on every machine, and whether released points lie inside of the nulls."""
    frame, table = accuracies(), comparison(nulls)
    lines = [
        f"{file}: {whole.sum()} of {len(whole)} are whole counts"
        for file, whole in frame.groupby("file", sort=False)["whole"]
    ]
    lines += [
        f"{row.hands_of}: {row.hands} hands, {row.solutions} solutions, {row.rejected} rejected in floating point, of "
        f"{row.hands_with_some} hands; {row.hands_with_all} hands lose all"
        for row in float_against_exact().itertuples()
    ]
    spectral, angular = table[table["unit"] == ""], table[table["unit"] != ""]
    forced = spectral["quantity"].str.contains("that are 0")
    inside = angular.groupby(["quantity", "file", "null"])["inside"].all().unstack("null")
    lines += [
        f"spectra: {_told(spectral[~forced]['inside'])}; "
        f"zeros forced by the shape: {_told(spectral[forced]['inside'])}",
        f"angles that fit two {MATRICES}: {inside[MATRICES].sum()}, two {UPDATES}: {inside[UPDATES].sum()}, "
        f"neither: {(~inside.any(axis=1)).sum()} of {len(inside)}",
    ]
    lines += [
        f"{row.model}: ID is a straight line of OOD within rounding: {_yes(row.residual <= row.by_rounding)}; "
        f"sampling would leave more: {_yes(row.residual < row.sampled_low)}"
        for row in copies().itertuples()
    ]
    by_names = loading[~loading["route"].isin([AUTO, MEMORY])]
    lines += [
        f"{row.route}: {row.left_at_random} of {row.tensors} text tensors at random"
        for row in by_names.itertuples()
    ]
    return Report(tuple(lines), True)


def _told(inside: pd.Series) -> str:
    return f"{inside.sum()} of {len(inside)} inside"


def _yes(fine: object) -> str:
    return "yes" if fine else "no"
