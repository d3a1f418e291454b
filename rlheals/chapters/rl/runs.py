"""The runs of chapter 02, and their tables: RL from several SFT checkpoints, evaluated before and after, and controls.

The study is computed and recorded in units: one RL seed of one base seed (`run-0`, `run-1`, ...), and the controls of
one base seed. Evaluations of a start checkpoint and of what RL makes of it share their sampling noise, hand by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rows import collector, only
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.plan import Plan, SeedPlan, census_spec, followed
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part, Seeded, Tables

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

MAIN, NO_FEEDBACK = "main", "no-feedback"
Unit = int | Literal["controls"]
OF_THE_MACHINE = ["seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb"]
"""Columns of the log that no second run repeats."""


@dataclass(frozen=True)
class Cell:
    """One RL run or one start checkpoint: `run` is -1 for the checkpoint itself; `control` is "main" or a control."""

    control: str
    start: int
    run: int


@dataclass(frozen=True)
class RLPlan(SeedPlan):
    """The runs of one unit of one base seed."""

    unit: Unit
    before: Plan
    runs: dict[Cell, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Cell, int], RunSpec] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"seed-{self.seed}-{'controls' if self.unit == 'controls' else f'run-{self.unit}'}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        return [*self.before.origins, *followed(self.runs, self.censuses)]


@dataclass(frozen=True)
class RLTables(Seeded):
    """Everything chapter 02 is drawn from; every row says seed, control, start and run (-1: the start itself).

    episodes     one row per (decode, hand): which attempt solved it, how the first attempt went
    categories   attempts counted per (decode, split, attempt number, category)
    log          one row per iteration of an RL run
    advantages   (update, advantage) of some iterations
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
        """SFT steps that RL starts from."""
        return sorted(int(start) for start in self.log.loc[self.log["control"] == MAIN, "start"].unique())


def plan(profile: Profile, seed: int, store: Store, unit: Unit = 0) -> RLPlan:
    """The runs of one unit of a base seed; evaluations of the start checkpoints belong to the first unit."""
    from rlheals.profiles.sections import CONTROLS, LATE
    from rlheals.training.rl.settings import checkpoint_name as rl_checkpoint

    rl_starts, before = profile.rl_starts, sft_plan(profile, seed, store)
    made = RLPlan(seed, unit, before)

    def evaluate(cell: Cell, model: RunSpec, folder: str, **changes: Any) -> None:
        key = store.key(model)
        for decode in range(rl_starts.decodes if cell.control == MAIN else min(2, rl_starts.decodes)):
            made.censuses[cell, decode] = census_spec(profile, key, folder, seed, decode, changes)

    def evaluate_start(control: str, start: int, **changes: Any) -> None:
        evaluate(Cell(control, start, -1), *before.checkpoint(start), **changes)

    def train(control: str, start: int, run: int, settings: dict[str, Any], **changes: Any) -> None:
        cell = Cell(control, start, run)
        made.runs[cell] = rl_spec(profile, before, store, start, run, settings)
        evaluate(cell, made.runs[cell], rl_checkpoint(rl_starts.iterations), **changes)

    if unit != "controls":
        for start in rl_starts.starts:
            if unit == 0:
                evaluate_start(MAIN, start)
            train(MAIN, start, unit, {})
        return made
    control_start = rl_starts.control_start
    assert control_start is not None, "see units"
    for name in rl_starts.controls:
        train(name, control_start, 0, CONTROLS[name])
    for late in rl_starts.late_starts:
        train(LATE, late, 0, {"splits": ["rl"]})
    evaluate_start(NO_FEEDBACK, control_start, feedback="none")
    for temperature in rl_starts.temperatures:
        sampling = profile.evaluate.sampling.model_copy(update={"temperature": temperature})
        evaluate_start(f"temperature-{temperature:g}", control_start, sampling=sampling)
    train(NO_FEEDBACK, control_start, 0, {}, feedback="none")
    return made


def units(profile: Profile) -> list[Unit]:
    """What there is to record of a base seed, in the order in which it is computed.

    >>> from rlheals.profiles import load_profile
    >>> units(load_profile("lab"))
    [0, 1, 'controls']
    """
    rl_starts = profile.rl_starts
    return [*range(rl_starts.runs), *(["controls"] if rl_starts.control_start is not None else [])]


