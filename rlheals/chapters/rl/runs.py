"""The runs of chapter 02, and their tables: RL from several SFT checkpoints, censuses before and after, controls.

The study is computed and recorded in units: one RL seed of one base seed (`run-0`, `run-1`, ...), and the controls of
one base seed. Censuses of a start and of what RL makes of it share their sampling noise, hand by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from rlheals.chapters.base import Chapter
from rlheals.profiles.profile import Profile
from rlheals.profiles.sections import CONTROLS, LATE
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.plan import Plan, census_spec
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part, Seeded, Tables
from rlheals.training import sft
from rlheals.training.rl.settings import checkpoint_name as rl_checkpoint

MAIN = "main"
Unit = int | Literal["controls"]


@dataclass(frozen=True)
class Cell:
    """One RL run or one RL start checkpoint: `run` is -1 for the checkpoint itself; `control` is "main" without one."""

    control: str
    start: int
    run: int


@dataclass(frozen=True)
class RecoveryPlan:
    """The runs of one unit of one base seed."""

    seed: int
    unit: Unit
    before: Plan
    runs: dict[Cell, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Cell, int], RunSpec] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"seed-{self.seed}-{'controls' if self.unit == 'controls' else f'run-{self.unit}'}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them: an RL run is followed by its censuses."""
        listed = [self.before.base, self.before.sft]
        listed += [spec for (cell, _), spec in self.censuses.items() if cell not in self.runs]
        for cell, spec in self.runs.items():
            listed.append(spec)
            listed += [census for (of, _), census in self.censuses.items() if of == cell]
        return listed


@dataclass(frozen=True)
class RecoveryTables(Seeded):
    """Everything chapter 02 is drawn from; every row says seed, control, start and run (-1: the start itself).

    episodes     one row per (decode, hand): which attempt solved it, how the first try went
    categories   attempts counted per (decode, split, attempt number, category)
    log          one row per update of an RL run
    advantages   (update, advantage) of some updates
    losses       cross-entropy of expert answers during RL: (update, set, loss)
    """

    LISTS = "log"

    episodes: pd.DataFrame
    categories: pd.DataFrame
    log: pd.DataFrame
    advantages: pd.DataFrame
    losses: pd.DataFrame

    @property
    def starts(self) -> list[int]:
        """RL start checkpoints."""
        return sorted(int(start) for start in self.log.loc[self.log["control"] == MAIN, "start"].unique())


def plan(profile: Profile, seed: int, store: Store, unit: Unit = 0) -> RecoveryPlan:
    """The runs of one unit of a base seed; the censuses of the starts themselves belong to the first unit."""
    rl_starts, before = profile.rl_starts, sft_plan(profile, seed, store)
    made = RecoveryPlan(seed, unit, before)
    if unit == "controls":
        _add_controls(made, profile, store)
        return made
    for start in rl_starts.starts:
        if unit == 0:
            _add_start(made, profile, store, Cell(MAIN, start, -1), {})
        _add_run(made, profile, store, Cell(MAIN, start, unit), {})
    return made


def units(profile: Profile) -> list[Unit]:
    """What there is to record of a base seed, in the order in which it is computed.

    >>> from rlheals.profiles import load_profile
    >>> units(load_profile("lab"))
    [0, 1, 2, 'controls']
    """
    rl_starts = profile.rl_starts
    return [*range(rl_starts.runs), *(["controls"] if rl_starts.control_start is not None else [])]


def _add_controls(made: RecoveryPlan, profile: Profile, store: Store) -> None:
    rl_starts, start = profile.rl_starts, profile.rl_starts.control_start
    assert start is not None
    for name in rl_starts.controls:
        _add_run(made, profile, store, Cell(name, start, 0), CONTROLS[name])
    for late in rl_starts.late_starts:
        _add_run(made, profile, store, Cell(LATE, late, 0), {"splits": ["rl"]})
    _add_start(made, profile, store, Cell("no-feedback", start, -1), {"feedback": "none"})
    for temperature in rl_starts.temperatures:
        sampling = profile.evaluate.sampling.model_copy(update={"temperature": temperature})
        cell = Cell(f"temperature-{temperature:g}", start, -1)
        _add_start(made, profile, store, cell, {"sampling": sampling})
    rl_run = rl_spec(profile, made.before, store, start, 0, {})
    cell = Cell("no-feedback", start, 0)
    made.runs[cell] = rl_run
    _add_censuses(made, profile, store, cell, rl_run, {"feedback": "none"})


def _add_start(
    made: RecoveryPlan, profile: Profile, store: Store, cell: Cell, changes: dict[str, Any]
) -> None:
    folder = sft.checkpoint_name(cell.start)
    _add_censuses(made, profile, store, cell, made.before.sft, {"folder": folder, **changes})


