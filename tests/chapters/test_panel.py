"""The panel: widgets and static twin choose among the same drawings; in a browser without network the slider works."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
from test_edit_claims import ANCHORS, tables

from rlheals.chapters.edits.panel import Panel, bars, choices
from rlheals.chapters.edits.runs import EditTables
from rlheals.errors import BadInput

EDITS = {
    ("restore", "directions(top=10%)", "blocks"): (0.07, 0.3),
    ("restore", "directions(top=20%)", "blocks"): (0.10, 0.5),
    ("restore", "partial(top=20%) like directions(top=20%)", "blocks"): (0.06, 0.5),
    ("restore", "noise(seed=0) like directions(top=20%)", "blocks"): (0.02, 0.5),
    ("restore", "noise(seed=1) like directions(top=20%)", "blocks"): (0.04, 0.5),
    ("restore", "directions(all)", "blocks"): (0.16, 1.0),
    ("restore", "directions(all)", "blocks layers=0"): (0.08, 0.4),
    ("restore", "values(all)", "blocks"): (0.05, 0.1),
    ("restore", "rollback()", "ends"): (0.09, 0.2),
    ("swap", "values(top=40%)", "blocks"): (0.16, 0.2),
}


def both_splits(seeds: tuple[int, ...] = (1, 2, 3)) -> EditTables:
    made = tables(EDITS, seeds)
    effects = pd.concat([made.effects, made.effects.assign(split="sft", solved=900)], ignore_index=True)
    return EditTables(effects, made.sizes, made.peaks)


def panel(seeds: tuple[int, ...] = (1, 2, 3)) -> Panel:
    return Panel(cast(Any, SimpleNamespace(tables=both_splits(seeds))))


def test_a_choice_shows_the_edit_between_its_controls_and_the_checkpoints() -> None:
    rows = choices(both_splits())
    mine = rows[
        (rows["kind"] == "singular vectors") & (rows["where"] == "all blocks") & (rows["share"] == 20)
    ]
    ood = mine[mine["split"] == "ood"].set_index("series")["value"]
    assert ood.to_dict() == pytest.approx(
        {
            "late checkpoint": ANCHORS["late"], "edited: leading 20 % of singular vectors": 0.10,
            "noise, same size": 0.03,
            "partial rollback, same size": 0.06, "peak": ANCHORS["peak"],
        }
    )  # fmt: skip
    assert set(rows["kind"]) == {"singular vectors", "singular values", "rollback"}
    assert set(rows["where"]) == {"all blocks", "layer 0", "embeddings and output head"}
    assert not rows.duplicated(["kind", "where", "share", "series", "split"]).any()


def test_setting_a_value_changes_the_data() -> None:
    made = panel()
    assert made.kind.options == ("singular vectors", "singular values", "rollback")
    assert (made.share.options, made.share.value) == ((10, 20, 100), 100)
    before, drawing = made.data, made.drawn.value
    made.share.value = 20
    assert made.data["share"].unique().tolist() == [20]
    assert not made.data.equals(before)
    assert made.drawn.value != drawing
    made.where.value = "layer 0"
    assert made.data["series"].iloc[1] == "edited: singular vectors"
    assert made.share.disabled
    made.kind.value = "rollback"
    assert made.where.value == "embeddings and output head"
    assert len(made.data) == 2 * 3
    made.kind.value = "singular vectors"
    assert not made.data.empty


def test_every_choice_is_in_the_twin_and_says_the_same() -> None:
    made = panel()
    page = made.twin()
    drawn = json.loads(re.search(r"\), (\{.*\})\);</script>", page, re.S)[1].replace("<\\/", "</"))  # type: ignore[index]
    assert {
        (kind, where, int(share)) for kind, at in drawn.items() for where, by in at.items() for share in by
    } == set(made.rows[["kind", "where", "share"]].itertuples(index=False, name=None))
    made.share.value = 20
    assert bars(made.data) == drawn["singular vectors"]["all blocks"]["20"]
    assert "0.100 [" in drawn["singular vectors"]["all blocks"]["20"]
    assert not re.search(r"(src|href)=|https?://|@import|url\(", page), "it loads nothing"
    assert page.count("</script>") == 1


def test_both_forms_are_offered_and_the_page_takes_the_twin() -> None:
    bundle = panel()._repr_mimebundle_()
    assert {"text/html", "application/vnd.jupyter.widget-view+json"} <= bundle.keys()
    assert "rlheals-panel" in bundle["text/html"]


def test_intervals_of_one_base_are_over_hands_and_what_is_shown_is_escaped() -> None:
    rows = choices(both_splits((1,)))
    assert (rows["low"] < rows["value"]).all()
    assert (rows["value"] < rows["high"]).all()
    assert "<script" not in bars(rows[rows["share"] == 20].assign(series="<script>alert(1)</script>"))


def test_without_an_edit_of_the_late_checkpoint_there_is_no_panel() -> None:
    made = tables({("swap", "values(all)", "blocks"): (0.1, 1.0)})
    with pytest.raises(BadInput, match="panel: there is no edit"):
        choices(made)


def test_figures_need_no_widgets() -> None:
    """They are an optional extra."""
    code = "import sys, rlheals.chapters.edits.figures as a, rlheals.chapters.protected.figures as b; "
    code += "sys.exit('ipywidgets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOVES = """
const share = document.querySelector("[name=share]"), kind = document.querySelector("[name=kind]");
const seen = [];
const look = () => seen.push(share.getAttribute("aria-valuetext") + " | " +
  [...document.querySelectorAll(".bar")].map((bar) => bar.textContent).join(" ; "));
look();
share.value = 0; share.dispatchEvent(new Event("input")); look();
share.value = 1; share.dispatchEvent(new Event("input")); look();
kind.value = "rollback"; kind.dispatchEvent(new Event("input")); look();
document.body.dataset.disabled = share.disabled;
document.body.dataset.seen = JSON.stringify(seen);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_moving_the_slider_changes_what_is_drawn(tmp_path: Path) -> None:
    page = tmp_path / "panel.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><body>{panel().twin()}<script>{MOVES}</script></body>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    (data,) = re.findall(r'data-seen="([^"]*)"', done.stdout)
    seen = json.loads(html.unescape(data))
    assert [one.split(" | ")[0] for one in seen] == ["100 %", "10 %", "20 %", "100 %"]
    assert len(set(seen)) == 4
    assert "edited: leading 20 % of singular vectors0.100 [" in seen[2]
    assert "edited: rollback0.090 [" in seen[3]
    assert 'data-disabled="true"' in done.stdout


def test_all_bars_are_on_the_scale_of_shares() -> None:
    """A bar as long as another stands for the same share, whichever hands it is of; no interval leaves 0 to 1."""
    shown = [("ood", 0.175, -0.01, 0.2), ("sft", 0.98, 0.95, 1.005)]
    rows = pd.DataFrame(shown, columns=["split", "value", "low", "high"])
    rows = rows.assign(series="peak", role="edited", size=1.0)
    page = bars(rows)
    assert re.findall(r'<i style="width:([\d.]+)%', page) == ["17.50", "98.00"]
    intervals = re.findall(r'<b style="left:([\d.]+)%;width:([\d.]+)%', page)
    assert intervals == [("0.00", "20.00"), ("95.00", "5.00")]
    assert "[0.000, 0.200]" in page
    assert "[0.950, 1.000]" in page
