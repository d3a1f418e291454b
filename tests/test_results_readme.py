"""The data dictionary in `results/` has every column of every table that can be recorded, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from pyarrow import parquet
from small_study import CLIMB, EDIT, SHIELD, SMALL, SPIN

from rlheals.chapters.beyond.runs import TASKS
from rlheals.chapters.edits.runs import STUDY as EDITS
from rlheals.chapters.healing.runs import HEALED, UNHEALED
from rlheals.chapters.healing.runs import STUDY as HEALING
from rlheals.chapters.protected.runs import STUDY as PROTECTED
from rlheals.chapters.rl.runs import STUDY as RL
from rlheals.chapters.spectra.runs import STUDY as SPECTRA
from rlheals.profiles import for_task
from rlheals.profiles.healing import Healing
from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study.attempts import ATTEMPTS
from rlheals.study.bases import BASES
from rlheals.study.compute import compute
from rlheals.study.tables import SFT, Part
from rlheals.tasks import load_task

RESULTS = Path(__file__).resolve().parents[1] / "results"
README = RESULTS / "README.md"
WITH_PPO = CLIMB.rl_starts.model_copy(update={"controls": ("ppo",)})
SECOND = Healing(map=("rl", "ppo", HEALED, UNHEALED), examples=4, edits=("values(all) @ blocks",))
STUDIES: dict[str, tuple[Part, Profile]] = {
    "lab": (SFT, SMALL),
    "lab-bases": (BASES, SMALL),
    "lab-attempts": (ATTEMPTS, SMALL),
    "lab-recovery": (RL, CLIMB.model_copy(update={"rl_starts": WITH_PPO})),
    "lab-rotation": (SPECTRA.at({2: 3}), SPIN),
    "lab-swaps": (EDITS.at({2: 3}), EDIT),
    "lab-protection": (PROTECTED, SHIELD),
    "lab-healing": (HEALING.at({2: {0: 3, 50: 5}}), SPIN.model_copy(update={"healing": SECOND})),
}
"""Of each section of the dictionary: what is recorded of it, and a small profile that has all of its columns."""


def columns_in(text: str) -> set[str]:
    """The names in the first column of a table."""
    cells = re.findall(r"^\| (`.+?) \|", text, flags=re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@cache
def entries(section: str) -> dict[str, set[str]]:
    """By table, the columns that a section of the dictionary explains; those of all tables stand at its top."""
    body = README.read_text(encoding="utf-8").split(f"\n## `{section}`: ")[1].split("\n## ")[0]
    of_all, *parts = body.split("\n### ")
    found = {part.partition("\n")[0].strip("`"): columns_in(part) | columns_in(of_all) for part in parts}
    if section == "lab-healing":  # says that it has the tables of chapter 2
        found = {name: known | columns_in(of_all) for name, known in entries("lab-recovery").items()} | found
    return found


def test_the_dictionary_has_a_section_for_everything_that_is_recorded() -> None:
    sections = set(re.findall(r"^## `(\S+)`: ", README.read_text(encoding="utf-8"), flags=re.M))
    assert sections == set(STUDIES)
    for section, (part, _) in STUDIES.items():
        assert section == f"lab{part.suffix}"
        assert set(entries(section)) == {table.name for table in fields(part.kind)}


@pytest.mark.parametrize("section", STUDIES)
def test_every_column_has_an_entry_and_every_entry_a_column(section: str, shared: Store) -> None:
    part, profile = STUDIES[section]
    plans = [one.plan(profile, 2, shared) for one in part.in_units(profile)]
    compute([spec for plan in plans for spec in plan.specs()], shared, 1, quiet=True)
    made = part.collect(plans, shared)
    for name, known in entries(section).items():
        assert set(getattr(made, name).columns) == known, name


def test_no_recorded_file_has_a_column_that_is_not_in_the_dictionary() -> None:
    files = sorted(RESULTS.rglob("*.parquet"))
    for file in files:
        study = file.parent.parent.name
        section = next((name for name in STUDIES if name != "lab" and study.endswith(name[3:])), "lab")
        names = set(parquet.read_schema(file).names)
        other = any(study.startswith(for_task("lab", task)) for task in TASKS)
        more = of_other_tasks() if other else set()
        assert names <= entries(section)[file.stem] | more, file.relative_to(RESULTS)
    assert files


def of_other_tasks() -> set[str]:
    """Columns of episodes that the dictionary explains for tasks other than cards."""
    return columns_in(README.read_text(encoding="utf-8").split("\n## Other tasks\n")[1])


def test_the_columns_of_other_tasks_are_those_that_they_have() -> None:
    found = set[str]()
    for name in TASKS:
        task = load_task(name)
        item, dialect = task.items("ood")[0], task.dialect()
        replied = task.reply_columns(item, dialect.read(dialect.expert(item)))
        found |= {*task.item_columns(item), *(f"first_{column}" for column in replied)}
    assert found == of_other_tasks()
