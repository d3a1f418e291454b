"""The study of protected SFT: which runs belong to it, and what equal ID accuracy means."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from chapter_studies import recorded_study
from small_study import SHIELD

from rlheals.chapters.protected import claims
from rlheals.chapters.protected import measures as measured
from rlheals.chapters.protected.figures import PROTECTION, ways_of
from rlheals.chapters.protected.runs import SFT, ProtectedTables, plan, protect
from rlheals.chapters.rows import only
from rlheals.chapters.spectra import runs as spectra_runs
from rlheals.profiles import load_profile
from rlheals.store.store import Store
from rlheals.study import record

LAB = load_profile("lab")
FILE = claims.CLAIMS.read()
NEEDED = {claim.options[key] for claim in FILE.claims for key in ("way", "other") if key in claim.options}
"""Regularisers that the claims speak of."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> SimpleNamespace:
    return recorded_study("protection", shared, tmp_path_factory.mktemp("shield"))


def test_every_way_starts_from_the_same_base_on_the_same_examples(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = plan(LAB, 1, store)
    assert list(made.trained) == [SFT, *LAB.protection.regularisers]
    assert {(tuple(spec.inputs.items()), spec.seed) for spec in made.trained.values()} == {
        (tuple(made.before.sft.inputs.items()), made.before.sft.seed)
    }
    assert len({store.key(spec) for spec in made.trained.values()}) == len(made.trained)
    branches = {store.key(spec) for spec in spectra_runs.plan(LAB, 1, store, {1: 20}).trained.values()}
    assert store.key(made.trained["weight_decay=0.3"]) in branches, "chapter 3 trains it too"


def test_a_recorded_study_holds_every_way_and_the_penalties_of_the_protected(
    recorded: SimpleNamespace,
) -> None:
    tables, manifests = record.read(recorded.folder, ProtectedTables)
    assert set(tables.accuracy["way"]) == {SFT, *SHIELD.protection.regularisers}
    assert set(tables.penalties["way"]) == {"subspace=1", "random=1", "kl=1"}
    first = tables.penalties[tables.penalties["step"] == 0]
    assert (first["penalty"] == 0).all()
    assert {run.stage for run in manifests[0].runs} == {"pretrain", "sft", "protected", "evaluate"}


def tables(curves: dict[str, list[tuple[float, float]]], seeds: tuple[int, ...] = (1,)) -> ProtectedTables:
    """Ways with given (ID, OOD) accuracies at steps 1, 2, ..."""
    rows = [
        {"seed": seed, "way": way, "step": step, "decode": 0, "split": split, "hands": 1000, "first": 0,
         "solved": round(1000 * value)}
        for seed in seeds
        for way, points in curves.items()
        for step, pair in enumerate(points, start=1)
        for split, value in zip(("sft", "held_out", "ood"), (pair[0], *pair), strict=True)
    ]  # fmt: skip
    return ProtectedTables(pd.DataFrame(rows), pd.DataFrame({"seed": list(seeds), "step": 0, "penalty": 0.0}))


PLAIN = [(0.4, 0.2), (0.6, 0.2), (0.8, 0.1), (1.0, 0.0)]


def at_equal_id(curves: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    return measured.at_equal_id(measured.points(tables(curves))).set_index("way")


def test_points_are_compared_where_plain_sft_has_the_same_id_accuracy() -> None:
    found = at_equal_id({SFT: PLAIN, "kl=1": [(0.5, 0.25), (0.7, 0.2), (0.9, 0.15)], "kl=2": [(0.3, 0.9)]})
    assert found.loc["kl=1", "gained"] == pytest.approx((0.05 + 0.05 + 0.10) / 3)
    assert found.loc["kl=1", "kept"] == pytest.approx(0.10)
    assert found["n"].to_dict() == {SFT: 4, "kl=1": 3, "kl=2": 0}
    assert found.loc[SFT, "gained"] == 0
    assert np.isnan(found.loc["kl=2", "gained"]), "nothing is said of what plain SFT never has"


def test_slower_training_that_only_stops_early_gains_nothing() -> None:
    slow = [(0.4, 0.2), (0.5, 0.2), (0.6, 0.2), (0.7, 0.15), (0.8, 0.1)]
    found = at_equal_id({SFT: PLAIN, "learning_rate=0.0001": slow})
    assert found.loc["learning_rate=0.0001", "gained"] == pytest.approx(0, abs=1e-9)


def test_id_accuracy_that_dips_is_taken_as_what_was_reached() -> None:
    dipping = [(0.4, 0.2), (0.8, 0.1), (0.7, 0.05), (1.0, 0.0)]
    assert np.isfinite(at_equal_id({SFT: dipping, "kl=1": [(0.9, 0.1)]}).loc["kl=1", "gained"])


def test_at_equal_held_out_id_plain_sft_counts_at_its_best_place() -> None:
    """Held-out ID rises to 0.8 and falls again, so that plain SFT passes 0.6 twice: at OOD 0.3 and at 0.1."""
    held = {SFT: [0.4, 0.8, 0.4], "kl=1": [0.6, 0.6, 0.9]}
    seen = {SFT: [0.4, 0.7, 1.0], "kl=1": [0.4, 0.7, 1.0]}
    ood = {SFT: [0.2, 0.4, -0.2], "kl=1": [0.35, 0.25, 0.5]}
    points = pd.DataFrame(
        [{"seed": 1, "way": way, "step": step, "held_out": h, "id": i, "ood": o}
         for way in held for step, (h, i, o) in enumerate(zip(held[way], seen[way], ood[way], strict=True))]
    )  # fmt: skip
    found = measured.at_equal_id(points, "held_out").set_index("way").loc["kl=1"]
    assert found["gained"] == pytest.approx((0.05 - 0.05) / 2)
    assert found["n"] == 2
    assert claims.over_early_stopping(points, "kl=1", "held_out") == pytest.approx(0.0)
    assert claims.over_early_stopping(points.sample(frac=1, random_state=1), "kl=1") == pytest.approx(
        (0.15 - 0.15 + 0.7) / 3
    )


def complete(seeds: tuple[int, ...], gain: float = 0.0) -> ProtectedTables:
    lifted = [(x, y + gain) for x, y in PLAIN]
    curves = {way: lifted if way.startswith("subspace") else PLAIN for way in NEEDED}
    return tables({SFT: PLAIN, **curves}, seeds)


def test_verdicts_follow_the_effect_and_wait_for_every_seed() -> None:
    seeds = FILE.study.seeds
    assert set(LAB.protection.regularisers) >= NEEDED
    for gain, verdict in ((0.1, "holds"), (0.0, "not here")):
        assert {one.verdict for one in claims.CLAIMS.outcome(complete(seeds, gain)).judged} == {verdict}
    assert claims.CLAIMS.outcome(complete(seeds[1:])).missing == (f"base seed {seeds[0]}",)


@pytest.mark.parametrize("with_recorded", [True, False])
def test_figures_show_the_regularisers_that_are_there(
    recorded: SimpleNamespace, tmp_path: Path, with_recorded: bool
) -> None:
    results = recorded.results if with_recorded else tmp_path
    chapter = protect(SHIELD, [1], 1, results, recorded.store, quiet=True)
    known = SHIELD.protection.regularisers if with_recorded else ("subspace=1",)
    assert ways_of(chapter) == [SFT, *known]
    plain = only(chapter.fresh.accuracy, way=SFT)
    alone = replace(chapter, recorded=None, fresh=ProtectedTables(plain, chapter.fresh.penalties))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in PROTECTION:
            assert figure(alone).svg != figure(chapter).svg
