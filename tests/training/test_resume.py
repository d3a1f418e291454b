"""Two processes may compute the same run in one folder of unfinished parts: what one has finished stays as it is."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab_helpers import files_of, work_in
from small_study import RL, SMALL

from rlheals.engines.fsdp import together
from rlheals.settings import Settings
from rlheals.stage import Work
from rlheals.training import resume, sft
from rlheals.training.rl import stage as rl

Files = dict[str, tuple[int, int, bytes]]


def stamped(folder: Path) -> Files:
    """Every file, with what tells that it was written to in between, even if the same bytes are there again."""
    found: Files = {}
    for name, data in files_of(folder).items():
        facts = (folder / name).stat()
        found[name] = facts.st_ino, facts.st_mtime_ns, data
    return found


@pytest.mark.parametrize(
    ("stage", "settings"), [(sft, SMALL.sft), (rl, RL.model_copy(update={"folder": "step-00010"}))]
)
def test_another_process_that_computes_the_same_run_writes_nothing_in_it(
    stage: Any, settings: Settings, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """It began before the first one had ended, and comes to the same checkpoints afterwards."""
    work = work_in(tmp_path, settings, inputs)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    stage.run(replace(work, out=tmp_path / "first"))
    finished = stamped(tmp_path / "first")
    for state in (tmp_path / "scratch").glob("state*"):
        state.unlink()
    stage.run(replace(work, out=tmp_path / "second"))
    assert stamped(tmp_path / "first") == finished
    second = files_of(tmp_path / "second")
    assert second.keys() == finished.keys()
    same = [name for name in second if not name.endswith("log.parquet")]  # it has times
    assert len(same) > 3
    assert {name: second[name] for name in same} == {name: finished[name][2] for name in same}
    assert [path.name for path in (tmp_path / "scratch").rglob(".*")] == []


def test_a_kept_folder_has_whole_files_only_and_one_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), resume.kept(tmp_path / "gone" / "step"):
        pass
    assert os.listdir(tmp_path) == []
    with resume.kept(tmp_path / "step") as folder:
        (folder / "a").write_text("old")
        (folder / "b").write_text("b")
    resume.same_files(tmp_path / "step", tmp_path / "finished")
    finished = stamped(tmp_path / "finished")
    with suppress(ZeroDivisionError), resume.kept(tmp_path / "step") as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert files_of(tmp_path / "step") == {"a": b"old", "b": b"b"}
    with resume.kept(tmp_path / "step") as folder:
        (folder / "a").write_text("new")
        assert (tmp_path / "step/a").read_text() == "old"
    assert files_of(tmp_path / "step") == {"a": b"new", "b": b"b"}
    assert stamped(tmp_path / "finished") == finished
    assert sorted(os.listdir(tmp_path)) == ["finished", "sha256sums", "step"]


def test_processes_that_compute_the_same_run_at_once_meet_their_own(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    outs = [tmp_path / f"out-{one}" for one in range(2)]
    failed: list[BaseException] = []

    def compute(out: Path) -> None:
        out.mkdir()
        try:
            together("parts", Work(out, tmp_path / "scratch", {}, 1, {}), 2)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=compute, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for out in outs:
        assert {name: data.decode() for name, data in files_of(out).items()} == {
            f"sum-{rank}": "3.0 of 2, 1" for rank in range(2)
        }
    assert list((tmp_path / "scratch").glob("together-*")) == []
