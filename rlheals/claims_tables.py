"""The claims of all chapters as tables: with interval and verdict, or with what is missing for one.

Each function returns blocks (paragraphs and tables); `rlheals.markup` renders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlheals.claimed import CLAIMED, outcome
from rlheals.claims import ClaimsFile, Judged
from rlheals.markup import Block, Table, spans
from rlheals.places import project_root

SHOWN_MISSING = 5


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as the front page and README show them."""
    blocks: list[Block] = []
    for key, one in CLAIMED.items():
        blocks += [f"{one.title}:", *claims_table(key, results)]
    return blocks


def claims_table(key: str, results: Path) -> list[Block]:
    """The claims of a part (a key of `CLAIMED`), with verdicts once everything that decides is recorded."""
    found = outcome(key, project_root() / results)
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
    return [said, _undecided(claims)]


def _decided(claims: ClaimsFile, found: Sequence[Judged], how: str) -> list[Block]:
    level = f"{100 * claims.study.level:g} %"
    about = (
        f"Profile `{claims.study.profile}`, {how}; {level} t intervals over base seeds. A claim holds when its whole "
        "interval lies above the margin."
    )
    rows = tuple(
        (
            one.claim.sentence,
            f"{one.interval:.3f} {one.claim.unit}",
            f"{one.claim.margin:g}",
            spans(sorted(one.values)),
            f"**{one.verdict}**",
        )
        for one in found
    )
    return [Table(("claim", f"estimate [{level} interval]", "margin", "seeds", "verdict"), rows), about]


def _undecided(claims: ClaimsFile) -> Table:
    rows = tuple(
        (claim.sentence, claim.unit, f"{claim.margin:g}", spans(claims.study.seeds), "no verdict yet")
        for claim in claims.claims
    )
    return Table(("claim", "quantity", "margin", "seeds", "verdict"), rows)
