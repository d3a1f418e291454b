"""A published folder as others get it: its manifest, whether every byte is the same, whether a model plays the same.

README.md           the model card
settings.yaml       the profile; `rlheals ... --profile FOLDER/settings.yaml` reads it
checkpoints/NAME/   models, each for transformers' `from_pretrained`
results/            the tables, as `rlheals study --record` writes them
spectra/PAIR/       singular values and vectors of two checkpoints, where they were measured
manifest.json       that of a recorded base seed, with the sha256 of every file and the checkpoints; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.settings import validated
from rlheals.store.files import told
from rlheals.store.runs import Hash, canonical_json, digest_of
from rlheals.study.record import MANIFEST, Recorded

CARD, SETTINGS = "README.md", "settings.yaml"
CHECKPOINTS, RESULTS, SPECTRA = "checkpoints", "results", "spectra"
OF_THE_HUB = (".gitattributes", ".git", ".cache")
"""What a hub or its client adds beside the files."""
MAX_BYTES = 16 << 20
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]


class RecordedCensus(BaseModel):
    """An evaluation of a checkpoint: the seed of its sampling noise, and its rows in a table of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode: int
    seed: int
    table: str
    where: dict[str, int | str]


class Checkpoint(BaseModel):
    """A model of the folder: the run that made it, and its evaluations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Hash
    about: str
    censuses: tuple[RecordedCensus, ...] = ()

    def rows(self, folder: Path) -> pd.DataFrame:
        """The episodes of all its evaluations."""
        return pd.concat([rows_of(folder, census) for census in self.censuses], ignore_index=True)


class Published(Recorded):
    """The manifest of a published folder: that of its recorded base seed, and what more there is.

    absent: what the folder lacks, in sentences; digest: sha256 over every other field.
    """

    checkpoints: dict[Name, Checkpoint]
    absent: tuple[str, ...]
    digest: str = ""

    @property
    def name(self) -> str:
        """Of the profile."""
        return str(self.profile["name"])

    def sealed(self) -> Published:
        """The same with its `digest` filled in."""
        data = canonical_json(self.model_dump(mode="json", exclude={"digest"}))
        return self.model_copy(update={"digest": hashlib.sha256(data).hexdigest()})

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
    if found != found.sealed():
        raise BadInput(f"{where} does not match its own digest")
    return found


def check(folder: Path) -> Published:
    """The manifest of a folder of which every file is there, unchanged, and no other; BadInput names the first that is
    not. What a hub adds is left aside; links that a hub's cache makes are followed."""
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r}: no such folder")
    with told("read the published folder", folder):
        manifest, found = read(folder / MANIFEST), _files(folder)
        named = manifest.files.keys()
        wrong = [f"{name} is missing" for name in named - found.keys()]
        wrong += [f"{name} is not in the manifest" for name in found.keys() - named - {MANIFEST}]
        changed = [
            name for name in named & found.keys() if digest_of(found[name]).sha256 != manifest.files[name]
        ]
        wrong += [f"{name} has changed" for name in changed]
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
    """The recorded episodes of an evaluation; BadInput when the table is none of ours."""
    try:
        rows = pd.read_parquet(folder / census.table)
        for column, value in census.where.items():
            rows = rows[rows[column] == value]
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0][:80]
        raise BadInput(f"{folder.name}: {census.table!r:.80} cannot be read ({reason})") from None
    return rows


def look(folder: Path, again: str | None) -> dict[str, Any]:
    """Check a published folder; with `again` evaluate that checkpoint again."""
    made = check(folder)
    played = [] if again is None else play_again(folder, again)
    return {
        "folder": str(folder),
        "profile": made.name,
        "seed": made.seed,
        "files": len(made.files) + 1,
        "checkpoints": list(made.checkpoints),
        "again": played,
        "ok": not any(one["different"] for one in played),
    }


def play_again(folder: Path, name: str) -> list[dict[str, Any]]:
    """Evaluate a checkpoint of a folder anew: of each recorded evaluation how many episodes are not the same.

    On a processor of another kind the last bits of a product may differ, and with them a few sampled answers.
    """
    from rlheals.study import tables
    from rlheals.study.single import evaluate_folder

    manifest = check(folder)
    if name not in manifest.checkpoints:
        accepted = ", ".join(manifest.checkpoints)
        raise BadInput(f"--again {name!r:.60}: not in {folder.name}; accepted: {accepted}")
    censuses = manifest.checkpoints[name].censuses
    if not censuses:
        raise BadInput(f"--again {name}: this checkpoint was not evaluated, so there is nothing to compare")
    profile, columns, done = load_profile(folder / SETTINGS), list(tables.EPISODE_COLUMNS), []
    for census in censuses:
        if census.table not in manifest.files:
            raise BadInput(f"{folder.name}: {census.table!r:.80} is not in the manifest")
        recorded = rows_of(folder, census)
        if not {*columns} <= {*recorded} or not recorded["item"].is_unique:
            wanted = "a table of episodes, one row per hand and sampling seed"
            raise BadInput(f"{folder.name}: {census.table} is not {wanted}")
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
