"""Dask workers that are killed: no byte changes, nothing waits for ever, the same call goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from lab_helpers import one_line
from small_study import RUNS, SMALL, results_of

from rlheals.errors import BadInput
from rlheals.store.store import Store
from rlheals.study import dask as dask_workers
from rlheals.study.compute import compute
from rlheals.study.jobs import GONE
from rlheals.study.plan import plan


@contextlib.contextmanager
def killer(
    monkeypatch: pytest.MonkeyPatch, store: Store, next_kill: Callable[[], bool]
) -> Iterator[set[int]]:
    """Kills the workers of this process's studies whenever `next_kill()` allows; gives the ids of those killed."""
    started, killed, over, local = [], set[int](), threading.Event(), dask_workers._local

    def noted(count: int) -> LocalCluster:
        started.append(local(count))
        return started[-1]

    def kill() -> None:
        while not over.wait(0.01):
            if not started or not next_kill():
                continue
            for nanny in started[-1].workers.values():
                if (pid := nanny.pid) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)

    monkeypatch.setattr(dask_workers, "_local", noted)
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("times", "seeds"), [(2, (1,)), pytest.param(6, (1, 2), marks=pytest.mark.long)])
def test_workers_that_are_killed_again_and_again_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, seeds: tuple[int, ...]
) -> None:
    """Dask starts them again, or gives them up; then the study ends with one line, and the same call goes on."""
    calm, store = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    specs = [spec for seed in seeds for spec in plan(SMALL, seed, store).specs()]
    said, seen = set[str](), set[int]()
    compute(specs, calm, quiet=True)

    def after_a_run() -> bool:
        done = len(store.ids())
        new = done > 0 and done not in seen and len(seen) < times
        seen.update({done} if new else set())
        return new

    with killer(monkeypatch, store, after_a_run) as killed:
        for _ in range(10):
            try:
                compute(specs, store, workers=2, quiet=True)
                break
            except BadInput as error:
                said.add(one_line(error))
    assert said <= {GONE}
    assert len(killed) >= 2
    assert results_of(store.root) == results_of(calm.root)
    assert store.check().damaged == ()
    store.clean()
    assert store.check().ok


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_study_whose_workers_die_while_they_start_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Dask starts a worker again when it dies, but gives up one that dies before it is ready."""
    store = Store(tmp_path)
    specs = plan(SMALL, 1, store).specs()
    with (
        killer(monkeypatch, store, lambda: len(store.ids()) >= after),
        pytest.raises(BadInput, match="workers have ended; the same command resumes"),
    ):
        compute(specs, store, workers=2, quiet=True)
    compute(specs, store, quiet=True)
    assert len(store.ids()) == RUNS
    assert store.check().damaged == ()


def test_a_machine_that_takes_long_to_end_a_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On busy machines a killed worker outlives the time that it is given; the study is finished all the same."""
    monkeypatch.setattr(dask_workers, "SECONDS_TO_STOP", 0.0)
    cluster = dask_workers._local(1)
    (nanny,) = cluster.workers.values()
    pid = nanny.pid
    cluster.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
