"""What a replay computes anew of a recorded base seed, by study: enough runs that every stage it is about is there.

Of SFT: base, SFT and two censuses. Of RL: these and the first RL run from the middle one of its start checkpoints,
with a census before and after. Of spectra: base, SFT, the trajectory of SFT and the pair from its peak to its end. Of
edits: base, SFT, one edit of the late checkpoint, and a census of it. Of protected SFT: base, one protected run, and a
census.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rlheals.chapters.edits import runs as swaps
from rlheals.chapters.edits.runs import SwapTables
from rlheals.chapters.protected import runs as protection
from rlheals.chapters.protected.runs import ProtectionTables
from rlheals.chapters.rl import runs as recovery
from rlheals.chapters.rl.runs import MAIN, Cell, RecoveryTables
from rlheals.chapters.spectra import runs as rotation
from rlheals.chapters.spectra.runs import SFT, RotationTables
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.store.files import atomic_write
from rlheals.store.machine import this_machine
from rlheals.store.runs import RunSpec
from rlheals.store.stages import code_behind
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.compute import compute
from rlheals.study.plan import Plan, plan
from rlheals.study.record import Recorded
from rlheals.study.tables import Tables
from rlheals.training import protected

PAIR = "peak-end"
OF_THE_MACHINE = ("seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb")


@dataclass(frozen=True)
class Slice:
    """What is computed anew of one recorded seed: the runs, and afterwards the tables to compare, recorded and new."""

    steps: tuple[int, ...]
    specs: Sequence[RunSpec]
    tables: Callable[[], dict[str, tuple[pd.DataFrame, pd.DataFrame]]]


@dataclass(frozen=True)
class Cut:
    """How a study is cut. unit: what follows seed-N in the name of the folder it is cut from."""

    make: Callable[[Path, Profile, int, Store], Slice]
    unit: str = ""


def of(study: str) -> Cut:
    """That of a recorded study, by the name of its folder."""
    return next((cut for suffix, cut in CUTS.items() if study.endswith(suffix)), Cut(_of_sft))


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
        pairs={PAIR: whole.pairs[PAIR]},
    )

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again, found = rotation.collect([part], store), {}
        for name in ("angles", "changes", "values", "curves", "heat", "path", "behaviour"):
            before = getattr(recorded, name)
            kept = before["pair"] == PAIR if "pair" in before else before["branch"] == SFT
            found[name] = (before[kept], getattr(again, name))
        return found

    return Slice((peak,), part.specs(), compared)


def _of_edits(place: Path, profile: Profile, seed: int, store: Store) -> Slice:
    recorded = tables.read(place, SwapTables)
    peak = int(recorded.peaks["peak"].iloc[0])
    whole = swaps.plan(profile, seed, store, {seed: peak})
    chosen = next(
        (swap for swap in whole.edited if swap.kind == "restore" and swap.edit.startswith("directions(top=")),
        next(iter(whole.edited)),
    )
    part = replace(
        whole,
        edited={chosen: whole.edited[chosen]},
        censuses={(chosen, 0): whole.censuses[chosen, 0]},
    )
    specs = [part.before.base, part.before.sft, *part.edited.values(), *part.censuses.values()]

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again, found = swaps.collect([part], store), {}
        for name in ("effects", "sizes"):
            before = getattr(recorded, name)
            kept = (before[list(vars(chosen))].astype(str) == pd.Series(vars(chosen))).all(axis=1)
            if "decode" in before:
                kept &= before["decode"] == 0
            found[name] = (before[kept], getattr(again, name))
        return found

    return Slice((peak,), specs, compared)


def _of_protection(place: Path, profile: Profile, seed: int, store: Store) -> Slice:
    recorded = tables.read(place, ProtectionTables)
    whole = protection.plan(profile, seed, store)
    way = next(way for way in whole.trained if way.partition("=")[0] in get_args(protected.Kind))
    step = max(step for _, step, _ in whole.censuses)
    part = replace(
        whole, trained={way: whole.trained[way]}, censuses={(way, step, 0): whole.censuses[way, step, 0]}
    )

    def compared() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        again, before = protection.collect([part], store), recorded.accuracy
        kept = (before["way"] == way) & (before["step"] == step) & (before["decode"] == 0)
        return {
            "accuracy": (before[kept], again.accuracy),
            "penalties": (recorded.penalties[recorded.penalties["way"] == way], again.penalties),
        }

    return Slice((step,), part.specs(), compared)


CUTS = {
    recovery.STUDY.suffix: Cut(_of_rl, "-run-0"),
    rotation.STUDY.suffix: Cut(_of_spectra),
    swaps.STUDY.suffix: Cut(_of_edits),
    protection.STUDY.suffix: Cut(_of_protection),
}

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
    cut = of(folder.name)
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
            stage: code_behind(stage, manifest.profile).hash
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
        return code_behind(stage, manifest.profile).hash in alike

    return sorted(stage for stage, made_by in manifest.code().items() if not same(stage, made_by))


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, categories as text."""
    texts = frame.select_dtypes(include=["category", "object", "str"]).columns
    plain = frame.astype(dict.fromkeys(texts, str))
    return plain.sort_values(list(plain.columns)).reset_index(drop=True)
