"""What every chapter works with: the reader's fresh runs, the recorded study beside them, and where both come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

import pandas as pd

from rlheals.chapters import captions
from rlheals.chapters.expected import cut_down
from rlheals.display.markup import Block, spans
from rlheals.errors import BadInput
from rlheals.project import project_root
from rlheals.store.runs import Run
from rlheals.store.store import Store, default_store
from rlheals.study import plan as study
from rlheals.study import record, tables
from rlheals.study.compute import compute
from rlheals.study.peaks import POINTS, recorded_points
from rlheals.study.plan import SeedPlan
from rlheals.study.record import Recorded
from rlheals.study.tables import Frames, Part

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

PLUMBING = "smoke"
MEANS_NOTHING = "Profile smoke is a plumbing test: its numbers mean nothing."


@dataclass
class Computer:
    """Loads a reader's runs, or computes those that are not in the store yet. points: of SFT by their name, that of the
    profile, and fresh base seed, found once."""

    store: Store
    workers: int
    quiet: bool
    points: dict[tuple[str, str], dict[int, Any]] = field(default_factory=dict)

    def runs(self, plans: Iterable[SeedPlan]) -> list[Run]:
        specs = [spec for one in plans for spec in one.specs()]
        return compute(specs, self.store, self.workers, self.quiet)

    def points_of(self, what: str, profile: Profile, seeds: Sequence[int]) -> dict[int, Any]:
        """Points of SFT from which some chapters start (`POINTS`): where RL's starts are recorded, those of the same
        SFT as it was recorded with them; else by chapter 01's runs."""
        known = self.points.setdefault((what, profile.name), {})
        for seed in set(seeds) - known.keys():
            if (place := study.recorded_sft(profile, seed)) is not None:
                known |= recorded_points(what, place.parent.name, [seed], place.parent.parent)
        if new := [seed for seed in seeds if seed not in known]:
            plans = [study.plan(profile, seed, self.store) for seed in new]
            self.runs(plans)
            known |= POINTS[what](tables.collect(plans, self.store))
        return {seed: known[seed] for seed in seeds}


