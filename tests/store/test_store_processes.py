"""Several processes, stopped processes, edited source: none of them spoils a run; the kind of machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from store_lab import SPEC, Lab

from rlheals.stage import Work
from rlheals.store import cleanup, machine
from rlheals.store.files import StoreError, atomic_write
from rlheals.store.runs import RunSpec


def test_a_failing_stage_keeps_its_scratch_and_its_error(lab: Lab) -> None:
    def fail(work: Work) -> None:
        atomic_write(work.scratch / "part-0", "half")
        (work.out / "x").write_text("x")
        raise FileNotFoundError(errno.ENOENT, "the stage's own trouble")

    with pytest.raises(FileNotFoundError, match="own trouble"):
        lab.store.ensure(SPEC, fail, lab.lines.append)
    assert lab.left() == [f"scratch/{lab.store.key(SPEC)}"]
    seen: list[str] = []

    def resume(work: Work) -> None:
        seen.append((work.scratch / "part-0").read_text())
        assert list(work.out.iterdir()) == []
        lab.compute(work)

    lab.store.ensure(SPEC, resume, lab.lines.append)
    assert seen == ["half"]
    assert lab.left() == []


FULL = [
    OSError(errno.ENOSPC, "full"),
    OSError(errno.EDQUOT, "full"),
    RuntimeError("x: No space left on device (28)"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_inside_a_stage_is_one_line(lab: Lab, error: Exception) -> None:
    def fail(work: Work) -> None:
        raise error

    with pytest.raises(StoreError, match=f"cannot keep results in {lab.store.root}: disk"):
        lab.store.ensure(SPEC, fail, lab.lines.append)


def test_the_first_of_two_wins_and_the_other_is_harmless(lab: Lab) -> None:
    def slower(work: Work) -> None:
        inner = lab.ensure()  # somebody else computes the same run meanwhile, and cleans up
        assert not work.scratch.exists()
        (work.out / "weights.bin").write_bytes(b"other bytes")
        lab.lines.append(inner.id)

    run = lab.store.ensure(SPEC, slower, lab.lines.append)
    assert run.file("weights.bin").stat().st_size == 2560
    assert lab.lines[-1] == f"train {run.id[:12]}: finished by another process meanwhile, loaded"
    assert lab.left() == []


def test_the_other_may_fail_for_want_of_its_scratch(lab: Lab) -> None:
    def slower(work: Work) -> None:
        lab.ensure()
        atomic_write(work.scratch / "part-1", "x")

    run = lab.store.ensure(SPEC, slower, lab.lines.append)
    assert lab.computed == 1
    assert run == lab.store.find(SPEC)


PROGRAM = """
import sys, time
from pathlib import Path
from rlheals.store import store as stores
from rlheals.store.files import atomic_write
from rlheals.store.machine import Machine
stores.this_machine = lambda: Machine(kind="cpu", model="c", isa="avx2", threads=1)  # torch takes seconds to import
root, package, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def compute(work):
    atomic_write(work.scratch / "part", "p" * 1000)
    (root.parent / f"ready-{sys.argv[4]}").touch()
    while mode == "race" and len(list(root.parent.glob("ready-*"))) < 3:
        time.sleep(0.005)
    if mode == "wait":
        time.sleep(60)
    (work.out / "a.txt").write_text("same " * 1000)
