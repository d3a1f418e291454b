"""The runs of chapter 03, and their tables: spectra of named pairs of checkpoints, and trajectories from one base.

A trajectory is one training run: SFT, SFT with one setting changed, RL from a checkpoint of SFT, controls of RL. All
of a base seed start from the same weights; each point of one has a place (its weights against the base's) and a
behaviour (an evaluation, the forward KL from the base).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rl.runs import rl_spec
from rlheals.chapters.rows import collector, only
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import Plan, SeedPlan, census_spec
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part, Seeded
from rlheals.weights.spectra import CHANGE, START
from rlheals.weights.spectra_stage import SpectraSettings
from rlheals.weights.spectra_stage import read as read_spectra

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

SFT, RL = "sft", "rl"
DRAWN = ("base-peak", "peak-end", "end-rl")
"""Pairs of which every singular value, angle curve and heat map is kept."""
KEYS = ("tensor", "kind", "layer", "head", "rows", "columns", "side", "end", "k", "what")
"""What is measured, beside the draw of a null."""


@dataclass(frozen=True)
class Point:
    """One checkpoint of a trajectory. branch: "sft", one of `BRANCHES`, "rl" or a control; start: of RL, else -1."""

    branch: str
    start: int
    step: int

    @property
    def folder(self) -> str:
        """Inside its run."""
        from rlheals.training import sft
        from rlheals.training.rl import stage as rl

        return (sft if self.start < 0 else rl).checkpoint_name(self.step)


@dataclass(frozen=True)
class SpectraPlan(SeedPlan):
    """The runs of one base seed."""

    peak: int
    before: Plan
    trained: dict[tuple[str, int], RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Point, int], RunSpec] = field(default_factory=dict)
    trajectories: dict[tuple[str, int], RunSpec] = field(default_factory=dict)
    pairs: dict[str, RunSpec] = field(default_factory=dict)

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        parts = (self.trained, self.trajectories, self.pairs, self.censuses)
        return [
            self.before.base,
            *self.before.starts.values(),
            *(spec for part in parts for spec in part.values()),
        ]


@dataclass(frozen=True)
class SpectraTables(Seeded):
    """Everything chapter 03 is drawn from; every row says seed.

    angles       per (pair, matrix, side, end, k, what): mean angle over draws and its 95 % (degrees), gap at k
    changes      per (pair, matrix, what): size, changes of singular values, energies, effective rank, means over draws
    values       singular values before and after, of pairs in `DRAWN`
    curves       angles of the largest k one by one, and the Gaussian null's, of pairs in `DRAWN` (degrees)
    heat         where in the base's directions the change lies, mean over layers, of pairs in `DRAWN`
    path         per (branch, start, step, matrix, part): norms, angle to the base and its Gaussian null (degrees)
    behaviour    per (branch, start, step): forward KL from the base (nats per answer)
    accuracy     per (branch, start, step, decode, split): hands, solved in five attempts, solved in the first
    peaks        the step that counts as the peak
    """

    LISTS = "peaks"

    angles: pd.DataFrame
    changes: pd.DataFrame
    values: pd.DataFrame
    curves: pd.DataFrame
    heat: pd.DataFrame
    path: pd.DataFrame
    behaviour: pd.DataFrame
    accuracy: pd.DataFrame
    peaks: pd.DataFrame


def plan(profile: Profile, seed: int, store: Store, peaks: Mapping[int, int]) -> SpectraPlan:
    """The runs of one base seed; peaks: its peak, known from the study of chapter 01."""
    from rlheals.profiles.sections import BRANCHES, CONTROLS
    from rlheals.weights.trajectory import TrajectorySettings

    made = SpectraPlan(seed, peaks[seed], sft_plan(profile, seed, store))
    rl_starts, rotation = profile.rl_starts, profile.rotation
    made.trained[SFT, -1] = made.before.sft
    for name in rotation.branches:
        settings = profile.sft.model_copy(update=BRANCHES[name]).model_dump(mode="json")
        made.trained[name, -1] = made.before.sft.model_copy(update={"settings": settings})
    for start in rl_starts.starts:
        made.trained[RL, start] = rl_spec(profile, made.before, store, start, 0, {})
    if (middle := rl_starts.control_start) is not None:
        for name in rotation.controls:
            made.trained[name, middle] = rl_spec(profile, made.before, store, middle, 0, CONTROLS[name])
    for (branch, start), spec in made.trained.items():
        of_sft = rotation.steps if branch == SFT else rotation.branch_steps
        points = [Point(branch, start, step) for step in (of_sft if start < 0 else (rl_starts.iterations,))]
        key = store.key(spec)
        for point in points:
            for decode in range(1 if branch in BRANCHES else rotation.decodes):
                made.censuses[point, decode] = census_spec(profile, key, point.folder, seed, decode)
        asked = TrajectorySettings(
            task=profile.task,
            prompts=profile.evaluate.prompts,
            folders=tuple(point.folder for point in points),
            questions=rotation.questions,
        )
        made.trajectories[branch, start] = RunSpec(
            stage="trajectory",
            settings=asked.model_dump(mode="json"),
            inputs={"base": store.key(made.before.base), "model": key},
            seed=seed,
        )
    for name, pair in pairs(profile, made.peak).items():
        made.pairs[name] = _pair_spec(profile, made, store, name, pair)
    return made


@dataclass(frozen=True)
class Pair:
    """From one checkpoint to another, each (branch, start, step); reference: what both are seen from."""

    before: Point
    after: Point
    reference: Point | None = None


def pairs(profile: Profile, peak: int) -> dict[str, Pair]:
    """The named pairs: of SFT, of RL, and of both as seen from the peak ("back": RL; "on": SFT continued).

    RL from one start has one name, the last of them.

    >>> from rlheals.profiles import load_profile
    >>> " ".join(pairs(load_profile("lab").for_reader(recorded=True), 640))
    'base-peak peak-end base-end peak-middle early-rl end-rl back-960'
    """
    rl_starts, steps = profile.rl_starts, profile.rotation.steps
    end, starts = Point(SFT, -1, steps[-1]), rl_starts.starts
    middle = rl_starts.control_start or starts[len(starts) // 2]
    base, top = Point(SFT, -1, steps[0]), Point(SFT, -1, peak)
    made = {"base-peak": Pair(base, top), "peak-end": Pair(top, end), "base-end": Pair(base, end)}
    if peak < middle < end.step:
        made["peak-middle"] = Pair(top, Point(SFT, -1, middle))

    def by_rl(start: int, reference: Point | None = None) -> Pair:
        return Pair(Point(SFT, -1, start), Point(RL, start, rl_starts.iterations), reference)

    named = {starts[0]: "early-rl", middle: "middle-rl", starts[-1]: "end-rl"}
    made |= {name: by_rl(start) for start, name in named.items()}
    late = [start for start in starts if start >= middle and start > peak]
    made |= {f"back-{start}": by_rl(start, top) for start in late}
    on = [step for step in steps if step >= middle and step > peak and 4 * step in steps]
    made |= {f"on-{step}": Pair(Point(SFT, -1, step), Point(SFT, -1, 4 * step), top) for step in on}
    return made


def _pair_spec(profile: Profile, made: SpectraPlan, store: Store, name: str, pair: Pair) -> RunSpec:
    rotation = profile.rotation
    whole = name == "peak-end"
    ends = {end: point for end, point in vars(pair).items() if point is not None}
    asked = SpectraSettings(
        **{end: point.folder for end, point in ends.items()},
        nulls=(*rotation.nulls, "ulp", "independent") if whole else rotation.nulls,
        draws=rotation.draws,
        heads=profile.pretrain.model.heads if whole and profile.model is None else 0,
    )
    return RunSpec(
        stage="spectra",
        settings=asked.model_dump(mode="json"),
        inputs={end: store.key(made.trained[point.branch, point.start]) for end, point in ends.items()},
        seed=made.seed,
    )


def _of_plan(made: SpectraPlan, store: Store) -> SpectraTables:
    folder = tables.folders(store)
    frames: dict[str, list[pd.DataFrame]] = {table.name: [] for table in fields(SpectraTables)}
    for name, spec in made.pairs.items():
        found = read_spectra(folder(spec))
        parts = {"angles": _angles(found.angles), "changes": _over_draws(found.matrices, "value_change_mean")}
        if name in DRAWN:
            heat = only(found.heat, head=-1).groupby(["kind", "left", "right"], sort=False)["energy"]
            curves = _degrees(found.curves, "angle", "null", "null_low", "null_high")
            parts |= {"values": found.values, "curves": curves, "heat": heat.mean().reset_index()}
        for table, rows in parts.items():
            frames[table].append(rows.assign(pair=name))
    for (branch, start), spec in made.trajectories.items():
        for file, table in (("path", "path"), ("divergence", "behaviour")):
            rows = pd.read_parquet(folder(spec) / f"{file}.parquet")
            steps = rows["folder"].str.rsplit("-", n=1).str[-1].astype(int)
            frames[table].append(rows.drop(columns="folder").assign(branch=branch, start=start, step=steps))
    for (point, decode), spec in made.censuses.items():
        frames["accuracy"].append(tables.solved(folder(spec)).assign(**vars(point), decode=decode))
    frames["peaks"].append(pd.DataFrame({"peak": [made.peak]}))
    joined = {  # a slice has no evaluations
        name: pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        for name, found in frames.items()
    }
    return SpectraTables(**{name: _compact(rows.assign(seed=made.seed)) for name, rows in joined.items()})


def _degrees(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return rows.assign(**{column: np.rad2deg(rows[column]) for column in columns})


def _angles(rows: pd.DataFrame) -> pd.DataFrame:
    """Leading subspaces of whole matrices beside every null, all others beside the Gaussian alone."""
    every = (rows["end"] == "top") & (rows["head"] == -1)
    rows = rows[every | rows["what"].isin([CHANGE, START, "gaussian"])]
    return _over_draws(_degrees(rows, "mean", "largest"), "mean")


def _over_draws(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means over draws, and between which values (low, high) 95 % of them lie in one column."""
    grouped = rows.drop(columns="draw").groupby([key for key in KEYS if key in rows], sort=False)
    spread = grouped[column].quantile([0.025, 0.975]).unstack()
    return grouped.mean().assign(low=spread[0.025], high=spread[0.975]).reset_index()


