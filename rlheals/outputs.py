"""Folders that commands write: whole or not at all, never over what is there."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlheals.atomic import fsync_file, fsync_folder, make_folder, told
from rlheals.errors import BadInput


def refuse_used(out: Path) -> None:
    """BadInput where `--out` names something that is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {str(out)!r}: is there already; accepted: a new or an empty folder")


@contextmanager
def whole(out: Path, replace: bool = False) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block has ended well; else nothing is left.

    replace: a folder that is there already goes, once the new one is complete.
    """
    target = out.absolute()
    with told(f"write {target.name}", target.parent):
        make_folder(target.parent)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            yield aside
            aside.chmod(0o755)
            _sync(aside)
            _take_place(aside, target, replace)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _take_place(new: Path, target: Path, replace: bool) -> None:
    if not (replace and target.is_dir()):
        os.replace(new, target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    os.rename(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        (fsync_folder if file.is_dir() else fsync_file)(file)
    fsync_folder(folder)