store = stores.Store(root, package=package)
print(store.ensure(stores.RunSpec(stage="train", seed=5), compute).id)
"""


def start(lab: Lab, mode: str, number: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(lab.store.root), lab.package.name, mode, str(number)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(lab.package.parent), *sys.path])}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_at_once_are_harmless(lab: Lab) -> None:
    racing = [start(lab, "race", number) for number in range(3)]
    results = [process.communicate(timeout=60) for process in racing]
    assert [process.returncode for process in racing] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    said = "".join(text for _, text in results)
    assert said.count(": computing\n") == 3  # all three were at it
    assert said.count("finished by another process meanwhile") == 2
    run = lab.store.load(results[0][0].strip())
    assert run.file("a.txt").read_text() == "same " * 1000
    assert lab.store.ids() == [run.id]
    assert lab.left() == []
    assert lab.store.check().ok


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_process_leaves_no_run_and_its_scratch_is_used(lab: Lab, number: signal.Signals) -> None:
    process = start(lab, "wait")
    ready = lab.store.root.parent / "ready-0"
    until = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert lab.store.check().leftovers[0].startswith("scratch/")  # a living process is no leftover
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
    assert lab.store.ids() == []
    kinds = [name.partition("/")[0] for name in lab.left()]
    assert kinds == (["scratch"] if number == signal.SIGINT else ["scratch", "tmp"])
    spec, seen = RunSpec(stage="train", seed=5), []
    if number == signal.SIGKILL:
        assert any("its process is dead" in line for line in lab.store.check().leftovers)
        assert [name.partition("/")[0] for name in cleanup.clean(lab.store.root)] == ["tmp"]

    def resume(work: Work) -> None:
        seen.append((work.scratch / "part").read_text())
        (work.out / "a.txt").write_text("x")

    lab.store.ensure(spec, resume, lab.lines.append)
    assert seen == ["p" * 1000]
    assert lab.left() == []


def test_what_other_machines_may_still_be_writing_goes_by_age_only(lab: Lab) -> None:
    run = lab.ensure()
    tmp, scratch = lab.store.root / "tmp", lab.store.root / "scratch"
    foreign = tmp / f"{'a' * 16}.{'b' * 12}.1.1.{'c' * 8}"
    mine = tmp / f"{'d' * 16}.{machine.place()}.{os.getpid()}.{machine.process_start(os.getpid())}.{'c' * 8}"
    reused = tmp / f"{'e' * 16}.{machine.place()}.{os.getpid()}.1.{'c' * 8}"  # same id, another process
    strange = tmp / "strange"
    busy, idle, done = scratch / ("a" * 64), scratch / ("f" * 64), scratch / run.id
    for folder in (foreign, mine, reused, strange, busy, idle, done):
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    old = time.time() - 100
    for folder in (foreign, mine, strange, idle):
        os.utime(folder / "x", (old, old))
        os.utime(folder, (old, old))
    assert len(lab.store.check().leftovers) == 6  # all but the one of this process
    assert cleanup.clean(lab.store.root, 1000) == sorted([f"tmp/{reused.name}", f"scratch/{run.id}"])
    # the scratch of the foreign run was touched just now, so somebody is at work there
    assert cleanup.clean(lab.store.root, 50) == sorted(["tmp/strange", f"scratch/{idle.name}"])
    os.utime(busy / "x", (old, old))
    os.utime(busy, (old, old))
    assert cleanup.clean(lab.store.root, 50) == sorted([f"tmp/{foreign.name}", f"scratch/{busy.name}"])
    assert lab.left() == [f"tmp/{mine.name}"]
    assert lab.store.find(SPEC) == run


def test_a_clock_that_is_days_off_removes_nothing_that_another_machine_writes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = lab.store.root / "tmp" / f"{'a' * 16}.{'b' * 12}.1.1.{'c' * 8}"
    for folder in (foreign, lab.store.root / "scratch" / ("a" * 64)):
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    now = time.time()
    for days in (8, -8):
        monkeypatch.setattr(time, "time", lambda days=days: now + days * 24 * 3600)
        assert cleanup.clean(lab.store.root) == []
        assert all("untouched for 0.0 h" in line for line in lab.store.check().leftovers)
    assert sorted(path.name for path in lab.store.root.iterdir()) == ["scratch", "tmp"]


@pytest.mark.parametrize("part", ["runs", "tmp", "scratch", "damaged"])
def test_nothing_is_removed_through_a_link(lab: Lab, tmp_path: Path, part: str) -> None:
    """What lies behind it may be anybody's; that it is not as it should be is said all the same."""
    run, theirs = lab.ensure(), tmp_path / "theirs"
    (run.path / "weights.bin").write_bytes(b"changed")
    old = time.time() - 30 * 24 * 3600
    for folder in ("tmp/old", f"scratch/{'f' * 64}", "damaged/old"):
        (lab.store.root / folder).mkdir(parents=True)
        os.utime(lab.store.root / folder, (old, old))
    (lab.store.root / part).rename(theirs)
    (lab.store.root / part).symlink_to(theirs)
    there = sorted(os.listdir(theirs))
    removed, state = lab.store.repair()
    assert sorted(os.listdir(theirs)) == there
    assert sorted(name.partition("/")[0] for name in removed) == sorted(
        {"runs", "tmp", "scratch", "damaged"} - {part}
    )
    assert any(line.startswith(f"{part}/") for line in (*state.damaged, *state.leftovers))


def test_source_edited_during_the_computation_is_not_filed(lab: Lab) -> None:
    def edit(work: Work) -> None:
        lab.compute(work)
        (lab.package / "tensors.py").write_text("size = 1000\n")

    with pytest.raises(StoreError, match=r"tensors was edited while it was computed; not kept"):
        lab.store.ensure(SPEC, edit, lab.lines.append)
    assert lab.store.ids() == []


def test_code_older_than_its_source_computes_nothing(lab: Lab) -> None:
    __import__(f"{lab.package.name}.train")
    first = lab.ensure()
    source = (lab.package / "tensors.py").read_text()
    (lab.package / "tensors.py").write_text("size = 1000\n")
    with pytest.raises(StoreError, match=r"tensors was edited after this process loaded it; restart it"):
        lab.ensure()
    (lab.package / "tensors.py").write_text(source)
    assert lab.ensure() == first


def fake_torch(cuda: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        backends=types.SimpleNamespace(cpu=types.SimpleNamespace(get_cpu_capability=lambda: "AVX512")),
        cuda=types.SimpleNamespace(is_initialized=lambda: cuda, get_device_name=lambda: "Some GPU"),
        get_num_threads=lambda: 3,
    )


@pytest.mark.parametrize(("cuda", "kind"), [(True, "gpu"), (False, "cpu")])
def test_the_tensor_library_says_what_it_computes_on(
    cuda: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda))
    found = machine.this_machine()
    assert (found.kind, found.isa, found.threads) == (kind, "avx512", 3)
    assert (found.model == "Some GPU") == cuda


def test_a_process_lives_until_it_ends_and_its_id_may_be_used_again() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = machine.process_start(child.pid)
    assert machine.is_alive(child.pid, start)
    if start:
        assert not machine.is_alive(child.pid, start + 1)
        assert start >= machine.process_start(os.getpid()) > 0
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but nobody has asked for its status
    if start:
        assert not machine.is_alive(child.pid, start)
    child.communicate()
    assert not machine.is_alive(child.pid, start)
    assert not machine.is_alive(2**22 + 1, 5)  # over the largest process id there is
