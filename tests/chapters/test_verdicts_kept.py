"""Verdicts are kept beside the runs: what is kept says the same as the tables, and anything else is judged again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rlheals.chapters import verdicts
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.verdicts import FILE, outcomes
from rlheals.errors import BadInput
from rlheals.study.claims import Outcome

RESULTS = Path(__file__).parents[2] / "results"
KEY = "sft"


def outcome(results: Path) -> Outcome:
    return outcomes(results, [KEY])[KEY]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the recorded study of SFT."""
    shutil.copytree(RESULTS / "lab", tmp_path / "results" / "lab")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLHEALS_STORE", raising=False)
    return tmp_path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are judged from their tables."""
    asked, judged = list[str](), verdicts.judged

    def counting(key: str, results: Path):
        asked.append(key)
        return judged(key, results)

    monkeypatch.setattr(verdicts, "judged", counting)
    return asked


def test_what_is_kept_is_what_the_tables_say_and_is_judged_once(project: Path, counted: list[str]) -> None:
    first = outcome(project / "results")
    assert first.judged
    assert outcome(project / "results") == first == verdicts.judged(KEY, project / "results")
    assert counted[:1] == [KEY]
    assert len(counted) == 2, "the second of them by this test itself"
    assert [file.name for file in (project / ".rlheals").iterdir()] == [FILE]


@pytest.mark.parametrize("damage", ["cut", "empty", "digit", "binary", "none"])
def test_damage_is_noticed_and_repaired(project: Path, counted: list[str], damage: str) -> None:
    first = outcome(project / "results")
    file = project / ".rlheals" / FILE
    text = file.read_text()
    place = text.index('"estimate":') + len('"estimate":') + 4
    digit = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    made = {
        "cut": text[:-9].encode(),
        "empty": b"",
        "digit": digit.encode(),
        "binary": b"\xff" * 9,
        "none": None,
    }
    file.unlink() if made[damage] is None else file.write_bytes(made[damage] or b"")
    assert outcome(project / "results") == first
    assert counted == [KEY, KEY]
    assert file.read_text() == text


def test_other_results_are_judged_anew_and_damaged_ones_refused(project: Path, counted: list[str]) -> None:
    outcome(project / "results")
    shutil.rmtree(project / "results/lab/seed-11")
    assert outcome(project / "results").missing == ("base seed 11",)
    assert counted == [KEY, KEY]
    (project / "results/lab/seed-12/episodes.parquet").write_bytes(b"no")
    with pytest.raises(BadInput, match="has changed since"):
        outcome(project / "results")


def test_where_nothing_can_be_kept_the_verdicts_are_the_same(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = outcome(project / "results")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert outcome(project / "results") == first, "results of another project leave no store here"
    assert outcome(elsewhere / "results").missing is None
    assert not os.listdir(elsewhere)
    monkeypatch.chdir(project)
    (project / "file").write_text("")
    monkeypatch.setenv("RLHEALS_STORE", str(project / "file"))
    assert outcome(project / "results") == first


def test_results_are_hashed_once_for_all_parts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, digest = [], verdicts._digest
    monkeypatch.setattr(verdicts, "_digest", lambda results: asked.append(results) or digest(results))
    found = outcomes(project / "results")
    assert list(found) == list(CHAPTERS)
    assert found[KEY].judged
    assert len(asked) == 1
