"""Replays: today's code gives a recorded slice again, or the study stays stale and the difference is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import pytest
from chapter_studies import STARTS
from small_study import CLIMB, EDIT, HEAL, SHIELD, SMALL, SPIN

from rlheals.chapters import replay as replays
from rlheals.chapters.edits import runs as edit_runs
from rlheals.chapters.healing import runs as healing_runs
from rlheals.chapters.protected import runs as protected_runs
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.spectra import runs as spectra_runs
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.store.stages import code_behind
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.tables import Part


class Study(NamedTuple):
    """A small recorded study; sliced: stages of the runs that a replay computes; columns: of which one value is off."""

    profile: Profile
    part: Part[Any]
    stage: str
    sliced: list[str]
    columns: list[tuple[str, str]]

    @property
    def name(self) -> str:
        return f"{self.profile.name}{self.part.suffix}"


TO_SFT = ["pretrain", "sft"]
STUDIES = {
    "sft": Study(
        SMALL, tables.SFT, "sft", ["evaluate", *TO_SFT],
        [("episodes", "solved_at"), ("losses", "loss"), ("bases", "ability")],
    ),
    "rl": Study(
        CLIMB, rl_runs.STUDY, "rl", ["evaluate", "evaluate", "pretrain", "rl", "sft"],
        [("episodes", "solved_at"), ("log", "return"), ("advantages", "advantage"), ("losses", "loss")],
    ),
    "spectra": Study(
        SPIN, spectra_runs.STUDY.at({2: 3}), "spectra", [*TO_SFT, "spectra", "trajectory"],
        [("angles", "mean"), ("values", "after"), ("path", "angle"), ("behaviour", "kl")],
    ),
    "edits": Study(
        EDIT, edit_runs.STUDY.at({2: 3}), "edited", ["edited", "evaluate", *TO_SFT],
        [("sizes", "edit_norm"), ("effects", "solved")],
    ),
    "protected": Study(
        SHIELD, protected_runs.STUDY, "protected", ["evaluate", "pretrain", "protected"],
        [("penalties", "penalty"), ("accuracy", "solved")],
    ),
    "healing": Study(
        HEAL, healing_runs.STUDY.at({2: STARTS}), "rl", ["evaluate", "evaluate", "pretrain", "rl", "sft"],
        [("episodes", "solved_at"), ("log", "return"), ("losses", "loss")],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> Path:
    """The recorded studies, and beside them the stores in which their slices are computed anew, once."""
    root = tmp_path_factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        for one in STUDIES.values():
            seeds = [2, 3] if one.part is tables.SFT else [2]
            record.record(one.profile, seeds, shared, root / "results", say=lambda line: None, part=one.part)
    return root


@pytest.fixture
def copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CI", "true")
    return Path(shutil.copytree(home / "results", tmp_path / "results"))


def change_code(monkeypatch: pytest.MonkeyPatch, stage: str, code: str = "0" * 64) -> None:
    def changed(asked: str, settings: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(hash=code) if asked == stage else code_behind(asked, settings)

    monkeypatch.setattr(replays, "code_behind", changed)


def stale(results: Path) -> list[list[str]]:
    _, manifests = record.read(results / "small")
    return [replays.stale_stages(manifest, replays.read(results)) for manifest in manifests]


def test_changed_code_makes_all_seeds_stale_and_one_replay_that_agrees_clears_them(home, copy, monkeypatch):
    assert stale(copy) == [[], []]
    change_code(monkeypatch, "sft")
    assert stale(copy) == [["sft"], ["sft"]]
    done = replays.replay(copy / "small", 2, Store(home / "sft"))
    assert done.compared > 50
    assert stale(copy) == [[], []]
    change_code(monkeypatch, "evaluate")
    assert stale(copy) == [["evaluate"], ["evaluate"]], "a replay speaks for the code it was made with only"


def test_replays_follow_on_each_other_in_any_order(copy, monkeypatch):
    """The same numbers are the same whichever code gave them first."""
    _, (manifest, _) = record.read(copy / "small")
    made_by = manifest.code()["sft"]

    def noted(*steps: tuple[str, str]) -> list[str]:
        notes = [
            replays.Replay(
                study="small", seed=2, steps=(), compared=1, machine={},
                made_by={"sft": old}, replayed_by={"sft": new},
            )
            for old, new in steps
        ]  # fmt: skip
        return replays.stale_stages(manifest, notes)

    now = "0" * 64
    change_code(monkeypatch, "sft")
    assert noted((made_by, "b"), ("b", now)) == []
    assert noted(("b", now), (made_by, "b")) == []
    assert noted((made_by, "b"), ("b", made_by)) == ["sft"]
    assert noted(("b", now)) == ["sft"]
    assert noted((now, made_by)) == []
    assert noted(("a", made_by), ("a", now)) == [], "recorded between a and now"
    assert noted(("a", made_by), ("b", now)) == ["sft"]


def test_a_second_replay_leaves_what_was_recorded_in_between_as_good_as_it_was(home, copy, monkeypatch):
    store = Store(home / "sft")
    between, now = "b" * 64, "0" * 64
    for code in (between, now):
        change_code(monkeypatch, "sft", code)
        replays.replay(copy / "small", 2, store)
        replays.replay(copy / "small", 2, store)
    notes = replays.read(copy)
    assert [note.replayed_by["sft"] for note in notes] == [between, now], "one note per code"
    _, (manifest, _) = record.read(copy / "small")
    runs = [r.model_copy(update={"code_hash": between}) if r.stage == "sft" else r for r in manifest.runs]
    assert replays.stale_stages(manifest.model_copy(update={"runs": tuple(runs)}), notes) == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_slice_has_a_run_of_each_stage_it_is_about_and_only_what_was_computed_is_noted(
    name: str, home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = STUDIES[name], Store(home / name)
    change_code(monkeypatch, study.stage)
    _, (manifest, *_) = record.read(copy / study.name, study.part.kind)
    before = replays.stale_stages(manifest, [])
    assert study.stage in before
    done = replays.replay(copy / study.name, 2, store)
    assert (done.study, done.seed) == (study.name, 2)
    assert done.compared > 3
    assert sorted(store.load(key).manifest.stage for key in store.ids()) == study.sliced
    assert set(done.replayed_by) == set(study.sliced)
    left = set(before) - set(study.sliced)
    assert set(replays.stale_stages(manifest, replays.read(copy))) == left


@pytest.mark.parametrize(
    ("name", "table", "column"), [(name, *one) for name, study in STUDIES.items() for one in study.columns]
)
def test_one_value_that_differs_is_named_and_nothing_is_noted(
    name: str, table: str, column: str, home: Path, copy: Path
) -> None:
    study, store = STUDIES[name], Store(home / name)
    chapter = replays.chapter_of(study.name)
    place = copy / study.name / f"seed-2{chapter.SLICED}"
    sliced = chapter.slice_of(tables.read(place, study.part.kind), study.profile, 2, store)
    file = place / f"{table}.parquet"
    frame = pd.read_parquet(file)
    frame.loc[sliced.recorded[table].index[-1], column] += 1
    frame.to_parquet(file)
    with pytest.raises(BadInput, match=f"replay: {table}.{column} differs in 1 of"):
        replays.replay(copy / study.name, 2, store)
    assert not (copy / replays.FILE).exists()


def test_old_and_new_code_are_compared_on_one_machine_where_the_recorded_numbers_do_not_come_again(
    home, copy, monkeypatch, tmp_path
):
    file = copy / "small" / "seed-2" / "losses.parquet"
    frame = pd.read_parquet(file)
    frame["loss"] *= 1 + 1e-7  # as another processor gave them
    frame.to_parquet(file)
    store, kept = Store(home / "sft"), tmp_path / "kept"
    made = replays.write_tables(copy / "small", 2, store, kept)
    assert made.code == record.read_manifest(copy / "small" / "seed-2").code()
    assert not (copy / replays.FILE).exists()
    with pytest.raises(BadInput, match=r"--tables .* is already there"):
        replays.write_tables(copy / "small", 2, store, kept)
    change_code(monkeypatch, "sft")
    with pytest.raises(BadInput, match=r"losses\.loss differs"):
        replays.replay(copy / "small", 2, store)
    done = replays.replay(copy / "small", 2, store, against=kept)
    assert done.against
    manifest = record.read_manifest(copy / "small" / "seed-2")
    assert replays.stale_stages(manifest, replays.read(copy)) == []
    (copy / replays.FILE).unlink()
    for folder, seed, named in ((kept, 3, "of small seed 2"), (tmp_path / "none", 2, "holds no tables")):
        with pytest.raises(BadInput, match=named):
            replays.replay(copy / "small", seed, store, against=folder)
    losses = pd.read_parquet(kept / "losses.parquet")
    losses.loc[0, "loss"] += 1
    losses.to_parquet(kept / "losses.parquet", index=False)
    with pytest.raises(BadInput, match=r"losses\.loss differs in 1 of"):
        replays.replay(copy / "small", 2, store, against=kept)
    assert not (copy / replays.FILE).exists()


def test_a_damaged_note_is_refused(copy):
    (copy / replays.FILE).write_text(json.dumps([{"study": "small"}]))
    with pytest.raises(BadInput, match=r"replays\.json cannot be read"):
        replays.read(copy)
