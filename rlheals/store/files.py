"""Files that are either whole or absent: write beside the target, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlheals.errors import BadInput

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EROFS: "read-only folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "not a folder",
    errno.ENOENT: "no such folder",
}
_FOLDER_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_NO_FOLDER_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


class StoreError(BadInput):
    """The folder of the runs cannot be used as asked: full, read-only, forbidden, damaged."""


@contextlib.contextmanager
def told(doing: str, folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into one line that names the folder."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"cannot {doing} in {folder}: {reason}") from error


def as_store_error(error: BaseException, folder: Path) -> StoreError | None:
    """The error of a stage as a StoreError if the disk is to blame for it, else None.

    Libraries that write through their own code report a full disk only in their text.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code not in _FOLDER_TROUBLE and os.strerror(errno.ENOSPC) in str(error):
        code = errno.ENOSPC
    if code not in _FOLDER_TROUBLE or isinstance(error, StoreError):
        return None
    named = getattr(error, "filename", None)
    if isinstance(named, str) and os.path.isabs(named) and not Path(named).is_relative_to(folder):
        folder = Path(named).parent  # another disk than the store's
    return StoreError(f"cannot keep results in {folder}: {_REASONS[code]}")


def fsync_file(path: Path) -> None:
    """Force a file's bytes to the disk, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Force the names in a folder to the disk; without effect where the filesystem has no such call."""
    try:
        fsync_file(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise


def fsync_tree(folder: Path) -> None:
    """Force a folder with all that is in it to the disk: every file, then the names, the innermost first."""
    for here, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_file(Path(here, name))
        fsync_folder(Path(here))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each of them safely on the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    fsync_folder(path.parent)


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write a file so that a reader, a kill or a full disk only ever sees the old file or the whole new one.

    Text is written as UTF-8, newlines unchanged. Until the rename the bytes are in a hidden `.*.tmp` file beside the
    target; only a killed process leaves one behind. Errors: StoreError naming the folder.
    """
    path = Path(path)
    left = memoryview(data.encode("utf-8") if isinstance(data, str) else data)
    with whole_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be written by a library, that takes its place when the block has ended well.

    As with `atomic_write`, a reader or a kill only ever sees the old file or the whole new one.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    with told(f"write {path.name}", path.parent):
        try:
            yield temporary
            fsync_file(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_folder(path.parent)


def refuse_used(out: Path) -> None:
    """BadInput where `--out` names something that is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {str(out)!r}: is there already; accepted: a new or an empty folder")


@contextlib.contextmanager
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
            fsync_tree(aside)
            _take_place(aside, target, replace)
        except Exception as error:  # a library's own error for a full disk names no folder
            if (trouble := as_store_error(error, target.parent)) is not None:
                raise trouble from error
            raise
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
