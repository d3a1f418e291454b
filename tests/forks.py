"""Forks of the test's process that may be killed at any moment and leave nothing locked in it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from tqdm.std import tqdm

SECONDS = 120


def forked(work: Callable[[], None]) -> BaseProcess:
    """A fork that does this work.

    The lock of tqdm's bars is a semaphore that forks share: a fork that is killed while it has it keeps it from this
    process for ever. So the fork makes a lock of its own.
    """

    def alone() -> None:
        lock, kinds = threading.RLock(), [tqdm]
        while kinds:
            kind = kinds.pop()
            kind.set_lock(lock)
            kinds += kind.__subclasses__()
        work()

    child = multiprocessing.get_context("fork").Process(target=alone)
    child.start()
    return child


def ended(child: BaseProcess) -> int:
    """Its exit code; one that hangs is killed, or this process would wait for it at its own end."""
    child.join(SECONDS)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise AssertionError(f"the process hung for {SECONDS} s")
    return child.exitcode
