"""Tables of the page on released artefacts, as blocks of `display.markup`; every number in them is computed or read."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import transformers

from rlheals.chapters.audit import numbers as audit
from rlheals.chapters.audit import resolution as resolved
from rlheals.chapters.audit.loading import AUTO, MEMORY, RECORDED, recorded
from rlheals.chapters.audit.spectra import LAW, MATRICES, UPDATES, Nulls, comparison, movement, released
from rlheals.display.markup import Block, Table
from rlheals.project import project_root


def said() -> list[Block]:
    """What the page computes and what it infers from that."""
    return [
        Table(
            ("subject", "computed here", "inferred"),
            (
                (
                    "Llama's spectra and angles",
                    "that the released numbers agree with unrelated Gaussian matrices",
                    "that the files behind these figures held freshly initialised weights: plausible, not provable "
                    "from outside",
                ),
                (
                    "loading",
                    "which ways of loading a small model of Llama's architecture leave its text weights at random",
                    "that one of them was used",
                ),
                (
                    "accuracies",
                    "which of them no whole number of successes gives",
                    "nothing: an average or a slip of typing gives such a number as well",
                ),
                (
                    "two curves on one line",
                    "the line, its residual, and the residual of curves that share nothing",
                    "that the two are not two measurements",
                ),
                ("resolution", "intervals and chances", "nothing"),
                ("verification", "which exact solutions floating point rejects", "nothing"),
            ),
        )
    ]


def spectra(nulls: Nulls) -> list[Block]:
    """Released spectral numbers beside the null of independent matrices."""
    table = comparison(nulls)
    return _compared(table[~table["quantity"].str.startswith("angle")])


def angles(nulls: Nulls) -> list[Block]:
    """Released angles beside two nulls; numbers of zeros that the shape forces are said to be that."""
    table = comparison(nulls)
    return _compared(table[table["quantity"].str.startswith("angle")])


def _compared(table: pd.DataFrame) -> list[Block]:
    nulls = [null for null in (MATRICES, UPDATES) if null in set(table["null"])]
    rows = []
    for (quantity, file, value), group in table.groupby(["quantity", "file", "value"], sort=False):
        by_null = {row.null: row for row in group.itertuples()}
        first = group.iloc[0]
        digits = _digits(float(first["error"]))
        cells = [_span(by_null[null], digits) for null in nulls]
        fits = [null for null in nulls if by_null[null].inside]
        verdict = "neither" if len(nulls) > 1 else "no"
        if "that are 0" in str(quantity):
            verdict = "both, forced by the shape"
        elif fits:
            verdict = fits[0] if len(nulls) > 1 else "yes"
        shown = f"{float(value):.{digits}f} ± {float(first['error']):g} {first['unit']}".strip()
        rows.append((_short(file), str(quantity), shown, *cells, verdict))
    head = ("file", "quantity", "released", *nulls, "agrees" if len(nulls) == 1 else "agrees with")
    inside = table.groupby(["quantity", "file", "value"], sort=False)["inside"].any()
    return [
        Table(head, tuple(rows)),
        f"{int(inside.sum())} of {len(inside)} readings agree with a null within their reading error. (law): exact in "
        "the limit or at any size; otherwise smallest to largest of draws, for angles of q_proj at a quarter of the "
        "size. Computed.",
    ]


def _span(row: object, digits: int) -> str:
    low, high, by = row.low, row.high, row.by  # type: ignore[attr-defined]
    span = f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{span} (law)" if by == LAW else span


def _digits(error: float) -> int:
    return 0 if error == 0 else max(1, 1 - math.floor(math.log10(error)))


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
    there = file or project_root() / RECORDED
    version, old = recorded(there) if there.is_file() else (None, routes.head(0))
    both = {transformers.__version__: routes} | ({f"{version} (recorded)": old} if version else {})
    rows = [
        (
            str(row.route),
            name,
            f"{row.left_at_random} of {row.tensors}",
            str(row.redrawn),
            "" if math.isnan(float(str(row.spread))) else f"{float(str(row.spread)):.4f}",
        )
        for name, table in both.items()
        for row in table.itertuples()
    ]
    head = (
        "way of loading",
        "transformers",
        "text tensors left at random",
        "differ at the next load",
        "their spread",
    )
    shows = routes.set_index("route")["left_at_random"]
    still = "leaves tensors at random" if shows[AUTO] else "leaves none at random"
    renamed = "leaves some" if shows[MEMORY] else "none"
    said = (
        f"With the installed version {AUTO} {still}, and {renamed} when the file carries the names in memory."
    )
    if version is None:
        return [
            Table(head, tuple(rows)),
            f"{said} No other version of transformers is recorded here. Computed.",
        ]
    lost = old.set_index("route").loc[AUTO, ["left_at_random", "tensors"]].astype(int)
    pinned = released()["requirements"]["transformers"]
    origin = ", which the released `requirements.txt` pins" if pinned == version else ""
    return [
        Table(head, tuple(rows)),
        f"With transformers {version}{origin}, {AUTO} left {lost['left_at_random']} of {lost['tensors']} text tensors "
        f"at random, without an error. {said} Computed; the rows of {version} by the same program, recorded in "
        f"`{RECORDED}`.",
    ]


def not_whole() -> list[Block]:
    """Published accuracies that no whole number of successes gives; curves of restored values as one row each."""
    frame = audit.accuracies()
    curves = set(released()["restored_values"]["files"].values())
    rows = []
    for row in frame[~frame["whole"] & ~frame["file"].isin(curves)].itertuples():
        nearest = f"{100 * int(str(row.k)) / int(str(row.n)):.2f} ({row.k} of {row.n})"
        rows.append(
            (_short(row.file), str(row.point), str(row.printed), nearest, f"{float(str(row.off)):+.2f}")
        )
    for file in sorted(curves):
        mine = frame[frame["file"] == file]
        reach = f"{mine['off'].min():+.2f} to {mine['off'].max():+.2f}"
        shown = f"{int((~mine['whole']).sum())} of {len(mine)} values"
        rows.append((_short(file), "all numbers of singular values put back", shown, "", reach))
    n = int(frame["n"].max())
    return [
        Table(("file", "value", "published (%)", "nearest whole count (%)", "off by (points)"), tuple(rows)),
        f"{int(frame['whole'].sum())} of {len(frame)} published values are whole counts. A number with two decimals "
        f"that has nothing to do with counts is one of {n} by chance in {n / 100:.1f} % of cases. Computed.",
    ]


def copies() -> list[Block]:
    """The straight line between the two curves of restored values, and what rounding or sampling would leave."""
    rows = tuple(
        (
            str(row.model),
            f"{row.slope:.3f}",
            f"{row.intercept:.2f}",
            f"{row.residual:.3f}",
            f"{row.by_rounding:.3f}",
            f"{row.sampled_low:.2f}",
            f"{row.spread_ood:.2f}",
            f"{row.spread_low:.2f}",
        )
        for row in audit.copies().itertuples()
    )
    head = (
        "model", "slope", "intercept", "residual", "rounding leaves", "sampling leaves at least",
        "spread of OOD over k", "sampling gives at least",
    )  # fmt: skip
    facts = released()["restored_values"]
    return [
        Table(head, rows),
        f"Points of accuracy; residual: root mean square. We rounded the digitised curves to two decimals; before that "
        f"the residual was below {facts['unrounded_residual']:g}. At least: the 2.5 % quantile of sampled pairs of "
        "curves. Computed.",
    ]


def designs() -> list[Block]:
    """What each design of an evaluation resolves."""
    rows = tuple(
        (str(row.design), f"{row.between:.1f}", f"{row.standard_error:.2f}", f"{row.smallest_drop:.2f}")
        for row in resolved.resolution().itertuples()
    )
    net = abs(int(resolved.differences()["hands"].iloc[0]))
    others = resolved.most_other_changes(net)
    return [
        Table(
            (
                "design",
                "share of variance between hands",
                "standard error (points)",
                "smallest drop seen (points)",
            ),
            rows,
        ),
        f"Smallest drop: seen with a chance of {resolved.WANTED:.0%}, on the same hands. Qwen's published counts "
        f"differ by {net} hands; a paired test would see that at 5 % only if at most {others} hands changed the "
        "other way. Which hands changed is not released. Computed.",
    ]


def floats() -> list[Block]:
    """Hands and solutions that a floating-point comparison rejects."""
    columns = ("hands", "solutions", "rejected", "hands_with_some", "hands_with_all")
    rows = tuple(
        (str(row["hands_of"]), *(f"{row[column]:,}" for column in columns))
        for _, row in audit.float_against_exact().iterrows()
    )
    head = (
        "set",
        "solvable hands",
        "solutions",
        "rejected",
        "hands with a rejected solution",
        "hands with no accepted solution",
    )
    lost = "; ".join(f"`{text}` is 24 and gives {value}" for text, value in audit.unwinnable())
    return [Table(head, rows), f"{lost}: the only solution of its hand. Computed."]


def _short(file: object) -> str:
    """A file's name without its folder, so that tables fit; whole paths are in `released_points.yaml`."""
    return f"`{str(file).rsplit('/', 1)[-1]}`"
