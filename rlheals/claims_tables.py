"""The claims of all chapters as tables: with interval and verdict, or with what is missing for one.

Each function returns blocks (paragraphs and tables); `rlheals.markup` renders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import recovery_claims, rotation_claims, swaps_claims
from rlheals.chapters import recorded_study
from rlheals.claims import ClaimsFile, Judged, judge, read_claims
from rlheals.markup import Block, Table, spans
from rlheals.places import project_root
from rlheals.recovery_chapter import recorded_recovery
from rlheals.recovery_claims import read_recovery_claims
from rlheals.rotation_chapter import recorded_rotation
from rlheals.rotation_claims import read_rotation_claims
from rlheals.swaps_chapter import recorded_swaps
from rlheals.swaps_claims import read_swap_claims


@dataclass(frozen=True)
class Outcome:
    """The claims with what the recorded study says so far: verdicts once every decided seed is there."""

    claims: ClaimsFile
    seeds: tuple[int, ...]
    decodes: int | None
    judged: tuple[Judged, ...]

    @property
    def missing(self) -> list[int]:
        """Base seeds that were decided on and are not recorded."""
        return sorted(set(self.claims.study.seeds) - set(self.seeds))


def outcome(results: Path) -> Outcome:
    """Judge the claims on the recorded study of the profile that `claims.yaml` names."""
    claims = read_claims()
    tables, manifests = recorded_study(claims.study.profile, results)
    if tables is None:
        return Outcome(claims, (), None, ())
    decodes = min(int(manifest.profile["decodes"]) for manifest in manifests)
    complete = set(claims.study.seeds) <= set(tables.seeds) and decodes >= claims.study.decodes
    return Outcome(claims, tuple(tables.seeds), decodes, tuple(judge(claims, tables)) if complete else ())


def claims_table(result: Outcome) -> list[Block]:
    """The claims: with interval and verdict, or with their margins only while there is nothing to judge them on."""
    study, level = result.claims.study, f"{100 * result.claims.study.level:g} %"
    if not result.judged:
        rows = tuple(
            (claim.sentence, claim.unit, f"{claim.margin:g}", spans(study.seeds), "no verdict yet")
            for claim in result.claims.claims
        )
        return [_why_no_verdict(result), Table(("claim", "quantity", "margin", "seeds", "verdict"), rows)]
    about = (
        f"Profile `{study.profile}`, {result.decodes} decodes per checkpoint; {level} t intervals over base seeds. "
        "A claim holds when its whole interval lies above the margin."
    )
    head = ("claim", f"estimate [{level} interval]", "margin", "seeds", "verdict")
    return [Table(head, _judged_rows(result.judged)), about]


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as the front page and README show them."""
    return [
        "Supervised fine-tuning (chapter 1):",
        *claims_table(outcome(results)),
        "Reinforcement learning afterwards (chapter 2):",
        *recovery_claims_table(results),
        "What moves in the weights (chapter 3):",
        *rotation_claims_table(results),
        "Putting directions back (chapter 4):",
        *swaps_claims_table(results),
    ]


def recovery_claims_table(results: Path) -> list[Block]:
    """The claims of chapter 02, with interval and verdict once everything that decides is recorded."""
    claims = read_recovery_claims()
    study = claims.study
    tables, _ = recorded_recovery(study.profile, project_root() / results)
    lacking = None if tables is None else recovery_claims.missing(tables, claims)
    found = recovery_claims.judged(tables) if tables is not None and not lacking else None
    return _decided_table(claims, found, lacking, f"{study.runs} RL seeds per start, {study.decodes} decodes")


def rotation_claims_table(results: Path) -> list[Block]:
    """The claims of chapter 03, with interval and verdict once everything that decides is recorded."""
    claims = read_rotation_claims()
    study = claims.study
    tables, _ = recorded_rotation(study.profile, project_root() / results)
    lacking = None if tables is None else rotation_claims.missing(tables, claims)
    found = rotation_claims.judged(tables) if tables is not None and not lacking else None
    return _decided_table(
        claims, found, lacking, f"{study.draws} draws of every null, {study.decodes} decodes"
    )


def swaps_claims_table(results: Path) -> list[Block]:
    """The claims of chapter 04, with interval and verdict once everything that decides is recorded."""
    claims = read_swap_claims()
    tables, _ = recorded_swaps(claims.study.profile, project_root() / results)
    lacking = None if tables is None else swaps_claims.missing(tables, claims)
    found = swaps_claims.judged(tables) if tables is not None and not lacking else None
    return _decided_table(claims, found, lacking, f"{claims.study.decodes} decodes")


def _decided_table(
    claims: ClaimsFile, found: Sequence[Judged] | None, lacking: Sequence[str] | None, how: str
) -> list[Block]:
    """Claims with their verdicts, or with their margins and what is missing; lacking None: nothing is recorded."""
    study, level = claims.study, f"{100 * claims.study.level:g} %"
    if found is not None:
        about = (
            f"Profile `{study.profile}`, {how}; {level} t intervals over base seeds. A claim holds when its whole "
            "interval lies above the margin."
        )
        head = ("claim", f"estimate [{level} interval]", "margin", "seeds", "verdict")
        return [Table(head, _judged_rows(found)), about]
    if lacking is None:
        why = "Nothing is recorded yet"
    else:
        why = f"The recorded study is not complete ({'; '.join(lacking[:5])}{'; ...' if len(lacking) > 5 else ''})"
    rows = tuple(
        (claim.sentence, claim.unit, f"{claim.margin:g}", spans(study.seeds), "no verdict yet")
        for claim in claims.claims
    )
    said = f"{why}. The claims are decided on base seeds {spans(study.seeds)} with {how}; no verdict is given before."
    return [said, Table(("claim", "quantity", "margin", "seeds", "verdict"), rows)]


def _judged_rows(found: Sequence[Judged]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            one.claim.sentence,
            f"{one.interval:.3f} {one.claim.unit}",
            f"{one.claim.margin:g}",
            spans(sorted(one.values)),
            f"**{one.verdict}**",
        )
        for one in found
    )


def _why_no_verdict(result: Outcome) -> str:
    study = result.claims.study
    if not result.seeds:
        return (
            f"No recorded study of the profile `{study.profile}` is here, so there are no estimates and no verdicts. "
            "These are the claims with the margins decided beforehand."
        )
    found = f"base seeds {spans(result.seeds)} with {result.decodes} decodes"
    wanted = f"base seeds {spans(study.seeds)} with {study.decodes} decodes"
    return (
        f"The recorded study is not complete: the claims are decided on {wanted}, and {found} are recorded. "
        "No verdict is given before."
    )
