"""The kind of machine and the life of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from rlheals.store import machine


def fake_torch(cuda: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        backends=types.SimpleNamespace(cpu=types.SimpleNamespace(get_cpu_capability=lambda: "AVX512")),
        cuda=types.SimpleNamespace(is_initialized=lambda: cuda, get_device_name=lambda: "Some GPU"),
        get_num_threads=lambda: 3,
    )


@pytest.mark.parametrize(("cuda", "kind"), [(True, "gpu"), (False, "cpu")])
def test_the_loaded_library_says_what_it_computes_on(
    cuda: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda))
    found = machine.this_machine()
    assert (found.kind, found.isa, found.threads) == (kind, "avx512", 3)
    assert (found.model == "Some GPU") == cuda


def test_without_it_the_environment_and_the_processor_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    flags = "fpu avx avx2 avx512f avx512bw avx512dq avx512vl"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"model name": "Some CPU", "flags": flags})
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert machine.this_machine() == machine.Machine(kind="cpu", model="Some CPU", isa="avx512", threads=2)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert machine.this_machine().isa == "avx2"
    monkeypatch.setattr(machine, "_cpuinfo", dict)
    assert machine.this_machine().isa == "default"  # what is asked for cannot exceed what there is
    assert machine.this_machine().model
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert machine.this_machine().threads == os.cpu_count()


def test_it_agrees_with_the_tensor_library() -> None:
    torch = pytest.importorskip("torch")
    program = "from rlheals.store.machine import this_machine; print(this_machine().isa)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2", "AVX512"):
        assert said.strip() == torch.backends.cpu.get_cpu_capability().lower()


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