def _compact(frame: pd.DataFrame) -> pd.DataFrame:
    """Six digits are enough for figures; results are kept in git."""
    halves = dict.fromkeys(frame.select_dtypes("float64").columns, "float32")
    words = dict.fromkeys(frame.select_dtypes(["object", "string"]).columns, "category")
    return frame.astype({**halves, **words})


def _lacking(profile: Profile) -> str:
    nothing = not profile.rotation.steps or not profile.rl_starts.starts
    return "rotation.steps or rl_starts.starts is empty, nothing to compare" if nothing else ""


collect = collector(_of_plan, SpectraTables)
STUDY = Part("-rotation", plan, collect, SpectraTables, "spectra", _lacking, from_sft="peaks")


@dataclass(frozen=True)
class SpectraChapter(Chapter[SpectraTables]):
    """Chapter 03."""

    PART = STUDY

    @classmethod
    def slice_of(cls, recorded: SpectraTables, profile: Profile, seed: int, store: Store) -> Slice:
        """The trajectory of SFT, and the pair from its peak to its end."""
        peak, pair = int(recorded.peaks["peak"].iloc[0]), "peak-end"
        whole = plan(profile, seed, store, {seed: peak})
        part = replace(
            whole,
            trained={(SFT, -1): whole.trained[SFT, -1]},
            censuses={},
            trajectories={(SFT, -1): whole.trajectories[SFT, -1]},
            pairs={pair: whole.pairs[pair]},
        )
        rows = {
            name: only(getattr(recorded, name), pair=pair)
            for name in ("angles", "changes", "values", "curves", "heat")
        }
        rows |= {name: only(getattr(recorded, name), branch=SFT) for name in ("path", "behaviour")}
        return Slice((peak,), part, rows)

    def how_fresh(self) -> list[str]:
        peaks = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"])
        return [f"peak at SFT step {peaks}", f"{self.profile.rotation.draws} draws of every null"]

    def how_recorded(self, recorded: SpectraTables) -> list[str]:
        steps = recorded.peaks["peak"]
        spread = f"{steps.min():,}" if steps.nunique() == 1 else f"{steps.min():,} to {steps.max():,}"
        return [f"peaks at steps {spread}"]


CHAPTER = SpectraChapter
spectra = SpectraChapter.open
