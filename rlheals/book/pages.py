"""The generated parts of the book and of the report: run facts, profiles, recorded study.

Each function returns blocks (paragraphs and tables); `display.markup` renders them. They hold no headings and no link
targets, so that a snippet can be included on several pages.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path

from rlheals.chapters import replay
from rlheals.chapters.replay import Replay
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display.markup import Block, Table, spans
from rlheals.errors import BadInput
from rlheals.store.machine import this_machine
from rlheals.store.runs import Run, library_versions
from rlheals.study.record import Recorded, recorded_manifests
from rlheals.tasks import load_task

README_BEGIN, README_END = "<!-- claims:begin -->", "<!-- claims:end -->"


def run_facts(chapter: SFTChapter) -> list[Block]:
    """What the fresh run was and what it took."""
    where = this_machine()
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    facts = (
        ("profile", f"`{chapter.profile.name}`"),
        ("base seeds", spans(chapter.fresh.seeds)),
        ("evaluated checkpoints", ", ".join(f"{step:,}" for step in chapter.fresh.steps)),
        ("evaluation", "; ".join(chapter.how_fresh())),
        ("time", f"{chapter.minutes:.1f} core-minutes when its runs were computed"),
        ("machine", f"{where.model} ({where.kind}, {where.isa}), threads per process: {where.threads}"),
        ("versions", f"Python {platform.python_version()}, {versions}"),
        ("code", f"`{chapter.code[:12]}`"),
    )
    return [Table(("fresh run", ""), facts)]


def time_table(runs: Collection[Run]) -> list[Block]:
    """What runs took when they were computed, stage by stage."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(f"`{run.manifest.stage}`", []).append(run.manifest.seconds)
    seconds["all"] = [run.manifest.seconds for run in runs]
    rows = tuple((stage, f"{len(each)}", f"{sum(each) / 60:.1f}") for stage, each in seconds.items())
    return [Table(("stage", "fresh runs", "core-minutes"), rows)]


def recorded_page(results: Path) -> list[Block]:
    """What is recorded, by which code and where; says so for every stage whose code has changed since."""
    studies = recorded_manifests(results)
    if not studies:
        return [
            "There is no recorded study here: figures show the fresh run alone, and the claims have no verdict."
        ]
    rows = []
    for name, manifests in studies.items():
        machines = {f"{one.machine.model} ({one.machine.isa})" for one in manifests}
        versions = {", ".join(" ".join(pair) for pair in one.versions.items()) for one in manifests}
        seeds, decodes = {one.seed for one in manifests}, {str(one.profile["decodes"]) for one in manifests}
        counts = str(sum(len(one.runs) for one in manifests)), f"{sum(one.minutes for one in manifests):.0f}"
        texts = ["; ".join(sorted(each)) for each in (machines, versions)]
        rows.append((f"`{name}`", spans(sorted(seeds)), ", ".join(sorted(decodes)), *counts, *texts))
    head = ("study", "base seeds", "sampling seeds", "runs", "core-minutes", "machine", "versions")
    return [Table(head, tuple(rows)), _staleness(studies, replay.read(results))]


def _staleness(studies: dict[str, list[Recorded]], replays: list[Replay]) -> str:
    stale: dict[str, dict[str, list[int]]] = {}
    for name, manifests in studies.items():
        for one in manifests:
            for stage in replay.stale_stages(one, replays):
                stale.setdefault(stage, {}).setdefault(name, []).append(one.seed)
    if not stale:
        return "The code of every stage is still the code that made these numbers."
    said = "; ".join(
        f"`{stage}` ({', '.join(f'{name} seeds {spans(sorted(set(seeds)))}' for name, seeds in where.items())})"
        for stage, where in stale.items()
    )
    return (
        "The numbers are those of the code that they were recorded with. Since then the code of some stages has "
        f"changed (**stale**); `rlheals replay` tells whether it still gives the same numbers. These are: {said}."
    )


def rewritten_readme(text: str, table: str) -> str:
    """README's text with the part between the two claims markers replaced. Raises BadInput when they are not there.

    >>> rewritten_readme(f"a {README_BEGIN} old {README_END} z", "new")
    'a <!-- claims:begin -->\\nnew\\n<!-- claims:end --> z'
    """
    before, *rest = text.split(README_BEGIN)
    if len(rest) != 1 or text.count(README_END) != 1 or README_END not in rest[0]:
        raise BadInput(f"README: {README_BEGIN} and, after it, {README_END} have to be there, once each")
    return f"{before}{README_BEGIN}\n{table.strip()}\n{README_END}{rest[0].split(README_END)[1]}"


def task_facts(name: str) -> list[Block]:
    """The rewards of a task's verdicts, and the lines that come out the same everywhere."""
    task = load_task(name)
    rewards = tuple((f"`{category}`", f"{reward:+g}") for category, reward in task.rewards.items())
    return [Table(("verdict", "reward"), rewards), *task.facts()]
