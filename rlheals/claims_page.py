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
from rlheals.claims import ChapterClaims, Claim
from rlheals.fresh import CHAPTERS
from rlheals.markup import Block, Table, spans, to_markdown
from rlheals.places import project_root
from rlheals.profiles import Profile
from rlheals.store import Store, default_store

FOLDER = "/book/_generated"
NAME = "all_claims"
HEAD = ("claim, its source", "verdict", "study", "fresh run", "margin, seeds", "shown in, computed by")

_ACCURACY = "Accuracy: the rise and the fall"
_FORMAT = "How much of the rise is format?"
_LOSSES = "Do the losses show it?"
_PARTS = "What is restored: format, rule, arithmetic, revision"
_FOLLOWS = "Does OOD accuracy follow rotation?"
_BACK = "Does RL turn back?"
_DOSE = "Dose and response"
_EQUAL = "Controls of equal size"
_LAYERS = "Layers, embeddings and output head"

SECTIONS = {
    "sft-rise": _ACCURACY,
    "sft-rise-layout-free": _FORMAT,
    "sft-fall": _ACCURACY,
    "sft-id-rises": _ACCURACY,
    "sft-id-rises-held-out": _ACCURACY,
    "sft-loss-falls": _LOSSES,
    "sft-test-loss-falls": _LOSSES,
    "sft-loss-blind-train": _LOSSES,
    "sft-loss-blind-test": _LOSSES,
    "sft-loss-blind-ood": _LOSSES,
    "sft-format-first": _FORMAT,
    "rl-heals": "Before and after",
    "rl-heals-first-try": _PARTS,
    "rl-heals-revision": _PARTS,
    "rl-below-peak": "The paper's curve",
    "rl-too-late": "The window",
    "rl-too-early": "The window",
    "rl-id-rule": "What RL does learn: ID hands",
    "rl-over-rejection": "Controls",
    "rl-needs-feedback": "Controls",
    "rl-needs-reward": "Controls",
    "values-small": "Singular values",
    "values-below-null": "Singular values",
    "values-below-null-rl": "Singular values",
    "vectors-rotate": "Singular directions",
    "vectors-rotate-leading": "Singular directions",
    "vectors-rotate-rl": "Singular directions",
    "rotation-correlates": _FOLLOWS,
    "rotation-tracks-ood": _FOLLOWS,
    "rotation-tracks-ood-id": _FOLLOWS,
    "rl-rotates-back": _BACK,
    "rl-rotates-back-null": _BACK,
    "rl-rotates-back-sft": _BACK,
    "values-do-nothing": _DOSE,
    "values-scaled-do-nothing": _EQUAL,
    "directions-restore": _DOSE,
    "directions-top-fifth": _DOSE,
    "directions-first-layers": _LAYERS,
    "directions-over-partial-rollback": _EQUAL,
    "directions-per-size": "The arithmetic first",
    "directions-are-a-rollback": _EQUAL,
    "other-run-restores-too": _EQUAL,
    "ends-restore": _LAYERS,
    "swap-degrades": _DOSE,
    "swap-over-noise": _EQUAL,
    "swap-is-a-rollback": _EQUAL,
    "protected-keeps-ood": "Protected SFT",
    "protected-over-random": "Protected SFT",
    "protected-over-kl": "Protected SFT",
    "protected-over-learning-rate": "Protected SFT",
}
"""Where the book shows a claim's data: the heading of a section, by claim."""


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
                    "unit": claim.unit,
                    "margin": claim.margin,
                    "seeds": spans(found.claims.study.seeds),
                    "estimate": said.interval.estimate if said else float("nan"),
                    "low": said.interval.low if said else float("nan"),
                    "high": said.interval.high if said else float("nan"),
                    "verdict": str(said.verdict) if said else "no verdict yet",
                    "fresh": _fresh(one.claims, claim, opened[key].fresh),
                    "section": SECTIONS[claim.id],
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
    """The table, one part per chapter; links lead to the section of the book that shows the claim's data."""
    made: list[Block] = []
    for chapter, rows in table.groupby("chapter", sort=False):
        cells = tuple(_cells(row) for row in rows.to_dict("records"))
        made += [f"**{chapter}**", Table(HEAD, cells)]
    return made


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    decided = row["estimate"] == row["estimate"]  # not NaN
    study = f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if decided else "not complete"
    fresh = f"{row['fresh']:.3f}" if row["fresh"] == row["fresh"] else "not measured"
    return (
        f"{row['sentence']} ({row['source']})",
        f"**{row['verdict']}**" if decided else row["verdict"],
        f"{row['unit']}: {study}",
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
