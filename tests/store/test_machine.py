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
