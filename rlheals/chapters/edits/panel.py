"""A panel over the edits of the late checkpoint: kind, place and share of directions.

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
from rlheals.chapters.edits.runs import ANCHOR, SwapChapter, SwapTables
from rlheals.chapters.edits.style import PLACES, where_label
from rlheals.display import style as drawing
from rlheals.errors import BadInput

VIEW = "application/vnd.jupyter.widget-view+json"
STATIC = Path(str(resources.files("rlheals.chapters.edits")))
SPLITS = {"ood": "OOD hands", "sft": "ID hands of SFT"}
COLORS = {"edited": drawing.RED, "control": drawing.GREY, "checkpoint": drawing.BLUE}
PART = r"^(?P<kind>values|left|right|directions|triples|subspace|rollback)\((?:top=(?P<share>\d+)%|all)?\)$"
KINDS = [measured.FAMILIES[name] for name in
         ("directions", "triples", "subspace", "values", "left", "right", "rollback")]  # fmt: skip


def choices(tables: SwapTables) -> pd.DataFrame:
    """What can be chosen and what it shows: one row per (kind, where, share, series, split).

    series: the late checkpoint, the edited one, controls of the edit's size, the peak; role: "checkpoint", "edited" or
    "control"; value with its interval over base seeds (of one base alone: over hands); size of the edit in distances
    of the two checkpoints.
    """
    shown = []
    for split in SPLITS:
        rows = measured.effects(tables, split)
        rows = rows[rows["kind"] == "restore"]
        chosen = rows["edit"].str.extract(PART)
        named = rows.assign(choice=chosen["kind"], share=chosen["share"].fillna("100").astype(int))
        anchors = measured.accuracy(tables, split)
        anchors = anchors[anchors["kind"] == ANCHOR]
        for (edit, where), own in named.dropna(subset=["choice"]).groupby(["edit", "where"], sort=False):
            same = rows[(rows["where"] == where) & rows["edit"].str.endswith(f" like {edit}")]
            series = [("late checkpoint", "checkpoint", anchors[anchors["edit"] == "late"])]
            series += [(f"edited: {edit}", "edited", own)]
            series += [(f"{measured.FAMILIES[str(family)]}, same size", "control", each)
                       for family, each in same.groupby("family")]  # fmt: skip
            series += [("peak", "checkpoint", anchors[anchors["edit"] == "peak"])]
            first = own.iloc[0]
            place = {"kind": measured.FAMILIES[first["choice"]], "where": where_label(str(where))}
            for name, role, each in series:
                per_seed = each.groupby("seed", as_index=False)[["value", "n"]].mean()
                (found,) = drawing.with_intervals(per_seed.assign(one=0), ["one"]).to_dict("records")
                numbers = {key: found[key] for key in ("value", "low", "high", "seeds")}
                shown.append({**place, "share": first["share"], "series": name, "role": role, "split": split,
                              **numbers, "size": own["size"].mean()})  # fmt: skip
    if not shown:
        raise BadInput("panel: no edit of the late checkpoint is there")
    table = pd.DataFrame(shown)
    order = {"kind": KINDS.index, "where": _place_of}
    return table.sort_values(
        ["kind", "where", "share"], key=lambda column: column.map(order.get(column.name, int)), kind="stable"
    ).reset_index(drop=True)


def _place_of(label: str) -> tuple[bool, bool, str]:
    """All blocks first, then layers, then what holds embeddings."""
    return label != PLACES["blocks"], label in PLACES.values(), label


def bars(rows: pd.DataFrame) -> str:
    """One choice as bars with intervals, all on the scale from 0 to 1: HTML without script."""
    parts = [f"<p>Size of the edit: {rows['size'].iloc[0]:.2f} of the distance between the checkpoints.</p>"]
    for split, title in SPLITS.items():
        parts.append(f"<h4>{title}, solved within five</h4>")
        mine = rows[rows["split"] == split]
        for row in mine.itertuples():
            value, ends = float(str(row.value)), (float(str(row.low)), float(str(row.high)))
            low, high = (min(max(end, 0.0), 1.0) for end in ends)  # t intervals know no bounds, shares do
            spread = ""
            if ends[1] > ends[0]:
                spread = f'<b style="left:{low:.2%};width:{high - low:.2%}"></b>'
            number = f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if spread else "")
            parts.append(
                f'<div class="bar"><span>{html.escape(str(row.series))}</span>'
                f'<span class="track"><i style="width:{value:.2%};--bar:{COLORS[str(row.role)]}"></i>'
                f"{spread}</span>"
                f'<span class="number">{number}</span></div>'
            )
    return "".join(parts)


class Panel:
    """The panel of a chapter. `kind`, `where` and `share` are widgets; setting their `.value` changes `data`."""

    def __init__(self, chapter: SwapChapter) -> None:
        self.rows = choices(chapter.tables)
        self.kind = ipywidgets.Dropdown(description="kind", options=self._options("kind"))
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
        rows = self._rows(kind=self.kind.value, where=self.where.value, share=self.share.value)
        return rows.reset_index(drop=True)

    def _rows(self, **chosen: Any) -> pd.DataFrame:
        rows = self.rows
        for column, value in chosen.items():
            rows = rows[rows[column] == value]
        return rows

    def _options(self, column: str, **chosen: Any) -> list[Any]:
        return list(dict.fromkeys(self._rows(**chosen)[column].tolist()))

    def _wherever(self, change: object = None) -> None:
        offered, before = self._options("where", kind=self.kind.value), self.where.value
        self.where.options = offered
        self.where.value = before if before in offered else offered[0]
        self._narrow()

    def _narrow(self, change: object = None) -> None:
        offered = sorted(self._options("share", kind=self.kind.value, where=self.where.value))
        self.share.options = offered
        self.share.value = offered[-1]
        self.share.disabled = len(offered) < 2
        self._draw()

    def _draw(self, change: object = None) -> None:
        if len(self.data):  # while options change, a choice may not be there for a moment
            self.drawn.value = (
                f"<style>{_static('panel.css')}</style><div class='rlheals-bars'>{bars(self.data)}</div>"
            )

    def widget(self) -> ipywidgets.Widget:
        """The panel for a notebook with a kernel."""
        return ipywidgets.VBox([self.kind, self.where, self.share, self.drawn])

    def twin(self) -> str:
        """The panel for a published page: HTML with its own script, which loads nothing."""
        drawings: dict[str, dict[str, dict[int, str]]] = {}
        for (kind, where, share), rows in self.rows.groupby(["kind", "where", "share"], sort=False):
            drawings.setdefault(str(kind), {}).setdefault(str(where), {})[int(share)] = bars(rows)
        data = json.dumps(drawings).replace("</", "<\\/")
        name = f"panel-{sha256(data.encode()).hexdigest()[:12]}"
        return (
            f'<style>{_static("panel.css")}</style>\n<div class="rlheals-panel" id="{name}">\n<div class="dials">'
            '<label>kind of edit<select name="kind"></select></label>'
            '<label>where<select name="where"></select></label>'
            "<label><span>share of directions: <output></output></span>"
            '<input type="range" name="share" min="0" step="1"></label></div>\n'
            '<div class="rlheals-bars"><noscript>This panel needs JavaScript; the figures above hold the same numbers.'
            "</noscript></div>\n</div>\n"
            f'<script>{_static("panel.js").strip()}(document.getElementById("{name}"), {data});</script>'
        )

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Widgets where there is a kernel that shows them, the twin elsewhere."""
        made = self.widget()
        view = {
            "version_major": 2,
            "version_minor": 0,
            "model_id": made.model_id,
        }  # as ipywidgets 7 and 8 have it
        return {"text/plain": repr(made)[:110], VIEW: view, "text/html": self.twin()}


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
