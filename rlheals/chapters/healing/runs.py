"""The runs of chapter 05, and their tables: second stages from the same SFT checkpoints, evaluated before and after.

A start is a state of SFT (`rlheals.study.peaks`): what it has lost of its peak's OOD ability, in per cent; 0 is the
peak itself. The study is recorded in units of a base seed: the map (every second stage from every state), further RL
seeds, arms from the middle state, and the mechanism (weights of a run that heals beside those of one that does not).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd

from rlheals.chapters import captions
from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rl.runs import OF_THE_MACHINE, Cell, RLTables, evaluated, logged
from rlheals.chapters.rows import collector, only
from rlheals.settings import STATES
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.peaks import PEAK
from rlheals.study.plan import Plan, SeedPlan, census_spec, followed
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part
from rlheals.weights.edit_parser import read_entry

if TYPE_CHECKING:
    from rlheals.profiles.healing import Arm
    from rlheals.profiles.profile import Profile

BEFORE = "sft"
"""The arm of checkpoints of plain SFT."""
UNHEALED, HEALED, IMITATED = "rl-familiar", "rl-varied", "imitate-varied"
"""Arms alike in all but the words of their questions, whose weights are compared and mixed."""
MIDDLE, LATE = STATES[1:]
DRAWS = 4
"""First attempts of a hand in pass@4."""
ABILITIES = ("75", "50")
"""Variants of the profile whose bases are stopped earlier."""


@dataclass(frozen=True)
class HealingPlan(SeedPlan):
    """The runs of one unit of one base seed.

    ability: at which its base was stopped; steps: by state; needed: runs whose results others start from.
    """

    unit: str
    ability: float
    before: Plan
    steps: dict[int, int]
    needed: list[RunSpec] = field(default_factory=list)
    runs: dict[Cell, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Cell, int], RunSpec] = field(default_factory=dict)
    paths: dict[tuple[Cell, int], RunSpec] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"seed-{self.seed}-{self.unit}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        before = [*self.before.origins, *self.needed]
        return [*before, *followed(self.runs, self.censuses), *self.paths.values()]


@dataclass(frozen=True)
class HealingTables(RLTables):
    """Those of chapter 02, where `control` is the arm and `start` the state, each with the ability of the base, and:

    steps     per state: the SFT step
    path      per (arm, state, iteration, seen_from, matrix, part): norms and angles, see `weights.trajectory`;
              seen_from: the state of the checkpoint that they are measured from, -1: the start itself
    sizes     per edit ("edit ..." in `control`): norms of the edit and of the distances, as in chapter 04
    """

    LISTS = "steps"

    steps: pd.DataFrame
    path: pd.DataFrame
    sizes: pd.DataFrame


def edit_arm(target: str, entry: str) -> str:
    """The name of an edited result among the arms; entry: EDIT @ WHERE.

    >>> edit_arm("rl", "values(all) @ ends")
    'edit of rl: values(all) @ kinds=embed,head'
    """
    return f"edit of {target}: {' @ '.join(read_entry(entry))}"


def units(profile: Profile) -> list[str]:
    """What there is to record of a base seed, in the order in which it is computed."""
    healing = profile.healing
    more = [f"run-{run}" for run in range(1, healing.runs)] if healing.window else []
    return ["map", *more, *(["arms"] if healing.arms else []), *(["mechanism"] if healing.edits else [])]


def plan(
    profile: Profile, seed: int, store: Store, starts: Mapping[int, Mapping[int, int]], unit: str = "map"
) -> HealingPlan:
    """The runs of one unit; starts: by base seed and state the SFT step, known from the study of chapter 01.

    A state that SFT did not reach has no runs. Where a profile fixes the steps of its states, only the peak is found.
    """
    healing = profile.healing
    steps = dict(starts[seed])
    if healing.steps:
        steps = {PEAK: steps[PEAK]} | {
            int(at): step for at, step in zip(healing.states, healing.steps, strict=True)
        }
    made = HealingPlan(seed, unit, profile.pretrain.ability or 1.0, sft_plan(profile, seed, store), steps)
    reached = [state for state in healing.states if state in steps]
    build = _Builder(profile, store, made)
    if unit == "map":
        for state in (PEAK, *reached):
            build.evaluate(Cell(BEFORE, state, -1), *made.before.checkpoint(steps[state]))
        for state in reached:
            for name in healing.map:
                build.arm(name, state, 0)
    elif unit == "arms":
        for name in healing.arms if MIDDLE in steps else ():
            build.arm(name, MIDDLE, 0)
    elif unit == "mechanism":
        for state in {MIDDLE, LATE} & steps.keys():
            build.mechanism(state)
    else:
        for state in reached:
            for name in healing.window:
                build.arm(name, state, int(unit.removeprefix("run-")))
    return made


@dataclass(frozen=True)
class _Builder:
    """Fills a plan."""

    profile: Profile
    store: Store
    made: HealingPlan

    def evaluate(self, cell: Cell, model: RunSpec, folder: str) -> None:
        made, key = self.made, self.store.key(model)
        for decode in range(self.profile.rl_starts.decodes):
            made.censuses[cell, decode] = census_spec(self.profile, key, folder, made.seed, decode)

    def arm(self, name: str, state: int, run: int) -> None:
        """One second stage, with an evaluation of its result, and of its start where that is its own."""
        from rlheals.profiles.healing import ARMS

        spec, folder, own_start = self.spec(ARMS[name], state, run)
        cell = Cell(name, state, run)
        self.made.runs[cell] = spec
        self.evaluate(cell, spec, folder)
        if own_start is not None:
            self.evaluate(Cell(name, state, -1), *own_start)

    def spec(self, arm: Arm, state: int, run: int) -> tuple[RunSpec, str, tuple[RunSpec, str] | None]:
        """The run of an arm, the folder of its result, and its start where that is not one of plain SFT."""
        from rlheals.training.protected import ProtectedSettings
        from rlheals.training.rl.settings import checkpoint_name as rl_checkpoint
        from rlheals.training.sft import SFTSettings, checkpoint_name
        from rlheals.weights.edit_stage import MODEL

        profile, made = self.profile, self.made
        start, folder = made.before.checkpoint(made.steps[state])
        if arm.before:
            start, folder = made.before.sft, checkpoint_name(made.steps[state])
            kind = ProtectedSettings if arm.stage == "protected" else SFTSettings
            asked = profile.sft.model_dump() | {"checkpoints": self.until(state)} | dict(arm.before)
            settings = kind.model_validate(asked).model_dump(mode="json")
            start = start.model_copy(update={"stage": arm.stage, "settings": settings})
        if arm.fused:
            start, folder = self.edited(arm.fused, (made.before.base, "base"), (start, folder)), MODEL
        own = arm.before or arm.fused
        if own:
            made.needed.append(start)
        seed = 100 * made.seed + run
        if arm.sft is not None:
            changes = {"folder": folder, "checkpoints": (self.imitation_steps,), **arm.sft}
            asked = SFTSettings.model_validate(profile.sft.model_dump() | changes).model_dump(mode="json")
            spec = RunSpec(stage="sft", settings=asked, inputs={"base": self.store.key(start)}, seed=seed)
            return spec, checkpoint_name(self.imitation_steps), None
        assert arm.rl is not None
        rl = profile.rl_starts.rl.model_copy(update={**arm.rl, "folder": folder})
        inputs = {"model": self.store.key(start), "base": self.store.key(made.before.base)}
        spec = RunSpec(
            stage=profile.stage("rl"), settings=rl.model_dump(mode="json"), inputs=inputs, seed=seed
        )
        return spec, rl_checkpoint(rl.iterations), (start, folder) if own else None

    @property
    def imitation_steps(self) -> int:
        return max(1, self.profile.healing.examples // self.profile.sft.batch)

    def until(self, state: int) -> tuple[int, ...]:
        """Checkpoints of SFT up to that state."""
        last = self.made.steps[state]
        return tuple(step for step in self.profile.sft.checkpoints if step <= last)

    def edited(self, entry: str, with_: tuple[RunSpec, str], target: tuple[RunSpec, str]) -> RunSpec:
        """A checkpoint (run, folder) edited with another one."""
        from rlheals.weights.edit_stage import EditedSettings

        edit, where = read_entry(entry)
        asked = EditedSettings(
            task=self.profile.task,
            prompts=self.profile.evaluate.prompts,
            base=with_[1],
            target=target[1],
            edit=edit,
            where=where,
        ).model_dump(mode="json")
        origin = self.store.key(self.made.before.base)
        inputs = {"base": self.store.key(with_[0]), "target": self.store.key(target[0]), "origin": origin}
        return RunSpec(stage="edited", settings=asked, inputs=inputs, seed=self.made.seed)

    def mechanism(self, state: int) -> None:
        """Paths of a run that heals and of one that does not, and edits of either with the other."""
        from rlheals.profiles.healing import ARMS
        from rlheals.training.rl.settings import checkpoint_name as rl_checkpoint
        from rlheals.training.sft import checkpoint_name
        from rlheals.weights.edit_stage import MODEL
        from rlheals.weights.trajectory import TrajectorySettings

        made, store, profile = self.made, self.store, self.profile
        ends = {}
        for name in ("rl", UNHEALED, HEALED):
            spec, folder, _ = self.spec(ARMS[name], state, 0)
            made.needed.append(spec)
            ends[name] = spec, folder
            for seen_from in (PEAK, -1):
                place = made.steps[state if seen_from < 0 else seen_from]
                asked = TrajectorySettings(
                    task=profile.task,
                    prompts=profile.evaluate.prompts,
                    base=checkpoint_name(place),
                    folders=tuple(map(rl_checkpoint, profile.rl_starts.rl.checkpoints)),
                    questions=profile.rotation.questions,
                )
                inputs = {"base": store.key(made.before.sft), "model": store.key(spec)}
                made.paths[Cell(name, state, 0), seen_from] = RunSpec(
                    stage="trajectory", settings=asked.model_dump(mode="json"), inputs=inputs, seed=made.seed
                )
        for entry in profile.healing.edits:
            for target, other in ((UNHEALED, HEALED), (HEALED, UNHEALED)):
                cell = Cell(edit_arm(target, entry), state, 0)
                made.runs[cell] = self.edited(entry, ends[other], ends[target])
                self.evaluate(cell, made.runs[cell], MODEL)


def _of_plan(made: HealingPlan, store: Store) -> HealingTables:
    folder = tables.folders(store)
    trained = {cell: spec for cell, spec in made.runs.items() if spec.stage.startswith("rl")}
    found = evaluated(made.seed, made.censuses, store) | logged(made.seed, trained, store)
    steps = pd.DataFrame(sorted(made.steps.items()), columns=["state", "step"]).assign(unit=made.unit)
    paths = [
        pd.read_parquet(folder(spec) / "path.parquet").assign(**vars(cell), seen_from=seen_from)
        for (cell, seen_from), spec in made.paths.items()
    ]
    sizes = [
        {**vars(cell), **json.loads((folder(spec) / "sizes.json").read_text(encoding="utf-8"))}
        for cell, spec in made.runs.items()
        if spec.stage == "edited"
    ]
    path = pd.concat(paths, ignore_index=True) if paths else pd.DataFrame(columns=["control", "start"])
    more = {
        "steps": steps,
        "path": path,
        "sizes": pd.DataFrame(sizes, columns=None if sizes else ["control"]),
    }
    return HealingTables(
        **{
            name: rows.assign(seed=made.seed, ability=made.ability)
            for name, rows in {**found, **more}.items()
        }
    )


def _lacking(profile: Profile) -> str:
    return "" if profile.healing.map else "healing.map is empty, so there is no second stage to compare"


collect = collector(_of_plan, HealingTables)
STUDY = Part(
    "-healing",
    plan,
    collect,
    HealingTables,
    "rl",
    _lacking,
    from_sft="starts",
    units=units,
    variants=ABILITIES,
)


@dataclass(frozen=True)
class HealingChapter(Chapter[HealingTables]):
    """Chapter 05."""

    PART = STUDY
    SLICED = "-map"

    @classmethod
    def slice_of(cls, recorded: HealingTables, profile: Profile, seed: int, store: Store) -> Slice:
        """The first second stage by RL from the first start, with an evaluation before and after; without starts, an
        evaluation of the peak."""
        steps = recorded.steps.drop_duplicates("state").set_index("state")["step"]
        whole = plan(profile, seed, store, {seed: {int(state): int(step) for state, step in steps.items()}})
        trained = [cell for cell, spec in whole.runs.items() if spec.stage.startswith("rl")]
        chosen = trained[0] if trained else Cell(BEFORE, PEAK, -1)
        cells = {chosen, Cell(BEFORE, chosen.start, -1)}
        part = replace(
            whole,
            runs={cell: spec for cell, spec in whole.runs.items() if cell in cells},
            censuses={at: spec for at, spec in whole.censuses.items() if at[0] in cells and at[1] == 0},
        )
        rows = {}
        for name in ("episodes", "categories", "log", "advantages", "losses"):
            frame = getattr(recorded, name)
            mine = [only(frame, **vars(cell)) for cell in sorted(cells, key=lambda cell: cell.run)]
            frame = pd.concat(mine)
            frame = only(frame, decode=0) if "decode" in frame else frame
            rows[name] = frame.drop(columns=OF_THE_MACHINE, errors="ignore")
        return Slice((int(steps[chosen.start]),), part, rows)

    def caption(
        self, note: str, frame: pd.DataFrame, marks: Mapping[str, str], words: Mapping[str, str]
    ) -> tuple[str, str]:
        """As of every chapter, and what pass@4 is where a fresh run has fewer sampling seeds."""
        draws = self.fresh.episodes["decode"].nunique()
        if draws < DRAWS and "fresh" in captions.drawn(frame):
            note += (
                f" The fresh run has {draws} sampling seed{'s' * (draws != 1)}: its pass@4 is pass@{draws}."
            )
        return super().caption(note, frame, marks, words)

    def how_fresh(self) -> list[str]:
        steps = self.fresh.steps
        said = [
            f"{state} % lost at step {step:,}"
            for state, step in zip(steps["state"], steps["step"], strict=True)
        ]
        return [line for line, state in zip(said, steps["state"], strict=True) if state != PEAK]

    def how_recorded(self, recorded: HealingTables) -> list[str]:
        abilities = ", ".join(f"{ability:g}" for ability in sorted(recorded.steps["ability"].unique()))
        return [
            f"bases stopped at {abilities} of the panel",
            f"{recorded.episodes['decode'].nunique()} sampling seeds",
        ]


CHAPTER = HealingChapter
healing = HealingChapter.open
