"""The stage that takes a language model into the store: from a local folder or a hub, whole, in one number format."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.settings import Settings
from rlheals.stage import Work

READ = (".safetensors", ".json", ".jinja", ".txt", ".model")


class Source(Settings):
    """Where a base comes from."""

    name: str = Field(min_length=1, description="hub id (owner/name), or a local folder")
    revision: str | None = Field(None, description="of a hub id: branch, tag or commit; unset: main")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of the weights; auto: that of the files"
    )


class FetchSettings(Source):
    """What is fetched; sha256: of a local folder, so that other files are another run."""

    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


def settings_of(source: Source) -> FetchSettings:
    """The settings of the run: a local folder is known by its files. BadInput for a path that is not there."""
    folder = Path(source.name)
    if not folder.is_dir():
        models.refuse_missing_path(source.name)
    return FetchSettings(**source.model_dump(), sha256=folder_hash(folder) if folder.is_dir() else None)


def folder_hash(folder: Path) -> str:
    """sha256 over names and bytes of weights, configuration and tokenizer in a folder; files are read once."""
    files = sorted(path for path in folder.iterdir() if path.suffix in READ and path.is_file())
    states = [(file.absolute(), file.stat()) for file in files]
    return _hash_of(tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))


@lru_cache(maxsize=16)
def _hash_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files with their sizes and times: as long as these are the same, so are the bytes."""
    whole = hashlib.sha256()
    for file, _, _ in files:
        whole.update(f"{file.name}\0".encode())
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()


def run(work: Work) -> None:
    """The stage: `base/` (model and tokenizer), `source.json` (its commit on the hub, if any, and its size)."""
    settings = FetchSettings.model_validate(work.settings)
    if settings.sha256 is not None and folder_hash(Path(settings.name)) != settings.sha256:
        raise BadInput(f"model {settings.name!r}: its files have changed since this run was planned")
    model = models.load(settings.name, dtype=settings.dtype, revision=settings.revision)
    models.save(work.out / "base", model, models.load_tokenizer(settings.name, settings.revision))
    facts = {
        "name": settings.name,
        "commit": getattr(model.config, "_commit_hash", None),
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    (work.out / "source.json").write_text(json.dumps(facts, indent=1) + "\n")
