"""Does today's code give the recorded numbers again, bit for bit? A slice of a base seed is computed anew and compared.

Each chapter says what its slice is (`Chapter.slice_of`). Slices that agreed are noted in `results/replays.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rlheals.chapters.base import Chapter
from rlheals.chapters.registry import CHAPTERS
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.store.files import atomic_write, whole
from rlheals.store.foreign import read_table
from rlheals.store.machine import this_machine
from rlheals.store.stages import code_behind
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.compute import compute
from rlheals.study.record import Recorded

FILE = "replays.json"
MADE = "made.json"
SAME_MACHINE = "tables that the code of made_by gave on the machine of the replay"


class Replay(BaseModel):
    """A slice of a recorded study that today's code gave again, value by value.

    against: what was compared with, where it is not the recorded tables.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    seed: int
    steps: tuple[int, ...]
    compared: int
    made_by: dict[str, str]
    replayed_by: dict[str, str]
    machine: dict[str, Any]
    against: str = ""


class Made(BaseModel):
    """What tables of `write_tables` are of, and the code hash of each stage behind them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    seed: int
    code: dict[str, str]


@dataclass(frozen=True)
class Computed:
    """A slice of a recorded seed computed anew: rows recorded and rows of today, by table; code hash by stage."""

    steps: tuple[int, ...]
    recorded: dict[str, pd.DataFrame]
    again: dict[str, pd.DataFrame]
    made_by: dict[str, str]
    code: dict[str, str]


def _computed(folder: Path, seed: int, store: Store, workers: int) -> Computed:
    chapter = chapter_of(folder.name)
    place = folder / f"seed-{seed}{chapter.SLICED}"
    manifest = record.read_manifest(place)
    profile = validated(Profile, manifest.profile, f"results {folder.name}: profile")
    chosen = chapter.slice_of(tables.read(place, chapter.PART.kind), profile, seed, store)
    runs = compute(chosen.plan.specs(), store, workers)
    found = chapter.PART.collect([chosen.plan], store)
    again = {name: getattr(found, name)[list(frame.columns)] for name, frame in chosen.recorded.items()}
    code = {run.manifest.stage: code_behind(run.manifest.stage, manifest.profile).hash for run in runs}
    return Computed(chosen.steps, chosen.recorded, again, manifest.code(), code)


def replay(
    folder: Path,
    seed: int,
    store: Store,
    workers: int = 1,
    against: Path | None = None,
) -> Replay:
    """Compute a slice of a recorded seed anew; note it, with the stages it has runs of, when all values agree.

    against: a folder of `write_tables`, to compare with instead of the recorded tables: on another processor, which may
    give other last bits, old and new code are compared with each other.
    Raises BadInput when a value differs, and when `against` holds something else.
    """
    kept = None if against is None else _read_tables(against, folder.name, seed)
    found = _computed(folder, seed, store, workers)
    before, made_by = (found.recorded, found.made_by) if kept is None else kept
    compared = agree({name: (before[name], frame) for name, frame in found.again.items()})
    done = Replay(
        study=folder.name,
        seed=seed,
        steps=found.steps,
        compared=compared,
        made_by=made_by,
        replayed_by={stage: code for stage, code in found.code.items() if stage in made_by},
        machine=this_machine().model_dump(mode="json"),
        against="" if kept is None else SAME_MACHINE,
    )
    # notes of code in between stay: what was recorded with that code needs them
    known = [one for one in read(folder.parent) if _place(one) != _place(done)]
    notes = [one.model_dump(mode="json", exclude_defaults=True) for one in [*known, done]]
    atomic_write(folder.parent / FILE, json.dumps(notes, indent=1) + "\n")
    return done


def write_tables(folder: Path, seed: int, store: Store, out: Path, workers: int = 1) -> Made:
    """Compute a slice of a recorded seed anew and write its tables into a new folder, for `replay(against=...)`."""
    if out.exists():
        raise BadInput(f"--tables {str(out)!r}: is already there; accepted: a new folder")
    found = _computed(folder, seed, store, workers)
    made = Made(study=folder.name, seed=seed, code=found.code)
    with whole(out) as place:
        for name, frame in found.again.items():
            frame.to_parquet(place / f"{name}.parquet", index=False)
        (place / MADE).write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return made


def _read_tables(folder: Path, study: str, seed: int) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """What `write_tables` wrote, by table, and the code behind it."""
    try:
        made = Made.model_validate_json((folder / MADE).read_bytes())
        frames = {file.stem: read_table(file) for file in sorted(folder.glob("*.parquet"))}
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:80]
        raise BadInput(f"--against {str(folder)!r}: holds no tables of a replay ({reason})") from None
    if (made.study, made.seed) != (study, seed):
        raise BadInput(f"--against {str(folder)!r}: holds tables of {made.study} seed {made.seed}")
    return frames, made.code


def chapter_of(study: str) -> type[Chapter[Any]]:
    """The chapter of a recorded study, by the name of its folder."""
    first, *later = CHAPTERS.values()
    return next((one.chapter for one in later if study.endswith(one.part.suffix)), first.chapter)


def _place(note: Replay) -> tuple[Any, ...]:
    """What only one note is kept of: the two codes as well where tables of a replay were compared."""
    return note.study, note.seed, note.replayed_by, note.made_by if note.against else None


def agree(slices: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> int:
    """How many values were compared; BadInput names the first table that differs."""
    for name, (before, after) in slices.items():
        before, after = _plain(before), _plain(after)
        if len(before) != len(after):
            raise BadInput(f"replay: {name} has {len(after)} rows, {len(before)} were recorded")
        if different := [column for column in before if not before[column].equals(after[column])]:
            count = int((before[different[0]] != after[different[0]]).sum())
            raise BadInput(f"replay: {name}.{different[0]} differs in {count} of {len(before)} rows")
    return sum(before.size for before, _ in slices.values())


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, categories as text."""
    texts = frame.select_dtypes(include=["category", "object", "str"]).columns
    plain = frame.astype(dict.fromkeys(texts, str))
    return plain.sort_values(list(plain.columns)).reset_index(drop=True)


def read(results: Path) -> list[Replay]:
    """The replays noted beside the recorded studies; none is fine."""
    file = results / FILE
    if not file.is_file():
        return []
    try:
        return TypeAdapter(list[Replay]).validate_json(file.read_bytes())
    except (ValidationError, OSError) as error:
        raise BadInput(f"results: {FILE} cannot be read ({str(error).splitlines()[0][:80]})") from None


def stale_stages(manifest: Recorded, replays: list[Replay]) -> list[str]:
    """Stages whose code is neither the one that made these numbers nor one that gave a slice of them again.

    "Gave the same numbers" is an equivalence: notes are followed in both directions and in any order.
    """

    def same(stage: str, made_by: str) -> bool:
        pairs = [
            {one.made_by[stage], one.replayed_by[stage]}
            for one in replays
            if stage in one.replayed_by and stage in one.made_by
        ]
        alike, size = {made_by}, 0
        while len(alike) > size:
            size = len(alike)
            alike = alike.union(*(pair for pair in pairs if pair & alike))
        return code_behind(stage, manifest.profile).hash in alike

    return sorted(stage for stage, made_by in manifest.code().items() if not same(stage, made_by))
