"""Tables of claims: of one part, of all with the recorded study and the fresh run, and counts of verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.book import cards, pages
from rlheals.book.cards import UNDECIDED
from rlheals.chapters.healing import finding
from rlheals.chapters.healing.runs import STUDY
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.spectra import predictors
from rlheals.chapters.verdicts import outcomes
from rlheals.display.markup import Block, Table, p_text, spans, to_markdown
from rlheals.errors import BadInput
from rlheals.planning import speed
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.files import atomic_writes, make_folder, told
from rlheals.store.store import Store, default_store
from rlheals.study import record
from rlheals.study.claims import FAMILIES, ChapterClaims, Claim, Outcome

SHOWN_MISSING = 5
NAME = "all_claims"


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as a report shows them that has no book around it."""
    blocks = counts(results)
    for key, one in outcomes(project_root() / results).items():
        blocks += [f"**{CHAPTERS[key].title}**", *_table(one)]
    return blocks


def counts(results: Path, page: str | None = None) -> list[Block]:
    """How the tests of each of the paper's numbered claims came out, as the front page and README show it.

    page: where the claims are linked to: empty for their sections of the book, a file, None for no links.
    """
    found, known = outcomes(project_root() / results), cards.every_claim()
    verdicts = dict.fromkeys(known, UNDECIDED)
    verdicts |= {one.claim.id: str(one.verdict) for each in found.values() for one in each.judged}
    rows = []
    for number, one in enumerate(cards.read_order(known).claims, start=1):
        title = f"{number}. {one.title}"
        if page is not None:
            title = f"[{title}]({page or f'#{cards.target(number)}'})"
        rows.append((title, cards.counted([verdicts[test] for test in one.tests])))
    own = [verdicts[claim.id] for claim in known.values() if claim.family == "ours"]
    return [
        Table(("claim of the paper", "its tests in this lab"), tuple(rows)),
        f"Our own questions and controls: {cards.counted(own, 'questions')}.",
    ]


def claims_table(key: str, results: Path) -> list[Block]:
    """The claims of a part (a key of `CHAPTERS`), with verdicts once everything that decides is recorded."""
    return _table(outcomes(project_root() / results, [key])[key])


def the_finding(results: Path) -> list[Block]:
    """When RL heals, from the verdicts of chapter 5 alone; a line on what is missing while there are none."""
    found = outcomes(project_root() / results, ["healing"])["healing"]
    if found.missing:
        return [f"When RL heals is not known yet: {_incomplete(found)}."]
    tables = record.find(found.claims.study.profile, STUDY, project_root() / results)[0]
    return [*finding.blocks(finding.found(found), finding.regained(tables) if tables else {}), finding.NOTE]


def _incomplete(found: Outcome) -> str:
    """What is missing of the study of a part, in words."""
    if found.missing is None:
        return "nothing is recorded yet"
    seeds = [one.removeprefix("base seed ") for one in found.missing]
    if all(map(str.isdecimal, seeds)):
        said = f"without base seed{'s' * (len(seeds) != 1)} {spans(list(map(int, seeds)))} so far"
    else:
        said = "; ".join([*found.missing[:SHOWN_MISSING], *["..."] * (len(found.missing) > SHOWN_MISSING)])
    return f"the recorded study is not complete ({said})"


def _table(found: Outcome) -> list[Block]:
    study, judged = found.claims.study, {one.claim.id: one for one in found.judged}
    level, seeds = f"{100 * study.level:g} %", spans(study.seeds)
    order, rows = cards.read_order(cards.every_claim()), []
    for claim in found.claims.claims:
        one = judged.get(claim.id)
        row = cards.Row(claim, vars(one.interval) if one else {}, order.shows(claim), order.bears(claim))
        effect, p, verdict = row.shown.of, "", found.no_data.get(claim.id, UNDECIDED)
        if one:
            effect, p, verdict = f"{effect}: {row.effect()}", p_text(one.adjusted), one.shown
        rows.append((claim.family, (claim.sentence, effect, row.shown.with_unit(row.limit), p, verdict)))
    head = ("claim", f"what was measured [{level} interval]", "claimed", "Holm-adjusted p", "verdict")
    tables = _by_family(head, rows)
    if judged:
        about = (
            f"Profile `{study.profile}`, base seeds {seeds}, {study.said}; {level} t intervals over base seeds. A "
            "claim holds when its whole interval lies where the claim says. Holm's correction is for the claims of one "
            "table; it does not change the verdict. Registered numbers and margins: `rlheals claims --json`."
        )
        return [*tables, about]
    state = _incomplete(found)
    state = f"{state[0].upper()}{state[1:]}"
    decided = f"The claims are decided on base seeds {seeds} with {study.said}; no verdict is given before."
    return [f"{state}. {decided}", *tables]


