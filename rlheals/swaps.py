"""The runs of chapter 04, and their tables: edited checkpoints and what they are made of, with a census of each.

"restore": the late SFT checkpoint, edited with that of the peak. "swap": the result of RL, edited with the late SFT
checkpoint. Anchors are the checkpoints themselves: base, peak, late, start, rl.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from rlheals import rl, sft, tables
from rlheals.edited import MODEL, EditedSettings
from rlheals.errors import BadInput
from rlheals.profiles import Profile
from rlheals.recovery import rl_spec
from rlheals.rotation import solved, solved_first
from rlheals.runs import RunSpec
from rlheals.store import Store
from rlheals.study import Plan
from rlheals.study import plan as sft_plan
from rlheals.swap_grid import read_entry
from rlheals.tables import Part

Kind = Literal["restore", "swap"]
ANCHOR = "anchor"


@dataclass(frozen=True)
class Swap:
    """One edited checkpoint. kind "anchor": a checkpoint as it is, `edit` is its name."""

    kind: str
    edit: str
    where: str = ""


@dataclass(frozen=True)
class SwapPlan:
    """The runs of one base seed."""

    seed: int
    peak: int
    before: Plan
    rl: RunSpec
    edited: dict[Swap, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Swap, int], RunSpec] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"seed-{self.seed}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them: an edit is followed by its censuses."""
        listed = [self.before.base, self.before.sft, self.rl]
        listed += [spec for (of, _), spec in self.censuses.items() if of.kind == ANCHOR]
        for swap, spec in self.edited.items():
            listed.append(spec)
            listed += [census for (of, _), census in self.censuses.items() if of == swap]
        return listed


@dataclass(frozen=True)
class SwapTables:
    """Everything chapter 04 is drawn from; every row says seed, kind, edit and where.

    effects   per (decode, split): hands, solved within five, solved in the first try
    sizes     of edited checkpoints: norms of the edited tensors, of the edit, of the distance to the other before and
              after; forward KL from the pretrained base and from the target (nats per answer)
    peaks     the step that counts as the peak
    """

    effects: pd.DataFrame
    sizes: pd.DataFrame
    peaks: pd.DataFrame

    @property
    def seeds(self) -> list[int]:
        return sorted(int(seed) for seed in self.peaks["seed"].unique())


def plan(profile: Profile, seed: int, store: Store, peaks: dict[int, int]) -> SwapPlan:
    """The runs of one base seed; peaks: its peak, known from the study of chapter 01."""
    grid = profile.swaps
    if grid.late is None or grid.start is None:
        raise BadInput(
            f"profile {profile.name}: swaps.late or swaps.start is not set, so there is nothing to edit"
        )
    before, peak = sft_plan(profile, seed, store), peaks[seed]
    trained = rl_spec(profile, before, store, grid.start, 0, {})
    made = SwapPlan(seed, peak, before, trained)
    after = rl.checkpoint_name(profile.ladder.updates)
    steps = {
        name: sft.checkpoint_name(at)
        for name, at in (("peak", peak), ("late", grid.late), ("start", grid.start))
    }
    runs = {"sft": store.key(before.sft), "rl": store.key(trained), "origin": store.key(before.base)}
    for name, folder in steps.items():
        _add_censuses(made, profile, Swap(ANCHOR, name), runs["sft"], folder)
    _add_censuses(made, profile, Swap(ANCHOR, "rl"), runs["rl"], after)
    for kind, entries in (("restore", grid.restore), ("swap", grid.swap)):
        ends = (steps["peak"], steps["late"]) if kind == "restore" else (steps["late"], after)
        inputs = {
            "base": runs["sft"],
            "target": runs["sft" if kind == "restore" else "rl"],
            "origin": runs["origin"],
        }
        for entry in entries:
            swap = Swap(kind, *read_entry(entry))
            settings = EditedSettings(base=ends[0], target=ends[1], edit=swap.edit, where=swap.where)
            made.edited[swap] = RunSpec(
                stage="edited", settings=settings.model_dump(mode="json"), inputs=inputs, seed=seed
            )
            _add_censuses(made, profile, swap, store.key(made.edited[swap]), MODEL)
    return made


def _add_censuses(made: SwapPlan, profile: Profile, of: Swap, run_id: str, folder: str) -> None:
    settings = profile.evaluate.model_copy(update={"folder": folder})
    for decode in range(profile.swaps.decodes):
        made.censuses[of, decode] = RunSpec(
            stage=profile.stage("evaluate"),
            settings=settings.model_dump(mode="json"),
            inputs={"model": run_id},
            seed=100 * made.seed + decode,
        )


def collect(plans: Sequence[SwapPlan], store: Store) -> SwapTables:
    """The tables of base seeds that are in the store."""
    return tables.joined([_of_plan(one, store) for one in plans], SwapTables)


def _of_plan(made: SwapPlan, store: Store) -> SwapTables:
    def folder(spec: RunSpec) -> Path:
        return store.load(store.key(spec)).path

    effects, sizes = [], []
    for (swap, decode), spec in made.censuses.items():
        episodes = pd.read_parquet(folder(spec) / "episodes.parquet")[["split", "solved_at"]]
        grouped = episodes["solved_at"].groupby(episodes["split"], observed=True)
        counts = grouped.agg(hands="size", solved=solved, first=solved_first).reset_index()
        effects.append(counts.assign(**vars(swap), decode=decode))
    for swap, spec in made.edited.items():
        found: dict[str, Any] = json.loads((folder(spec) / "sizes.json").read_text(encoding="utf-8"))
        sizes.append({**vars(swap), **found})
    frames = (pd.concat(effects, ignore_index=True), pd.DataFrame(sizes), pd.DataFrame({"peak": [made.peak]}))
    return SwapTables(*(frame.assign(seed=made.seed) for frame in frames))


def part(peaks: dict[int, int]) -> Part[SwapTables]:
    """This study as something that can be recorded; peaks: by base seed, from the study of chapter 01."""
    return Part("-swaps", partial(plan, peaks=peaks), collect, SwapTables)
