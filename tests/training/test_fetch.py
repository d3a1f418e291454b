"""Bases from a hub or a folder: a run's id names the weights, on every machine and for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_models
from huggingface_hub import constants
from lab_helpers import refused, work_in
from small_study import CLIMB

from rlheals.cli.main import main
from rlheals.engines import models
from rlheals.profiles import load_profile, names
from rlheals.store.store import Store
from rlheals.study.plan import plan
from rlheals.training import fetch
from rlheals.training.fetch import Source, folder_hash, is_pinned, settings_of
from rlheals.weights.checkpoint import Checkpoint

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ada/model in the local copy of a hub, which is all there is of it: two commits, main is the new."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    fetch._commit_of.cache_clear()
    folder = tmp_path / "hub" / "models--ada--model"
    for seed, commit in enumerate((OLD, NEW)):
        tiny_models.folder(folder / "snapshots" / commit, "qwen2", seed=seed)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(NEW)
    return folder


def moved(hub: Path, commit: str) -> None:
    (hub / "refs" / "main").write_text(commit)
    fetch._commit_of.cache_clear()


def test_a_branch_is_the_commit_that_it_stood_for(hub: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def key(**source: str) -> str:
        profile = CLIMB.model_copy(update={"model": Source(name="ada/model", **source)})
        return store.key(plan(profile, 1, store).base)

    new = key()
    assert settings_of(Source(name="ada/model")).revision == NEW
    assert new == key(revision="main") == key(revision=NEW) != key(revision=OLD)
    moved(hub, OLD)
    assert key() == key(revision=OLD) != new


@pytest.mark.usefixtures("hub")
def test_spectra_of_a_hub_model_say_its_commit_and_what_was_planned_without_is_not_fetched(
    tmp_path: Path,
) -> None:
    assert Checkpoint("ada/model").notes == [f"ada/model: commit {NEW}"]
    unknown = settings_of(Source(name="ada/nowhere"))
    assert unknown.revision is None
    with refused(match=r"--set model\.revision=COMMIT"):
        fetch.run(work_in(tmp_path / "run", unknown, {}))


def test_a_study_of_a_model_that_may_change_is_not_recorded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (["model.name=ada/model"], ["model.revision=main"], ["model.revision=abcdef0"]):
        changes = [part for one in given for part in ("--set", one)]
        assert main(["study", "--profile", "colab", *changes, "--record", "out"]) == 2
        said = capsys.readouterr().err
        assert "--set model.revision=COMMIT" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shipped_profiles_name_the_commits_of_their_models() -> None:
    sources = [profile.model for profile in map(load_profile, names()) if profile.model is not None]
    assert len(sources) >= 5
    assert all(map(is_pinned, sources))
    assert len({source.revision for source in sources}) == len({source.name for source in sources})


def test_another_model_has_no_commit_of_the_first() -> None:
    assert load_profile("colab", {"model.name": "ada/model"}).model == Source(
        name="ada/model", dtype="float32"
    )
    for changes in (
        {"model.name": "ada/model", "model.revision": NEW},
        {"model.revision": NEW, "model.name": "ada/model"},
    ):
        model = load_profile("colab", changes).model
        assert model is not None
        assert (model.name, model.revision) == ("ada/model", NEW)


def test_the_hash_of_a_folder_covers_what_is_loaded_from_it(tmp_path: Path) -> None:
    folder = tiny_models.folder(tmp_path / "model", "qwen2")
    seen = {folder_hash(folder)}
    shutil.copytree(folder, tmp_path / "copy")
    assert folder_hash(tmp_path / "copy") in seen
    more = folder / "additional_chat_templates" / "tool_use.jinja"
    more.parent.mkdir()
    for template in ("{{ messages }}", "{{ messages[0] }}"):
        more.write_text(template)
        assert template in str(models.load_tokenizer(folder).chat_template)
        assert folder_hash(folder) not in seen
        seen.add(folder_hash(folder))
