"""A study in jobs of a real Slurm on this machine (`make test-slurm`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_helpers import TINY
from slurm_here import missing, slurm
from small_study import results_of

from rlheals.profiles import load_profile
from rlheals.store import cleanup
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason="needs Debian's slurm-wlm and munge"),
]

FILE = """jobqueue:
  slurm: {queue: main, memory: 2GB, walltime: "01:00:00", job-script-prologue: ["export OMP_NUM_THREADS=1"]}
  sft: {job-extra-directives: ["--gres=gpu:1"], walltime: "02:00:00"}
"""
MINUTES = 5


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process computes without any cluster."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "tiny.yaml").write_text(TINY)
    store = Store(folder / "store")
    compute(plan(load_profile(str(folder / "tiny.yaml")), 0, store).specs(), store, quiet=True)
    return results_of(store.root)


class Study:
    """`rlheals study --slurm` in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "slurm.yaml").write_text(FILE)
        (folder / "tiny.yaml").write_text(TINY)
        self.store = Store(folder / "store")
        self.environment = {**environment, "RLHEALS_STORE": str(self.store.root)}
        command = [
            sys.executable, "-c", "import sys; from rlheals.cli.main import main; sys.exit(main())",
            "study", "--profile", "tiny.yaml", "--seeds", "0", "--slurm", "slurm.yaml", "--workers", "2",
        ]  # fmt: skip
        self.log = open(folder / "log", "a+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            # a shell lets its background jobs ignore Ctrl-C, and what they start inherits that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def queue(self) -> set[tuple[str, str]]:
        """GPUs and walltime of all jobs that wait or run."""
        said = subprocess.run(
            ["squeue", "-h", "-o", "%b|%l"], env=self.environment, capture_output=True, text=True, check=True
        ).stdout
        return {(line.split("|")[0], line.split("|")[1]) for line in said.splitlines()}

    def wait(self, seen: set[tuple[str, str]] | None = None) -> int:
        seen = set() if seen is None else seen
        until(lambda: self.process.poll() is not None, 60 * MINUTES, lambda: seen.update(self.queue()))
        assert self.process.returncode is not None, "the study does not end"
        return self.process.returncode

    def wait_for(self, runs: int) -> None:
        until(lambda: len(self.store.ids()) >= runs or self.process.poll() is not None, 60 * MINUTES)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()


def until(ready: Callable[[], bool], seconds: float, between: Callable[[], None] = lambda: None) -> bool:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        between()
        time.sleep(0.01)
    return ready()


def no_jobs(study: Study, seconds: float) -> bool:
    return until(lambda: not study.queue(), seconds)


def test_jobs_give_the_bytes_of_one_process_and_ask_for_what_their_stage_needs(
    tmp_path: Path, environment: dict[str, str], reference: dict[str, bytes]
) -> None:
    study, seen = Study(tmp_path, environment), set[tuple[str, str]]()
    assert study.wait(seen) == 0, study.said()
    assert results_of(study.store.root) == reference
    assert study.store.check().ok
    assert seen == {("N/A", "1:00:00"), ("gres:gpu:1", "2:00:00")}
    assert no_jobs(study, 30)
    assert "Traceback" not in study.said()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_client_that_is_ended_leaves_no_job_and_its_study_goes_on(
    how: signal.Signals, tmp_path: Path, environment: dict[str, str], reference: dict[str, bytes]
) -> None:
    study = Study(tmp_path, environment)
    study.wait_for(2)
    os.kill(study.process.pid, how)
    assert study.wait() == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert "Traceback" not in study.said()
    assert no_jobs(study, 120 if how == signal.SIGKILL else 30)
    again = Study(tmp_path, environment)
    assert again.wait() == 0, again.said()
    assert results_of(again.store.root) == reference
    assert cleanup.clean(again.store.root, 0.0) is not None
    assert again.store.check().ok


def test_a_job_that_is_cancelled_is_replaced(
    tmp_path: Path, environment: dict[str, str], reference: dict[str, bytes]
) -> None:
    study = Study(tmp_path, environment)
    study.wait_for(2)
    subprocess.run(["scancel", "-n", "dask-worker"], env=study.environment, check=True)
    assert study.wait() == 0, study.said()
    assert results_of(study.store.root) == reference
    assert no_jobs(study, 30)
