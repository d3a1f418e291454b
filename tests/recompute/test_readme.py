"""What `results/README.md` says of numbers: recipes print those of the package, every estimator has its formula."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import made
import pytest
import yaml
from test_recompute import CHAPTERS, ROOT, tables_in

from rlheals.chapters.verdicts import outcomes
from rlheals.study.claims import FILE

README = (ROOT / "results/README.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.+?)```", README, flags=re.S)
PRINTED = [
    {"fall of OOD accuracy:": ("sft", "sft-fall")},
    {"rl": ("healing", "healing-rl-half"), "rl-varied": ("healing", "healing-varied-half")},
    {"directions(all)": ("swaps", "directions-restore")},
]
"""By recipe, the claims whose estimates follow these words."""


@pytest.fixture(scope="module", params=["made", "recorded"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `results` lies: a made-up study, and the recorded one."""
    if request.param == "recorded":
        return ROOT
    place = tmp_path_factory.mktemp("recipes")
    made.write(place / "results", yaml.safe_load(FILE.read_text()), 1)
    return place


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_recipes_print_the_numbers_of_the_claims_table(number: int, folder: Path) -> None:
    numbers = {}
    for words, (key, name) in PRINTED[number].items():
        claims, part = CHAPTERS[key]
        results = folder / "results"
        recorded = folder == ROOT
        found = outcomes(results, [key])[key] if recorded else claims.outcome(tables_in(results, part))
        numbers.update((words, one.interval.estimate) for one in found.judged if one.claim.id == name)
    if not numbers:
        assert folder == ROOT
        pytest.skip("what decides is not recorded")
    done = subprocess.run(
        [sys.executable, "-c", RECIPES[number]], cwd=folder, capture_output=True, text=True, check=True
    )
    printed = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {words: float(printed[words]) for words in numbers} == pytest.approx(numbers, abs=0.00051)


def test_recipes_are_short_and_do_without_the_package() -> None:
    assert len(RECIPES) == len(PRINTED)
    for recipe in RECIPES:
        assert len(recipe.splitlines()) <= 10
        assert "rlheals" not in recipe


@pytest.mark.parametrize("key", CHAPTERS)
def test_every_estimator_of_the_registration_has_a_formula_and_no_other(key: str) -> None:
    table = README.split(f"\n### `{key}`\n")[1].split("\n#")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, flags=re.M)
    assert sorted(explained) == sorted({claim.estimator for claim in CHAPTERS[key][0].read().claims})
