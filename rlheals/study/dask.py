"""Units of a study on Dask workers: of this machine, of a running scheduler, or in Slurm jobs.

Every worker computes one unit at a time and tells of it under the topic `PROGRESS`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny, Worker, WorkerPlugin, get_worker
from distributed.core import Status
from distributed.deploy.cluster import Cluster

from rlheals.errors import BadInput
from rlheals.store.files import make_folder
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study.jobs import GONE, Workers, run_unit
from rlheals.study.slurm import PASTED, Job, minutes

PROGRESS = "rlheals-progress"
SECONDS_TO_CONNECT = 30
SECONDS_BETWEEN_TICKS = 1.0
SECONDS_TO_STOP = 0.5
SECONDS_TO_DIE = 60.0
ENDED = {Status.closing, Status.closed, Status.failed}
DASK = {
    # workers that may end in the middle of a unit (each goes on from its scratch) before the unit is given up
    "distributed.scheduler.allowed-failures": 20,
    # a job is worth starting for one unit
    "distributed.scheduler.unknown-task-duration": "1h",
}


@dataclass(frozen=True)
class Pool:
    """Workers of one kind.

    size: how many there can be, None for as many as there are; local: the cluster whose processes are started here.
    """

    client: Client
    size: int | None
    local: LocalCluster | None = None

    def slots(self) -> int:
        """Units that can be computed at once; one at least, so that a study waits for workers that are to come."""
        return self.size or max(1, sum(self.client.nthreads().values()))

    def gone(self) -> bool:
        """Whether no worker is there and none will come: Dask gives up a worker that dies while it starts."""
        return self.local is not None and all(nanny.status in ENDED for nanny in self.local.workers.values())


@contextmanager
def pools(
    workers: Workers, stages: Iterable[str], root: Path, say: Callable[[str], object]
) -> Iterator[Mapping[str, Pool]]:
    """For every stage the workers that compute it; those that are started here end with the block."""
    jobs = workers.slurm or {}
    wanted, made = {stage: jobs.get(stage, jobs.get("slurm")) for stage in stages}, dict[Job | None, Pool]()
    with ExitStack() as stack, dask.config.set(DASK):
        for job in dict.fromkeys(wanted.values()):
            made[job] = pool = _pool(workers, job, root, stack, say)
            try:
                pool.client.register_plugin(Quiet())
            except OSError:  # of a connection to a worker that has just died
                raise BadInput(GONE) from None
            port = pool.client.scheduler_info()["services"].get("dashboard")
            if port and workers.scheduler is None and importlib.util.find_spec("bokeh"):
                from_afar = f" (from afar: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()})"
                say(f"dashboard: http://127.0.0.1:{port}/status{from_afar if job else ''}")
        yield {stage: made[job] for stage, job in wanted.items()}


def _pool(
    workers: Workers, job: Job | None, root: Path, stack: ExitStack, say: Callable[[str], object]
) -> Pool:
    if workers.scheduler is not None:
        if _is_open(workers.scheduler):
            say(
                f"{workers.scheduler}: not encrypted, and anyone who can reach it can run code there; use tls://"
            )
        return Pool(stack.enter_context(_connected(workers.scheduler)), None)
    cluster: Cluster = _local(workers.count) if job is None else _slurm(job, root)
    stack.callback(cluster.close)
    if job is not None:
        cluster.adapt(minimum_jobs=0, maximum_jobs=workers.count)
    client = stack.enter_context(Client(cluster, set_as_default=False))
    return Pool(client, workers.count, cluster if isinstance(cluster, LocalCluster) else None)


def _local(count: int) -> LocalCluster:
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=True,  # on a machine that others use nobody else can hand work to these workers
        silence_logs=logging.CRITICAL,
        memory_limit=0,
        worker_class=Prompt,
    )


def _slurm(job: Job, root: Path) -> Cluster:
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError:
        raise BadInput('--slurm: dask-jobqueue is missing; pip install "rlheals[cluster]"') from None
    # dask-jobqueue replaces it when it is imported: Ctrl-C would end the study as if it had been finished
    signal.signal(signal.SIGINT, on_interrupt)
    folder = root / "slurm"
    for what, path in {"the store": str(folder), "Python": job.python or sys.executable}.items():
        if not re.fullmatch(PASTED, path):
            raise BadInput(
                f"--slurm: the path of {what}, {path!r}, may hold letters, digits and /._+@=- only"
            )
    make_folder(folder)
    return SLURMCluster(
        **job.model_dump(exclude={"name", "cores"}),
        job_name=job.name,
        job_cpu=job.cores,
        cores=1,
        processes=1,
        # a worker retires before its job is ended, and not all of them at once
        worker_extra_args=["--lifetime", f"{minutes(job.walltime) - 5}m", "--lifetime-stagger", "2m"],
        log_directory=str(folder),
        security=True,
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        protocol="tls://",
        shared_temp_directory=str(folder),
        silence_logs="critical",
    )


def _is_open(address: str) -> bool:
    """Whether a scheduler's address is one that other machines reach, without TLS.

    >>> [_is_open(one) for one in ("tcp://10.0.0.1:8786", "head:8786", "tls://head:8786", "tcp://127.0.0.1:8786")]
    [True, True, False, False]
    """
    way, _, place = address.rpartition("://")
    here = place.startswith(("127.", "localhost:", "[::1]:"))
    return way in ("", "tcp", "ws") and not here


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
    gc.collect()  # the half-made client: were it deleted while the next one starts, both would wait for one lock
    raise BadInput(f"scheduler {address!r:.80}: no Dask scheduler answers there ({reason:.100})")


class Prompt(Nanny):
    """Ends its worker at once: what is finished is in the store, what is not goes on from its scratch next time."""

    async def kill(self, timeout: float = SECONDS_TO_STOP, reason: str = "end of the study") -> None:
        """Dask would wait for seconds."""
        try:
            await super().kill(timeout=min(timeout, SECONDS_TO_STOP), reason=reason)
        except TimeoutError:  # it was sent SIGKILL, and a machine that is busy takes its time over that
            if self.process is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.process.stopped.wait(), SECONDS_TO_DIE)


class Quiet(WorkerPlugin):
    """Ctrl-C at a terminal reaches every process there: it is for the client, which ends the workers."""

    name = "rlheals-quiet"

    def setup(self, worker: Worker) -> None:
        """Called in the main thread of a worker's process."""
        with suppress(ValueError):  # a worker inside of another program's thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def unit(spec: dict[str, Any], run_id: str, root: str) -> None:
    """One unit on a worker: load or compute a run.

    A worker whose code or libraries are others than the client's refuses: its result would be another run.
    """
    import torch

    torch.set_num_threads(1)
    store, asked, worker = Store(root), RunSpec.model_validate(spec), get_worker()
    if store.key(asked) != run_id:
        raise BadInput(
            f"worker on {socket.gethostname()}: its rlheals, torch, transformers, trl or numpy is not the same as here"
        )
    last = 0.0

    def tick(done: int, total: int, unit: str) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_TICKS:
            last = time.monotonic()
            worker.log_event(PROGRESS, {"run": run_id, "share": done / max(1, total)})

    run_unit(asked, store, lambda line: worker.log_event(PROGRESS, {"run": run_id, "line": line}), tick)
