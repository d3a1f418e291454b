"""Two users share a store: files have the mode that the umask asks for, and what is forbidden is called forbidden."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import ended, forked
from safetensors.numpy import load_file, save_file
from store_lab import SPEC, Lab

from rlheals.project import project_root
from rlheals.stage import Work
from rlheals.store import store
from rlheals.store.files import StoreError, believed, note, whole, whole_file
from rlheals.store.runs import RunSpec
from rlheals.store.store import default_store
from rlheals.training import resume

ALICE, BOB, GROUP = 1801, 1802, 1800
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@pytest.fixture
def open_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab in a folder that every user can enter; pytest's own are for one user alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.syspath_prepend(str(folder))
    lab = Lab(folder, f"toy_{folder.name}")
    lab.store.root.mkdir()
    lab.store.root.chmod(0o777)
    lab.store.key(SPEC)  # a fork has none of the threads that read source
    yield lab
    shutil.rmtree(folder)


def acting(user: int | None, umask: int, work: Callable[[], Any]) -> Any:
    """What `work` returns, or the text of its StoreError, in a fork that is this user (None: anyone but root)."""
    here, there = Pipe()

    def child() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(ALICE if user is None else user)
        os.umask(umask)
        try:
            there.send(work())
        except StoreError as error:
            there.send(str(error))

    assert ended(forked(child)) == 0
    return here.recv()


def weights(work: Work) -> None:
    (work.out / "step").mkdir()
    save_file({"a": np.arange(4.0)}, work.out / "step/model.safetensors")


def modes(folder: Path) -> dict[str, str]:
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    return {"folder" if path.is_dir() else "file": oct(mode) for path, mode in found.items()}


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_what_is_written_has_the_mode_that_the_umask_asks_for(open_lab: Lab, umask: int) -> None:
    """safetensors writes its files for their owner alone, and a temporary folder is one's own."""

    def write() -> list[Path]:
        mine = open_lab.store.root / "mine"
        (mine / "scratch").mkdir(parents=True)
        with whole(mine / "out") as folder:
            save_file({"a": np.ones(2)}, folder / "model.safetensors")
        with resume.kept(mine / "scratch/step") as folder:
            save_file({"a": np.ones(2)}, folder / "model.safetensors")
        with whole_file(mine / "scratch/state.safetensors") as file:
            save_file({"a": np.ones(2)}, file)
            note(mine / "scratch", {"state.safetensors": file})
        run = open_lab.store.ensure(RunSpec(stage="train", seed=umask), weights, lambda line: None)
        return [mine, run.path]

    wanted = {"folder": oct(0o777 & ~umask), "file": oct(0o666 & ~umask)}
    assert [modes(folder) for folder in acting(None, umask, write)] == [wanted, wanted]


@ROOT
def test_what_one_user_has_computed_another_loads(open_lab: Lab) -> None:
    place = open_lab.store
    acting(ALICE, 0o022, lambda: place.ensure(SPEC, weights, lambda line: None).id)

    def load() -> tuple[list[float], bool]:
        run = place.ensure(SPEC, open_lab.compute, lambda line: None)
        return load_file(run.file("step/model.safetensors"))["a"].tolist(), place.check().ok

    assert acting(BOB, 0o022, load) == ([0.0, 1.0, 2.0, 3.0], True)
    said = acting(
        BOB, 0o022, lambda: place.ensure(RunSpec(stage="train", seed=9), weights, lambda line: None).id
    )
    assert said == f"cannot start a run in {place.root}: permission denied"


@ROOT
def test_what_one_user_has_begun_another_of_the_group_goes_on_with(open_lab: Lab) -> None:
    place = open_lab.store

    def stage(work: Work, name: str) -> str:
        if not believed(work.scratch, "state.safetensors"):
            with whole_file(work.scratch / "state.safetensors") as file:
                save_file({"a": np.full(2, 7.0)}, file)
                note(work.scratch, {"state.safetensors": file})
            raise StoreError(f"{name} was killed")
        resume.same_files(work.scratch, work.out / "scratch")
        return name

    def attempt(name: str) -> dict[str, str]:
        run = place.ensure(SPEC, lambda work: stage(work, name), lambda line: None)
        return modes(run.path)

    assert acting(ALICE, 0o002, lambda: attempt("Alice")) == "Alice was killed"
    assert acting(BOB, 0o002, lambda: attempt("Bob")) == {"folder": "0o775", "file": "0o664"}
    assert acting(ALICE, 0o002, lambda: place.load(place.key(SPEC)).id) == place.key(SPEC)


def test_a_file_that_may_not_be_read_is_called_forbidden_not_damaged(open_lab: Lab) -> None:
    place = open_lab.store

    def write_and_forbid() -> None:
        run = place.ensure(SPEC, weights, lambda line: None)
        run.file("step/model.safetensors").chmod(0)

    acting(None, 0o022, write_and_forbid)
    said = acting(None, 0o022, lambda: place.find(SPEC))
    assert said == f"cannot read the run {place.key(SPEC)[:12]} in {place.root}: permission denied"

    def repair() -> Any:
        removed, state = place.repair()
        return removed, state.damaged, state.unreadable, state.ok

    run = f"runs/{place.key(SPEC)[:12]}: permission denied"
    assert acting(None, 0o022, repair) == ([], (), (run,), False)


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder two levels below a store."""
    monkeypatch.delenv("RLHEALS_STORE", raising=False)
    store._say_once.cache_clear()
    (tmp_path / "paper/.rlheals").mkdir(parents=True)
    (tmp_path / "paper/notebooks/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "paper/notebooks/mine")
    return tmp_path / "paper/notebooks/mine"


def test_a_store_found_above_is_named_once(below: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above = below.parents[1] / ".rlheals"
    assert default_store().root == default_store().root == above
    assert capsys.readouterr().err == f"store: {above}\n"


@ROOT
@pytest.mark.parametrize("owned", [".rlheals", ".", "notebooks"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_store_above_that_another_user_could_have_written_is_not_used_unless_named(
    below: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    owned: str,
    recorded: bool,
) -> None:
    """Also where a project with recorded results is: these are read, its store is not."""
    paper = below.parents[1]
    if recorded:
        (paper / "results").mkdir()
    os.chown(paper / owned, BOB, GROUP)
    assert default_store().root == below / ".rlheals"
    said = capsys.readouterr().err
    assert f"store {paper / '.rlheals'}: not used" in said
    assert f"used: {below / '.rlheals'}" in said
    assert said.count("\n") == 1
    assert project_root() == (paper if recorded else below)
    monkeypatch.setenv("RLHEALS_STORE", str(paper / ".rlheals"))
    assert default_store().root == paper / ".rlheals"
    assert capsys.readouterr().err == ""


def test_another_user_s_store_is_passed_over_whoever_runs_this(
    below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert default_store().root == below / ".rlheals"
    (below / ".rlheals").mkdir()
    assert default_store().root == below / ".rlheals"
