"""A whole study ended at any moment, or on a full disk: what is there is whole, and the same call completes it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from forks import ended, forked
from lab_helpers import files_of
from small_study import RUNS, SMALL, results_of
from store_faults import watched

from rlheals.errors import BadInput
from rlheals.store import cleanup
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan

DONE, REFUSED, OTHER = 0, 3, 4


def small(store: Store, workers: int = 1) -> None:
    compute(plan(SMALL, 1, store).specs(), store, workers=workers, quiet=True)


def told(work: Callable[[], None]) -> int:
    """Do this work in a fork; its exit code says how it ended."""

    def guarded() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
        except BadInput as error:
            os._exit(REFUSED if "\n" not in str(error) else OTHER)
        except BaseException:
            os._exit(OTHER)
        os._exit(DONE)

    return ended(forked(guarded))


def with_fault(root: Path, number: int, fault: Callable[[], None]) -> int:
    """Compute the study in a process in which operation `number` on the disk is this fault; its exit code."""
    left = True

    def operation(count: int, name: str, go: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        nonlocal left
        if count >= number and left:
            left = False
            fault()
        return go()

    def work() -> None:
        with watched(operation):
            small(Store(root))

    return told(work)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAULTS = {"kill": (kill, -signal.SIGKILL), "full disk": (disk_is_full, REFUSED)}
REACHED = {"kill": 1.0, "full disk": 0.6}
"""The share of operations at which a fault has to end the study: what only tidies up may fail."""


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many times the small study opens for writing, writes, renames, or forces to disk."""
    log: list[int] = []

    def note(count: int, name: str, go: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        log.append(count)
        return go()

    with watched(note):
        small(Store(tmp_path_factory.mktemp("counted")))
    return len(log)


def check(root: Path, moment: int, fault: str, reference: dict[str, bytes]) -> bool:
    """One moment: whole results only, then the same call gives the same bytes; whether the fault was reached."""
    store, (act, code) = Store(root), FAULTS[fault]
    ended = with_fault(root, moment, act)
    assert ended in (code, DONE), (moment, ended)
    assert store.check().damaged == (), moment
    assert all(reference[name] == data for name, data in results_of(root).items()), moment
    small(store)
    assert results_of(root) == reference, moment
    cleanup.clean(store.root)
    assert store.check().ok, (moment, store.check())
    return ended != DONE


@pytest.mark.parametrize(("fault", "moments"), [("kill", 4), ("full disk", 2)])
def test_a_study_that_is_hit_at_many_moments_goes_on(
    fault: str, moments: int, tmp_path: Path, reference: dict[str, bytes], operations: int
) -> None:
    """Kills at 5 more moments, with two workers and the smoke profile, are in the long lane."""
    places = [1 + place * operations // moments for place in range(moments)]
    hit = [check(tmp_path / str(place), place, fault, reference) for place in places]
    assert sum(hit) >= REACHED[fault] * moments


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_study_that_is_hit_at_any_operation_goes_on(
    fault: str, tmp_path: Path, reference: dict[str, bytes], operations: int
) -> None:
    hit = [check(tmp_path / str(moment), moment, fault, reference) for moment in range(1, operations + 1)]
    assert sum(hit) >= REACHED[fault] * operations


def test_begun_with_one_worker_killed_and_continued_with_two(
    tmp_path: Path, reference: dict[str, bytes], operations: int
) -> None:
    assert with_fault(tmp_path, operations // 3, kill) == -signal.SIGKILL
    assert 0 < len(Store(tmp_path).ids()) < RUNS
    small(Store(tmp_path), workers=2)
    assert results_of(tmp_path) == reference


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_two_studies_at_once_on_one_store_do_each_other_no_harm(
    workers: int, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    if workers == 1:
        children = [forked(lambda: small(store)) for _ in range(2)]
    else:  # Dask's threads do not survive a fork
        context = multiprocessing.get_context("spawn")
        children = [context.Process(target=small, args=(store, workers)) for _ in range(2)]
        for child in children:
            child.start()
    for child in children:
        assert ended(child) == DONE
    assert results_of(tmp_path) == reference
    cleanup.clean(store.root)
    assert store.check().ok
    assert [name for name in files_of(tmp_path) if not name.startswith("runs/")] == []


@pytest.mark.long
def test_the_smoke_study_killed_at_five_moments_gives_the_same_bytes(tmp_path: Path) -> None:
    """Client, workers, or all of them, by SIGKILL; every time the same command goes on."""
    program = "import sys; from rlheals.cli.main import main; sys.exit(main())"
    study = ["study", "--profile", "smoke", "--seeds", "1", "--workers", "2"]
    command = [sys.executable, "-c", program, *study]

    def begun(store: Store) -> psutil.Popen:
        return psutil.Popen(
            command, cwd=tmp_path, env={**os.environ, "RLHEALS_STORE": str(store.root)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    calm, store = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    assert begun(calm).wait() == 0
    runs = len(calm.ids())
    for moment, whom in enumerate(("client", "workers", "all", "client", "workers"), start=1):
        client = begun(store)
        while len(store.ids()) < moment * runs // 6 and client.is_running():
            time.sleep(0.01)
        workers = client.children(recursive=True)
        for process in {"client": [client], "workers": workers, "all": [client, *workers]}[whom]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        client.wait()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "workers outlive their client"
    assert begun(store).wait() == 0
    assert results_of(store.root) == results_of(calm.root)
    cleanup.clean(store.root)
    assert store.check().ok
