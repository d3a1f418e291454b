"""Units on Dask workers: the same bytes as from one process, in a fixed order, also when workers are killed."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster, Security
from distributed.core import connect
from lab_helpers import TIMED, files_of, one_line, refused
from small_study import RUNS, SMALL, SPIN, results_of

from rlheals.chapters.spectra import runs as rotation
from rlheals.errors import BadInput
from rlheals.store import cleanup
from rlheals.store.runs import MANIFEST, RunSpec
from rlheals.store.store import Store
from rlheals.study import compute as computing
from rlheals.study import dask as dask_workers
from rlheals.study.compute import Bars, compute
from rlheals.study.dask import unit
from rlheals.study.jobs import GONE, Workers
from rlheals.study.plan import plan
from rlheals.study.slurm import Job


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Somebody's running Dask cluster: one worker, which its nanny starts again when it dies."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0, silence_logs=50
    ) as started:
        yield started


@pytest.fixture
def address(cluster: LocalCluster) -> Workers:
    return Workers(scheduler=cluster.scheduler_address)


def test_every_stage_gives_the_same_bytes_on_a_worker_as_in_this_process(
    address: Workers, shared: Store, tmp_path: Path
) -> None:
    there = Store(tmp_path)
    every = {there.key(spec): spec for spec in rotation.STUDY.at({1: 3}).plan(SPIN, 1, there).specs()}
    wanted = list(
        {spec.stage: key for key, spec in reversed(every.items())}.values()
    )  # the first of each stage
    for key in wanted:
        wanted += [needed for needed in every[key].inputs.values() if needed not in wanted]
    specs = [spec for key, spec in every.items() if key in wanted]
    assert {spec.stage for spec in specs} >= {"pretrain", "sft", "evaluate", "rl", "spectra", "trajectory"}
    assert len(specs) < len(every)
    one = {
        f"{run.id}/{name}": data
        for run in compute(specs, shared, quiet=True)
        for name, data in files_of(run.path).items()
        if name != MANIFEST
    }
    compute(specs, there, address, quiet=True)
    two = results_of(there.root)
    assert one.keys() == two.keys()
    logs = {name for name in one if name.endswith("/log.parquet")}
    assert {name for name in one if one[name] != two[name]} <= logs
    for name in logs:  # they say how long an update took
        frames = [pd.read_parquet(BytesIO(found[name])).drop(columns=TIMED) for found in (one, two)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert there.check().ok


def test_a_scheduler_computes_one_seed_after_the_other_so_that_what_is_cut_short_is_whole(
    address: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    specs = [spec for seed in (1, 2) for spec in plan(SMALL, seed, store).specs()]
    keys, finished = [store.key(spec) for spec in specs], []
    compute(specs, store, address, finished=finished.append)
    assert finished == keys
    said = capsys.readouterr().err.splitlines()
    assert sum(": computing" in line for line in said) == 2 * RUNS
    compute(specs, store, address, finished=finished.append)
    assert finished == keys * 2
    assert capsys.readouterr().err.count(": loaded") == 2 * RUNS


def test_what_is_wrong_with_a_unit_is_said_in_one_line(address: Workers, tmp_path: Path) -> None:
    store = Store(tmp_path)
    chosen = plan(SMALL, 1, store)
    with refused(store.key(chosen.base)[:12]):
        compute([chosen.sft], store, address, quiet=True)
    with pytest.raises(BadInput, match="no model has the hash 000000000000"):
        compute([RunSpec(stage="adopt", settings={"sha256": "0" * 64})], store, address, quiet=True)
    assert store.ids() == []


def test_a_worker_with_other_code_refuses(cluster: LocalCluster, tmp_path: Path) -> None:
    spec = plan(SMALL, 1, Store(tmp_path)).base
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        future = client.submit(unit, spec.model_dump(mode="json"), "0" * 64, str(tmp_path))
        with pytest.raises(BadInput, match=f"worker on {socket.gethostname()}: its rlheals, torch"):
            future.result()
    assert Store(tmp_path).ids() == []


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://", "", "smb://x:1", "tcp://[::"])
def test_an_address_where_nobody_answers_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_workers, "SECONDS_TO_CONNECT", 0.5)
    with refused(repr(address)):
        compute([RunSpec(stage="sft")], Store(tmp_path), Workers(scheduler=address), quiet=True)


async def knock(address: str, security: Security) -> None:
    """Open a connection and close it again. Not a `Client`, whose thread may outlive a connection that is refused."""
    comm = await connect(address, timeout=5, **security.get_connection_args("client"))
    await comm.close()


@pytest.mark.parametrize("job", [None, Job(walltime="01:00:00")], ids=["processes", "jobs"])
def test_only_the_studys_own_workers_are_admitted_and_the_dashboard_is_named(
    job: Job | None, tmp_path: Path
) -> None:
    """As long as there is no work no job is started, so this needs no Slurm."""
    said: list[str] = []
    workers = Workers(3, slurm=None if job is None else {"slurm": job})
    with dask_workers.pools(workers, ["sft"], tmp_path, said.append) as pools:
        client = pools["sft"].client
        assert client.cluster.scheduler_address.startswith("tls://")
        for stranger in (Security(), Security.temporary()):
            with pytest.raises((OSError, TypeError)):
                asyncio.run(knock(client.cluster.scheduler_address, stranger))
        asyncio.run(knock(client.cluster.scheduler_address, client.security))
        if job is not None:
            assert client.cluster._adaptive.maximum == 3
            assert f"#SBATCH -o {tmp_path / 'slurm'}/" in client.cluster.job_script()
    (line,) = said
    assert line.startswith("dashboard: http://127.0.0.1:")
    assert bool(re.search(r"ssh -L (\d+):127\.0\.0\.1:\1 ", line)) == (job is not None)


def test_a_scheduler_that_is_open_to_others_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "_connected", lambda address: contextlib.nullcontext(None))
    said: list[str] = []
    for address in ("tls://head:8786", "tcp://head:8786"):
        with contextlib.ExitStack() as stack:
            dask_workers._pool(Workers(scheduler=address), None, tmp_path, stack, said.append)
    (line,) = said
    assert line.startswith("tcp://head:8786: not encrypted, and anyone who can reach it can run code there")


def test_nothing_is_started_for_what_is_there(shared: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = plan(SMALL, 1, shared).specs()[:2]
    compute(specs, shared, quiet=True)
    monkeypatch.setattr(computing, "_by_workers", None)
    assert [run.id for run in compute(specs, shared, workers=4, quiet=True)] == list(map(shared.key, specs))


def test_a_bar_counts_whole_units_and_the_parts_of_those_that_run() -> None:
    units = {
        letter * 64: RunSpec(stage=stage) for letter, stage in zip("abc", ("sft", "rl", "rl"), strict=True)
    }
    lines: list[str] = []
    with contextlib.closing(Bars(units, quiet=True, echo=lines.append)) as bars:
        bars.told((0.0, {"run": "b" * 64, "share": 0.25}))
        bars.told((0.0, {"run": "c" * 64, "share": 0.5}))
        assert bars.bars["rl"].n == 0.75
        bars.set("b" * 64, 1.0)
        bars.told((0.0, {"run": "b" * 64, "share": 0.5}))  # late news of what has ended
        assert (bars.bars["rl"].n, bars.bars["sft"].n) == (1.5, 0)
        bars.told((0.0, {"run": "c" * 64, "line": "rl cccc: computing"}))
        bars.told((0.0, {"run": "d" * 64, "line": "another study on the same workers"}))
        bars.told((0.0, {"run": "d" * 64, "share": 0.5}))
    assert lines == ["rl cccc: computing"]


# Killed --------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("times", "seeds"), [(1, (1,)), pytest.param(6, (1, 2), marks=pytest.mark.long)])
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

    before = {child.pid for child in multiprocessing.active_children()}
    with killer(monkeypatch, store, after_a_run) as killed:
        for _ in range(10):
            try:
                compute(specs, store, workers=2, quiet=True)
                break
            except BadInput as error:
                said.add(one_line(error))
    assert {child.pid for child in multiprocessing.active_children()} <= before
    assert said <= {GONE}
    assert len(killed) >= 1
    assert results_of(store.root) == results_of(calm.root)
    assert store.check().damaged == ()
    cleanup.clean(store.root)
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
