"""Claims of chapter 07: chapter 06's estimator asked of language models, and whether they agree with the lab.

Until they are registered, claims are those of `draft.yaml` and have no verdict.
"""

from __future__ import annotations

from pathlib import Path

from rlheals.chapters.beyond.claims import by_seed, in_task, repeated
from rlheals.chapters.language.runs import LanguageChapter
from rlheals.chapters.verdicts import outcomes
from rlheals.display.markup import Block, Table
from rlheals.settings import validated
from rlheals.study.claims import FILE, ChapterClaims, ClaimsFile, Outcome, estimator
from rlheals.yaml_file import read_yaml

DRAFT = Path(__file__).with_name("draft.yaml")
NO_DATA, OPEN = "no data yet", "open"
LAB_PARTS = ("sft", "healing", "rotation", "swaps")
UNREGISTERED = (
    "These claims are not registered yet: their margins are set from a pilot with base seed 0, which decides nothing, "
    "before the base seeds that decide are run. So there is no verdict."
)
ABOUT = (
    "Agrees: the same verdict here and in the lab; in part: it holds in both, in one of them only in part; differs: "
    "one excludes what the other shows; open: one of them decides nothing."
)

estimator("language")(in_task)
CLAIMS = ChapterClaims("language", by_seed, repeated)


def drafted(margins: dict[str, float] | None = None) -> ClaimsFile:
    """The claims of the draft, with its margins or these; what is not set is 0 and judges nothing."""
    data = read_yaml(DRAFT, DRAFT.name)
    known = {name: value or 0.0 for name, value in (data["margins"] | (margins or {})).items()}
    part = data[CLAIMS.key]
    claims = [{**claim, "margin": known[claim["margin"]]} for claim in part["claims"]]
    return validated(ClaimsFile, {**part, "claims": claims}, DRAFT.name)


def outcome(results: Path, file: Path = FILE) -> Outcome | None:
    """The verdicts; None while the claims are not registered."""
    if CLAIMS.key not in read_yaml(file, file.name):
        return None
    found, _ = LanguageChapter.found(CLAIMS.read(file).study.profile, results)
    return CLAIMS.outcome(found)


def agreement(lab: str | None, here: str | None) -> str:
    """What two verdicts say of each other; None: there is none.

    >>> agreement("holds", "holds in part"), agreement("not here", "not here"), agreement("holds", "not here")
    ('agrees in part', 'agrees', 'differs')
    """
    both = {lab, here}
    if None in both:
        return NO_DATA
    if OPEN in both:
        return OPEN
    return "agrees" if len(both) == 1 else "differs" if "not here" in both else "agrees in part"


def agreement_table(results: Path, found: Outcome | None = None) -> list[Block]:
    """Every claim with its verdict in the lab and here. found: the verdicts here, else those of what is recorded."""
    found = found or outcome(results)
    claims = drafted() if found is None else found.claims
    lab = {
        one.claim.id: str(one.verdict)
        for part in outcomes(results, LAB_PARTS).values()
        for one in part.judged
    }
    judged = {} if found is None else {one.claim.id: one for one in found.judged}
    rows = []
    for claim in claims.claims:
        mine = judged.get(claim.id)
        there = lab.get(claim.id.removeprefix(f"{claim.options['task']}-"))
        number = claim.unit if mine is None else f"{mine.interval:.3f} {claim.unit}"
        verdict = None if mine is None else str(mine.verdict)
        rows.append((claim.sentence, number, verdict or "–", there or "–", agreement(there, verdict)))
    head = ("claim", "estimate [95 % interval]", "here", "in the lab", "agreement")
    missing = (
        "" if found is None or not found.missing else f"Not all that decides is recorded: {found.missing[0]}."
    )
    state = (
        UNREGISTERED if found is None else "Nothing is recorded yet." if found.missing is None else missing
    )
    return [*([state] if state else []), Table(head, tuple(rows)), ABOUT]
