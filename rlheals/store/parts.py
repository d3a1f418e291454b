"""Parts of an unfinished run, believed only with the sha256 that was written down when they were made.

`sha256sums` in the folder gets a line for every file that takes its place there, as the command sha256sum writes them,
and is only ever added to. The line comes first: a kill between the two leaves the old file, which has its own line, and
of processes that keep the same file none takes the other's line away.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rlheals.store.files import fsync_folder, told

SUMS = "sha256sums"


def note(folder: Path, files: Mapping[str, Path]) -> None:
    """Write down the sha256 of files that are about to take their places in a folder, by their names there."""
    lines = "".join(
        f"\n{_sha256(file)}  {name}" for name, file in files.items()
    )  # a torn line ends at the next
    with told(f"write {SUMS}", folder):
        descriptor = os.open(folder / SUMS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, lines.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fsync_folder(folder)


def believed(folder: Path, name: str) -> bool:
    """Whether the file of that name is there as it was written; one that has changed is dropped, and that is said."""
    file = folder / name
    if not file.is_file():
        return False
    if _sha256(file) in _noted(folder).get(name, ()):
        return True
    say(f"{file}: is not as it was written (its sha256 differs); dropped, to be computed again")
    file.unlink(missing_ok=True)
    return False


def whole(folder: Path, part: str) -> bool:
    """Whether all files that were ever kept in a subfolder are there and believed; False if none was."""
    names = [name for name in _noted(folder) if name.startswith(f"{part}/")]
    return bool(names) and all(believed(folder, name) for name in names)


def say(line: str) -> None:
    """On stderr: what is dropped is never dropped in silence."""
    print(line, file=sys.stderr, flush=True)


def _noted(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    if (folder / SUMS).is_file():
        for line in (folder / SUMS).read_bytes().decode("utf-8", "replace").split("\n"):
            digest, _, name = line.partition("  ")
            found.setdefault(name, set()).add(digest)
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