def rl_spec(
    profile: Profile, before: Plan, store: Store, start: int, run: int, changes: dict[str, Any]
) -> RunSpec:
    """RL from one SFT step, with some of the profile's settings changed."""
    model, folder = before.checkpoint(start)
    settings = profile.rl_starts.rl.model_copy(update={"folder": folder})
    return RunSpec(
        stage=profile.stage("rl"),
        settings=settings.model_dump(mode="json") | changes,
        inputs={"model": store.key(model), "base": store.key(before.base)},
        seed=100 * before.seed + run,
    )


def evaluated(
    seed: int, censuses: Mapping[tuple[Cell, int], RunSpec], store: Store
) -> dict[str, pd.DataFrame]:
    """The tables `episodes` and `categories` of evaluations by (cell, sampling seed)."""
    folder = tables.folders(store)
    frames: dict[str, list[pd.DataFrame]] = {"episodes": [], "categories": []}
    for (cell, decode), spec in censuses.items():
        for name, rows in zip(frames, tables.census(folder(spec)), strict=True):
            frames[name].append(rows.assign(seed=seed, **vars(cell), decode=decode))
    return _joined(frames)


def logged(seed: int, runs: Mapping[Cell, RunSpec], store: Store) -> dict[str, pd.DataFrame]:
    """The tables `log`, `advantages` and `losses` of RL runs by cell."""
    folder = tables.folders(store)
    frames: dict[str, list[pd.DataFrame]] = {"log": [], "advantages": [], "losses": []}
    for cell, spec in runs.items():
        path = folder(spec)
        losses = pd.DataFrame(json.loads((path / "losses.json").read_text())).set_index("update")
        found = {name: pd.read_parquet(path / f"{name}.parquet") for name in ("log", "advantages")}
        found["losses"] = losses.rename_axis(columns="set").stack().rename("loss").reset_index()
        for name, rows in found.items():
            frames[name].append(rows.assign(seed=seed, **vars(cell)))
    return _joined(frames)


def _joined(frames: dict[str, list[pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    none = pd.DataFrame(columns=["seed", *Cell.__dataclass_fields__])
    return {name: pd.concat(rows, ignore_index=True) if rows else none for name, rows in frames.items()}


def _of_plan(made: RLPlan, store: Store) -> RLTables:
    # without feedback the run is the main one, evaluated otherwise
    runs = {cell: spec for cell, spec in made.runs.items() if cell.control != NO_FEEDBACK}
    return RLTables(**evaluated(made.seed, made.censuses, store), **logged(made.seed, runs, store))


def _lacking(profile: Profile) -> str:
    return "" if profile.rl_starts.starts else "rl_starts.starts is empty, so there is no RL in it"


collect = collector(_of_plan, RLTables)
STUDY = Part("-recovery", plan, collect, RLTables, "rl", _lacking, units=units)
"""Planned without a unit: the first one of every base seed."""


@dataclass(frozen=True)
class RLChapter(Chapter[RLTables]):
    """Chapter 02; sft: the recorded study of chapter 01."""

    PART = STUDY
    SLICED = "-run-0"

    sft: Tables | None

    @classmethod
    def slice_of(cls, recorded: RLTables, profile: Profile, seed: int, store: Store) -> Slice:
        """The first RL run from the start checkpoint in the middle, with an evaluation before and after."""
        whole, start = plan(profile, seed, store, 0), recorded.starts[len(recorded.starts) // 2]
        cells = [Cell(MAIN, start, -1), Cell(MAIN, start, 0)]
        part = replace(
            whole,
            runs={cell: spec for cell, spec in whole.runs.items() if cell in cells},
            censuses={at: spec for at, spec in whole.censuses.items() if at[0] in cells and at[1] == 0},
        )
        rows = {}
        for table in fields(recorded):
            frame = only(getattr(recorded, table.name), start=start)
            frame = only(frame, decode=0) if "decode" in frame else frame
            rows[table.name] = frame.drop(columns=OF_THE_MACHINE, errors="ignore")
        return Slice((start,), part, rows)

    @classmethod
    def more(cls, profile: Profile, recorded: RLTables | None, results: Path) -> dict[str, Any]:
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

    def how_recorded(self, recorded: RLTables) -> list[str]:
        runs = recorded.log.groupby(["seed", "control"])["run"].nunique().max()
        return [
            f"RL seeds per start checkpoint: up to {runs}",
            f"{recorded.episodes['decode'].nunique()} sampling seeds",
        ]


CHAPTER = RLChapter
rl = RLChapter.open
