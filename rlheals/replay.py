"""Replays: when code behind the recorded study has changed, computing a slice of it anew shows whether it matters.

A replay that agrees in every value is noted in `results/replays.json` as "old code and new code give the same"; the
study then counts as made by today's code. One that differs is an error, and the study stays stale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rlheals import record, recovery, rotation, tables
from rlheals.atomic import atomic_write
from rlheals.errors import BadInput
from rlheals.machine import this_machine
from rlheals.profiles import Profile, validated
from rlheals.record import Recorded
from rlheals.recovery import MAIN, Cell, RecoveryTables
from rlheals.rotation import SFT, RotationTables
from rlheals.runs import RunSpec
from rlheals.sources import code_hash
from rlheals.store import Store
from rlheals.study import Plan, compute, plan
from rlheals.tables import Tables

FILE = "replays.json"
RL_SUFFIX, SPECTRA_SUFFIX = recovery.STUDY.suffix, rotation.STUDY.suffix
SLICE_PAIR = "peak-end"
OF_THE_MACHINE = ("seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb")


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


@dataclass(frozen=True)
class Slice:
    """What is computed anew of one recorded seed: the runs, and afterwards the tables to compare, recorded and new."""

    steps: tuple[int, ...]
    specs: Sequence[RunSpec]
    tables: Callable[[], dict[str, tuple[pd.DataFrame, pd.DataFrame]]]


def replay(
    folder: Path, seed: int, store: Store, workers: int = 1, say: Callable[[str], object] = print
) -> Replay:
    """Compute a slice of a recorded seed anew; note it in `replays.json` when all values agree.

    Of an SFT study: base, SFT and two censuses. Of an RL study: these and the first RL run from the start in the
    middle of its ladder, with a census before and after. Of a spectra study: base, SFT, the trajectory of SFT and the
    pair from its peak to its end. Stages that the slice has no run of are not noted.

    Raises BadInput when a value differs (another processor may change last bits and with them a few answers).
    """
    kinds = {RL_SUFFIX: _of_rl, SPECTRA_SUFFIX: _of_spectra}
    cut = next((one for suffix, one in kinds.items() if folder.name.endswith(suffix)), _of_sft)
    place = folder / f"seed-{seed}{'-run-0' if cut is _of_rl else ''}"
    manifest = record.read_manifest(place)
    chosen = cut(place, validated(Profile, manifest.profile, f"results {folder.name}: profile"), seed, store)
    compute(chosen.specs, store, workers)
    compared = agree(chosen.tables())
    done = Replay(
        study=folder.name,
        seed=seed,
        steps=chosen.steps,
        compared=compared,
        made_by=manifest.code(),
        replayed_by={
            stage: code_hash(f"rlheals.{stage}")
            for stage in manifest.code()
            if stage in {spec.stage for spec in chosen.specs}
        },
        machine=this_machine().model_dump(mode="json"),
    )
    known = [one for one in read(folder.parent) if (one.study, one.seed) != (done.study, done.seed)]
    text = json.dumps([one.model_dump(mode="json") for one in [*known, done]], indent=1)
    atomic_write(folder.parent / FILE, text + "\n")
    say(f"replayed {folder.name} seed {seed}: {compared:,} values agree")
    return done


def _of_sft(place: Path, profile: Profile, seed: int, store: Store) -> Slice:
    chosen, recorded = plan(profile, seed, store), tables.read(place, Tables)
    steps = sorted({recorded.steps[len(recorded.steps) // 2], recorded.steps[-1]})
    part = Plan(seed, chosen.base, chosen.sft, {(step, 0): chosen.censuses[step, 0] for step in steps}, {})

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again = tables.collect([part], store)
        kept = recorded.episodes["step"].isin(steps) & (recorded.episodes["decode"] == 0)
        return {
            "bases": (recorded.bases, again.bases),
            "losses": (recorded.losses, again.losses),
            "episodes": (recorded.episodes[kept], again.episodes),
        }

    return Slice(tuple(steps), part.specs(), compared)


def _of_rl(place: Path, profile: Profile, seed: int, store: Store) -> Slice:
    whole, recorded = recovery.plan(profile, seed, store, 0), tables.read(place, RecoveryTables)
    start = recorded.starts[len(recorded.starts) // 2]
    cells = [Cell(MAIN, start, -1), Cell(MAIN, start, 0)]
    part = replace(
        whole,
        runs={cell: spec for cell, spec in whole.runs.items() if cell in cells},
        censuses={at: spec for at, spec in whole.censuses.items() if at[0] in cells and at[1] == 0},
    )

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again, found = recovery.collect([part], store), {}
        for field in fields(RecoveryTables):
            before, after = getattr(recorded, field.name), getattr(again, field.name)
            kept = before["start"] == start
            if "decode" in before:
                kept &= before["decode"] == 0
            measured = [column for column in before if column not in OF_THE_MACHINE]
            found[field.name] = (before.loc[kept, measured], after)
        return found

    return Slice((start,), part.specs(), compared)


def _of_spectra(place: Path, profile: Profile, seed: int, store: Store) -> Slice:
    recorded = tables.read(place, RotationTables)
    peak = int(recorded.peaks["peak"].iloc[0])
    whole = rotation.plan(profile, seed, store, {seed: peak})
    part = replace(
        whole,
        trained={(SFT, -1): whole.trained[SFT, -1]},
        censuses={},
        trajectories={(SFT, -1): whole.trajectories[SFT, -1]},
        pairs={SLICE_PAIR: whole.pairs[SLICE_PAIR]},
    )

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again, found = rotation.collect([part], store), {}
        for name in ("angles", "changes", "values", "curves", "heat", "path", "behaviour"):
            before = getattr(recorded, name)
            kept = before["pair"] == SLICE_PAIR if "pair" in before else before["branch"] == SFT
            found[name] = (before[kept], getattr(again, name))
        return found

    return Slice((peak,), part.specs(), compared)


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

    Replays follow on each other: where A's numbers came again with B, and B's with C, C counts for A.
    """

    def same(stage: str, made_by: str) -> bool:
        steps = [(one.made_by.get(stage), one.replayed_by.get(stage)) for one in replays]
        alike, fresh = {made_by}, {made_by}
        while fresh:
            fresh = {new for old, new in steps if old in fresh and new is not None} - alike
            alike |= fresh
        return code_hash(f"rlheals.{stage}") in alike

    return sorted(stage for stage, made_by in manifest.code().items() if not same(stage, made_by))


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, categories as text."""
    texts = frame.select_dtypes(include=["category", "object", "str"]).columns
    plain = frame.astype(dict.fromkeys(texts, str))
    return plain.sort_values(list(plain.columns)).reset_index(drop=True)
