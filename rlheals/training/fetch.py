"""The stage that takes a language model into the store: from a folder, a GGUF file or a hub, in one number format."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from pydantic import Field

from rlheals.engines import models
from rlheals.engines.weight_files import PACKAGE, gguf_contents, is_gguf, located
from rlheals.errors import BadInput
from rlheals.settings import Settings
from rlheals.stage import Work

READ = (".safetensors", ".json", ".jinja", ".txt", ".model")
TEMPLATES = "additional_chat_templates"
"""The one folder below a model's own that transformers reads."""
HOW_TO_PIN = "name one: --set model.revision=COMMIT (40 hex digits, on the model's page under Files)"


class Source(Settings):
    """Where a base comes from."""

    name: str = Field(
        min_length=1,
        description="hub id (owner/name), a local folder or GGUF file, or package:NAME/FILE of an installed package",
    )
    revision: str | None = Field(None, description="of a hub id: commit, branch or tag; unset: main")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of the weights; auto: that of the files"
    )


class FetchSettings(Source):
    """What is fetched; sha256: of local files, so that other files are another run."""

    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


def settings_of(source: Source) -> FetchSettings:
    """The settings of the run: a local folder is known by its files, a hub id by its commit.

    Where the commit cannot be told, a plan can be made, but not be run. BadInput for a path that is not there.
    """
    if _is_local(source.name):
        return FetchSettings(**source.model_dump(), sha256=folder_hash(Path(located(source.name))))
    models.refuse_missing_path(source.name)
    if is_pinned(source):
        return FetchSettings(**source.model_dump())
    commit = _commit_of(source.name, source.revision or "main")
    return FetchSettings(**source.model_copy(update={"revision": commit or source.revision}).model_dump())


def is_pinned(source: Source) -> bool:
    """Whether the weights are the same for ever: those of a folder by their hash, those of a hub id by a commit."""
    return _is_local(source.name) or re.fullmatch("[0-9a-f]{40}", source.revision or "") is not None


def _is_local(name: str) -> bool:
    return name.startswith(PACKAGE) or Path(name).is_dir() or is_gguf(name)


@lru_cache(maxsize=16)
def _commit_of(name: str, revision: str) -> str | None:
    """The commit that a branch or tag stands for now; without network as of the copy here; None: neither knows."""
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent.name
    except (OSError, ValueError, HfHubHTTPError):
        return None


def folder_hash(folder: Path) -> str:
    """sha256 over names and bytes of weights, configuration and tokenizer in a folder, of a GGUF file over its bytes.

    Files are read once.
    """
    if folder.is_file():
        return _digest_of(folder).hex()
    files = sorted(path for path in folder.iterdir() if path.suffix in READ and path.is_file())
    files += sorted((folder / TEMPLATES).glob("*.jinja"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder)}\0".encode())
        whole.update(_digest_of(file))
    return whole.hexdigest()


def _digest_of(file: Path) -> bytes:
    state = file.stat()
    return _digest(file.absolute(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int) -> bytes:
    """Of a file with its size and time: as long as these are the same, so are the bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def run(work: Work) -> None:
    """The stage: `base/` (model and tokenizer), `source.json` (its commit on the hub, if any, its size, and from which
    number formats it was dequantised).
    """
    settings = FetchSettings.model_validate(work.settings)
    if settings.sha256 is not None and folder_hash(Path(located(settings.name))) != settings.sha256:
        raise BadInput(f"model {settings.name!r}: its files have changed since this run was planned")
    if not is_pinned(settings):
        raise BadInput(
            f"model {settings.name!r}: cannot tell which commit {settings.revision or 'main'} is, without the hub "
            f"and a copy here; {HOW_TO_PIN}"
        )
    model = models.load(settings.name, dtype=settings.dtype, revision=settings.revision)
    models.save(work.out / "base", model, models.load_tokenizer(settings.name, settings.revision))
    facts = {
        "name": settings.name,
        "commit": getattr(model.config, "_commit_hash", None),
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "dequantised": gguf_contents(Path(located(settings.name)))[1] if is_gguf(settings.name) else None,
    }
    (work.out / "source.json").write_text(json.dumps(facts, indent=1) + "\n")
