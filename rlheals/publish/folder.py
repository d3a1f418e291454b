"""A published folder as others get it: its manifest, whether every byte is the same, whether a model plays the same.

README.md           the model card
settings.yaml       the profile; `rlheals ... --profile FOLDER/settings.yaml` reads it
checkpoints/NAME/   models, each for transformers' `from_pretrained`
results/            the tables, as `rlheals study --record` writes them
spectra/PAIR/       singular values and vectors of two checkpoints, where they were measured
manifest.json       that of a recorded base seed, with the sha256 of every file and the checkpoints; written last
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.settings import Settings, validated
from rlheals.store.files import read_json, told
from rlheals.store.foreign import read_table
from rlheals.store.runs import MANIFEST, MAX_MANIFEST_BYTES, Hash, digest_of
from rlheals.study import tables
from rlheals.study.record import Recorded, manifest_digest
from rlheals.study.single import evaluate_folder
from rlheals.weights.adapter import refuse_adapter

CARD, SETTINGS = "README.md", "settings.yaml"
CHECKPOINTS, RESULTS, SPECTRA = "checkpoints", "results", "spectra"
OF_THE_HUB = (".gitattributes", ".git", ".cache")
"""What a hub or its client adds beside the files."""
KINDS = (".json", ".jinja", ".md", ".model", ".parquet", ".safetensors", ".txt", ".yaml")
"""Endings of the files that belong in a published folder; nothing that runs is among them."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]


class RecordedCensus(Settings):
    """An evaluation of a checkpoint: the seed of its sampling noise, and its rows in a table of the folder."""

    decode: int
    seed: int
    table: str
    where: dict[str, int | str]


class Checkpoint(Settings):
    """A model of the folder: the run that made it, and its evaluations."""

    run: Hash
    about: str
    censuses: tuple[RecordedCensus, ...] = ()

    def rows(self, folder: Path) -> pd.DataFrame:
        """The episodes of all its evaluations."""
        return pd.concat([rows_of(folder, census) for census in self.censuses], ignore_index=True)


class Published(Recorded):
    """The manifest of a published folder: that of its recorded base seed, and what more there is.

    absent: what the folder lacks, in sentences.
    """

    checkpoints: dict[Name, Checkpoint]
    absent: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the profile."""
        return str(self.profile["name"])


def read(file: Path) -> Published:
    """A manifest; BadInput when it is not one of ours or has changed."""
    where = f"{file.parent.name}/{file.name}"
    if not file.exists():
        raise BadInput(f"{where}: no such file, so the folder is none of `rlheals publish`")
    try:
        data = read_json(file.resolve(), MAX_MANIFEST_BYTES)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    found = validated(Published, data, where)
    if found.digest != manifest_digest(data):
        raise BadInput(f"{where} does not match its own digest")
    return found


def check(folder: Path) -> Published:
    """The manifest of a folder of which every file is there, unchanged, of a kind that belongs there, and no other;
    BadInput names the first that is not. What a hub adds is left aside; links that a hub's cache makes are followed.
    """
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r}: no such folder")
    with told("read the published folder", folder):
        manifest, found = read(folder / MANIFEST), _hashes(folder)
    named = {**manifest.files, MANIFEST: found[MANIFEST]}
    if wrong := sorted(name for name in {**named, **found} if named.get(name) != found.get(name)):
        name, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        how = "has changed" if name in found else "is missing"
        raise BadInput(f"{folder.name}: {name} {how if name in named else 'is not in the manifest'}{more}")
    if strange := [name for name in named if not name.endswith(KINDS)]:
        raise BadInput(f"{folder.name}: {strange[0]} does not belong there; accepted: {', '.join(KINDS)}")
    for name in manifest.checkpoints:
        refuse_adapter(folder / CHECKPOINTS / name)
    return manifest


def _hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file below, by its relative name."""
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if relative.parts[0] in OF_THE_HUB:
            continue
        if path.is_file():
            found[relative.as_posix()] = digest_of(path).sha256
        elif path.is_symlink() or not path.is_dir():
            raise BadInput(f"{folder.name}: {relative.as_posix()!r:.80} is neither a file nor a folder")
    return found


def rows_of(folder: Path, census: RecordedCensus) -> pd.DataFrame:
    """The recorded episodes of an evaluation; BadInput when the table is none of ours."""
    try:
        rows = read_table((folder / census.table).resolve())
    except BadInput as error:
        raise BadInput(f"{folder.name}: {census.table!r:.80}: {error}") from None
    for column, value in census.where.items():
        if column not in rows:
            raise BadInput(f"{folder.name}: {census.table!r:.80} has no column {column!r:.40}")
        rows = rows[rows[column] == value]
    return rows


def look(folder: Path, again: str | None = None) -> dict[str, Any]:
    """Check a published folder; with `again` evaluate that checkpoint again."""
    made = check(folder)
    played = [] if again is None else _play_again(folder, made, again)
    return {
        "folder": str(folder),
        "profile": made.name,
        "seed": made.seed,
        "files": len(made.files) + 1,
        "not_read": [name for name in OF_THE_HUB if (folder / name).exists()],
        "checkpoints": list(made.checkpoints),
        "again": played,
        "ok": not any(one["different"] for one in played),
    }


def _play_again(folder: Path, made: Published, name: str) -> list[dict[str, Any]]:
    """Evaluate a checkpoint of a folder anew: of each recorded evaluation how many episodes are not the same.

    On a processor of another kind the last bits of a product may differ, and with them a few sampled answers.
    """
    if name not in made.checkpoints:
        accepted = ", ".join(made.checkpoints)
        raise BadInput(f"--again {name!r:.60}: not in {folder.name}; accepted: {accepted}")
    if not made.checkpoints[name].censuses:
        raise BadInput(f"--again {name}: this checkpoint was not evaluated, so there is nothing to compare")
    profile, done = load_profile(folder / SETTINGS), []
    for census in made.checkpoints[name].censuses:
        if census.table not in made.files:
            raise BadInput(f"{folder.name}: {census.table!r:.80} is not in the manifest")
        theirs = rows_of(folder, census)
        if not {*tables.EPISODE_COLUMNS} <= {*theirs} or not theirs["item"].is_unique:
            wanted = "a table of episodes, one row per hand and sampling seed"
            raise BadInput(f"{folder.name}: {census.table} is not {wanted}")
        with tempfile.TemporaryDirectory() as scratch:
            evaluate_folder(folder / CHECKPOINTS / name, profile, census.seed, {}, Path(scratch, "made"))
            mine, _ = tables.census(Path(scratch, "made"))
        theirs = theirs.reindex(columns=list(mine)).astype(str)
        compared = mine.astype(str).merge(theirs, how="outer", indicator="of")
        different = compared.loc[compared["of"] != "both", "item"].nunique()
        done.append({"decode": census.decode, "episodes": compared["item"].nunique(), "different": different})
    return done
