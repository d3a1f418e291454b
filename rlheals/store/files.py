"""Files that are either whole or absent: write beside the target, fsync, rename, fsync the folder.

And files of anybody's: regular ones only, and JSON of bearable size and depth."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
MAX_DEPTH = 64
"""Of JSON: objects and lists in one another."""
_NO_FOLDER_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


class StoreError(BadInput):
    """The folder of the runs cannot be used as asked: full, read-only, forbidden, damaged."""


@contextlib.contextmanager
def told(doing: str, folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {doing} in {folder}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """What the disk said, in words."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


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
    """Force a folder with all that is in it to the disk: every file, then the names, the innermost first.

    Files get the mode that the umask gave the folder: safetensors writes them for their owner alone.
    """
    mode = folder.stat().st_mode & 0o666
    for here, _, names in os.walk(folder, topdown=False):
        for name in names:
            _set_mode(Path(here, name), mode)
            fsync_file(Path(here, name))
        fsync_folder(Path(here))


def _set_mode(path: Path, mode: int) -> None:
    now = path.lstat().st_mode
    if stat.S_ISREG(now) and stat.S_IMODE(now) != mode:
        with contextlib.suppress(PermissionError):  # another user's, who shares the store
            path.chmod(mode)


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
    atomic_writes(path.parent, {path.name: data})


def atomic_writes(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """The same of several files of a folder: all are written before the first takes its place."""
    with contextlib.ExitStack() as stack:
        for name, data in files.items():
            _fill(stack.enter_context(whole_file(folder / name)), data)


def _fill(file: Path, data: bytes | str) -> None:
    left = memoryview(data.encode("utf-8") if isinstance(data, str) else data)
    descriptor = os.open(file, os.O_WRONLY)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be written by a library, that takes its place when the block has ended well.

    As with `atomic_write`, a reader or a kill only ever sees the old file or the whole new one. It has the mode that
    the umask asks for, whatever the library thinks.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    with told(f"write {path.name}", path.parent):
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            _set_mode(temporary, mode)
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
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        aside.mkdir()
        try:
            yield aside
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


# Parts of an unfinished run -------------------------------------------------------------------------------------------
#
# They are believed only with the sha256 that was written down when they were made. `sha256sums` in their folder gets a
# line for every file that takes its place there, as the command sha256sum writes them, and is only ever added to. The
# line comes first: a kill between the two leaves the old file, which has its own line, and of processes that keep the
# same file none takes the other's line away.

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


def all_believed(folder: Path, part: str) -> bool:
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


def regular(file: Path) -> Path:
    """The file, if it is a regular one of its folder; BadInput for links that are broken or lead out, pipes, devices.

    The links of a hub snapshot lead to the blobs of its own repository, and are taken.
    """
    if file.is_symlink():
        folder = file.parent.resolve()
        try:
            target = file.resolve(strict=True)
        except (OSError, RuntimeError):
            raise BadInput(f"{str(file)!r} is a broken link") from None
        blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
        if not (target.is_relative_to(folder) or target.is_relative_to(blobs)):
            raise BadInput(f"{str(file)!r} is a link out of its folder; put the file itself there")
    if file.exists() and not file.is_file():
        raise BadInput(f"{str(file)!r} is not a regular file")
    return file


def read_json(file: Path, limit: int) -> dict[str, Any]:
    """A JSON object; BadInput unless it is in a regular file of at most `limit` bytes."""
    regular(file)
    try:
        if file.stat().st_size > limit:
            raise BadInput(f"{str(file)!r}: has over {limit} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{str(file)!r}: cannot be read ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise BadInput(f"{str(file)!r}: is no JSON object")
    _refuse_deep(found, file)
    return found


def _refuse_deep(found: Any, file: Path) -> None:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BadInput(f"{str(file)!r}: is nested deeper than {MAX_DEPTH}")


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
