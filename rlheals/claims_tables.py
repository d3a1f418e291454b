"""The claims of all chapters as tables: with interval and verdict, or with what is missing for one.

Each function returns blocks (paragraphs and tables); `rlheals.markup` renders them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rlheals.claimed import CLAIMED, outcome
from rlheals.claims import FAMILIES, ClaimsFile, Judged, Outcome
from rlheals.markup import Block, Table, spans
from rlheals.project import project_root
from rlheals.verdicts import VERDICTS

SHOWN_MISSING = 5


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as the front page and README show them."""
    found = {key: outcome(key, project_root() / results) for key in CLAIMED}
    blocks: list[Block] = [_counted(found.values())]
    for key, one in CLAIMED.items():
        blocks += [f"**{one.title}**", *_table(key, found[key])]
    return blocks


def claims_table(key: str, results: Path) -> list[Block]:
    """The claims of a part (a key of `CLAIMED`), with verdicts once everything that decides is recorded."""
    return _table(key, outcome(key, project_root() / results))


def _counted(found: Collection[Outcome]) -> str:
    """How often each verdict was given, for each family of claims, in one paragraph."""
    said = []
    for family, heading in FAMILIES.items():
        total = sum(claim.family == family for each in found for claim in each.claims.claims)
        verdicts = [one.verdict for each in found for one in each.judged if one.claim.family == family]
        parts = [f"{verdict} {verdicts.count(verdict)}" for verdict in VERDICTS if verdict in verdicts]
        if undecided := total - len(verdicts):
            parts.append(f"no verdict yet {undecided}")
        said.append(f"{heading} ({total}): {', '.join(parts)}.")
    return " ".join(said)


def _table(key: str, found: Outcome) -> list[Block]:
    claims, how = found.claims, CLAIMED[key].said(found.claims.study)
    if found.judged:
        return _decided(claims, found.judged, how)
    if found.missing is None:
        why = "Nothing is recorded yet"
    else:
        some = "; ".join(found.missing[:SHOWN_MISSING])
        more = "; ..." if len(found.missing) > SHOWN_MISSING else ""
        why = f"The recorded study is not complete ({some}{more})"
    seeds = spans(claims.study.seeds)
    said = f"{why}. The claims are decided on base seeds {seeds} with {how}; no verdict is given before."
    return [said, *_undecided(claims)]


def _decided(claims: ClaimsFile, found: Sequence[Judged], how: str) -> list[Block]:
    level = f"{100 * claims.study.level:g} %"
    about = (
        f"Profile `{claims.study.profile}`, {how}; {level} t intervals over base seeds. A claim holds when its whole "
        "interval lies above the margin. Holm's correction is for the claims of one table; it does not change the "
        "verdict."
    )
    head = ("claim", f"estimate [{level} interval]", "margin", "seeds", "Holm-adjusted p", "verdict")
    rows = {
        one.claim.id: (
            one.claim.sentence,
            f"{one.interval:.3f} {one.claim.unit}",
            f"{one.claim.margin:g}",
            spans(sorted(one.values)),
            p_text(one.adjusted),
            one.shown,
        )
        for one in found
    }
    return [*_by_family(claims, head, rows), about]


def _undecided(claims: ClaimsFile) -> list[Block]:
    seeds = spans(claims.study.seeds)
    rows = {
        claim.id: (claim.sentence, claim.unit, f"{claim.margin:g}", seeds, "no verdict yet")
        for claim in claims.claims
    }
    return _by_family(claims, ("claim", "quantity", "margin", "seeds", "verdict"), rows)


def _by_family(claims: ClaimsFile, head: tuple[str, ...], rows: Mapping[str, tuple[str, ...]]) -> list[Block]:
    """One table per family that has claims, each under its heading; rows: by claim id."""
    blocks: list[Block] = []
    for family, heading in FAMILIES.items():
        if mine := tuple(rows[claim.id] for claim in claims.claims if claim.family == family):
            blocks += [f"{heading}:", Table(head, mine)]
    return blocks


def p_text(p: float) -> str:
    """A p-value for a table.

    >>> p_text(0.0321), p_text(0.00004)
    ('0.032', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
