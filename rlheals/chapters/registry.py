"""The chapters: the only list of them. All else about a chapter lies in its folder, `claims.yaml` and its notebook.

Nothing of a chapter is imported before it is asked for, so that commands start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from rlheals.study.claims import ChapterClaims

if TYPE_CHECKING:
    from rlheals.chapters.base import Chapter
    from rlheals.profiles.profile import Profile
    from rlheals.study.tables import Part


@dataclass(frozen=True)
class Entry:
    """A part of the book that makes claims.

    key: its part of `claims.yaml`; room: its folder beside this file; notebook: its name without ending; option: of
    `rlheals study`, what computes it. The folder has `claims.CLAIMS`, `runs.CHAPTER` and `takeaways.TAKEAWAYS`.
    """

    key: str
    room: str
    title: str
    notebook: str
    option: str = ""

    @property
    def in_book(self) -> bool:
        """Whether the book has its notebook."""
        return self.notebook not in WAITING

    @property
    def claims(self) -> ChapterClaims:
        """Its claims and how they are estimated."""
        found: ChapterClaims = resolve_name(f"rlheals.chapters.{self.room}.claims:CLAIMS")
        return found

    @property
    def chapter(self) -> type[Chapter[Any]]:
        """What opens it: its fresh runs beside the recorded study."""
        found: type[Chapter[Any]] = resolve_name(f"rlheals.chapters.{self.room}.runs:CHAPTER")
        return found

    @property
    def part(self) -> Part[Any]:
        """What is recorded of it."""
        return self.chapter.PART

    def parts(self, profile: Profile) -> list[Part[Any]]:
        """The same in the units in which it is recorded, in order."""
        return self.part.in_units(profile)


EDITS = "04_swapping_directions"
HEALING = "05_when_rl_heals"
BEYOND = "06_beyond_cards"
LANGUAGE = "07_a_real_language_model"
"""Chapter 7, no entry below until its claims are registered: see `language/draft.yaml`."""
WAITING = (BEYOND, LANGUAGE)
"""Notebooks whose study is not recorded yet: the book leaves them out, and anyone can run them."""
AUDIT = "audit"
"""The page on released artefacts, which makes no claims."""

CHAPTERS = {
    entry.key: entry
    for entry in (
        Entry("sft", "sft", "Supervised fine-tuning (chapter 1)", "01_sft_forgets"),
        Entry("recovery", "rl", "Reinforcement learning afterwards (chapter 2)", "02_rl_heals", "--recovery"),
        Entry("rotation", "spectra", "What moves in the weights (chapter 3)", "03_what_moves", "--rotation"),
        Entry("swaps", "edits", "Restoring singular vectors (chapter 4)", EDITS, "--edits"),
        Entry("protection", "protected", "Protected SFT (chapter 4)", EDITS, "--protection"),
        Entry("healing", "healing", "When does RL heal? (chapter 5)", HEALING, "--healing"),
        Entry("beyond", "beyond", "Beyond cards (chapter 6)", BEYOND),
    )
}
"""By their part of `claims.yaml`, in the order of the book."""

NOTEBOOKS = (*dict.fromkeys(entry.notebook for entry in CHAPTERS.values()), LANGUAGE, AUDIT)
"""Every notebook's name without ending, in the order of the book."""
PAGES = tuple(name for name in NOTEBOOKS if name not in WAITING)
"""Those that the book has."""
