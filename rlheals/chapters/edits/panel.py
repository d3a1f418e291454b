"""A panel over the edits of the late checkpoint: kind, place and share of singular vectors.

In a kernel it is made of ipywidgets; a page that was published shows its static twin, which needs no kernel and loads
nothing. Both choose among the same drawings, one per edit that was measured.
"""

from __future__ import annotations

import html
import json
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.figures import PLACES, where_label
from rlheals.chapters.edits.runs import ANCHOR, EditChapter, EditTables
from rlheals.chapters.rows import only
from rlheals.display.looks import BLUE, GREY, RED
from rlheals.display.style import with_intervals
from rlheals.errors import BadInput

VIEW = "application/vnd.jupyter.widget-view+json"
STATIC = Path(str(resources.files("rlheals.chapters.edits")))
SPLITS = {"ood": "OOD hands", "sft": "ID hands of SFT"}
COLORS = {"edited": RED, "control": GREY, "checkpoint": BLUE}
KINDS = ("directions", "triples", "subspace", "values", "left", "right", "rollback")
PART = rf"^(?P<choice>{'|'.join(KINDS)})\((?:top=(?P<share>\d+)%|all)?\)$"
PLACE = ["kind", "where", "share"]


def choices(tables: EditTables) -> pd.DataFrame:
    """What can be chosen and what it shows: one row per (kind, where, share, series, split).

    series: the late checkpoint, the edited one, controls of the edit's size, the peak; role: "checkpoint", "edited" or
    "control"; value with its interval over base seeds (of one base alone: over hands); size of the edit in distances
    of the two checkpoints. BadInput when there is no edit of the late checkpoint.
    """
    shown = []
    for split in SPLITS:
        rows = only(measured.effects(tables, split), kind="restore")
        rows = rows.join(rows["edit"].str.extract(PART)).fillna({"share": "100"})
        anchors = only(measured.accuracy(tables, split), kind=ANCHOR)
        late, peak = (only(anchors, edit=name) for name in ("late", "peak"))
        for (edit, where), own in rows.dropna(subset=["choice"]).groupby(["edit", "where"], sort=False):
            same = rows[(rows["where"] == where) & rows["edit"].str.endswith(f" like {edit}")]
            controls = [(f"{measured.FAMILIES[str(family)]}, same size", "control", each)
                        for family, each in same.groupby("family")]  # fmt: skip
            kind, share = measured.FAMILIES[str(own["choice"].iloc[0])], int(own["share"].iloc[0])
            part = "" if share == 100 else f"leading {share} % of "
            place = {"kind": kind, "where": where_label(str(where)), "share": share}
            for series, role, each in (
                ("late checkpoint", "checkpoint", late), (f"edited: {part}{kind}", "edited", own), *controls,
                ("peak", "checkpoint", peak),
            ):  # fmt: skip
                per_seed = each.groupby("seed", as_index=False)[["value", "n"]].mean()
                found = with_intervals(per_seed.assign(**place), PLACE)
                shown.append(found.assign(series=series, role=role, split=split, size=own["size"].mean()))
    if not shown:
        raise BadInput("panel: there is no edit of the late checkpoint")
    kinds = [measured.FAMILIES[name] for name in KINDS]
    order: dict[Any, Any] = {"kind": kinds.index, "where": _order}
    table = pd.concat(shown).sort_values(
        PLACE, key=lambda column: column.map(order.get(column.name, int)), kind="stable"
    )
    return table.reset_index(drop=True)


def _order(label: str) -> tuple[bool, bool, str]:
    """All blocks first, then layers, then what holds embeddings."""
    return label != PLACES["blocks"], label in PLACES.values(), label


