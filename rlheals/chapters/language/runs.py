"""What chapter 07 works with: recorded studies of language models, beside the lab's.

A study is a profile's: chapter 06's machine, with a profile in the place of a task. Nobody recomputes hours for a page,
so a reader has no runs of this chapter; what is drawn is what is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rlheals.chapters.base import Computer
from rlheals.chapters.beyond.runs import BeyondChapter, BeyondTables
from rlheals.store.store import Store
from rlheals.study.plan import SeedPlan
from rlheals.study.tables import Part

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

LAB = "lab"
STUDIES = ("smollm2",)
"""Profiles of language models that the book shows; `smollm2-navigation` would be the same model on another task."""


@dataclass(frozen=True)
class LanguageTables(BeyondTables):
    """by_task: by profile and part. The lab is there for comparison."""

    BESIDE: ClassVar[str] = LAB


def _none(plans: Sequence[SeedPlan], store: Store) -> LanguageTables:
    return LanguageTables({})


@dataclass(frozen=True)
class LanguageChapter(BeyondChapter):
    """Chapter 07."""

    PART = replace(BeyondChapter.PART, suffix="-language", collect=_none, kind=LanguageTables)

    @classmethod
    def open(cls, profile: str | Profile = LAB, *arguments: Any, **options: Any) -> Self:
        """As of other chapters; of a profile without a language model, what the book shows."""
        from rlheals.profiles import Profile, load_profile

        chosen = profile if isinstance(profile, Profile) else load_profile(profile)
        return super().open(chosen if chosen.model else load_profile(STUDIES[0]), *arguments, **options)

    @classmethod
    def studied(cls, profile: str) -> dict[str, str]:
        return {name: name for name in (LAB, *(STUDIES if profile == STUDIES[0] else (profile,)))}

    @classmethod
    def planned(
        cls, profile: Profile, seeds: Sequence[int] | None, recorded: BeyondTables | None, computer: Computer
    ) -> tuple[Part[BeyondTables], list[SeedPlan]]:
        return cls.PART, []

    @property
    def studies(self) -> dict[str, Profile]:
        """Those of the chapter's panels, the lab first."""
        from rlheals.profiles import load_profile

        return {
            name: self.profile if name == self.profile.name else load_profile(name)
            for name in self.studied(self.profile.name)
        }


CHAPTER = LanguageChapter
language = LanguageChapter.open
