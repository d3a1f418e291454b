"""The recorded study: the same bytes whenever it is written, refused when a byte has changed since."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from lab_helpers import files_of, flip_bit, one_line
from small_study import SMALL

from rlheals.errors import BadInput
from rlheals.profiles import PROFILES
from rlheals.profiles.profile import Profile
from rlheals.store.runs import MANIFEST
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.plan import plan
from rlheals.study.record import read
from rlheals.study.tables import Tables, collect


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("recorded")
    store, lines = Store(root / "store"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        record.record(SMALL, [2, 10], store, root / "results", say=lines.append)
    return SimpleNamespace(root=root, store=store, folder=root / "results" / "small", lines=lines)


@pytest.fixture
def copy(recorded: SimpleNamespace, tmp_path: Path) -> Path:
    shutil.copytree(recorded.folder, tmp_path / "small")
    return tmp_path / "small"


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(folder)
    return one_line(caught.value)


def test_what_is_read_is_what_the_runs_gave_seed_by_seed(recorded: SimpleNamespace) -> None:
    assert recorded.lines == ["recorded small seed 2", "recorded small seed 10"]
    found, manifests = read(recorded.folder)
    assert found.seeds == [2, 10]
    assert [manifest.seed for manifest in manifests] == [2, 10]
    fresh = collect([plan(SMALL, seed, recorded.store) for seed in (2, 10)], recorded.store)
    for field in fields(Tables):
        mine, theirs = getattr(fresh, field.name), getattr(found, field.name)
        pd.testing.assert_frame_equal(mine.astype(str), theirs.astype(str))


def test_the_manifest_says_which_runs_made_the_numbers(recorded: SimpleNamespace) -> None:
    _, manifests = read(recorded.folder)
    for manifest in manifests:
        specs = plan(SMALL, manifest.seed, recorded.store).specs()
        assert [run.id for run in manifest.runs] == [recorded.store.key(spec) for spec in specs]
        assert [run.stage for run in manifest.runs] == [spec.stage for spec in specs]
        assert manifest.profile == SMALL.model_dump(mode="json")
        seconds = [recorded.store.load(run.id).manifest.seconds for run in manifest.runs]
        assert manifest.minutes == pytest.approx(sum(seconds) / 60)
        assert set(manifest.files) == {f"{field.name}.parquet" for field in fields(Tables)}
    text = (recorded.folder / "seed-2" / MANIFEST).read_text()
    assert str(recorded.root) not in text


def test_recording_again_changes_no_byte(recorded: SimpleNamespace) -> None:
    before = files_of(recorded.folder)
    record.record(SMALL, [2, 10], recorded.store, recorded.root / "results", say=lambda line: None)
    assert files_of(recorded.folder) == before
    again = recorded.root / "elsewhere"
    record.record(SMALL, [10], recorded.store, again, say=lambda line: None)
    assert files_of(again / "small" / "seed-10") == files_of(recorded.folder / "seed-10")


@pytest.mark.parametrize("name", [field.name for field in fields(Tables)])
def test_one_flipped_bit_or_a_missing_table_is_refused(copy: Path, name: str) -> None:
    file = copy / "seed-10" / f"{name}.parquet"
    flip_bit(file)
    assert f"small/seed-10: {name}.parquet is missing or has changed" in refused(copy)
    file.unlink()
    assert f"small/seed-10: {name}.parquet is missing or has changed" in refused(copy)


def test_tables_of_another_seed_are_refused(copy: Path) -> None:
    shutil.copy(copy / "seed-2" / "losses.parquet", copy / "seed-10" / "losses.parquet")
    assert "seed-10: losses.parquet" in refused(copy)
    shutil.rmtree(copy / "seed-10")
    shutil.copytree(copy / "seed-2", copy / "seed-10")
    assert "seed-10: holds seeds [2], its manifest says 2" in refused(copy)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "manifest.json"),
        (b"{}", "profile"),
        ({"more": 1}, "more"),
        ({"seed": -1}, "seed"),
        ({"seed": "two"}, "seed"),
        ({"seed": 11}, "seed"),  # not that of the tables
        ({"runs": [{}]}, "runs"),
        ({"files": []}, "files"),
    ],
)
def test_a_manifest_that_is_none_is_refused_and_the_field_named(
    copy: Path, data: bytes | dict | None, named: str
) -> None:
    file = copy / "seed-2" / MANIFEST
    if isinstance(data, dict):
        whole = json.loads(file.read_text()) | data
        data = json.dumps(whole | {"digest": record.manifest_digest(whole)}).encode()
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    answer = refused(copy)
    assert "seed-2" in answer
    assert named in answer


def test_nothing_recorded_is_said_and_what_is_no_seed_refused(tmp_path: Path, copy: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert "no recorded study" in refused(folder)
    (copy / "seed-x").mkdir()
    assert "seed-x" in refused(copy)


def test_the_manifest_is_written_last(
    recorded: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops in between leaves a folder that is refused, and the next recording repairs it."""

    def stop(path: Path, data: bytes | str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record, "atomic_write", stop)
        with pytest.raises(KeyboardInterrupt):
            record.record(SMALL, [2], recorded.store, tmp_path, say=lambda line: None)
    assert MANIFEST in refused(tmp_path / "small")
    record.record(SMALL, [2], recorded.store, tmp_path, say=lambda line: None)
    assert files_of(tmp_path / "small" / "seed-2") == files_of(recorded.folder / "seed-2")


def test_what_is_recorded_is_left_out_where_only_the_rest_is_wanted(
    recorded: SimpleNamespace, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results alone say what is missing: the store may be another one, and empty."""
    monkeypatch.setenv("CI", "true")
    before, lines = files_of(copy), list[str]()
    record.record(SMALL, [2, 10], Store(tmp_path / "store"), tmp_path, say=lines.append, only_missing=True)
    assert not lines
    assert files_of(copy) == before
    assert not list((tmp_path / "store").glob("**/manifest.json"))

    shutil.rmtree(copy / "seed-2")
    file = copy / "seed-10" / MANIFEST
    shorter = json.loads(file.read_text())
    shorter["runs"] = shorter["runs"][:-1]
    shorter["digest"] = record.manifest_digest(shorter)
    file.write_text(json.dumps(shorter))  # of a plan that had less in it
    record.record(SMALL, [2, 10], recorded.store, tmp_path, say=lines.append, only_missing=True)
    assert lines == ["recorded small seed 2", "recorded small seed 10"]
    assert files_of(copy) == before


def test_a_seed_is_recorded_before_the_next_one_is_computed(tmp_path: Path) -> None:
    """So a study that is cut short has whole base seeds."""

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        record.record(SMALL, [2, 10], store, tmp_path / "results", say=stop)
    assert read(tmp_path / "results" / "small")[0].seeds == [2]
    assert not store.has(store.key(plan(SMALL, 10, store).base))


def test_what_is_recorded_has_the_settings_of_today() -> None:
    """But for what a reader computes, which enters no recorded run."""
    recorded = record.recorded_manifests(Path(__file__).parents[2] / "results")
    for manifest in (manifest for manifests in recorded.values() for manifest in manifests):
        Profile.model_validate(manifest.profile)
    for name, part in (("lab", "sft"), ("lab-recovery", "rl_starts"), ("lab-healing", "healing")):
        made, today = (
            getattr(profile, part).model_dump()
            for profile in (Profile.model_validate(recorded[name][0].profile), PROFILES["lab"])
        )
        assert {key for key in made if made[key] != today[key]} <= {
            key for key in made if key.startswith("reader_")
        }
