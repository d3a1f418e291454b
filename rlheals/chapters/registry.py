"""The parts of the book that make claims: what is recorded of each, and the claims that it decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlheals.chapters.base import Chapter, Peaks
from rlheals.chapters.edits import claims as swaps_claims
from rlheals.chapters.edits import runs as swaps
from rlheals.chapters.edits.runs import SwapChapter
from rlheals.chapters.protected import claims as protection_claims
from rlheals.chapters.protected import runs as protection
from rlheals.chapters.protected.runs import ProtectionChapter
from rlheals.chapters.rl import claims as recovery_claims
from rlheals.chapters.rl import runs as recovery
from rlheals.chapters.rl.runs import RecoveryChapter
from rlheals.chapters.sft import claims as sft_claims
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.chapters.spectra import claims as rotation_claims
from rlheals.chapters.spectra import runs as rotation
from rlheals.chapters.spectra.runs import RotationChapter
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.runs import Run
from rlheals.store.store import Store, default_store
from rlheals.study import record, tables
from rlheals.study.claims import ChapterClaims, Outcome, StudyPlan
from rlheals.study.compute import compute
from rlheals.study.tables import Part


@dataclass(frozen=True)
class Claimed:
    """One of them. parts: what is recorded, in order; said: how its runs are made, from the claims' study."""

    title: str
    claims: ChapterClaims[Any]
    part: Part[Any]
    parts: Callable[[Profile], list[Part[Any]]]
    said: Callable[[Any], str]


def _decodes(study: StudyPlan) -> str:
    return f"{study.decodes} decode{'s' if study.decodes > 1 else ''}"


CLAIMED = {
    "sft": Claimed(
        "Supervised fine-tuning (chapter 1)",
        sft_claims.CLAIMS,
        tables.SFT,
        lambda profile: [tables.SFT],
        lambda study: f"{_decodes(study)} per checkpoint",
    ),
    "recovery": Claimed(
        "Reinforcement learning afterwards (chapter 2)",
        recovery_claims.CLAIMS,
        recovery.STUDY,
        recovery.parts,
        lambda study: f"{study.runs} RL seeds per start, {_decodes(study)}",
    ),
    "rotation": Claimed(
        "What moves in the weights (chapter 3)",
        rotation_claims.CLAIMS,
        rotation.STUDY,
        lambda profile: [rotation.STUDY],
        lambda study: f"{study.draws} draws of every null, {_decodes(study)}",
    ),
    "swaps": Claimed(
        "Putting directions back (chapter 4)",
        swaps_claims.CLAIMS,
        swaps.STUDY,
        lambda profile: [swaps.STUDY],
        _decodes,
    ),
    "protection": Claimed(
        "Protected SFT (chapter 4)",
        protection_claims.CLAIMS,
        protection.STUDY,
        lambda profile: [protection.STUDY],
        _decodes,
    ),
}
"""By their part of `claims.yaml`, in the order of the book."""


def outcome(key: str, results: Path) -> Outcome:
    """Judge the claims of a part on the recorded study of the profile that `claims.yaml` names."""
    one = CLAIMED[key]
    found, _ = record.find(one.claims.read().study.profile, one.part, results)
    return one.claims.outcome(found)


CHAPTERS: dict[str, type[Chapter[Any]]] = {
    "sft": SFTChapter,
    "recovery": RecoveryChapter,
    "rotation": RotationChapter,
    "swaps": SwapChapter,
    "protection": ProtectionChapter,
}
"""By part of `claims.yaml`, in the order of the book."""


def core(
    profile: Profile,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = record.FOLDER,
    store: Store | None = None,
    quiet: bool = False,
) -> list[Run]:
    """Load or compute the runs of all chapters: chapter 1's, which the others start from, then the rest together."""
    root = project_root()
    place, specs = store or default_store(root), []
    peaks = Peaks(place, workers, quiet)
    for chapter in CHAPTERS.values():
        recorded, _ = record.find(profile.name, chapter.PART, root / results)
        _, plans = chapter.planned(profile, seeds, recorded, place, peaks)
        specs += [spec for one in plans for spec in one.specs()]
    return compute(specs, place, workers, quiet)
