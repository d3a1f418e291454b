"""The claims page: every claim of every chapter in one table, with the recorded study and the fresh run beside it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.book import pages
from rlheals.chapters.healing import finding
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.spectra import predictors
from rlheals.chapters.verdicts import outcomes
from rlheals.display.markup import Block, Table, spans, to_markdown
from rlheals.errors import BadInput
from rlheals.planning import speed
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.stats.verdicts import VERDICTS
from rlheals.store.files import atomic_writes, make_folder, told
from rlheals.store.store import Store, default_store
from rlheals.study.claims import FAMILIES, ChapterClaims, Claim, Outcome

SHOWN_MISSING = 5
UNDECIDED = "no verdict yet"
FOLDER = "/book/_generated"
NAME = "all_claims"
HEAD = (
    "claim, its source", "verdict", "study", "Holm-adjusted p", "fresh run", "margin, seeds", "id, shown in, code"
)  # fmt: skip


def all_claims(results: Path) -> list[Block]:
    """The claims of all chapters, as the front page and README show them."""
    found = outcomes(project_root() / results)
    blocks: list[Block] = [_counted(found.values())]
    for key, one in found.items():
        blocks += [f"**{CHAPTERS[key].title}**", *_table(one)]
    return blocks


def claims_table(key: str, results: Path) -> list[Block]:
    """The claims of a part (a key of `CHAPTERS`), with verdicts once everything that decides is recorded."""
    return _table(outcomes(project_root() / results, [key])[key])


def the_finding(results: Path) -> list[Block]:
    """When RL heals, from the verdicts of chapter 5 alone; a line on what is missing while there are none."""
    found = outcomes(project_root() / results, ["healing"])["healing"]
    if found.missing:
        return [f"When RL heals is not known yet: {_incomplete(found)}."]
    return [finding.paragraph(finding.found(found)), finding.NOTE]


def _incomplete(found: Outcome) -> str:
    """What is missing of the study of a part, in words."""
    if found.missing is None:
        return "nothing is recorded yet"
    more = ["..."] if len(found.missing) > SHOWN_MISSING else []
    return f"the recorded study is not complete ({'; '.join([*found.missing[:SHOWN_MISSING], *more])})"


def _counted(found: Collection[Outcome]) -> str:
    """How often each verdict was given, for each family of claims, in one paragraph."""
    said = []
    for family, heading in FAMILIES.items():
        total = sum(claim.family == family for each in found for claim in each.claims.claims)
        verdicts = [one.verdict for each in found for one in each.judged if one.claim.family == family]
        parts = [f"{verdict} {verdicts.count(verdict)}" for verdict in VERDICTS if verdict in verdicts]
        if undecided := total - len(verdicts):
            parts.append(f"{UNDECIDED} {undecided}")
        said.append(f"{heading} ({total}): {', '.join(parts)}.")
    return " ".join(said)


def _table(found: Outcome) -> list[Block]:
    study, judged = found.claims.study, {one.claim.id: one for one in found.judged}
    level, seeds = f"{100 * study.level:g} %", spans(study.seeds)
    rows = []
    for claim in found.claims.claims:
        estimate, p, verdict = claim.unit, "", UNDECIDED
        if claim.id in found.no_data:
            verdict = found.no_data[claim.id]
        if one := judged.get(claim.id):
            estimate, p, verdict = f"{one.interval:.3f} {claim.unit}", p_text(one.adjusted), one.shown
        rows.append((claim.family, (claim.sentence, estimate, f"{claim.margin:g}", seeds, p, verdict)))
    head = ("claim", f"estimate [{level} interval]", "margin", "seeds", "Holm-adjusted p", "verdict")
    tables = _by_family(head, rows)
    if judged:
        about = (
            f"Profile `{study.profile}`, {study.said}; {level} t intervals over base seeds. A claim holds when its "
            "whole interval lies above the margin. Holm's correction is for the claims of one table; it does not "
            "change the verdict."
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


def p_text(p: float) -> str:
    """A p-value for a table.

    >>> p_text(0.0321), p_text(0.00004)
    ('0.032', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def frame(opened: Mapping[str, Any], results: Path) -> pd.DataFrame:
    """One row per claim: chapter, id, margin, estimate with interval and verdict of the study, value of the fresh run.

    opened: chapters by part of `claims.yaml`. Not a number: what is not recorded, or what the fresh run does not
    measure.
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
                "fresh": _fresh(one.claims, claim, opened[key].fresh), "section": claim.section,
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


def anchor(heading: str) -> str:
    """What links to a heading of the book end with.

    >>> anchor("The paper's curve: what it shows")
    'the-papers-curve-what-it-shows'
    """
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def blocks(table: pd.DataFrame) -> list[Block]:
    """The table: by chapter, the paper's claims and then our own. Links lead to the section that shows the data."""
    made: list[Block] = []
    for chapter, rows in table.groupby("chapter", sort=False):
        cells = ((row["family"], _cells(row)) for row in rows.to_dict("records"))
        made += [f"**{chapter}**", *_by_family(HEAD, cells)]
    return made


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    decided = not pd.isna(row["estimate"])
    study = f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if decided else "not complete"
    return (
        f"{row['sentence']} ({row['source']})",
        row["shown"],
        f"{row['unit']}: {study}",
        p_text(row["holm_p"]) if decided else "",
        "not measured" if pd.isna(row["fresh"]) else f"{row['fresh']:.3f}",
        f"{row['margin']:g}; {row['seeds']}",
        f"`{row['id']}`, [{row['section']}]({FOLDER}/{row['page']}.ipynb#{anchor(row['section'])}), `{row['code']}`",
    )


def write(profile: Profile, results: Path, out: Path, store: Store | None = None) -> pd.DataFrame:
    """Write what needs the runs of all chapters into a folder: claims (also as CSV), rivals, what the runs took.

    Runs that are not in the store yet are computed.
    """
    place = store or default_store()
    opened: dict[str, Any] = {
        key: one.chapter.open(profile, results=results, store=place, quiet=True)
        for key, one in CHAPTERS.items()
    }
    table = frame(opened, results)
    about = f"Fresh run: profile `{profile.name}`, base seed {spans(profile.seeds)}."
    runs = {run.id: run for chapter in opened.values() for run in chapter.runs}
    with told("make the folder of the claims page", out.absolute().parent):
        make_folder(out.absolute())
    pages_by_name = {
        NAME: [about, *blocks(table)],
        "rivals": predictors.blocks(opened["rotation"], opened["sft"]),
        "time": [*pages.time_table(runs.values()), *speed.blocks(runs.values(), place)],
    }
    files = {f"{name}.md": to_markdown(part) for name, part in pages_by_name.items()}
    atomic_writes(out, {**files, f"{NAME}.csv": table.to_csv(index=False, lineterminator="\n")})
    return table
