"""A run: what was asked for, what came out, and the proof that nothing has changed since."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError, field_validator

from rlheals.errors import BadInput
from rlheals.store.files import atomic_write, fsync_tree
from rlheals.store.machine import Machine

MANIFEST = "manifest.json"
LIBRARIES = ("torch", "transformers", "trl", "numpy")  # the ones that compute
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILES = 10_000
_HEX64 = r"^[0-9a-f]{64}$"
_STAGE = r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$"
_VERSION = re.compile(r"^Version: (\S+)$", re.MULTILINE)
_NAME_PART = re.compile(r"[A-Za-z0-9_@+=,.\-][A-Za-z0-9_@+=,. \-]*")

Hash = Annotated[str, Field(pattern=_HEX64)]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Stage = Annotated[str, Field(pattern=_STAGE, max_length=100)]
ShortText = Annotated[str, Field(min_length=1, max_length=200)]


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII.

    Errors: ``BadInput`` for what is not JSON (NaN, sets).

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error


def _good_name(name: str) -> bool:
    """Whether a file name of a run stays inside the run's folder on every system."""
    parts = name.split("/")
    return (
        len(name) <= 240
        and name != MANIFEST
        and all(_NAME_PART.fullmatch(part) and part.strip(".") and part == part.strip() for part in parts)
    )


class RunSpec(BaseModel):
    """What a run is asked for: stage, settings, input runs and seed.

    `settings` are JSON; `inputs` maps a name to the id of an input run. Errors: pydantic's ValidationError naming the
    field.

    >>> RunSpec(stage="sft", settings={"steps": 40}, seed=7).settings
    {'steps': 40}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    stage: Stage
    settings: dict[str, JsonValue] = {}
    inputs: dict[ShortText, Hash] = {}
    seed: int = 0

    @field_validator("settings")
    @classmethod
    def _settings_are_text(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # a lone surrogate would be written, and never read again
        return value


class FileEntry(BaseModel):
    """Hash and size of one file of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Hash
    bytes: Annotated[int, Field(ge=0)]


