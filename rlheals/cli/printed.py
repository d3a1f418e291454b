"""Results of commands as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlheals.cli.terminal import show
from rlheals.display.markup import Table


def show_facts(facts: dict[str, Any], as_json: bool) -> None:
    """One fact per line; lists are left to JSON."""
    show(
        facts,
        lambda: [f"{k:20} {v}" for k, v in facts.items() if v is not None and not isinstance(v, list)],
        as_json,
    )


def show_summary(found: dict[str, Any], as_json: bool) -> None:
    """Accuracy per split."""

    def lines() -> Iterable[str]:
        yield f"{'split':12} {'hands':>6} {'first try':>10} {'within five':>12} {'in either layout':>17}"
        for name, row in found["summary"].items():
            accuracies = (
                f"{row['first_try']:10.3f} {row['within_five']:12.3f} {row['within_five_either']:17.3f}"
            )
            yield f"{name:12} {row['hands']:6} {accuracies}"

    show(found, lines, as_json)


def claim_lines(found: dict[str, Any]) -> Iterable[str]:
    """Two lines per claim, chapter by chapter."""
    for part in found.values():
        yield f"{part['title']}:"
        if part["missing"]:
            yield f"not all that decides is recorded ({part['missing'][0]}, ...), so there is no verdict yet"
        for claim in part["claims"]:
            yield f"{claim['verdict'] or 'no verdict':14} {claim['sentence']}"
            if (at := claim["interval"]) is not None:
                interval = f"{at['estimate']:.3f} [{at['low']:.3f}, {at['high']:.3f}]"
                said = f"{claim['family']}; margin {claim['margin']:g}; Holm-adjusted p {claim['holm_p']:.3f}"
                yield f"{'':14} {interval} {claim['unit']}; {said}"
        yield ""


def compared_lines(found: dict[str, Any]) -> Iterable[str]:
    """One line per number, then what follows."""
    for row in found["numbers"]:
        where = "inside " if row["agrees"] else "OUTSIDE"
        yield f"{where} {row['name']:13} {row['value']:7.3f} in [{row['low']:.3f}, {row['high']:.3f}]  {row['about']}"
    if found["agrees"]:
        counts = sorted({len(row["recorded"]) for row in found["numbers"]})
        yield f"the fresh run agrees with {' to '.join(map(str, counts))} recorded base seeds"
    else:
        yield "the fresh run does not agree with the recorded study: something in code, settings or machine differs"


def spectra_lines(found: dict[str, Any]) -> Iterable[str]:
    """Mean angles by kind, side and k; where the files are."""
    columns = {"start": "start"} if found["reference"] is not None else {}
    columns |= {"change": "degrees", "gaussian": "Gaussian null", "excess": "excess"}
    if found["reference"] is not None:
        yield f"angles to {found['reference']}"
    yield f"{'kind':6} {'side':6} {'k':>6}" + "".join(f" {name:>14}" for name in columns.values())
    for row in found["angles"]:
        cells = ("-" if row.get(key) is None else f"{row[key]:.3f}" for key in columns)
        yield f"{row['kind']:6} {row['side']:6} {row['k']:6}" + "".join(f" {cell:>14}" for cell in cells)
    for kind, size in found["relative_change"].items():
        yield f"{kind:6} |dW|/|W| {size['size']:.3g}, singular values change by {size['values']:.3g} on average"
    if found["out"] is not None:
        yield f"page: {found['page']}"


def edit_lines(found: dict[str, Any]) -> Iterable[str]:
    """One line per edited tensor."""
    yield f"{found['edit']} of {found['where']}"
    yield f"{'change':>9} {'to base':>9} {'after':>9} {'degrees':>9} {'after':>9}  tensor"
    for row in found["tensors"]:
        sizes = (row["change"], row["distance_before"], row["distance_after"])
        angles = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("angle_before", "angle_after"))
        cells = [*(f"{size:.4g}" for size in sizes), *angles]
        yield " ".join(f"{cell:>9}" for cell in cells) + f"  {row['tensor']}"
    yield f"sizes are in units of the tensor before; written: {found['out']}"


def table_lines(table: Table) -> Iterable[str]:
    """A table in columns, without the markup of its cells."""
    rows = [
        tuple(cell.replace("`", "").replace("**", "") for cell in row) for row in (table.head, *table.rows)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
