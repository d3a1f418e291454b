"""The studies of the chapters after the first: what is recorded of each, and the claims that it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlheals import (
    protection,
    protection_claims,
    record,
    recovery,
    recovery_claims,
    rotation,
    rotation_claims,
    swaps,
    swaps_claims,
)
from rlheals.claims import ChapterClaims, ChapterOutcome, StudyPlan
from rlheals.profiles import Profile
from rlheals.tables import Part


@dataclass(frozen=True)
class Later:
    """One of them. parts: what is recorded, in order; said: how its runs are made, from the claims' study."""

    title: str
    claims: ChapterClaims[Any]
    part: Part[Any]
    parts: Callable[[Profile], list[Part[Any]]]
    said: Callable[[Any], str]


def _decodes(study: StudyPlan) -> str:
    return f"{study.decodes} decode{'s' if study.decodes > 1 else ''}"


LATER = {
    "recovery": Later(
        "Reinforcement learning afterwards (chapter 2)",
        recovery_claims.CLAIMS,
        recovery.STUDY,
        recovery.parts,
        lambda study: f"{study.runs} RL seeds per start, {_decodes(study)}",
    ),
    "rotation": Later(
        "What moves in the weights (chapter 3)",
        rotation_claims.CLAIMS,
        rotation.STUDY,
        lambda profile: [rotation.STUDY],
        lambda study: f"{study.draws} draws of every null, {_decodes(study)}",
    ),
    "swaps": Later(
        "Putting directions back (chapter 4)",
        swaps_claims.CLAIMS,
        swaps.STUDY,
        lambda profile: [swaps.STUDY],
        _decodes,
    ),
    "protection": Later(
        "Protected SFT (chapter 4)",
        protection_claims.CLAIMS,
        protection.STUDY,
        lambda profile: [protection.STUDY],
        _decodes,
    ),
}
"""By their part of `claims.yaml`."""


def outcome(key: str, results: Path) -> ChapterOutcome:
    """Judge the claims of a later chapter on the recorded study of the profile that `claims.yaml` names."""
    one = LATER[key]
    tables, _ = record.find(one.claims.read().study.profile, one.part, results)
    return one.claims.outcome(tables)
