"""The claims table is what a second implementation, without the package, computes from the same tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import made
import numpy as np
import pandas as pd
import pytest
import recompute
import yaml
from chapter_studies import recorded_study
from tables import NoData, read

from rlheals.chapters.beyond import claims as beyond
from rlheals.chapters.beyond.runs import PARTS, TASKS, BeyondChapter, BeyondTables
from rlheals.chapters.edits import claims as edits
from rlheals.chapters.edits.runs import STUDY as EDITS
from rlheals.chapters.healing import claims as healing
from rlheals.chapters.healing.runs import STUDY as HEALING
from rlheals.chapters.protected import claims as protected
from rlheals.chapters.protected.runs import STUDY as PROTECTED
from rlheals.chapters.rl import claims as rl
from rlheals.chapters.rl.runs import STUDY as RL
from rlheals.chapters.sft import claims as sft
from rlheals.chapters.spectra import claims as spectra
from rlheals.chapters.spectra.runs import STUDY as SPECTRA
from rlheals.chapters.verdicts import outcomes
from rlheals.errors import BadInput
from rlheals.profiles import for_task
from rlheals.stats import verdicts
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.claims import ESTIMATORS, FILE, ChapterClaims, Outcome
from rlheals.study.tables import Part

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS: dict[str, tuple[ChapterClaims, Part[Any]]] = {
    "sft": (sft.CLAIMS, tables.SFT),
    "recovery": (rl.CLAIMS, RL),
    "rotation": (spectra.CLAIMS, SPECTRA),
    "swaps": (edits.CLAIMS, EDITS),
    "protection": (protected.CLAIMS, PROTECTED),
    "healing": (healing.CLAIMS, HEALING),
    "beyond": (beyond.CLAIMS, BeyondChapter.PART),
}
CLOSE = 2e-6
"""Tables print three digits; short floats of chapter 3 have seven."""


def agree(mine: pd.DataFrame, theirs: Outcome) -> None:
    """The same claims, verdicts, and numbers."""
    judged = {one.claim.id: one for one in theirs.judged}
    rows = mine.set_index("id")
    assert set(rows.index) == ({*judged, *theirs.no_data} if judged else set())
    for name, row in rows.iterrows():
        if name in theirs.no_data:
            assert row["verdict"].startswith("no data"), (name, theirs.no_data[name])
            continue
        one = judged[name]
        assert row["verdict"] == one.verdict, name
        numbers = (one.interval.estimate, one.interval.low, one.interval.high, one.adjusted)
        assert row[["estimate", "low", "high", "holm_p"]].to_list() == pytest.approx(numbers, abs=CLOSE), name


def tables_in(results: Path, part: Part[Any], profile: str = "lab") -> Any:
    """As the package holds them, None where there are none; made studies have no manifests."""
    if part is BeyondChapter.PART:
        return BeyondTables(
            {
                task: {
                    key: tables_in(results, one.PART, for_task(profile, task)) for key, one in PARTS.items()
                }
                for task in TASKS
            }
        )
    names = [f"{profile}{variant}{part.suffix}" for variant in ("", *(f"-{one}" for one in part.variants))]
    folders = [folder for name in names for folder in sorted(results.glob(f"{name}/*"))]
    found = [tables.read(folder, part.kind) for folder in folders]
    return tables.joined(found, part.kind) if found else None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("made")
    made.write(results, yaml.safe_load(FILE.read_text()), 1)
    return results


def test_a_made_study_has_all_claims_and_both_agree(study: Path) -> None:
    mine = recompute.recompute(study, FILE)
    for key, (claims, part) in CHAPTERS.items():
        agree(mine[mine["part"] == key], claims.outcome(tables_in(study, part)))
    ids = {claim.id for claims, _ in CHAPTERS.values() for claim in claims.read().claims}
    assert set(mine["id"]) == ids
    assert set(verdicts.VERDICTS) <= set(mine["verdict"])
    assert mine["holm_p"].between(0.001, 0.999).sum() > 10


@pytest.mark.parametrize("key", CHAPTERS)
def test_what_is_recorded_and_both_agree(key: str) -> None:
    agree(recompute.recompute(ROOT / "results", FILE, [key]), outcomes(ROOT / "results", [key])[key])


@pytest.mark.parametrize("key", ["rotation", "protection"])
def test_small_studies_of_the_package_are_read_alike(key: str, shared: Store, tmp_path: Path) -> None:
    """Of parts that are not recorded here: base seed by base seed, what these runs can tell."""
    known = recorded_study(key, shared, tmp_path)
    claims, part = CHAPTERS[key]
    found, _ = record.read(known.folder, part.kind)
    module, compared = recompute.PARTS[key].module, 0
    for seed, theirs in claims.by_seed(found).items():
        mine = module.measured(read([known.folder], seed))
        for claim in claims.read().claims:
            one, other = ESTIMATORS[key][claim.estimator], getattr(module, claim.estimator)
            number, again = or_none(one, theirs, claim.options), or_none(other, mine, claim.options)
            assert again == pytest.approx(number, abs=CLOSE), claim.id
            compared += number is not None
    assert compared


def or_none(estimate: Callable[..., Any], measured: Any, options: dict[str, Any]) -> Any:
    try:
        number = estimate(measured, **options)
        return number if np.isfinite(number).all() else None
    except (BadInput, NoData):
        return None


def test_neither_judges_a_part_of_which_something_is_missing(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "lab-swaps/seed-13")
    for table, less in (
        ("lab-recovery/seed-12/episodes", "run < 1"),
        ("lab-protection/seed-11/accuracy", "way != 'kl=0.1'"),
    ):
        file = tmp_path / f"{table}.parquet"
        pd.read_parquet(file).query(less).to_parquet(file)
    for key in ("swaps", "recovery"):
        claims, part = CHAPTERS[key]
        assert claims.outcome(tables_in(tmp_path, part)).missing
        assert recompute.recompute(tmp_path, FILE, [key]).empty
    claims, part = CHAPTERS["protection"]  # here only the claims about that penalty wait
    found = claims.outcome(tables_in(tmp_path, part))
    assert {name.removesuffix("-held-out") for name in found.no_data} == {"protected-over-kl"}
    agree(recompute.recompute(tmp_path, FILE, ["protection"]), found)


def test_the_script_does_without_the_package(study: Path, tmp_path: Path) -> None:
    (tmp_path / "rlheals.py").write_text("raise ImportError")
    for name in ("lab", "lab-swaps"):
        shutil.copytree(study / name, tmp_path / "results" / name)
    done = subprocess.run(
        [sys.executable, recompute.__file__, tmp_path / "results", FILE], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    printed = pd.read_csv(StringIO(done.stdout))
    assert list(printed.columns) == recompute.COLUMNS
    assert len(printed) == sum(len(CHAPTERS[key][0].read().claims) for key in ("sft", "swaps"))
