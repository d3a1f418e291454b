"""Kills, full disks, Ctrl-C at every operation on the disk: nothing half-done, the next call completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / "store_faults.py"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with the package ``toy``; in memory where possible: thousands of files are forced to disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    path.chmod(0o755)  # for the test that gives up the rights of root
    (path / "toy").mkdir()
    (path / "toy" / "__init__.py").write_text("")
    (path / "toy" / "stage.py").write_text("x = 1\n")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(mode: str, folder: Path) -> Any:
    command = [sys.executable, str(PROGRAM), mode, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_recovery(trials: list[dict[str, Any]]) -> None:
    """Every trial: a run is whole or absent, the next call gives the same bytes and leaves nothing."""
    assert len({json.dumps(trial["content"], sort_keys=True) for trial in trials}) == 1
    assert set(trials[0]["content"]) == {"weights/all.bin", "log.txt"}
    for trial in trials:
        left, again = trial["left"], trial["again"]
        assert left["intact"] == left["runs"] <= 1, trial
        assert not left["damaged"], trial
        assert again["runs"] == again["intact"] == 1, trial
        assert not again["damaged"], trial
        assert not again["parts"], trial
        assert trial["clean"], trial
        # what was finished in scratch is not computed again; only the part that was cut off is
        assert again["computed"][: len(left["computed"])] == left["computed"]
        news = again["computed"][len(left["computed"]) :]
        assert news == (
            [] if left["runs"] else [p for p in ("part-0", "part-1") if p not in left["parts"]]
        ), trial
        if not left["runs"]:
            assert not again["tmp"], trial


def test_a_kill_between_any_two_operations(folder: Path) -> None:
    trials = run("before", folder)
    check_recovery(trials)
    assert len(trials) > 40
    assert [trial["hit"] for trial in trials] == [True] * (len(trials) - 1) + [False]
    assert trials[-1]["status"] == 0
    # the kills really reached every phase: before the first part, between parts, before and after the rename
    phases = {(len(trial["left"]["parts"]), trial["left"]["runs"]) for trial in trials}
    assert phases >= {(0, 0), (1, 0), (2, 0), (2, 1), (0, 1)}


def test_a_kill_in_the_middle_of_a_write(folder: Path) -> None:
    trials = run("within", folder)
    check_recovery(trials)
    assert sum(trial["hit"] for trial in trials) > 20


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path) -> None:
    trials = run("full", folder)
    check_recovery(trials)
    assert len(trials) > 40
    assert [trial["hit"] for trial in trials] == [True] * (len(trials) - 1) + [False]
    for trial in trials[:-1]:
        assert not trial["left"]["tmp"], trial
        assert not trial["left"]["hidden"], trial
        if trial["got"]:
            assert trial["got"] == "StoreError", trial
            assert "disk full" in trial["text"], trial
            assert trial["root"] in trial["text"], trial
            assert "\n" not in trial["text"]
        else:  # the run was safe already; only what is no longer needed could not be removed
            assert trial["left"]["runs"] == 1, trial
    assert sum(trial["got"] == "" for trial in trials[:-1]) <= 2


def test_ctrl_c_at_any_operation(folder: Path) -> None:
    trials = run("interrupt", folder)
    check_recovery(trials)
    assert len(trials) > 40
    for trial in trials[:-1]:
        assert trial["got"] == "KeyboardInterrupt", trial
        # before the run is there nothing is left; after that only what is being deleted
        assert trial["left"]["runs"] == 1 or not trial["left"]["tmp"], trial
        assert set(trial["left"]["tmp"]) <= {"0" * 16}, trial
        assert not trial["left"]["hidden"], trial


def test_everything_is_on_the_disk_before_the_rename_and_the_manifest_is_last(folder: Path) -> None:
    log = run("order", folder)
    (move,) = [
        at for at, (name, *paths) in enumerate(log) if name == "rename" and paths[1].startswith("runs/")
    ]
    before, out = log[:move], log[move][1]
    synced = [path for name, path, *_ in before if name == "fsync"]
    changed = [
        (name, path) for name, path, *_ in before if path.startswith(out) and name in ("write", "replace")
    ]
    assert changed[-1][0] == "replace"
    assert changed[-1][1].endswith(".tmp")  # atomic_write of the manifest
    last = {(name, path): at for at, (name, path, *_) in enumerate(before)}
    written = {path: at for (name, path), at in last.items() if name == "write" and path.startswith(out)}
    assert len(written) == 3  # one stage file, the stage's and our atomic_write
    assert all(last["fsync", path] > at for path, at in written.items())
    assert {out, f"{out}/weights", "."} <= set(synced)
    assert synced.index(f"{out}/weights/all.bin") < max(written.values())  # data first, manifest after it
    assert before[-1][0] != "write"
    assert ["fsync", "runs"] in log[move:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_read_only_store_gives_what_it_has_and_says_what_it_cannot(folder: Path) -> None:
    result = run("readonly", folder)
    assert result["found"]
    assert result["loaded"]
    assert result["root"] in result["text"]
    assert result["text"].endswith(("permission denied", "read-only folder"))
