"""Runs a toy stage with a fault at each operation on the disk in turn; a program for test_store_faults.py.

Usage: store_faults.py MODE FOLDER. The folder holds the package ``toy``. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rlheals.stage import Work
from rlheals.store import cleanup, machine, runs, store
from rlheals.store.files import StoreError, atomic_write, believed, note, whole_file

PARTS = 2
SPEC = store.RunSpec(stage="stage", settings={"parts": PARTS}, seed=3)
OPERATIONS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")
PLAIN = {name: getattr(os, name) for name in OPERATIONS}
Fault = Callable[[int, str, Callable[[], Any], tuple[Any, ...]], Any]


def stage(work: Work, computed: Path) -> None:
    """Compute parts into scratch, one after the other, then the result; note each part computed."""
    parts = []
    for number in range(PARTS):
        part = work.scratch / f"part-{number}"
        if not believed(work.scratch, part.name):
            with open(computed, "a") as notes:
                notes.write(part.name + "\n")
            with whole_file(part) as file:
                descriptor = os.open(file, os.O_WRONLY)
                os.write(descriptor, f"{number} of {work.seed}\n".encode() * 100)
                os.close(descriptor)
                note(work.scratch, {part.name: file})
        parts.append(part.read_bytes())
    (work.out / "weights").mkdir()
    descriptor = os.open(work.out / "weights" / "all.bin", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"".join(parts))
    os.close(descriptor)
    atomic_write(work.out / "log.txt", "done\n")


@contextlib.contextmanager
def watched(fault: Fault) -> Iterator[None]:
    """Let ``fault(number, operation, go, arguments)`` stand in for every operation that changes the disk."""
    count = 0

    def wrap(name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if name == "open" and not args[1] & os.O_CREAT:
                return PLAIN[name](*args, **kwargs)
            count += 1
            return fault(count, name, lambda: PLAIN[name](*args, **kwargs), args)

        return operation

    for name in OPERATIONS:
        setattr(os, name, wrap(name))
    try:
        yield
    finally:
        for name, plain in PLAIN.items():
            setattr(os, name, plain)


def ensure(root: Path) -> store.Run:
    place = store.Store(root, package="toy")
    notes = root.parent / f"{root.name}.computed"
    return place.ensure(SPEC, lambda work: stage(work, notes), echo=lambda line: None)


def content(run: store.Run) -> dict[str, str]:
    return {name: hashlib.sha256(run.file(name).read_bytes()).hexdigest() for name in run.manifest.files}


def left(root: Path) -> dict[str, Any]:
    """What a reader finds in the store now, without changing anything."""
    place = store.Store(root, package="toy")
    report = place.check()
    scratch = root / "scratch" / place.key(SPEC)
    notes = root.parent / f"{root.name}.computed"
    return {
        "runs": len(place.ids()),
        "intact": len(report.intact),
        "damaged": list(report.damaged),
        "tmp": sorted(name.split(".")[0] for name in os.listdir(root / "tmp"))
        if (root / "tmp").exists()
        else [],
        "parts": sorted(p.name for p in scratch.glob("part-*")) if scratch.exists() else [],
        "hidden": sorted(path.name for path in root.rglob(".*")),
        "computed": notes.read_text().split() if notes.exists() else [],
    }


def trials(folder: Path, attempt: Callable[[Path, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """A fault at operation 1, 2, 3, ... until none is hit: the state after it, after the next call, after cleaning."""
    found: list[dict[str, Any]] = []
    for number in range(1, 500):
        root = folder / str(number)
        broken = attempt(root, number)
        first, result, second = left(root), content(ensure(root)), left(root)
        place = store.Store(root, package="toy")
        cleanup.clean(root)
        found.append({**broken, "left": first, "content": result, "again": second, "clean": place.check().ok})
        if not broken["hit"]:
            break
    return found


def killed(root: Path, number: int, within: bool) -> dict[str, Any]:
    """Kill a child before an operation, or in the middle of the next write."""

    def fault(count: int, name: str, go: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if count < number or (within and name != "write"):
            return go()
        if within:
            PLAIN["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
        return os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        with watched(fault):
            ensure(root)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return {"hit": os.WIFSIGNALED(status), "status": status}


def raised(root: Path, number: int, error: BaseException, operations: tuple[str, ...]) -> dict[str, Any]:
    """Raise an error at an operation, or at the next one of those named, once."""
    hit = False

    def fault(count: int, name: str, go: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        nonlocal hit
        if count >= number and not hit and name in operations:
            hit = True
            raise error
        return go()

    got, text = "", ""
    try:
        with watched(fault):
            ensure(root)
    except (ValueError, OSError, KeyboardInterrupt) as caught:
        got, text = type(caught).__name__, str(caught)
    return {"hit": hit, "got": got, "text": text, "root": str(root)}


def order(folder: Path) -> list[list[str]]:
    """The operations of an undisturbed run as (operation, path relative to the store)."""
    root, log = folder / "order", []

    def note(count: int, name: str, go: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else os.fspath(args[0])
        targets = args[1:2] if name == "rename" else ()
        log.append([name, *(os.path.relpath(one, root) for one in (path, *targets))])
        return go()

    with watched(note):
        ensure(root)
    return log


def read_only(folder: Path) -> None:
    """A store that may only be read, used by a process without the rights of root, which prints what it finds."""
    root = folder / "readonly"
    run = ensure(root)
    for here, _, _ in os.walk(root):
        os.chmod(here, 0o555)
    pid = os.fork()
    if pid == 0:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        place, text = store.Store(root, package="toy"), "no error"
        said = {"found": place.find(SPEC) == run, "loaded": ensure(root) == run, "root": str(root)}
        try:
            place.ensure(store.RunSpec(stage="stage", seed=4), lambda work: None, echo=lambda line: None)
        except StoreError as error:
            text = str(error)
        print(json.dumps({**said, "text": text}), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    for here, _, _ in os.walk(root):
        os.chmod(here, 0o755)


def main(mode: str, folder: Path) -> None:
    """Run one mode; its trials go to the output as JSON."""
    sys.path.insert(0, str(folder))
    versions, place = runs.library_versions(), machine.Machine(kind="cpu", model="c", isa="avx2", threads=1)
    store.library_versions, store.this_machine = lambda: versions, lambda: place
    if mode == "readonly":
        read_only(folder)
        return
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    making = ("open", "write", "fsync", "mkdir", "rename", "replace")
    result: Any = {
        "before": lambda: trials(folder, partial(killed, within=False)),
        "within": lambda: trials(folder, partial(killed, within=True)),
        "full": lambda: trials(folder, partial(raised, error=full, operations=making)),
        "interrupt": lambda: trials(
            folder, partial(raised, error=KeyboardInterrupt(), operations=OPERATIONS)
        ),
        "order": lambda: order(folder),
    }[mode]()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
