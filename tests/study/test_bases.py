"""Recorded bases and SFT checkpoints: a study goes on from their weights, and from no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlheals.chapters.base import Computer
from rlheals.chapters.rl.runs import rl_spec
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.bases import BASES, BaseTables
from rlheals.study.compute import compute
from rlheals.study.peaks import peaks_of
from rlheals.study.plan import base_spec, plan, recorded_sft

TINY = {
    "pretrain.model": {"hidden": 16, "layers": 1, "heads": 1, "mlp": 16},
    "pretrain.min_steps": 1,
    "pretrain.max_steps": 2,
    "pretrain.check_every": 1,
    "pretrain.panel_hands": 16,
    "evaluate.hands": 4,
    "rule_hands": 1,
}


def profile(**changes: object) -> Profile:
    return load_profile("smoke", {**TINY, **changes})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recorded base, of seed 7."""
    place = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        record.record(profile(), [7], Store(place / "store"), place / "results", say=str, part=BASES)
    return place / "results"


@pytest.fixture
def project(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with that base."""
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recorded_base_is_taken_by_whoever_asks_for_the_same_pretraining(project: Path) -> None:
    spec = base_spec(profile(name="other"), 7)
    assert spec.stage == "adopt"
    (run,) = compute([spec], Store(project / "second"), quiet=True)
    recorded = project / "results/smoke-bases/seed-7/base/model.safetensors"
    assert run.file("base/model.safetensors").read_bytes() == recorded.read_bytes()
    assert base_spec(profile(), 8).stage == "pretrain"
    assert base_spec(profile(**{"pretrain.learning_rate": 1e-4}), 7).stage == "pretrain"


def test_weights_that_are_not_those_of_the_manifest_are_not_taken(project: Path) -> None:
    spec, file = base_spec(profile(), 7), project / "results/smoke-bases/seed-7/base/model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(BadInput, match="no model has the hash"):
        compute([spec], Store(project / "second"), quiet=True)


@pytest.mark.parametrize("text", ["[]", "{}", '{"profile": {}, "files": {}}', '{"profile": 1'])
def test_a_manifest_that_is_none_is_one_line(project: Path, text: str) -> None:
    (project / "results/smoke-bases/seed-7/manifest.json").write_text(text)
    with pytest.raises(BadInput, match="manifest") as caught:
        base_spec(profile(), 7)
    assert "\n" not in str(caught.value)


def test_a_base_that_is_recorded_again_takes_the_place_of_the_old_one(project: Path) -> None:
    old = (project / "results/smoke-bases/seed-7/base/model.safetensors").read_bytes()
    again = profile(**{"pretrain.learning_rate": 1e-4})
    record.record(again, [7], Store(project / "second"), Path("results"), say=lambda line: None, part=BASES)
    assert (project / "results/smoke-bases/seed-7/base/model.safetensors").read_bytes() != old
    (run,) = compute([base_spec(again, 7)], Store(project / "third"), quiet=True)
    assert run.manifest.stage == "adopt"


def test_its_manifest_says_what_made_it_and_by_which_claims_it_will_be_judged(project: Path) -> None:
    tables, (manifest,) = record.read(project / "results/smoke-bases", BaseTables)
    assert [run.stage for run in manifest.runs] == ["pretrain"]
    assert manifest.runs[0].started is not None
    assert manifest.runs[0].started >= manifest.started
    assert manifest.claims is not None
    assert {"base/model.safetensors", "base/config.json", "ability.parquet"} <= set(manifest.files)
    assert list(tables.ability["step"]) == [1, 2]


STARTS = {"sft.checkpoints": [0, 10, 20, 30, 60], "rl_starts.reader_starts": [20]}


def test_rl_starts_from_a_recorded_checkpoint_of_the_same_sft_and_does_not_wait_for_it(project: Path) -> None:
    mine = profile(seeds=[7], **STARTS)
    record.record(mine, [7], Store(project / "first"), Path("results/development"), say=lambda line: None)
    place, store = project / "results/development/smoke/seed-7", Store(project / "second")
    shorter = profile(**STARTS | {"sft.checkpoints": [0, 10, 20, 30, 60, 90], "evaluated": [0, 10, 20]})
    found = plan(shorter, 7, store)
    assert found.starts.keys() == {20}
    assert recorded_sft(shorter, 7) == place
    assert [spec.stage for spec in found.origins] == ["adopt", "sft", "adopt"]
    (_, run) = compute([found.base, found.starts[20]], store, quiet=True)
    assert (
        run.file("base/model.safetensors").read_bytes()
        == (place / "step-00020/model.safetensors").read_bytes()
    )
    rl = rl_spec(shorter, found, store, 20, 0, {})
    assert (rl.inputs["model"], rl.settings["folder"]) == (store.key(found.starts[20]), "base")
    assert rl_spec(shorter, found, store, 30, 0, {}).inputs["model"] == store.key(found.sft)
    for changes in ({"sft.learning_rate": 1e-4}, {"pretrain.learning_rate": 1e-4}):
        assert plan(profile(**STARTS | changes), 7, store).starts == {}
    known = Computer(store, 1, quiet=True).points_of("peaks", shorter, [7])
    assert known == peaks_of(record.read(place.parent)[0])
    assert not store.has(store.key(found.sft))


def test_checkpoints_are_kept_of_a_fresh_seed_only(project: Path) -> None:
    record.record(profile(**STARTS), [7], Store(project / "first"), Path("results"), say=lambda line: None)
    assert not list((project / "results/smoke/seed-7").glob("step-*"))
