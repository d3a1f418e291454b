"""The fresh core: after it, no chapter has anything left to compute."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_study import WHOLE

from rlheals.errors import BadInput
from rlheals.fresh import CHAPTERS, core
from rlheals.profiles import load_profile
from rlheals.store import Store


def test_after_the_fresh_core_no_chapter_computes_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, none = Store(tmp_path / "store"), tmp_path / "none"
    runs = core(WHOLE, results=none, store=store)
    assert {run.id for run in runs} == set(store.ids())
    capsys.readouterr()
    opened = [chapter.open(WHOLE, results=none, store=store) for chapter in CHAPTERS.values()]
    assert ": computing" not in capsys.readouterr().err
    assert {run.id for chapter in opened for run in chapter.runs} == set(store.ids())


def test_a_seed_that_is_recorded_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="base seed 1 is in the recorded study"):
        core(load_profile("lab"), seeds=[1], store=Store(tmp_path / "store"), quiet=True)
    assert not (tmp_path / "store").exists()
