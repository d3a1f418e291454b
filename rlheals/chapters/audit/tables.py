"""Tables of the page on released artefacts, as blocks of `display.markup`; every number in them is computed or read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import transformers

from rlheals.chapters.audit import numbers, resolution
from rlheals.chapters.audit.loading import AUTO, MEMORY, RECORDED, recorded
from rlheals.chapters.audit.spectra import LAW, MATRICES, UPDATES, Nulls, comparison, movement, released
from rlheals.display.markup import Block, Table
from rlheals.project import project_root

SAID = """
Llama's spectra and angles | that the released numbers agree with unrelated Gaussian matrices | that the files behind \
these figures held freshly initialised weights: plausible, not provable from outside
loading | which ways of loading a small model of Llama's architecture leave its text weights at random | that one of \
them was used
accuracies | which of them no whole number of successes gives | nothing: an average or a typing error also gives \
such a number
two curves on one line | the line, its residual, and the residual of independent curves | that the two are not two \
measurements
resolution | intervals and chances | nothing
verification | which exact solutions floating point rejects | nothing
"""


def said() -> list[Block]:
    """What the page computes and what it infers from that."""
    rows = tuple(tuple(line.split(" | ")) for line in SAID.strip().splitlines())
    return [Table(("subject", "computed here", "inferred"), rows)]


def spectra(found: Nulls) -> list[Block]:
    """Released spectral numbers beside the null of independent matrices."""
    return _compared(found, [MATRICES])


def angles(found: Nulls) -> list[Block]:
    """Released angles beside two nulls; numbers of zeros that the shape forces are said to be that."""
    return _compared(found, [MATRICES, UPDATES])


def _compared(found: Nulls, nulls: list[str]) -> list[Block]:
    table, one_null, rows = comparison(found), len(nulls) == 1, list[tuple[str, ...]]()
    table = table[table["quantity"].str.startswith("angle") != one_null]
    readings = table.groupby(["quantity", "file", "value"], sort=False)
    for (quantity, file, value), group in readings:
        by_null, error = {row.null: row for row in group.itertuples()}, float(group["error"].iloc[0])
        digits = 0 if error == 0 else max(1, 1 - math.floor(math.log10(error)))
        verdict = next((null for null in nulls if by_null[null].inside), "neither")
        if "that are 0" in str(quantity):
            verdict = "both, forced by the shape"
        elif one_null:
            verdict = "no" if verdict == "neither" else "yes"
        shown = f"{value:.{digits}f} ± {error:g} {group['unit'].iloc[0]}".strip()
        cells = [_span(by_null[null], digits) for null in nulls]
        rows.append((_short(file), str(quantity), shown, *cells, verdict))
    inside = readings["inside"].any()
    return [
        Table(("file", "quantity", "released", *nulls, "agrees" if one_null else "agrees with"), tuple(rows)),
        f"{inside.sum()} of {len(inside)} readings agree with a null within their reading error. (law): exact in the "
        "limit or at any size; otherwise smallest to largest of draws, for angles of q_proj at a quarter of the size. "
        "Computed.",
    ]


def _span(row: Any, digits: int) -> str:
    low, high = f"{row.low:.{digits}f}", f"{row.high:.{digits}f}"
    span = low if row.low == row.high else f"{low} to {high}"
    return f"{span} (law)" if row.by == LAW else span


def moved() -> list[Block]:
    """How far training can have moved the weights, beside how far apart independent matrices are."""
    rows = tuple((str(row.what), f"{row.relative_change:.3f}") for row in movement().itertuples())
    facts = released()["training"]
    return [
        Table(("change", "size of the change / size of the weights"), rows),
        f"First row: no gradients can move an entry further (learning rate {facts['learning_rate']:g}, no weight "
        f"decay, `{facts['file']}`), for weights whose entries have the spread of the released spectra. Computed.",
    ]


def loading(routes: pd.DataFrame, file: Path | None = None) -> list[Block]:
    """What each way of loading leaves of the text weights, with the installed transformers and with a recorded one."""
    there, installed = file or project_root() / RECORDED, routes.set_index("route")["left_at_random"]
    still = "leaves tensors at random" if installed[AUTO] else "leaves none at random"
    renamed = "leaves some" if installed[MEMORY] else "none"
    said = (
        f"With the installed version {AUTO} {still}, and {renamed} when the file carries the names in memory."
    )
    both = {transformers.__version__: routes}
    if there.is_file():
        version, old = recorded(there)
        both[f"{version} (recorded)"] = old
        lost = old.set_index("route").loc[AUTO, ["left_at_random", "tensors"]].astype(int)
        pinned = version == released()["requirements"]["transformers"]
        origin = ", which the released `requirements.txt` pins" if pinned else ""
        said = (
            f"With transformers {version}{origin}, {AUTO} left {lost['left_at_random']} of {lost['tensors']} text "
            f"tensors at random, without an error. {said} Computed; the rows of {version} by the same program, "
            f"recorded in `{RECORDED}`."
        )
    else:
        said += " No other version of transformers is recorded here. Computed."
    rows = tuple(
        (
            str(row.route), name, f"{row.left_at_random} of {row.tensors}", str(row.redrawn),
            "" if math.isnan(row.spread) else f"{row.spread:.4f}",
        )
        for name, table in both.items()
        for row in table.itertuples()
    )  # fmt: skip
    left = ("text tensors left at random", "differ at the next load", "their spread")
    return [Table(("way of loading", "transformers", *left), rows), said]


def not_whole() -> list[Block]:
    """Published accuracies that no whole number of successes gives; curves of restored values as one row each."""
    frame = numbers.accuracies()
    curves = set(released()["restored_values"]["files"].values())
    rows = [
        (_short(row.file), row.point, row.printed, f"{100 * row.k / row.n:.2f} ({row.k} of {row.n})", f"{row.off:+.2f}")
        for row in frame[~frame["whole"] & ~frame["file"].isin(curves)].itertuples()
    ]  # fmt: skip
    for file in sorted(curves):
        mine = frame[frame["file"] == file]
        reach = f"{mine['off'].min():+.2f} to {mine['off'].max():+.2f}"
        shown = f"{(~mine['whole']).sum()} of {len(mine)} values"
        rows.append((_short(file), "all numbers of singular values restored", shown, "", reach))
    n = int(frame["n"].max())
    return [
        Table(("file", "value", "published (%)", "nearest whole count (%)", "off by (points)"), tuple(rows)),
        f"{frame['whole'].sum()} of {len(frame)} published values are whole counts. A number with two decimals that "
        f"has nothing to do with counts is one of {n} by chance in {n / 100:.1f} % of cases. Computed.",
    ]


def copies() -> list[Block]:
    """The straight line between the two curves of restored values, and what rounding or sampling would leave."""
    columns = {
        "slope": ("slope", 3), "intercept": ("intercept", 2), "residual": ("residual", 3),
        "by_rounding": ("rounding leaves", 3), "sampled_low": ("sampling leaves at least", 2),
        "spread_ood": ("spread of OOD over k", 2), "spread_low": ("sampling gives at least", 2),
    }  # fmt: skip
    rows = tuple(
        (row["model"], *(f"{row[column]:.{digits}f}" for column, (_, digits) in columns.items()))
        for _, row in numbers.copies().iterrows()
    )
    facts = released()["restored_values"]
    return [
        Table(("model", *(name for name, _ in columns.values())), rows),
        f"Points of accuracy; residual: root mean square. We rounded the digitised curves to two decimals; before that "
        f"the residual was below {facts['unrounded_residual']:g}. At least: the 2.5 % quantile of sampled pairs of "
        "curves. Computed.",
    ]


def designs() -> list[Block]:
    """What each design of an evaluation resolves."""
    rows = tuple(
        (str(row.design), f"{row.between:.1f}", f"{row.standard_error:.2f}", f"{row.smallest_drop:.2f}")
        for row in resolution.resolution().itertuples()
    )
    net = abs(int(resolution.differences()["hands"].iloc[0]))
    most = resolution.most_other_changes(net)
    others = f"at most {most} hands" if most else "no hand"
    errors = ("standard error (points)", "smallest drop seen (points)")
    return [
        Table(("design", "share of variance between hands", *errors), rows),
        f"Smallest drop: seen with a chance of {resolution.WANTED:.0%}, on the same hands. Qwen's published counts "
        f"differ by {net} hands; a paired test would see that at 5 % only if "
        f"{others} changed the other way. Which hands changed is not released. "
        "Computed.",
    ]


def floats() -> list[Block]:
    """Hands and solutions that a floating-point comparison rejects."""
    rows = tuple(
        (name, *(f"{count:,}" for count in counts)) for name, *counts in numbers.float_against_exact().values
    )
    hands = ("hands with a rejected solution", "hands with no accepted solution")
    lost = "; ".join(f"`{text}` is 24 and gives {value}" for text, value in numbers.unwinnable())
    return [
        Table(("set", "solvable hands", "solutions", "rejected", *hands), rows),
        f"{lost}: the only solution of its hand. Computed.",
    ]


def _short(file: object) -> str:
    """A file's name without its folder, so that tables fit; whole paths are in `released_points.yaml`."""
    return f"`{str(file).rsplit('/', 1)[-1]}`"
