"""The runs of chapter 04, and their tables: edited checkpoints and what they are made of, each of them evaluated.

"restore": the late SFT checkpoint, edited with that of the peak. "swap": the result of RL, edited with the late SFT
checkpoint. "lend": the checkpoint from which RL started, edited with RL's result. "other": a control, the late
checkpoint edited with one that another SFT run of the same base had at the peak's step. Anchors are the checkpoints
themselves: peak, late, start, rl, other-peak.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd

from rlheals.chapters.base import Chapter, Slice
from rlheals.chapters.rl.runs import rl_spec
from rlheals.chapters.rows import collector, only
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import Plan, SeedPlan, census_spec, followed
from rlheals.study.plan import plan as sft_plan
from rlheals.study.tables import Part, Seeded

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

OTHER_SEED = 10_000
"""Added to the seed of the other SFT run, beyond all base seeds."""
ANCHOR, OTHER = "anchor", "other"


@dataclass(frozen=True)
class Edited:
    """One edited checkpoint. kind "anchor": a checkpoint as it is, `edit` is its name."""

    kind: str
    edit: str
    where: str = ""


@dataclass(frozen=True)
class EditPlan(SeedPlan):
    """The runs of one base seed."""

    peak: int
    before: Plan
    rl: RunSpec
    other: RunSpec
    edited: dict[Edited, RunSpec] = field(default_factory=dict)
    censuses: dict[tuple[Edited, int], RunSpec] = field(default_factory=dict)

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        used = {one.edit if one.kind == ANCHOR else one.kind for one, _ in self.censuses}
        rl = [self.rl] if used & {"rl", "swap", "lend"} else []
        other = [self.other] if OTHER in used else []
        return [*self.before.origins, *rl, *other, *followed(self.edited, self.censuses)]


@dataclass(frozen=True)
class EditTables(Seeded):
    """Everything chapter 04 is drawn from; every row says seed, kind, edit and where.

    effects   per (decode, split): hands, solved in five attempts, solved in the first
    sizes     of edited checkpoints: norms of the edited tensors, of the edit, of the distance to the other before and
              after; forward KL from the pretrained base and from the target (nats per answer)
    peaks     the step that counts as the peak
    """

    LISTS = "peaks"

    effects: pd.DataFrame
    sizes: pd.DataFrame
    peaks: pd.DataFrame


def plan(profile: Profile, seed: int, store: Store, peaks: Mapping[int, int]) -> EditPlan:
    """The runs of one base seed; peaks: its peak, known from the study of chapter 01."""
    from rlheals.training import sft
    from rlheals.training.rl.settings import checkpoint_name
    from rlheals.weights.edit_parser import read_entry
    from rlheals.weights.edit_stage import MODEL, EditedSettings

    grid = profile.swaps
    assert grid.late is not None, "see _lacking"
    assert grid.start is not None
    before, peak = sft_plan(profile, seed, store), peaks[seed]
    trained = rl_spec(profile, before, store, grid.start, 0, {})
    another = before.sft.model_copy(update={"seed": OTHER_SEED + seed})
    made = EditPlan(seed, peak, before, trained, another)
    after = checkpoint_name(profile.rl_starts.iterations)
    steps = {"peak": peak, "late": grid.late, "start": grid.start}
    folders = {name: sft.checkpoint_name(step) for name, step in steps.items()}
    runs = {"sft": store.key(before.sft), "rl": store.key(trained), "other": store.key(another)}

    def evaluate(of: Edited, model: str, folder: str) -> None:
        for decode in range(grid.decodes):
            made.censuses[of, decode] = census_spec(profile, model, folder, seed, decode)

    for name, folder in folders.items():
        evaluate(Edited(ANCHOR, name), runs["sft"], folder)
    if grid.swap or grid.lend:
        evaluate(Edited(ANCHOR, "rl"), runs["rl"], after)
    if grid.other:
        evaluate(Edited(ANCHOR, "other-peak"), runs["other"], folders["peak"])
    peak_of, late = ("sft", folders["peak"]), ("sft", folders["late"])
    kinds = (
        ("restore", grid.restore, peak_of, late),
        ("swap", grid.swap, late, ("rl", after)),
        ("lend", grid.lend, ("rl", after), ("sft", folders["start"])),
        (OTHER, grid.other, ("other", folders["peak"]), late),
    )
    for kind, entries, with_, edited in kinds:
        inputs = {"base": runs[with_[0]], "target": runs[edited[0]], "origin": store.key(before.base)}
        for entry in entries:
            one = Edited(kind, *read_entry(entry))
            asked = {"base": with_[1], "target": edited[1], "edit": one.edit, "where": one.where}
            asked |= {"task": profile.task, "prompts": profile.evaluate.prompts}
            answers = EditedSettings(**asked, questions=profile.rotation.questions)
            settings = answers.model_dump(mode="json")
            made.edited[one] = RunSpec(stage="edited", settings=settings, inputs=inputs, seed=seed)
            evaluate(one, store.key(made.edited[one]), MODEL)
    return made


def _of_plan(made: EditPlan, store: Store) -> EditTables:
    folder = tables.folders(store)
    effects = [
        tables.solved(folder(spec)).assign(**vars(one), decode=decode)
        for (one, decode), spec in made.censuses.items()
    ]
    sizes = [
        {**vars(one), **json.loads((folder(spec) / "sizes.json").read_text(encoding="utf-8"))}
        for one, spec in made.edited.items()
    ]
    frames = (pd.concat(effects, ignore_index=True), pd.DataFrame(sizes), pd.DataFrame({"peak": [made.peak]}))
    return EditTables(*(frame.assign(seed=made.seed) for frame in frames))


def _lacking(profile: Profile) -> str:
    nothing = profile.swaps.late is None or profile.swaps.start is None
    return "swaps.late or swaps.start is not set, so there is nothing to edit" if nothing else ""


collect = collector(_of_plan, EditTables)
STUDY = Part("-swaps", plan, collect, EditTables, "edited", _lacking, from_sft="peaks")


@dataclass(frozen=True)
class EditChapter(Chapter[EditTables]):
    """Chapter 04."""

    PART = STUDY

    @classmethod
    def slice_of(cls, recorded: EditTables, profile: Profile, seed: int, store: Store) -> Slice:
        """One edit of the late checkpoint, and an evaluation of it."""
        peak = int(recorded.peaks["peak"].iloc[0])
        whole = plan(profile, seed, store, {seed: peak})
        top = "directions(top="
        chosen = max(whole.edited, key=lambda one: one.kind == "restore" and one.edit.startswith(top))
        part = replace(
            whole, edited={chosen: whole.edited[chosen]}, censuses={(chosen, 0): whole.censuses[chosen, 0]}
        )
        effects = only(recorded.effects, **vars(chosen), decode=0)
        return Slice((peak,), part, {"effects": effects, "sizes": only(recorded.sizes, **vars(chosen))})

    def how_fresh(self) -> list[str]:
        peaks, grid = ", ".join(f"{peak:,}" for peak in self.fresh.peaks["peak"]), self.profile.swaps
        return [f"peak at SFT step {peaks}", f"late checkpoint at {grid.late:,}", f"RL from {grid.start:,}"]


CHAPTER = EditChapter
edits = EditChapter.open
