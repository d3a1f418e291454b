"""The claims page: every claim once, linked to a section that exists, with the study and the fresh run beside it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chapter_studies import recorded_study
from small_study import WHOLE

from rlheals.book import claims as claims_page
from rlheals.book import models
from rlheals.chapters.base import core
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl import claims as rl_claims
from rlheals.chapters.rl.runs import RLChapter
from rlheals.chapters.sft import claims as sft_claims
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.chapters.spectra import measures as spectra_measures
from rlheals.chapters.spectra import predictors
from rlheals.chapters.spectra.runs import SpectraChapter, SpectraTables
from rlheals.display.markup import Table, to_markdown
from rlheals.errors import BadInput
from rlheals.planning.speed import STAGES
from rlheals.profiles import load_profile
from rlheals.stats.intervals import t_interval
from rlheals.store.store import Store
from rlheals.study import record

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [one.chapter for one in CHAPTERS.values() if one.in_book]


def headings(page: str) -> set[str]:
    notebook = json.loads((ROOT / "notebooks" / f"{page}.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return set(re.findall(r"^#+ (.*)$", text, re.MULTILINE))


def test_every_claim_of_every_chapter_is_there_once_and_points_to_a_section_that_exists() -> None:
    known = {key: one.claims.read().claims for key, one in CHAPTERS.items()}
    for key, claims in known.items():
        for claim in claims:
            assert claim.section in headings(CHAPTERS[key].notebook), claim.id
    ids = [claim.id for claim in itertools.chain(*known.values())]
    assert len(set(ids)) == len(ids)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> tuple[pd.DataFrame, Store, Path]:
    """The table of a reader who has no recorded study."""
    root = tmp_path_factory.mktemp("claims")
    store = Store(root / "store")
    computed = {run.id for run in core(CLASSES, WHOLE, results=root / "none", store=shared, quiet=True)}
    for name in computed:
        shutil.copytree(shared.root / "runs" / name, store.root / "runs" / name)
    table = claims_page.write(WHOLE, root / "none", root / "book", store)
    assert computed == set(store.ids()), "after the fresh core no chapter computes anything"
    return table, store, root


def test_without_a_recorded_study_there_is_the_fresh_run_and_no_verdict(
    fresh: tuple[pd.DataFrame, Store, Path],
) -> None:
    table, store, root = fresh
    known = [claim.id for one in CHAPTERS.values() for claim in one.claims.read().claims]
    assert table["id"].tolist() == known
    assert set(table["verdict"]) == {"no verdict yet"}
    assert table["estimate"].isna().all()
    rows = table.set_index("id")
    chapter = SFTChapter.open(WHOLE, store=store, results=root / "none", quiet=True)
    measured = {"sft-rise", "sft-fall", "sft-id-rises-held-out", "sft-loss-falls", "sft-loss-blind-ood"}
    for claim in sft_claims.CLAIMS.read().claims:
        if claim.id in measured:
            assert rows.loc[claim.id, "fresh"] == sft_claims.CLAIMS.estimates(claim, chapter.fresh)[1]
    assert pd.isna(rows.loc["sft-id-rises", "fresh"])  # this profile plays no hands of the SFT split
    second = RLChapter.open(WHOLE, store=store, results=root / "none", quiet=True)
    for claim in rl_claims.CLAIMS.read().claims:
        try:
            value = rl_claims.CLAIMS.estimates(claim, second.fresh).get(1, float("nan"))
        except BadInput:  # one sampling seed has no pass@4, so no start has a state
            value = float("nan")
        assert rows.loc[claim.id, "fresh"] == pytest.approx(value, nan_ok=True)
    assert set(rows.index[rows["fresh"].notna()]) >= measured | {"values-small", "swap-degrades"}
    assert pd.read_csv(root / "book" / "all_claims.csv")["id"].tolist() == table["id"].tolist()
    text = (root / "book" / "all_claims.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r'<details class="claim" id="claim-([\w-]+)"', text)) == sorted(known)
    assert set(re.findall(r'data-verdict="([^"]+)"', text)) == {"no data yet"}
    assert text.count("<dt>fresh run</dt><dd>not measured</dd>") == table["fresh"].isna().sum()


def test_rivals_of_rotation_are_shown_for_the_study_and_for_the_fresh_run(
    fresh: tuple[pd.DataFrame, Store, Path], shared: Store, tmp_path: Path
) -> None:
    _, store, root = fresh
    rotation = SpectraChapter.open(WHOLE, store=store, results=root / "none", quiet=True)
    sft = SFTChapter.open(WHOLE, store=store, results=root / "none", quiet=True)
    errors = spectra_measures.prediction_errors(spectra_measures.points(rotation.fresh)).set_index("scale")
    alone = predictors.blocks(rotation, sft)
    assert (root / "book" / "rivals.md").read_text(encoding="utf-8") == to_markdown(alone)
    _, along, scales, abilities, prompts = (block for block in alone if isinstance(block, Table))
    assert [row[0] for row in along.rows] == ["rotation", "log |dW|", "log SFT step"]
    assert scales.rows == tuple(
        (look.label, "not measured", f"{errors.loc[scale, 'value']:.3f}")
        for scale, look in predictors.SCALES.items()
    )
    assert {cell for _, cell in abilities.rows} == {"not measured"}
    assert {cell for _, *cells in prompts.rows for cell in cells} == {"not measured"}
    known, _ = record.read(recorded_study("rotation", shared, tmp_path).folder, SpectraTables)
    study, _ = record.find("lab", SFTChapter.PART, ROOT / "results")
    both = predictors.blocks(
        replace(rotation, recorded=known),
        replace(sft, recorded=study, variants=dict.fromkeys(("50", "75", "diverse"), study)),
    )
    correlations, along, _, abilities, prompts = (block for block in both if isinstance(block, Table))
    assert along.rows[1][1] == _told(spectra_measures.along(known)["size"])
    table = spectra_measures.matched(spectra_measures.points(known))
    table = table[table["branch"] != spectra_measures.TAUGHT_OOD]
    each = [spectra_measures.correlation(rows, "kl") for _, rows in table.groupby("seed")]
    (row,) = [row for row in correlations.rows if row[0] == "forward KL from the base"]
    assert row[1] == _told(each)
    falls = sft_claims.CLAIMS.estimates(
        next(c for c in sft_claims.CLAIMS.read().claims if c.id == "sft-fall"), study
    )
    assert dict(abilities.rows)[predictors.ABILITIES["lab"]].startswith(
        f"{t_interval(list(falls.values())):.3f}"
    )
    assert "not measured" not in [cell for _, cell in abilities.rows]
    assert "not measured" not in [cell for _, *cells in prompts.rows for cell in cells]


def _told(values: Iterable[float]) -> str:
    """Of the base seeds whose value is a number: their mean, with its interval where there are several."""
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) > 1:
        return f"{t_interval(finite):.3f} ({len(finite)} base seeds)"
    return f"{finite[0]:.3f}" if finite else "not measured"


def test_the_time_of_every_fresh_run_is_counted_once(fresh: tuple[pd.DataFrame, Store, Path]) -> None:
    _, store, root = fresh
    text = (root / "book" / "time.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]  # some are empty
    rows = [row for row in cells if len(row) == 3]
    stages = {name.strip("`"): (int(runs), float(minutes)) for name, runs, minutes in rows[2:]}
    intact = store.check().intact
    for stage, counted in stages.items():
        mine = [run.manifest.seconds for run in intact if stage in ("all", run.manifest.stage)]
        assert counted == (len(mine), pytest.approx(sum(mine) / 60, abs=0.06))
    assert set(stages) == {"all", *(run.manifest.stage for run in intact)}
    speeds = {
        row[0].strip("`"): int(row[1]) for row in cells if len(row) in (4, 6) and row[0].startswith("`")
    }
    assert speeds == {stage: runs for stage, (runs, _) in stages.items() if stage in STAGES}


def test_a_recorded_seed_is_no_fresh_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="base seed 11 is in the recorded study"):
        core(CLASSES, load_profile("lab"), seeds=[11], store=Store(tmp_path / "store"), quiet=True)
    assert not (tmp_path / "store").exists()


def test_prompts_are_compared_where_both_studies_are_recorded(tmp_path: Path) -> None:
    known, _ = record.find("lab", SFTChapter.PART, ROOT / "results")
    own = known.episodes[(known.episodes["seed"] <= 13) & (known.episodes["decode"] == 0)]
    lucky = own.assign(solved_at=own["solved_at"].where(own["item"].astype(str).str[-1] != "K", 1))
    diverse = replace(known, episodes=lucky, bases=known.bases[known.bases["seed"] <= 13])
    ends = []
    for tables in (known, diverse):
        rows = tables.episodes.query("split == 'ood' and decode == 0")
        rows = rows[(rows["step"] == rows["step"].max()) & rows["seed"].isin(diverse.seeds)]
        ends.append((rows["solved_at"] > 0).groupby(rows["seed"]).mean())
    shown, nothing = predictors.prompts_table(known, diverse), models.prompts(tmp_path)[1]
    assert isinstance(shown, Table)
    assert isinstance(nothing, Table)
    (row,) = [row for row in shown.rows if row[0] == "OOD, at the end of SFT"]
    for cell, values in zip(row[1:], (*ends, ends[1] - ends[0]), strict=True):
        assert cell.startswith(f"{t_interval(list(values)):.3f}")
    assert {cell for row in nothing.rows for cell in row[1:]} == {"not measured"}
