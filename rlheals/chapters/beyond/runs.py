"""What chapter 06 works with: the recorded studies of other tasks in the lab, and a reader's own runs of one of them.

A task is studied by the same parts as cards are, each with the profile's name for that task (`lab-navigation`). So
nothing is recorded of this chapter itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rlheals.chapters.base import Chapter, Computer
from rlheals.chapters.edits.runs import EditChapter
from rlheals.chapters.healing.runs import HealingChapter
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.chapters.spectra.runs import SpectraChapter
from rlheals.errors import BadInput
from rlheals.study.plan import SeedPlan
from rlheals.study.record import Recorded
from rlheals.study.tables import Part, Seeded

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

CARDS = "general_points"
TASKS = ("navigation", "determinant_rules")
"""Beside cards, in the order of the chapter."""
PARTS: dict[str, type[Chapter[Any]]] = {
    "sft": SFTChapter,
    "healing": HealingChapter,
    "rotation": SpectraChapter,
    "swaps": EditChapter,
}
"""What is studied of a task, by part of `claims.yaml`."""
FRESH = ("sft", "healing")
"""What a reader computes, of the first task."""


@dataclass(frozen=True)
class BeyondTables(Seeded):
    """by_task: by task and part, the tables of that part. `BESIDE` is there for comparison, and no task that counts."""

    BESIDE: ClassVar[str] = CARDS

    by_task: Mapping[str, Mapping[str, Seeded]]

    @property
    def counted(self) -> dict[str, Mapping[str, Seeded]]:
        """Without what is there for comparison."""
        return {task: parts for task, parts in self.by_task.items() if task != self.BESIDE}

    @property
    def seeds(self) -> list[int]:
        """Base seeds that every task's SFT has."""
        each = [set(parts["sft"].seeds) for parts in self.counted.values()]
        return sorted(set.intersection(*each)) if each else []

    def of_seed(self, seed: int) -> Self:
        return replace(
            self,
            by_task={
                task: {key: one.of_seed(seed) for key, one in parts.items()}
                for task, parts in self.by_task.items()
            },
        )

    def of(self, task: str, part: str) -> Any | None:
        """The tables of one part of a task; None where there are none."""
        return self.by_task.get(task, {}).get(part)


@dataclass(frozen=True)
class BeyondPlan(SeedPlan):
    """The runs of a reader's base seed, by part."""

    parts: Mapping[str, tuple[Part[Any], SeedPlan]]

    def specs(self) -> list[Any]:
        return [spec for _, one in self.parts.values() for spec in one.specs()]


def _collect(plans: Sequence[BeyondPlan], store: Any) -> BeyondTables:
    parts = {key: part for key, (part, _) in plans[0].parts.items()}
    found = {key: part.collect([one.parts[key][1] for one in plans], store) for key, part in parts.items()}
    return BeyondTables({TASKS[0]: found})


def _lacking(profile: Profile) -> str:
    name = BeyondChapter.studied(profile.name)[TASKS[0]]
    return f"other tasks are recorded one by one, under names such as {name}"


def _plan(profile: Profile, *_: Any) -> SeedPlan:
    raise BadInput(f"chapter 06: {_lacking(profile)}")


@dataclass(frozen=True)
class BeyondChapter(Chapter[BeyondTables]):
    """Chapter 06."""

    PART = Part("-beyond", _plan, _collect, BeyondTables, "rl", _lacking)

    @classmethod
    def studied(cls, profile: str) -> dict[str, str]:
        """The profile's name of every study, that which is there for comparison first."""
        return {
            task: profile if task == CARDS else f"{profile}-{task.replace('_', '-')}"
            for task in (CARDS, *TASKS)
        }

    @classmethod
    def find(cls, profile: Profile, results: Path) -> tuple[BeyondTables | None, list[Recorded]]:
        return cls.found(profile.name, results)

    @classmethod
    def found(cls, name: str, results: Path) -> tuple[BeyondTables | None, list[Recorded]]:
        """What is recorded of the tasks; a task counts when its SFT is, and nothing is when no task does."""
        by_task, manifests = dict[str, dict[str, Seeded]](), list[Recorded]()
        for task, own in cls.studied(name).items():
            found = {key: part.found(own, results) for key, part in PARTS.items()}
            if found["sft"][0] is None:
                continue
            by_task[task] = {key: one for key, (one, _) in found.items() if one is not None}
            if task != cls.PART.kind.BESIDE:
                manifests += [one for _, each in found.values() for one in each]
        tables = cls.PART.kind(by_task)
        return (tables if tables.counted else None), manifests

    @classmethod
    def planned(
        cls, profile: Profile, seeds: Sequence[int] | None, recorded: BeyondTables | None, computer: Computer
    ) -> tuple[Part[BeyondTables], list[SeedPlan]]:
        from rlheals.profiles import of_task

        mine = of_task(profile, TASKS[0])
        each: dict[str, tuple[Part[Any], list[SeedPlan]]] = {}
        for key in FRESH:
            known = None if recorded is None else recorded.of(TASKS[0], key)
            each[key] = PARTS[key].planned(mine, seeds, known, computer)
        fresh = list(mine.seeds if seeds is None else seeds)
        return cls.PART, [
            BeyondPlan(seed, {key: (part, plans[at]) for key, (part, plans) in each.items()})
            for at, seed in enumerate(fresh)
        ]


CHAPTER = BeyondChapter
beyond = BeyondChapter.open
