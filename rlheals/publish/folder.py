"""A published folder as others get it: its manifest, whether every byte is the same, whether a model plays the same.

README.md           the model card
settings.yaml       the profile; `rlheals ... --profile FOLDER/settings.yaml` reads it
checkpoints/NAME/   models, each for transformers' `from_pretrained`
results/            the tables, as `rlheals study --record` writes them
spectra/PAIR/       singular values and directions of two checkpoints, where they were measured
manifest.json       sha256 of all of these, and which runs made them; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.settings import validated
from rlheals.store.files import told
from rlheals.store.machine import Machine
from rlheals.store.runs import FileEntry, Hash, canonical_json, digest_of
from rlheals.study.record import RecordedRun

MANIFEST, CARD, SETTINGS = "manifest.json", "README.md", "settings.yaml"
CHECKPOINTS, RESULTS, SPECTRA = "checkpoints", "results", "spectra"
OF_THE_HUB = (".gitattributes", ".git", ".cache")
"""What a hub or its client adds beside the files."""
MAX_BYTES = 16 << 20
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordedCensus(_Frozen):
    """A census of a checkpoint: the seed that names its sampling noise, and its rows in a table of the folder."""

    decode: int
    seed: int
    table: str
    where: dict[str, int | str]


class Checkpoint(_Frozen):
    """A model of the folder: the run that made it, and its censuses."""

    run: Hash
    about: str
    censuses: tuple[RecordedCensus, ...] = ()

    def rows(self, folder: Path) -> pd.DataFrame:
        """The episodes of all its censuses."""
        return pd.concat([rows_of(folder, census) for census in self.censuses], ignore_index=True)


class Published(_Frozen):
    """The manifest of a published folder; `digest` covers every other field."""

    format: Literal["rlheals published folder, version 1"] = "rlheals published folder, version 1"
    profile: str
    seed: int
    checkpoints: dict[Name, Checkpoint]
    absent: tuple[str, ...]
    runs: tuple[RecordedRun, ...]
    machines: tuple[Machine, ...]
    versions: dict[str, str]
    files: dict[str, FileEntry]
    digest: str = ""

    def sealed(self) -> Published:
        """The same with its `digest` filled in."""
        return self.model_copy(update={"digest": self._digest()})

    def _digest(self) -> str:
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"digest"}))).hexdigest()

    def text(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def read(file: Path) -> Published:
    """A manifest; BadInput when it is not one of ours or has changed."""
    where = f"{file.parent.name}/{file.name}"
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BadInput(f"{where} has over {MAX_BYTES} bytes")
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{where}: no such file, so the folder is none of `rlheals publish`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{where} cannot be read ({str(error)[:80]})") from None
    found = validated(Published, data, where)
    if found.digest != found._digest():
        raise BadInput(f"{where} does not match its own digest")
    return found


def check(folder: Path) -> Published:
    """The manifest of a folder of which every file is there, unchanged, and no other; BadInput names the first that is
    not. What a hub adds is left aside; links that a hub's cache makes are followed."""
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r}: no such folder")
    with told("read the published folder", folder):
        manifest, found = read(folder / MANIFEST), _files(folder)
        wrong = [f"{name} is missing" for name in manifest.files.keys() - found.keys()]
        wrong += [
            f"{name} is not in the manifest" for name in found.keys() - manifest.files.keys() - {MANIFEST}
        ]
        wrong += [
            f"{name} has changed"
            for name, entry in manifest.files.items()
            if name in found and digest_of(found[name]) != entry
        ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInput(f"{folder.name}: {min(wrong)}{more}")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    """Every file below by its relative name."""

    def fail(error: OSError) -> None:
        raise error

    found = {}
    for here, folders, names in os.walk(folder, onerror=fail):
        if Path(here) == folder:
            folders[:] = [name for name in folders if name not in OF_THE_HUB]
            names = [name for name in names if name not in OF_THE_HUB]
        for name in [*names, *(name for name in folders if Path(here, name).is_symlink())]:
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
                raise BadInput(f"{folder.name}: {relative!r:.80} is neither a file nor a folder")
            found[relative] = path
    return found


def rows_of(folder: Path, census: RecordedCensus) -> pd.DataFrame:
    """The recorded episodes of a census; BadInput when the table is none of ours."""
    try:
        rows = pd.read_parquet(folder / census.table)
        for column, value in census.where.items():
            rows = rows[rows[column] == value]
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0][:80]
        raise BadInput(f"{folder.name}: {census.table!r:.80} cannot be read ({reason})") from None
    return rows


def play_again(folder: Path, name: str) -> list[dict[str, Any]]:
    """Let a checkpoint of a folder that was checked play its censuses anew: of each how many episodes are not the same.

    On a processor of another kind the last bits of a product may differ, and with them a few sampled answers.
    """
    from rlheals.study import tables
    from rlheals.study.evaluate_folder import evaluate_folder

    manifest = check(folder)
    if name not in manifest.checkpoints:
        accepted = ", ".join(manifest.checkpoints)
        raise BadInput(f"--again {name!r:.60}: not in {folder.name}; accepted: {accepted}")
    censuses = manifest.checkpoints[name].censuses
    if not censuses:
        raise BadInput(f"--again {name}: this checkpoint was not evaluated, so there is nothing to compare")
    profile, columns = load_profile(folder / SETTINGS), list(tables.EPISODE_COLUMNS)
    done = []
    for census in censuses:
        if census.table not in manifest.files:
            raise BadInput(f"{folder.name}: {census.table!r:.80} is not in the manifest")
        recorded = rows_of(folder, census)
        if not {*columns} <= {*recorded} or not recorded["item"].is_unique:
            raise BadInput(
                f"{folder.name}: {census.table} is not a table of episodes, one row per hand and decode"
            )
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch, "made")
            evaluate_folder(folder / CHECKPOINTS / name, profile, census.seed, {}, made)
            fresh, _ = tables.census(made)
        theirs, mine = (frame.reindex(columns=list(fresh)).astype(str) for frame in (recorded, fresh))
        theirs, mine = theirs.set_index("item"), mine.set_index("item")
        items = theirs.index.union(mine.index)
        same = (theirs.reindex(items) == mine.reindex(items)).all(axis=1)  # a missing one equals nothing
        done.append({"decode": census.decode, "episodes": len(items), "different": int((~same).sum())})
    return done
