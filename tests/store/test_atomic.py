"""A file is either the old one or the whole new one, and errors are one line that names the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rlheals.errors import BadInput
from rlheals.store.files import StoreError, atomic_write, atomic_writes, make_folder, told


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 70_000, "ä\r\n24\n", ""])
def test_what_is_written_is_read(tmp_path: Path, data: bytes | str) -> None:
    atomic_write(tmp_path / "a", data)
    atomic_write(str(tmp_path / "a"), data)
    assert (tmp_path / "a").read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["a"]


def test_writes_in_pieces_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: plain(descriptor, bytes(data)[:7]))
    atomic_write(tmp_path / "a", bytes(range(100)))
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file(
    tmp_path: Path, operation: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write(tmp_path / "a", "old")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, fail)
        with pytest.raises((StoreError, KeyboardInterrupt)) as caught:
            atomic_write(tmp_path / "a", "new")
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write a in {tmp_path}: disk full"
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_of_several_files_all_are_the_old_ones_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c"]
    atomic_writes(tmp_path, dict.fromkeys(names, "old"))
    write, written = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        written.append(write(descriptor, data))
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "full")
        return written[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="disk full"):
            atomic_writes(tmp_path, dict.fromkeys(names, "new"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "old")
    atomic_writes(tmp_path, dict.fromkeys(names, "new"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "new")


def test_a_missing_folder_is_named_and_made_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"cannot write b in {tmp_path / 'a'}: no such folder"):
        atomic_write(tmp_path / "a" / "b", "x")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a folder"), told("start", tmp_path):
        make_folder(tmp_path / "file" / "b")


def test_a_folder_without_fsync_is_no_error_but_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    code = errno.EINVAL  # some network filesystems
    atomic_write(tmp_path / "a", "x")
    code = errno.EIO
    with pytest.raises(StoreError, match="Input/output error"):
        atomic_write(tmp_path / "a", "y")
