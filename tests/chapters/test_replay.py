"""Replays: today's code gives a recorded slice again, or the study stays stale and the difference is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_study import CLIMB, EDIT, SHIELD, SMALL, SPIN

from rlheals.chapters import replay as replays
from rlheals.chapters.edits import runs as swaps
from rlheals.chapters.protected import runs as protection
from rlheals.chapters.rl import runs as recovery
from rlheals.chapters.spectra import runs as rotation
from rlheals.errors import BadInput
from rlheals.store import code_hash as sources
from rlheals.store.stages import module_of
from rlheals.store.store import Store
from rlheals.study import record

SILENT = {"say": lambda line: None}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("replay")
    record.record(SMALL, [2, 3], Store(root / "store"), root / "results", **SILENT)
    return root / "results"


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "results"))


def change_code(monkeypatch: pytest.MonkeyPatch, stage: str, code: str = "0" * 64) -> None:
    def changed(module: str) -> str:
        return code if module == module_of(stage) else sources.code_hash(module)

    monkeypatch.setattr(replays, "code_hash", changed)


def stale(results: Path) -> list[list[str]]:
    _, manifests = record.read(results / "small")
    return [replays.stale_stages(manifest, replays.read(results)) for manifest in manifests]


def test_changed_code_makes_all_seeds_stale_and_one_replay_that_agrees_clears_them(
    copy, monkeypatch, tmp_path
):
    assert stale(copy) == [[], []]
    change_code(monkeypatch, "sft")
    assert stale(copy) == [["sft"], ["sft"]]
    done = replays.replay(copy / "small", 2, Store(tmp_path / "fresh"), **SILENT)
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


def test_a_second_replay_leaves_what_was_recorded_in_between_as_good_as_it_was(copy, monkeypatch, tmp_path):
    store = Store(tmp_path / "fresh")
    between, now = "b" * 64, "0" * 64
    for code in (between, now):
        change_code(monkeypatch, "sft", code)
        replays.replay(copy / "small", 2, store, **SILENT)
        replays.replay(copy / "small", 2, store, **SILENT)
    notes = replays.read(copy)
    assert [note.replayed_by["sft"] for note in notes] == [between, now], "one note per code"
    _, (manifest, _) = record.read(copy / "small")
    runs = [r.model_copy(update={"code_hash": between}) if r.stage == "sft" else r for r in manifest.runs]
    assert replays.stale_stages(manifest.model_copy(update={"runs": tuple(runs)}), notes) == []


@pytest.mark.parametrize(
    ("table", "column"), [("episodes", "solved_at"), ("losses", "loss"), ("bases", "ability")]
)
def test_one_value_that_differs_is_named_and_nothing_is_noted(copy, tmp_path, table, column):
    file = copy / "small" / "seed-2" / f"{table}.parquet"
    frame = pd.read_parquet(file)
    frame.loc[frame.index[-1], column] += 1
    frame.to_parquet(file)
    with pytest.raises(BadInput, match=f"replay: {table}.{column} differs in 1 of"):
        replays.replay(copy / "small", 2, Store(tmp_path / "fresh"), **SILENT)
    assert not (copy / replays.FILE).exists()


def test_old_and_new_code_are_compared_on_one_machine_where_the_recorded_numbers_do_not_come_again(
    copy, monkeypatch, tmp_path
):
    file = copy / "small" / "seed-2" / "losses.parquet"
    frame = pd.read_parquet(file)
    frame["loss"] *= 1 + 1e-7  # as another processor gave them
    frame.to_parquet(file)
    store, kept = Store(tmp_path / "fresh"), tmp_path / "kept"
    made = replays.write_tables(copy / "small", 2, store, kept)
    assert made.code == record.read_manifest(copy / "small" / "seed-2").code()
    assert not (copy / replays.FILE).exists()
    with pytest.raises(BadInput, match=r"--tables .* is already there"):
        replays.write_tables(copy / "small", 2, store, kept)
    change_code(monkeypatch, "sft")
    with pytest.raises(BadInput, match=r"losses\.loss differs"):
        replays.replay(copy / "small", 2, store, **SILENT)
    done = replays.replay(copy / "small", 2, store, **SILENT, against=kept)
    assert done.against
    manifest = record.read_manifest(copy / "small" / "seed-2")
    assert replays.stale_stages(manifest, replays.read(copy)) == []
    (copy / replays.FILE).unlink()
    for folder, seed, named in ((kept, 3, "of small seed 2"), (tmp_path / "none", 2, "holds no tables")):
        with pytest.raises(BadInput, match=named):
            replays.replay(copy / "small", seed, store, **SILENT, against=folder)
    losses = pd.read_parquet(kept / "losses.parquet")
    losses.loc[0, "loss"] += 1
    losses.to_parquet(kept / "losses.parquet", index=False)
    with pytest.raises(BadInput, match=r"losses\.loss differs in 1 of"):
        replays.replay(copy / "small", 2, store, **SILENT, against=kept)
    assert not (copy / replays.FILE).exists()


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> Path:
    root = tmp_path_factory.mktemp("climb")
    record.record(CLIMB, [2], shared, root / "results", **SILENT, part=recovery.STUDY)
    return root / "results"


def test_rl_is_replayed_from_the_start_in_the_middle(climbed, monkeypatch, tmp_path):
    results = Path(shutil.copytree(climbed, tmp_path / "results"))
    monkeypatch.setenv("CI", "true")
    change_code(monkeypatch, "rl")
    _, (manifest,) = record.read(results / "climb-recovery", recovery.RecoveryTables)
    assert replays.stale_stages(manifest, replays.read(results)) == ["rl"]
    store = Store(tmp_path / "fresh")
    done = replays.replay(results / "climb-recovery", 2, store, **SILENT)
    assert (done.study, done.steps) == ("climb-recovery", (5,))
    assert replays.stale_stages(manifest, replays.read(results)) == []
    stages = [store.load(key).manifest.stage for key in store.ids()]
    assert sorted(stages) == ["evaluate", "evaluate", "pretrain", "rl", "sft"]


@pytest.mark.parametrize(
    ("table", "column"),
    [("episodes", "solved_at"), ("log", "return"), ("advantages", "advantage"), ("losses", "loss")],
)
def test_one_value_of_rl_that_differs_is_named(climbed, monkeypatch, tmp_path, table, column):
    results = Path(shutil.copytree(climbed, tmp_path / "results"))
    monkeypatch.setenv("CI", "true")
    file = results / "climb-recovery" / "seed-2-run-0" / f"{table}.parquet"
    frame = pd.read_parquet(file)
    chosen = frame[(frame["start"] == 5) & (frame.get("decode", 0) == 0)]
    frame.loc[chosen.index[-1], column] += 1
    frame.to_parquet(file)
    with pytest.raises(BadInput, match=f"replay: {table}.{column} differs in 1 of"):
        replays.replay(results / "climb-recovery", 2, Store(tmp_path / "fresh"), **SILENT)
    assert not (results / replays.FILE).exists()


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> Path:
    root = tmp_path_factory.mktemp("turned")
    record.record(SPIN, [2], shared, root / "results", **SILENT, part=rotation.STUDY.at({2: 3}))
    return root / "results"


def test_spectra_are_replayed_from_peak_to_end_and_only_what_was_computed_is_noted(
    turned, monkeypatch, tmp_path
):
    results = Path(shutil.copytree(turned, tmp_path / "results"))
    monkeypatch.setenv("CI", "true")
    change_code(monkeypatch, "spectra")
    _, (manifest,) = record.read(results / "spin-rotation", rotation.RotationTables)
    stale = replays.stale_stages(manifest, replays.read(results))
    assert "spectra" in stale
    store = Store(tmp_path / "fresh")
    done = replays.replay(results / "spin-rotation", 2, store, **SILENT)
    assert (done.study, done.steps) == ("spin-rotation", (3,))
    assert set(done.replayed_by) == {"pretrain", "sft", "trajectory", "spectra"}
    assert {"rl", "evaluate"} <= set(done.made_by)
    left = replays.stale_stages(manifest, replays.read(results))
    assert set(left) == set(stale) & {"rl", "evaluate"}
    stages = [store.load(key).manifest.stage for key in store.ids()]
    assert sorted(stages) == ["pretrain", "sft", "spectra", "trajectory"]


@pytest.mark.parametrize(
    ("table", "column", "chosen"),
    [
        ("angles", "mean", "pair"),
        ("values", "after", "pair"),
        ("path", "angle", "branch"),
        ("behaviour", "kl", "branch"),
    ],
)
def test_one_value_of_spectra_that_differs_is_named(turned, monkeypatch, tmp_path, table, column, chosen):
    results = Path(shutil.copytree(turned, tmp_path / "results"))
    monkeypatch.setenv("CI", "true")
    file = results / "spin-rotation" / "seed-2" / f"{table}.parquet"
    frame = pd.read_parquet(file)
    rows = frame[frame[chosen].astype(str) == {"pair": "peak-end", "branch": "sft"}[chosen]]
    frame.loc[rows.index[-1], column] += 1
    frame.to_parquet(file)
    with pytest.raises(BadInput, match=f"replay: {table}.{column} differs in 1 of"):
        replays.replay(results / "spin-rotation", 2, Store(tmp_path / "fresh"), **SILENT)
    assert not (results / replays.FILE).exists()


def test_a_damaged_note_is_refused(copy):
    (copy / replays.FILE).write_text(json.dumps([{"study": "small"}]))
    with pytest.raises(BadInput, match=r"replays\.json cannot be read"):
        replays.read(copy)


@pytest.mark.parametrize(
    ("profile", "part", "stage", "table", "column"),
    [
        (EDIT, swaps.STUDY.at({2: 3}), "edited", "sizes", "edit_norm"),
        (EDIT, swaps.STUDY.at({2: 3}), "edited", "effects", "solved"),
        (SHIELD, protection.STUDY, "protected", "penalties", "penalty"),
        (SHIELD, protection.STUDY, "protected", "accuracy", "solved"),
    ],
)
def test_edits_and_protected_sft_are_replayed_in_part(
    profile, part, stage, table, column, monkeypatch, tmp_path, shared
):
    monkeypatch.setenv("CI", "true")
    results = tmp_path / "results"
    record.record(profile, [2], shared, results, **SILENT, part=part)
    folder = results / f"{profile.name}{part.suffix}"
    change_code(monkeypatch, stage)
    _, (manifest,) = record.read(folder, part.kind)
    assert stage in replays.stale_stages(manifest, [])
    done = replays.replay(folder, 2, Store(tmp_path / "fresh"), **SILENT)
    assert stage in done.replayed_by
    assert done.compared > 3
    assert stage not in replays.stale_stages(manifest, replays.read(results))
    (results / replays.FILE).unlink()
    file = folder / f"seed-2/{table}.parquet"
    frame = pd.read_parquet(file)
    frame[column] += 1
    frame.to_parquet(file)
    with pytest.raises(BadInput, match=f"replay: {table}.{column} differs in"):
        replays.replay(folder, 2, Store(tmp_path / "fresh"), **SILENT)
    assert not (results / replays.FILE).exists()