class Manifest(RunSpec):
    """What a run is: what was asked, what computed it, and the hash of every file.

    `seconds` is the wall time of the attempt that finished; `started` is UTC; `digest` covers every other field, so a
    manifest that was changed by hand or by a disk is noticed.
    """

    id: Hash
    versions: dict[ShortText, ShortText]
    code_hash: Hash
    modules: Annotated[tuple[ShortText, ...], Field(max_length=5_000)]
    machine: Machine
    started: Time
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    files: Annotated[dict[str, FileEntry], Field(max_length=MAX_FILES)]
    digest: Annotated[str, Field(pattern=_HEX64 + "|^$")] = ""

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not _good_name(name):
                raise BadInput(f"file name {name!r:.80} is not a plain relative path")
        return files

    def sealed(self) -> Manifest:
        """The same manifest with its ``digest`` filled in."""
        return self.model_copy(update={"digest": self._digest()})

    def _digest(self) -> str:
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"digest"}))).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> Manifest:
        """Parse and check a manifest; errors: ``BadInput`` on anything but an intact manifest."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadInput(f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part)[:40] for part in first["loc"])
            raise BadInput(f"{MANIFEST}: {where or 'text'}: {first['msg'][:120]}") from error
        if manifest.digest != manifest._digest():
            raise BadInput(f"{MANIFEST} does not match its own digest")
        if manifest.id != key_of(manifest, manifest.versions, manifest.code_hash):
            raise BadInput(f"{MANIFEST} does not belong to the id {manifest.id[:12]}")
        return manifest


def key_of(asked: RunSpec, versions: dict[str, str], code_hash: str) -> str:
    """sha256 over stage, settings, inputs, seed, library versions and source hash: 64 hex digits."""
    identity = {name: getattr(asked, name) for name in RunSpec.model_fields}
    identity |= {"versions": versions, "code": code_hash}
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that compute, without importing them.

    >>> sorted(library_versions())
    ['numpy', 'torch', 'transformers', 'trl']
    """

    def version(name: str) -> str:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return "absent"
        # `found.version` reads the whole text of the package's page, milliseconds each time a run is named
        stated = _VERSION.search(found.read_text("METADATA") or "")
        return stated[1] if stated else found.version

    return {name: version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Run:
    """A finished run: its id, its folder, its manifest."""

    id: str
    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of one of the run's files; errors: ``BadInput`` if the run has no such file."""
        if name not in self.manifest.files:
            some = ", ".join(sorted(self.manifest.files)[:8])
            raise BadInput(
                f"run {self.manifest.stage} {self.id[:12]} has no file {name!r:.80}; it has {some}"
            )
        return self.path / name


def digest_of(path: Path) -> FileEntry:
    """Hash and size of a file, read in pieces."""
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return FileEntry(sha256=digest, bytes=handle.tell())


def regular_files(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its relative name; errors: ``BadInput`` on links and special files."""

    def fail(error: OSError) -> None:
        raise error

    found = {}
    for here, folders, names in os.walk(folder, onerror=fail):
        for name in [*folders, *names]:
            path = Path(here, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise BadInput(f"{path.relative_to(folder).as_posix()!r:.80} is neither a file nor a folder")
    return found


def open_run(path: Path) -> Run:
    """Read a run's folder and check every file's size and hash.

    Errors: ``BadInput`` saying what is damaged; ``OSError`` when the disk cannot be read.
    """
    found = regular_files(path)
    if MANIFEST not in found:
        raise BadInput(f"{MANIFEST} is missing")
    with open(found.pop(MANIFEST), "rb") as handle:
        manifest = Manifest.read(handle.read(MAX_MANIFEST_BYTES + 1))
    if manifest.id != path.name.partition(".")[0]:
        raise BadInput(f"{MANIFEST} belongs to another run, {manifest.id[:12]}")
    if extra := sorted(found.keys() - manifest.files.keys()):
        raise BadInput(f"{extra[0]!r:.80} is not in the manifest")
    if missing := sorted(manifest.files.keys() - found.keys()):
        raise BadInput(f"{missing[0]!r} is missing")
    for name, entry in sorted(manifest.files.items()):
        if found[name].stat().st_size != entry.bytes:
            raise BadInput(f"{name!r} has {found[name].stat().st_size} bytes instead of {entry.bytes}")
        if digest_of(found[name]) != entry:
            raise BadInput(f"{name!r} has changed (its hash differs)")
    return Run(manifest.id, path, manifest)


def _unreadable(file: Path) -> str | None:
    """What is wrong with a table, or with the header of weights and their size; None of what can be opened."""
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, framework="numpy"):
                pass
        elif file.suffix == ".parquet":
            from pyarrow import parquet

            parquet.ParquetFile(file).read()
    except Exception as error:  # of two libraries, each with its own kinds
        return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return None


def seal(out: Path, facts: dict[str, Any]) -> Manifest:
    """Force a finished folder to the disk and write its manifest, last; `facts` are its fields without `files`.

    Errors: BadInput when there is nothing in the folder, something that cannot be part of a run, or a table or weights
    that nobody could open; OSError.
    """
    stage, found = facts["stage"], regular_files(out)
    if not found:
        raise BadInput(f"stage {stage} wrote no file")
    if bad := [name for name in found if not _good_name(name)]:
        known = "a name has letters, digits and _@+=,.- and space only"
        raise BadInput(f"stage {stage} wrote {bad[0]!r:.80}; {known}")
    for name, path in found.items():
        if problem := _unreadable(path):
            raise BadInput(f"stage {stage} wrote {name!r}, which cannot be read ({problem})")
    fsync_tree(out)
    entries = {name: digest_of(path) for name, path in sorted(found.items())}
    manifest = Manifest(**facts, files=entries).sealed()
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    if len(text) > MAX_MANIFEST_BYTES:
        raise BadInput(
            f"stage {stage} wrote {len(entries)} files: their manifest is over {MAX_MANIFEST_BYTES} bytes"
        )
    atomic_write(out / MANIFEST, text)
    return manifest
