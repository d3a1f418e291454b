"""What `rlheals spectra` writes for two checkpoints: tables, figures, and one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlheals.display.markup import Block, Table, html_page, to_html
from rlheals.store.files import atomic_write
from rlheals.weights import figures, spectra_stage
from rlheals.weights.spectra import CHANGE, START, Spectra
from rlheals.weights.spectra_stage import SpectraSettings

PAGE = "index.html"


def write(
    found: Spectra,
    settings: SpectraSettings,
    before: str,
    after: str,
    folder: Path,
    reference: str | None = None,
    notes: Sequence[str] = (),
) -> list[str]:
    """Everything about one comparison into an empty folder; the names of the files."""
    has_null = (found.angles["what"] == "gaussian").any()
    drawn = [figure(found) for figure in figures.SPECTRA if has_null or figure is not figures.excess]
    files = spectra_stage.write(found, folder)
    for one in drawn:
        atomic_write(folder / f"{one.name}.svg", one.svg)
        atomic_write(folder / f"{one.name}.csv", one.csv())
    nulls = list(settings.nulls) if settings.draws else []
    sections = {
        "In numbers": to_html([*sizes(found, settings.draws, nulls), *notes]),
        "Figures": "\n".join(one._repr_html_() for one in drawn),
        "Mean angles in degrees": to_html([_table(spectra_stage.summary(found, [START, *nulls]).round(3))]),
        "Files": to_html([f"Tables with every matrix and draw: {', '.join(f'`{name}`' for name in files)}."]),
    }
    lead = f"From {before} to {after}." + (
        "" if reference is None else f" Both are seen from {reference}; start: {before} as seen from there."
    )
    atomic_write(folder / PAGE, html_page("What moves in the weights", lead, sections))
    return [*files, *(f"{one.name}.{kind}" for one in drawn for kind in ("svg", "csv")), PAGE]


def sizes(found: Spectra, draws: int, nulls: Sequence[str]) -> list[Block]:
    """What was measured, how large the change is, and how much singular values change."""
    whole = found.matrices[found.matrices["head"] == -1]
    drawn = f"Every null model was drawn {draws} times." if nulls else "No null model was drawn."
    blocks: list[Block] = [
        f"{whole['tensor'].nunique()} matrices. {drawn} Angles are means over the leading k singular vectors and over "
        "the matrices of a kind. The rotation of interest is the **excess** over Gaussian changes of equal norm: any "
        "change of that size makes the rest."
    ]
    headings = {
        "relative_change": "Size of the change, |dW| / |W|:",
        "value_change_mean": "Mean relative change of singular values:",
        "intruders": "Intruder dimensions (of the first 10 left singular vectors after the change, those unlike every "
        "one before, |cos| < .5):",
    }
    for column, heading in headings.items():
        means = whole.groupby(["kind", "what"], sort=False)[column].mean().unstack("what")
        start = [START] if START in means else []
        table = means.reindex(whole["kind"].unique())[[CHANGE, *start, *nulls]]
        blocks += [heading, _table(table.map("{:.3g}".format).reset_index())]
    return blocks


def _table(frame: pd.DataFrame) -> Table:
    rows = (
        tuple("" if pd.isna(cell) else str(cell) for cell in row) for row in frame.itertuples(index=False)
    )
    return Table(tuple(map(str, frame.columns)), tuple(rows))
