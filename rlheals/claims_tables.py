"""The claims of all chapters as tables: with interval and verdict, or with what is missing for one.

Each function returns blocks (paragraphs and tables); `rlheals.markup` renders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals import later, record, tables
from rlheals.claims import ClaimsFile, Judged, judge, read_claims
from rlheals.later import LATER
from rlheals.markup import Block, Table, spans
from rlheals.places import project_root


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
    study, manifests = record.find(claims.study.profile, tables.SFT, results)
    if study is None:
        return Outcome(claims, (), None, ())
    decodes = min(int(manifest.profile["decodes"]) for manifest in manifests)
    complete = set(claims.study.seeds) <= set(study.seeds) and decodes >= claims.study.decodes
    return Outcome(claims, tuple(study.seeds), decodes, tuple(judge(claims, study)) if complete else ())


def claims_table(result: Outcome) -> list[Block]:
    """The claims: with interval and verdict, or with their margins only while there is nothing to judge them on."""
    if not result.judged:
        return [_why_no_verdict(result), _undecided(result.claims)]
    return _decided(result.claims, result.judged, f"{result.decodes} decodes per checkpoint")


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as the front page and README show them."""
    blocks: list[Block] = ["Supervised fine-tuning (chapter 1):", *claims_table(outcome(results))]
    for key, one in LATER.items():
        blocks += [f"{one.title}:", *chapter_table(key, results)]
    return blocks


def chapter_table(key: str, results: Path) -> list[Block]:
    """The claims of a later chapter (a key of `LATER`), with verdicts once everything that decides is recorded."""
    found = later.outcome(key, project_root() / results)
    claims, how = found.claims, LATER[key].said(found.claims.study)
    study = claims.study
    if found.judged:
        return _decided(claims, found.judged, how)
    if found.missing is None:
        why = "Nothing is recorded yet"
    else:
        some, more = "; ".join(found.missing[:5]), "; ..." if len(found.missing) > 5 else ""
        why = f"The recorded study is not complete ({some}{more})"
    said = f"{why}. The claims are decided on base seeds {spans(study.seeds)} with {how}; no verdict is given before."
    return [said, _undecided(claims)]


def _decided(claims: ClaimsFile, found: Sequence[Judged], how: str) -> list[Block]:
    level = f"{100 * claims.study.level:g} %"
    about = (
        f"Profile `{claims.study.profile}`, {how}; {level} t intervals over base seeds. A claim holds when its whole "
        "interval lies above the margin."
    )
    return [
        Table(("claim", f"estimate [{level} interval]", "margin", "seeds", "verdict"), _judged_rows(found)),
        about,
    ]


def _undecided(claims: ClaimsFile) -> Table:
    rows = tuple(
        (claim.sentence, claim.unit, f"{claim.margin:g}", spans(claims.study.seeds), "no verdict yet")
        for claim in claims.claims
    )
    return Table(("claim", "quantity", "margin", "seeds", "verdict"), rows)


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