@dataclass(frozen=True)
class Slice:
    """A few runs of a recorded base seed that `rlheals replay` computes anew, enough to have each stage it is about.

    recorded: by table, the rows that these runs gave, and the columns to compare; steps: what is told of the choice.
    """

    steps: tuple[int, ...]
    plan: SeedPlan
    recorded: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Chapter(Generic[Frames]):
    """Fresh tables and the runs behind them, recorded tables (None when there are none) and where they are from."""

    PART: ClassVar[Part[Any]]
    """What is recorded of it."""
    SLICED: ClassVar[str] = ""
    """What follows seed-N in the name of the folder that `slice_of` takes rows from."""

    profile: Profile
    fresh: Frames
    recorded: Frames | None
    manifests: tuple[Recorded, ...]
    runs: tuple[Run, ...]

    @classmethod
    def open(
        cls,
        profile: str | Profile = "lab",
        seeds: Sequence[int] | None = None,
        workers: int = 1,
        results: Path = record.FOLDER,
        store: Store | Path | None = None,
        quiet: bool = False,
    ) -> Self:
        """Load the chapter's runs, or compute those that are not in the store yet, and read the recorded study.

        store: or its folder; by default the one that RLHEALS_STORE names, else `.rlheals` of the project.
        """
        from rlheals.profiles import Profile, load_profile

        chosen = profile if isinstance(profile, Profile) else load_profile(profile)
        root = project_root()
        place = store if isinstance(store, Store) else Store(store) if store else default_store()
        computer = Computer(place, workers, quiet)
        recorded, manifests = cls.find(chosen, root / results)
        once = None if seeds is None else list(dict.fromkeys(seeds))
        part, plans = cls.planned(chosen, once, recorded, computer)
        runs = tuple(computer.runs(plans))
        more = cls.more(chosen, recorded, root / results)
        return cls(chosen, part.collect(plans, place), recorded, tuple(manifests), runs, **more)

    @classmethod
    def find(cls, profile: Profile, results: Path) -> tuple[Frames | None, list[Recorded]]:
        """The recorded study of a profile with its manifests, or (None, []). BadInput where it is of another task."""
        found, manifests = cls.found(profile.name, results)
        _of_the_same_task(profile, manifests)
        return found, manifests

    @classmethod
    def found(cls, name: str, results: Path) -> tuple[Frames | None, list[Recorded]]:
        """The same by the profile's name, whatever its task."""
        return record.find(name, cls.PART, results)

    @classmethod
    def planned(
        cls, profile: Profile, seeds: Sequence[int] | None, recorded: Frames | None, computer: Computer
    ) -> tuple[Part[Frames], list[SeedPlan]]:
        """What is recorded of the chapter, and the runs of a reader's own seeds.

        A seed that the recorded study holds cannot be the fresh one, BadInput says so: the two would be drawn as if
        they were independent.
        """
        part = cls.PART
        part.check(profile)
        fresh = list(profile.seeds if seeds is None else seeds)
        if both := sorted(set(fresh) & set(() if recorded is None else recorded.seeds)):
            raise BadInput(
                f"base seed {both[0]} is in the recorded study; choose a fresh one (0 ships with the package)"
            )
        mine = profile.for_reader(recorded=bool(part.from_sft) or recorded is not None)
        if part.from_sft:
            part = part.at(computer.points_of(part.from_sft, mine, fresh))
        return part, [part.plan(mine, seed, computer.store) for seed in fresh]

    @classmethod
    def slice_of(cls, recorded: Frames, profile: Profile, seed: int, store: Store) -> Slice:
        """What a replay computes anew of a recorded base seed."""
        raise NotImplementedError

    @classmethod
    def more(cls, profile: Profile, recorded: Frames | None, results: Path) -> dict[str, Any]:
        """Fields of a chapter beyond these, by name."""
        return {}

    @property
    def minutes(self) -> float:
        """Core-minutes of the fresh runs when they were computed."""
        return sum(run.manifest.seconds for run in self.runs) / 60

    @property
    def code(self) -> str:
        """Hash of the code that the chapter's main stage ran."""
        main = self.profile.stage(self.PART.stage)
        mine = [run for run in self.runs if run.manifest.stage == main] or self.runs[-1:]
        return mine[0].manifest.code_hash

    @property
    def tables(self) -> Frames:
        """The recorded study, or the fresh run where nothing is recorded."""
        return self.fresh if self.recorded is None else self.recorded

    @property
    def study(self) -> str:
        """Which of the two `tables` is."""
        return "fresh" if self.recorded is None else "recorded"

    @property
    def layers(self) -> list[tuple[Frames, str]]:
        """What figures draw, one over the other: the recorded study if there is one, then the fresh run."""
        recorded = [] if self.recorded is None else [(self.recorded, "recorded")]
        return [*recorded, (self.fresh, "fresh")]

    @cached_property
    def comparable(self) -> Frames | None:
        """The recorded study with the repetitions that the fresh run has, for where it is expected to fall."""
        return None if self.recorded is None else cut_down(self.recorded, self.fresh)

    @property
    def seeds(self) -> dict[str, int]:
        """Number of base seeds, by study."""
        return {study: len(tables.seeds) for tables, study in self.layers}

    def how_fresh(self) -> list[str]:
        """What else is said of where the fresh run is from."""
        return []

    def how_recorded(self, recorded: Frames) -> list[str]:
        """What else is said of where the recorded study is from."""
        return []

    def caption(
        self, note: str, frame: pd.DataFrame, marks: Mapping[str, str], words: Mapping[str, str]
    ) -> tuple[str, str]:
        """A figure's caption and where its data are from: both speak of what `frame`, its data, holds and no more.

        marks: how each study is drawn; words: what the figure calls its series.
        """
        parts = [note, captions.described(frame, marks, self.seeds), captions.outside(frame, words)]
        if self.recorded is None:
            parts.append(f"This part of the study of profile {self.profile.name} is not recorded.")
        if self.profile.name == PLUMBING:
            parts.append(MEANS_NOTHING)
        said = captions.worded(" ".join(part for part in parts if part), self.profile)
        return said, self.origin(captions.drawn(frame))

    def about_verdicts(self) -> list[Block]:
        """What has to be said above verdicts that are not those of this profile's runs."""
        if self.profile.name == PLUMBING:
            return [f"**{MEANS_NOTHING} The verdicts are those of the recorded lab study.**"]
        if self.recorded is not None:
            return []
        missing = f"This part of the study of profile `{self.profile.name}` is not recorded"
        return [f"{missing}: verdicts, where there are any, are not about this run."]

    def origin(self, studies: Sequence[str]) -> str:
        """The seeds, settings, code and minutes behind what is drawn."""
        said = []
        if self.recorded is not None and "recorded" in studies:
            taken = {run.id: run.seconds for manifest in self.manifests for run in manifest.runs}
            minutes = sum(taken.values()) / 60
            how = "; ".join([f"base seeds {spans(self.recorded.seeds)}", *self.how_recorded(self.recorded)])
            said.append(f"Recorded study: {how}; {minutes:.0f} core-minutes.")
        if "fresh" in studies:
            seeds = f"base seed {spans(self.fresh.seeds)}, profile {self.profile.name}"
            how = "; ".join([seeds, *self.how_fresh(), f"code {self.code[:8]}"])
            said.append(f"Fresh run: {how}; {self.minutes:.1f} core-minutes.")
        return " ".join(said)


def _of_the_same_task(profile: Profile, manifests: Sequence[Recorded]) -> None:
    """BadInput where what is recorded under a profile's name is about another task."""
    from rlheals.profiles import Profile

    usual = Profile.model_fields["task"].default
    if others := {str(one.profile.get("task", usual)) for one in manifests} - {profile.task}:
        raise BadInput(
            f"profile {profile.name} is about {profile.task}, but what is recorded under its name is about "
            f"{', '.join(sorted(others))}; give the profile another name, or another folder of results"
        )


def core(
    chapters: Iterable[type[Chapter[Any]]],
    profile: Profile,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> list[Run]:
    """Load or compute the fresh runs of chapters: chapter 1's, which others start from, then the rest together."""
    root = project_root()
    computer, plans = Computer(store or default_store(), workers, quiet), list[SeedPlan]()
    for chapter in chapters:
        recorded, _ = chapter.find(profile, root / results)
        plans += chapter.planned(profile, seeds, recorded, computer)[1]
    return computer.runs(plans)