def _by_family(head: tuple[str, ...], rows: Iterable[tuple[str, tuple[str, ...]]]) -> list[Block]:
    """One table for each family that has claims, under its heading; rows: family and cells."""
    rows, blocks = list(rows), list[Block]()
    for family, heading in FAMILIES.items():
        if mine := tuple(cells for of, cells in rows if of == family):
            blocks += [f"{heading}:", Table(head, mine)]
    return blocks


def frame(opened: Mapping[str, Any], results: Path) -> pd.DataFrame:
    """One row per claim: chapter, id, margin, estimate with interval and verdict of the study, value of the fresh run.

    opened: chapters of the book, by part of `claims.yaml`. Not a number: what is not recorded, or what no fresh run
    measures.
    """
    rows = []
    for key, found in outcomes(results).items():
        one = CHAPTERS[key]
        judged = {each.claim.id: each for each in found.judged}
        for claim in found.claims.claims:
            row = {
                "chapter": one.title, "page": one.notebook, "id": claim.id, "sentence": claim.sentence,
                "source": claim.source, "family": claim.family, "unit": claim.unit, "margin": claim.margin,
                "seeds": spans(found.claims.study.seeds), "estimate": nan, "low": nan, "high": nan,
                "verdict": UNDECIDED, "holm_p": nan, "shown": found.no_data.get(claim.id, UNDECIDED),
                "fresh": _fresh(one.claims, claim, opened[key].fresh) if key in opened else nan,
                "section": claim.section,
                "code": f"chapters.{one.room}.claims: {claim.estimator}",
            }  # fmt: skip
            if said := judged.get(claim.id):
                at = said.interval
                row |= {"estimate": at.estimate, "low": at.low, "high": at.high}
                row |= {"verdict": str(said.verdict), "holm_p": said.adjusted, "shown": said.shown}
            rows.append(row)
    return pd.DataFrame(rows)


def _fresh(claims: ChapterClaims, claim: Claim, tables: Any) -> float:
    """The claim's number in a fresh run, its mean over seeds; not a number where it is not measured."""
    try:
        values = claims.estimates(claim, tables)
    except (KeyError, BadInput):  # a split or checkpoint that the profile leaves out
        return nan
    return float(pd.Series(values, dtype=float).mean())


def write(profile: Profile, results: Path, out: Path, store: Store | None = None) -> pd.DataFrame:
    """Write what needs the runs of all chapters into a folder: claims (also as CSV), rivals, what the runs took.

    Runs that are not in the store yet are computed.
    """
    place = store or default_store()
    opened: dict[str, Any] = {
        key: one.chapter.open(profile, results=results, store=place, quiet=True)
        for key, one in CHAPTERS.items()
        if one.in_book
    }
    table = frame(opened, results)
    about = f"Fresh run: profile `{profile.name}`, base seed {spans(profile.seeds)}."
    runs = {run.id: run for chapter in opened.values() for run in chapter.runs}
    with told("make the folder of the claims page", out.absolute().parent):
        make_folder(out.absolute())
    pages_by_name = {
        "rivals": predictors.blocks(opened["rotation"], opened["sft"]),
        "time": [*pages.time_table(runs.values()), *speed.blocks(runs.values(), place)],
    }
    files = {f"{name}.md": to_markdown(part) for name, part in pages_by_name.items()}
    files[f"{NAME}.md"] = f"{to_markdown([about])}\n{cards.page(table)}"
    atomic_writes(out, {**files, f"{NAME}.csv": table.to_csv(index=False, lineterminator="\n")})
    return table
