"""Replays: when code behind the recorded study has changed, computing a slice of it anew shows whether it matters.

A replay that agrees in every value is noted in `results/replays.json` as "old code and new code give the same"; the
study then counts as made by today's code. One that differs is an error, and the study stays stale.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rlheals import record, replay_slices
from rlheals.atomic import atomic_write
from rlheals.computing import compute
from rlheals.errors import BadInput
from rlheals.machine import this_machine
from rlheals.profile import Profile
from rlheals.record import Recorded
from rlheals.settings import validated
from rlheals.sources import code_hash
from rlheals.stages import module_of
from rlheals.store import Store

FILE = "replays.json"


class Replay(BaseModel):
    """A slice of a recorded study that today's code gave again, value by value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    seed: int
    steps: tuple[int, ...]
    compared: int
    made_by: dict[str, str]
    replayed_by: dict[str, str]
    machine: dict[str, Any]


def replay(
    folder: Path, seed: int, store: Store, workers: int = 1, say: Callable[[str], object] = print
) -> Replay:
    """Compute a slice of a recorded seed anew; note it in `replays.json` when all values agree.

    What a slice is, `replay_slices.py` says. Stages that the slice has no run of are not noted.

    Raises BadInput when a value differs (another processor may change last bits and with them a few answers).
    """
    cut = replay_slices.of(folder.name)
    place = folder / f"seed-{seed}{cut.unit}"
    manifest = record.read_manifest(place)
    chosen = cut.make(
        place, validated(Profile, manifest.profile, f"results {folder.name}: profile"), seed, store
    )
    compute(chosen.specs, store, workers)
    compared = agree(chosen.tables())
    done = Replay(
        study=folder.name,
        seed=seed,
        steps=chosen.steps,
        compared=compared,
        made_by=manifest.code(),
        replayed_by={
            stage: code_hash(module_of(stage))
            for stage in manifest.code()
            if stage in {spec.stage for spec in chosen.specs}
        },
        machine=this_machine().model_dump(mode="json"),
    )
    # notes of code in between stay: what was recorded with that code needs them
    known = [one for one in read(folder.parent) if _place(one) != _place(done)]
    text = json.dumps([one.model_dump(mode="json") for one in [*known, done]], indent=1)
    atomic_write(folder.parent / FILE, text + "\n")
    say(f"replayed {folder.name} seed {seed}: {compared:,} values agree")
    return done


def _place(note: Replay) -> tuple[str, int, dict[str, str]]:
    return note.study, note.seed, note.replayed_by


def agree(slices: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> int:
    """How many values were compared; BadInput names the first table that differs."""
    for name, (before, after) in slices.items():
        before, after = _plain(before), _plain(after[list(before.columns)])
        if len(before) != len(after):
            raise BadInput(f"replay: {name} has {len(after)} rows, {len(before)} were recorded")
        if different := [column for column in before if not before[column].equals(after[column])]:
            count = int((before[different[0]] != after[different[0]]).sum())
            raise BadInput(f"replay: {name}.{different[0]} differs in {count} of {len(before)} rows")
    return sum(before.size for before, _ in slices.values())


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

    Replays follow on each other: where A's numbers came again with B, and B's with C, C counts for A. The same numbers
    are the same whichever came first: where A's came again with B and with C, C counts for B as well.
    """

    def same(stage: str, made_by: str) -> bool:
        pairs = [{one.made_by[stage], one.replayed_by[stage]} for one in replays if stage in one.replayed_by]
        alike, size = {made_by}, 0
        while len(alike) > size:
            size = len(alike)
            alike = alike.union(*(pair for pair in pairs if pair & alike))
        return code_hash(module_of(stage)) in alike

    return sorted(stage for stage, made_by in manifest.code().items() if not same(stage, made_by))


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, categories as text."""
    texts = frame.select_dtypes(include=["category", "object", "str"]).columns
    plain = frame.astype(dict.fromkeys(texts, str))
    return plain.sort_values(list(plain.columns)).reset_index(drop=True)
