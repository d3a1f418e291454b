"""What a replay computes anew of a recorded base seed, by study: enough runs that every stage it is about is there.

Of SFT: base, SFT and two censuses. Of RL: these and the first RL run from the start in the middle of its ladder, with a
census before and after. Of spectra: base, SFT, the trajectory of SFT and the pair from its peak to its end. Of edits:
base, SFT, one edit of the late checkpoint, and a census of it. Of protected SFT: base, one protected run, and a census.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

import pandas as pd

from rlheals import protected, protection, recovery, rotation, swaps, tables
from rlheals.profile import Profile
from rlheals.protection import ProtectionTables
from rlheals.recovery import MAIN, Cell, RecoveryTables
from rlheals.rotation import SFT, RotationTables
from rlheals.runs import RunSpec
from rlheals.store import Store
from rlheals.study import Plan, plan
from rlheals.swaps import SwapTables
from rlheals.tables import Tables

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
