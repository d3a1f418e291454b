"""A damaged run is never used, and a manifest from elsewhere is only data."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_helpers import flip_bit, refused
from safetensors.numpy import save
from store_lab import SPEC, Lab

from rlheals.errors import BadInput
from rlheals.store import machine
from rlheals.store.files import StoreError
from rlheals.store.runs import MANIFEST, Manifest, canonical_json, key_of

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # lone surrogates are refused
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@given(settings=st.dictionaries(_text, _json, max_size=4), seed=st.integers())
def test_any_settings_survive_the_manifest(settings: dict[str, Any], seed: int) -> None:
    manifest = a_manifest(settings=settings, seed=seed)
    again = Manifest.read(json.dumps(manifest.model_dump(mode="json"), indent=1).encode())
    assert again == manifest
    assert canonical_json(again.settings) == canonical_json(settings)


Harm = Callable[[Path], object]
HARMS: dict[str, tuple[Harm, str]] = {
    "flipped bit": (
        lambda run: flip_bit(run / "weights.bin"),
        "'weights.bin' has changed (its hash differs)",
    ),
    "truncated file": (
        lambda run: os.truncate(run / "weights.bin", 2559),
        "'weights.bin' has 2559 bytes instead of 2560",
    ),
    "emptied file": (lambda run: os.truncate(run / "deep/rows.csv", 0), "'deep/rows.csv' has 0 bytes"),
    "missing file": (lambda run: (run / "deep/rows.csv").unlink(), "'deep/rows.csv' is missing"),
    "extra file": (
        lambda run: (run / "deep/more.csv").write_text("x"),
        "'deep/more.csv' is not in the manifest",
    ),
    "extra hidden file": (lambda run: (run / ".more").write_text(""), "'.more' is not in the manifest"),
    "a link in place of a file": (
        lambda run: (
            (run / "weights.bin").rename(run.parent / "w")
            and (run / "weights.bin").symlink_to(run.parent / "w")
        ),
        "'weights.bin' is neither a file nor a folder",
    ),
    "a link to a folder": (
        lambda run: (run / "more").symlink_to("/"),
        "'more' is neither a file nor a folder",
    ),
    "a pipe": (lambda run: os.mkfifo(run / "pipe"), "'pipe' is neither a file nor a folder"),
    "no manifest": (lambda run: (run / MANIFEST).unlink(), "manifest.json is missing"),
    "empty manifest": (lambda run: (run / MANIFEST).write_text(""), "manifest.json: text"),
    "another run's manifest": (
        lambda run: (run / MANIFEST).write_text(json.dumps(a_manifest(seed=77).model_dump(mode="json"))),
        "manifest.json belongs to another run",
    ),
    "huge manifest": (
        lambda run: (run / MANIFEST).write_bytes(b" " * (5 << 20) + (run / MANIFEST).read_bytes()),
        "manifest.json has more than 4194304 bytes",
    ),
    "a file in place of the folder": (lambda run: run.rename(run.parent / "w") and run.write_text("x"), ""),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_run_is_moved_aside_said_and_computed_again(lab: Lab, harm: str) -> None:
    run = lab.ensure()
    before = {name: run.file(name).read_bytes() for name in run.manifest.files}
    hurt, said = HARMS[harm]
    hurt(run.path)
    report = lab.store.check()
    assert len(report.damaged) >= 1
    assert lab.computed == 1
    lab.lines.clear()
    again = lab.ensure()
    assert lab.computed == 2
    assert {name: again.file(name).read_bytes() for name in again.manifest.files} == before
    assert lab.lines[0].startswith(f"run {run.id[:12]}: damaged, not used (")
    assert said in lab.lines[0]
    assert lab.lines[1] == f"train {run.id[:12]}: computing"
    assert [name.partition(".")[0] for name in lab.left()] == [f"damaged/{run.id}"]
    assert f"{lab.store.root}/{lab.left()[0]}" in lab.lines[0]


def a_manifest(**changes: Any) -> Manifest:
    facts: dict[str, Any] = {
        "id": "0" * 64,
        "stage": "train",
        "versions": {"numpy": "2.0"},
        "code_hash": "1" * 64,
        "modules": ("toy",),
        "machine": machine.Machine(kind="cpu", model="c", isa="avx2", threads=1),
        "started": "2025-01-01T00:00:00Z",
        "seconds": 1.5,
        "files": {"a/b.txt": {"sha256": "2" * 64, "bytes": 3}},
        **changes,
    }
    first = Manifest(**facts)
    own = {"id": key_of(first, first.versions, first.code_hash)} if "id" not in changes else {}
    return first.model_copy(update=own).sealed()


def test_any_flipped_bit_of_a_manifest_is_noticed() -> None:
    data = json.dumps(a_manifest(settings={"lr": 0.5}).model_dump(mode="json"), indent=1).encode()
    assert Manifest.read(data).settings == {"lr": 0.5}
    for position in range(len(data)):
        for bit in (1, 16):
            broken = bytearray(data)
            broken[position] ^= bit
            with pytest.raises(BadInput, match=r"^manifest.json"):
                Manifest.read(bytes(broken))


def resealed(data: dict[str, Any]) -> bytes:
    """The manifest an attacker would write: any content, with a digest that fits."""
    body = {key: value for key, value in data.items() if key != "digest"}
    return json.dumps({**body, "digest": hashlib.sha256(canonical_json(body)).hexdigest()}).encode()


NAMES = [
    "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "..", ".", "...", "", "a\\b", "C:x", "a\x00b", "a\nb",
    "~/x*", "é", "manifest.json", " a", "a ", "a/ b", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_file_names_from_elsewhere_stay_inside(name: str) -> None:
    data = a_manifest().model_dump(mode="json")
    assert Manifest.read(resealed(data)).files
    data["files"] = {name: data["files"]["a/b.txt"]}
    with pytest.raises(BadInput, match=r"^manifest.json: files"):
        Manifest.read(resealed(data))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("unknown", 1),
        ("seconds", -1.0),
        ("seconds", "1"),
        ("files", {str(number): {"sha256": "2" * 64, "bytes": 1} for number in range(10_001)}),
        ("files", {"a": {"sha256": "2" * 64, "bytes": -1}}),
        ("files", {"a": {"sha256": "2" * 64, "bytes": 1, "url": "x"}}),
        ("modules", ["x" * 300]),
        ("machine", {"kind": "tpu", "model": "c", "isa": "avx2", "threads": 1}),
        ("started", "yesterday"),
        ("seed", 5),  # fits its digest, not its id
        ("id", "3" * 64),
    ],
)
def test_manifests_from_elsewhere_are_checked(key: str, value: Any) -> None:
    data = a_manifest().model_dump(mode="json")
    with refused(match=r"^manifest.json[: ]"):
        Manifest.read(resealed({**data, key: value}))


NO_MANIFESTS = [
    b"", b"\xff\xfe", b"null", b"[]", b"{", b'{"seconds": NaN}', b"[" * 100_000, b'{"a":' * 5_000 + b"1" * 9_000,
]  # fmt: skip


@pytest.mark.parametrize("data", NO_MANIFESTS)
def test_what_is_no_manifest_is_one_line(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^manifest.json: "):
        Manifest.read(data)


WEIGHTS = save({"a": np.ones((4, 4))})
TABLE = pd.DataFrame({"a": np.arange(100)}).to_parquet(compression="zstd")
UNREADABLE = {
    "a.safetensors": [b"", WEIGHTS[:-1]],
    "a.parquet": [TABLE[: len(TABLE) // 2], TABLE[:4] + bytes(40) + TABLE[44:]],
}
NO_RESULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda out: None, "wrote no file"),
    (lambda out: (out / "manifest.json").write_text("{}"), r"'manifest.json'"),
    (lambda out: (out / "a\nb").write_text("x"), r"'a\\nb'"),
    (lambda out: (out / "link").symlink_to("/etc/passwd"), "'link' is neither a file nor a folder"),
    *(
        (lambda out, name=name, data=data: (out / name).write_bytes(data), f"'{name}', which cannot be read")
        for name, every in UNREADABLE.items()
        for data in every
    ),
]


@pytest.mark.parametrize(("write", "message"), NO_RESULTS)
def test_results_that_could_not_be_loaded_are_refused(
    lab: Lab, write: Callable[[Path], Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        lab.store.ensure(SPEC, lambda work: write(work.out), lab.lines.append)
    assert lab.store.ids() == []
    assert [name.partition("/")[0] for name in lab.left()] == ["scratch"]


def test_a_damaged_run_that_cannot_be_moved_aside_is_one_line(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_bit(lab.ensure().path / "weights.bin")
    monkeypatch.setattr(os, "rename", Mock(side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))))
    with pytest.raises(StoreError, match=r"move the damaged run .* aside .*weights.bin.* has changed"):
        lab.store.find(SPEC)


def test_a_root_that_is_a_file_is_one_line(lab: Lab) -> None:
    lab.store.root.write_text("x")
    with pytest.raises(StoreError, match=f"in {lab.store.root}: "):
        lab.ensure()
