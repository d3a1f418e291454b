"""What ways of loading leave of a small Llama: measured, recorded, and shown beside each other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import transformers
from lab_helpers import one_line

from rlheals.chapters.audit import loading, spectra, tables
from rlheals.display import markup
from rlheals.errors import BadInput

RECORDED = Path(__file__).parents[2] / loading.RECORDED


@pytest.fixture(scope="module")
def routes() -> pd.DataFrame:
    return loading.routes()


def test_names_that_do_not_fit_leave_the_text_weights_at_random(routes: pd.DataFrame) -> None:
    by_route = routes.set_index("route")
    right, wrong = by_route.loc[loading.OWN], by_route.loc[loading.STRICT_FALSE]
    assert (right["kept"], right["left_at_random"]) == (25, 0)
    assert (wrong["kept"], wrong["left_at_random"]) == (0, 25)
    assert wrong["redrawn"] == 16, "the matrices; norms and gates start from constants"
    assert wrong["spread"] == pytest.approx(spectra.SPREAD, rel=0.05)
    assert (routes["kept"] + routes["left_at_random"] == routes["tensors"]).all()


def test_a_recorded_table_is_that_which_was_measured(routes: pd.DataFrame, tmp_path: Path) -> None:
    loading.record(tmp_path / "now.json")
    version, again = loading.recorded(tmp_path / "now.json")
    assert version == transformers.__version__
    pd.testing.assert_frame_equal(again, routes)


def test_the_pinned_version_is_recorded_and_the_table_keeps_both_apart(
    routes: pd.DataFrame, tmp_path: Path
) -> None:
    pinned = spectra.released()["requirements"]["transformers"]
    version, old = loading.recorded(RECORDED)
    assert version == pinned
    assert list(old["route"]) == list(routes["route"])
    assert (old["kept"] + old["left_at_random"] == old["tensors"]).all()
    assert old.set_index("route").loc[loading.AUTO, "kept"] == 0
    text = markup.to_markdown(tables.loading(routes, RECORDED))
    assert text.count(f"{pinned} (recorded)") == len(old)
    assert "which the released `requirements.txt` pins" in text
    alone = markup.to_markdown(tables.loading(routes, tmp_path / "none.json"))
    assert "No other version of transformers is recorded here" in alone
    assert "(recorded)" not in alone


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"transformers": "1", "routes": 3}', '{"routes": []}'])
def test_a_damaged_recording_is_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "loading.json"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"loading\.json: cannot be read") as refused:
        loading.recorded(file)
    one_line(refused.value)
