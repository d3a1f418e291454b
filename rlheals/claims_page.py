"""The claims page: every claim of every chapter in one table, with the recorded study and the fresh run beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals import pages, rotation_rivals, speed
from rlheals.atomic import atomic_write, make_folder, told
from rlheals.claimed import CLAIMED, outcome
from rlheals.claims import FAMILIES, ChapterClaims, Claim
from rlheals.claims_tables import p_text
from rlheals.fresh import CHAPTERS
from rlheals.markup import Block, Table, spans, to_markdown
from rlheals.profile import Profile
from rlheals.project import project_root
from rlheals.store import Store, default_store

FOLDER = "/book/_generated"
NAME = "all_claims"
HEAD = (
    "claim, its source", "verdict", "study", "Holm-adjusted p", "fresh run", "margin, seeds", "shown in, computed by"
)  # fmt: skip

PAGES = {
    "sft": "01_sft_forgets",
    "recovery": "02_rl_heals",
    "rotation": "03_what_moves",
    "swaps": "04_swapping_directions",
    "protection": "04_swapping_directions",
}
"""The chapter's notebook, by part of `claims.yaml`."""


def chapters(profile: Profile, results: Path, store: Store | None = None) -> dict[str, Any]:
    """Loads the fresh runs of all chapters, or computes what is missing of them; by part of `claims.yaml`."""
    return {
        key: chapter.open(profile, results=results, store=store, quiet=True)
        for key, chapter in CHAPTERS.items()
    }


def frame(opened: Mapping[str, Any], results: Path) -> pd.DataFrame:
    """One row per claim: chapter, id, margin, estimate with interval and verdict of the study, value of the fresh run.

    Not a number: what is not recorded, or what the fresh run does not measure.
    """
    rows = []
    for key, one in CLAIMED.items():
        found = outcome(key, results)
        judged = {each.claim.id: each for each in found.judged}
        for claim in found.claims.claims:
            said = judged.get(claim.id)
            rows.append(
                {
                    "chapter": one.title,
                    "page": PAGES[key],
                    "id": claim.id,
                    "sentence": claim.sentence,
                    "source": claim.source,
                    "family": claim.family,
                    "unit": claim.unit,
                    "margin": claim.margin,
                    "seeds": spans(found.claims.study.seeds),
                    "estimate": said.interval.estimate if said else float("nan"),
                    "low": said.interval.low if said else float("nan"),
                    "high": said.interval.high if said else float("nan"),
                    "verdict": str(said.verdict) if said else "no verdict yet",
                    "holm_p": said.adjusted if said else float("nan"),
                    "shown": said.shown if said else "no verdict yet",
                    "fresh": _fresh(one.claims, claim, opened[key].fresh),
                    "section": claim.section,
                    "code": f"{one.claims.estimates.__module__.removeprefix('rlheals.')}.py: {claim.estimator}",
                }
            )
    return pd.DataFrame(rows)


def _fresh(claims: ChapterClaims[Any], claim: Claim, tables: Any) -> float:
    """The claim's number in a fresh run, its mean over seeds; not a number where it is not measured."""
    try:
        values = claims.estimates(claim, tables)
    except KeyError:  # a split or checkpoint that the profile leaves out
        return float("nan")
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
        made.append(f"**{chapter}**")
        for family, heading in FAMILIES.items():
            if cells := tuple(_cells(row) for row in rows[rows["family"] == family].to_dict("records")):
                made += [f"{heading}:", Table(HEAD, cells)]
    return made


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    decided = row["estimate"] == row["estimate"]  # not NaN
    study = f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if decided else "not complete"
    fresh = f"{row['fresh']:.3f}" if row["fresh"] == row["fresh"] else "not measured"
    return (
        f"{row['sentence']} ({row['source']})",
        row["shown"],
        f"{row['unit']}: {study}",
        p_text(row["holm_p"]) if decided else "",
        fresh,
        f"{row['margin']:g}; {row['seeds']}",
        f"[{row['section']}]({FOLDER}/{row['page']}.ipynb#{anchor(row['section'])}), `{row['code']}`",
    )


def write(profile: Profile, results: Path, out: Path, store: Store | None = None) -> pd.DataFrame:
    """Write what needs the runs of all chapters into a folder: claims (also as CSV), rivals, what the runs took."""
    place = store or default_store(project_root())
    opened = chapters(profile, results, place)
    table = frame(opened, results)
    about = f"Fresh run: profile `{profile.name}`, base seed {spans(profile.seeds)}."
    runs = {run.id: run for chapter in opened.values() for run in chapter.runs}
    times = [*pages.time_table(runs.values()), *speed.blocks(runs.values(), place)]
    rivals = rotation_rivals.blocks(opened["rotation"], opened["sft"])
    with told("make the folder of the claims page", out.absolute().parent):
        make_folder(out.absolute())
    atomic_write(out / f"{NAME}.md", to_markdown([about, *blocks(table)]))
    atomic_write(out / f"{NAME}.csv", table.to_csv(index=False, lineterminator="\n"))
    atomic_write(out / "rivals.md", to_markdown(rivals))
    atomic_write(out / "time.md", to_markdown(times))
    return table