def bars(rows: pd.DataFrame) -> str:
    """One choice as bars with intervals, all on the scale from 0 to 1: HTML without script."""
    parts = [f"<p>Size of the edit: {rows['size'].iloc[0]:.2f} of the distance between the checkpoints.</p>"]
    for split, title in SPLITS.items():
        parts.append(f"<h4>{title}, success@5 with feedback</h4>")
        for row in rows[rows["split"] == split].to_dict("records"):
            low, high = (
                min(max(row[end], 0.0), 1.0) for end in ("low", "high")
            )  # t intervals know no bounds
            number, spread = f"{row['value']:.3f}", ""
            if row["high"] > row["low"]:
                number += f" [{low:.3f}, {high:.3f}]"
                spread = f'<b style="left:{low:.2%};width:{high - low:.2%}"></b>'
            parts.append(
                f'<div class="bar"><span>{html.escape(row["series"])}</span><span class="track">'
                f'<i style="width:{row["value"]:.2%};--bar:{COLORS[row["role"]]}"></i>{spread}</span>'
                f'<span class="number">{number}</span></div>'
            )
    return "".join(parts)


class Panel:
    """The panel of a chapter. `kind`, `where` and `share` are widgets; setting their `.value` changes `data`."""

    def __init__(self, chapter: EditChapter) -> None:
        self.rows = choices(chapter.tables)
        self.chosen: dict[str, dict[str, dict[int, pd.DataFrame]]] = {}
        for (kind, where, share), rows in self.rows.groupby(PLACE, sort=False):
            self.chosen.setdefault(str(kind), {}).setdefault(str(where), {})[int(share)] = rows
        self.kind = ipywidgets.Dropdown(description="kind", options=list(self.chosen))
        self.where = ipywidgets.Dropdown(description="where")
        self.share = ipywidgets.SelectionSlider(description="share (%)", options=[100])
        self.drawn = ipywidgets.HTML()
        self.kind.observe(self._wherever, "value")
        self.where.observe(self._narrow, "value")
        self.share.observe(self._draw, "value")
        self._wherever()

    @property
    def data(self) -> pd.DataFrame:
        """What is shown now."""
        return self.chosen[self.kind.value][self.where.value][self.share.value].reset_index(drop=True)

    def _wherever(self, change: object = None) -> None:
        offered, before = list(self.chosen[self.kind.value]), self.where.value
        self.where.options = offered
        self.where.value = before if before in offered else offered[0]
        self._narrow()

    def _narrow(self, change: object = None) -> None:
        self.share.options = offered = list(self.chosen[self.kind.value][self.where.value])
        self.share.value = offered[-1]
        self.share.disabled = len(offered) < 2
        self._draw()

    def _draw(self, change: object = None) -> None:
        style = f"<style>{_static('panel.css')}</style>"
        self.drawn.value = f"{style}<div class='rlheals-bars'>{bars(self.data)}</div>"

    def widget(self) -> ipywidgets.Widget:
        """The panel for a notebook with a kernel."""
        return ipywidgets.VBox([self.kind, self.where, self.share, self.drawn])

    def twin(self) -> str:
        """The panel for a published page: HTML with its own script, which loads nothing."""
        drawings = {
            kind: {where: {share: bars(rows) for share, rows in by.items()} for where, by in at.items()}
            for kind, at in self.chosen.items()
        }
        data = json.dumps(drawings).replace("<", "\\u003c")
        name = f"panel-{sha256(data.encode()).hexdigest()[:12]}"
        return (
            f'<style>{_static("panel.css")}</style>\n<div class="rlheals-panel" id="{name}">\n<div class="dials">'
            '<label>kind of edit<select name="kind"></select></label>'
            '<label>where<select name="where"></select></label>'
            "<label><span>share of singular vectors: <output></output></span>"
            '<input type="range" name="share" min="0" step="1"></label></div>\n'
            '<div class="rlheals-bars" role="status" aria-live="polite"><noscript>This panel needs JavaScript; the '
            "figures above hold the same numbers.</noscript></div>\n</div>\n"
            f'<script>{_static("panel.js").strip()}(document.getElementById("{name}"), {data});</script>'
        )

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Widgets where there is a kernel that shows them, the twin elsewhere."""
        made = self.widget()
        view = {"version_major": 2, "version_minor": 0, "model_id": made.model_id}  # ipywidgets 7 and 8 alike
        return {"text/plain": repr(made)[:110], VIEW: view, "text/html": self.twin()}


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
