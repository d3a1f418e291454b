"""An entry in the list of chapters leads to all about one: its folder, claims, notebook, and what is recorded of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlheals.chapters.registry import CHAPTERS
from rlheals.study.claims import ESTIMATORS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("key", CHAPTERS)
def test_an_entry_leads_to_everything_about_its_chapter(key: str) -> None:
    one = CHAPTERS[key]
    assert one.claims.key == key
    found = one.claims.read()
    known = {claim.estimator for claim in found.claims}
    assert set(ESTIMATORS[key]) == known, "no claim without, none unused"
    assert min(found.study.seeds) > 0
    assert (ROOT / "notebooks" / f"{one.notebook}.ipynb").is_file()
    assert (ROOT / "rlheals" / "chapters" / one.room / "figures.py").is_file()
    assert one.part.kind.__name__.endswith("Tables")


def test_chapters_are_recorded_in_folders_of_their_own_and_their_claims_have_names_of_their_own() -> None:
    assert len({one.part.suffix for one in CHAPTERS.values()}) == len(CHAPTERS)
    ids = [claim.id for one in CHAPTERS.values() for claim in one.claims.read().claims]
    assert len(set(ids)) == len(ids)


def test_the_list_itself_loads_no_chapter() -> None:
    code = "import sys, rlheals.chapters.verdicts; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