def _add_run(made: RecoveryPlan, profile: Profile, store: Store, cell: Cell, changes: dict[str, Any]) -> None:
    made.runs[cell] = rl_spec(profile, made.before, store, cell.start, cell.run, changes)
    _add_censuses(made, profile, store, cell, made.runs[cell], {})


def rl_spec(
    profile: Profile, before: Plan, store: Store, start: int, run: int, changes: dict[str, Any]
) -> RunSpec:
    """RL from one SFT step, with some of the profile's settings changed."""
    settings = profile.rl_starts.rl.model_copy(update={"folder": sft.checkpoint_name(start)})
    return RunSpec(
        stage=profile.stage("rl"),
        settings=settings.model_dump(mode="json") | changes,
        inputs={"model": store.key(before.sft), "base": store.key(before.base)},
        seed=100 * before.seed + run,
    )


def _add_censuses(
    made: RecoveryPlan,
    profile: Profile,
    store: Store,
    cell: Cell,
    of: RunSpec,
    changes: dict[str, Any],
) -> None:
    rl_starts = profile.rl_starts
    folder = rl_checkpoint(rl_starts.iterations)
    for decode in range(rl_starts.decodes if cell.control == MAIN else min(2, rl_starts.decodes)):
        made.censuses[cell, decode] = census_spec(
            profile, store.key(of), folder, made.seed, decode, {"folder": folder, **changes}
        )


def collect(plans: Sequence[RecoveryPlan], store: Store) -> RecoveryTables:
    """The tables of units that are in the store."""
    return tables.joined([_of_plan(one, store) for one in plans], RecoveryTables)


def _of_plan(made: RecoveryPlan, store: Store) -> RecoveryTables:
    def folder(spec: RunSpec) -> Path:
        return store.load(store.key(spec)).path

    def place(cell: Cell) -> dict[str, Any]:
        return {"seed": made.seed, "control": cell.control, "start": cell.start, "run": cell.run}

    episodes, categories = [], []
    for (cell, decode), spec in made.censuses.items():
        one, counts = tables.census(folder(spec))
        episodes.append(one.assign(**place(cell), decode=decode))
        categories.append(counts.assign(**place(cell), decode=decode))
    log, advantages, losses = [], [], []
    for cell, spec in made.runs.items():
        if cell.control == "no-feedback":  # the same run as the main one, decoded otherwise
            continue
        path = folder(spec)
        log.append(pd.read_parquet(path / "log.parquet").assign(**place(cell)))
        advantages.append(pd.read_parquet(path / "advantages.parquet").assign(**place(cell)))
        losses.append(pd.DataFrame(list(_losses(path))).assign(**place(cell)))
    return RecoveryTables(
        *(pd.concat(frames, ignore_index=True) for frames in (episodes, categories, log, advantages, losses))
    )


def _losses(path: Path) -> Iterator[dict[str, Any]]:
    for row in json.loads((path / "losses.json").read_text(encoding="utf-8")):
        for name, value in row.items():
            if name != "update":
                yield {"update": row["update"], "set": name, "loss": value}


def _lacking(profile: Profile) -> str:
    return "" if profile.rl_starts.starts else "rl_starts.starts is empty, so there is no RL in it"


STUDY = Part("-recovery", plan, collect, RecoveryTables, "rl", _lacking)
"""The first unit of every base seed."""


def parts(profile: Profile) -> list[Part[RecoveryTables]]:
    """The units of a profile as studies that can be recorded."""
    return [replace(STUDY, plan=partial(plan, unit=unit)) for unit in units(profile)]


@dataclass(frozen=True)
class RecoveryChapter(Chapter[RecoveryTables]):
    """Chapter 02; sft: the recorded study of chapter 01."""

    PART = STUDY

    sft: Tables | None

    @classmethod
    def more(cls, profile: Profile, recorded: RecoveryTables | None, results: Path) -> dict[str, Any]:
        return {"sft": record.find(profile.name, tables.SFT, results)[0]}

    @property
    def starts(self) -> list[int]:
        return sorted({start for rows, _ in self.layers for start in rows.starts})

    def how_fresh(self) -> list[str]:
        rl = self.profile.rl_starts.rl
        return [
            f"starts {', '.join(f'{start:,}' for start in self.fresh.starts)}",
            f"{rl.algorithm}, {rl.iterations} iterations of {rl.episodes} episodes, learning rate {rl.learning_rate:g}",
        ]

    def how_recorded(self, recorded: RecoveryTables) -> list[str]:
        runs = recorded.log.groupby(["seed", "control"])["run"].nunique().max()
        return [f"RL seeds per start: up to {runs}", f"{recorded.episodes['decode'].nunique()} decodes"]


rl = RecoveryChapter.open
