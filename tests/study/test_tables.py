"""Tables: they say what the runs say, survive their files, and refuse what is damaged."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lab_helpers import refused, study_of
from small_study import SMALL

from rlheals.profiles import load_profile
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.compute import compute
from rlheals.study.plan import base_spec, plan
from rlheals.study.tables import Tables, collect, joined, read, write
from rlheals.tasks.general_points.cards import OTHER_RULES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    store = Store(tmp_path_factory.mktemp("store"))
    chosen = plan(SMALL, 1, store)
    compute(chosen.specs(), store, quiet=True)
    return SimpleNamespace(store=store, plan=chosen, tables=collect([chosen], store))


def test_episodes_are_those_of_the_censuses(made: SimpleNamespace) -> None:
    frame = made.tables.episodes
    assert made.tables.seeds == [1]
    assert made.tables.steps == [0, 3]
    assert len(frame) == 2 * 2 * 3
    for (step, decode), spec in made.plan.censuses.items():
        folder = made.store.load(made.store.key(spec)).path
        census = pd.read_parquet(folder / "episodes.parquet")
        mine = frame[(frame["step"] == step) & (frame["decode"] == decode)]
        for column in census.columns.drop("rule"):
            assert mine[column].tolist() == census[column].tolist()


def test_categories_count_every_attempt_once(made: SimpleNamespace) -> None:
    frame = made.tables.categories
    for (step, decode), spec in made.plan.censuses.items():
        folder = made.store.load(made.store.key(spec)).path
        attempts = pd.read_parquet(folder / "attempts.parquet")
        mine = frame[(frame["step"] == step) & (frame["decode"] == decode)]
        assert mine["attempts"].sum() == len(attempts)
        assert mine["tokens"].sum() == attempts["tokens"].sum()
        assert mine["reward"].sum() == pytest.approx(attempts["reward"].sum())
        assert mine["entropy"].sum() == pytest.approx(attempts["entropy"].sum())
        for column in ("category", "read_as", "split", "protocol"):
            counted = mine.groupby(column, observed=True)["attempts"].sum()
            assert counted.to_dict() == attempts[column].value_counts().to_dict()
        first = mine[(mine["protocol"] == "target") & (mine["attempt"] == 1)]
        assert first["attempts"].sum() == 2 * 3


def test_rules_losses_and_bases_come_from_their_runs(made: SimpleNamespace) -> None:
    found = made.tables
    assert set(found.rules["rule"]) == {rule.name for rule in OTHER_RULES}
    assert set(found.rules["step"]) == {3}
    folder = made.store.load(made.store.key(made.plan.sft)).path
    losses = json.loads((folder / "losses.json").read_text())
    for record in losses["sets"]:
        for name in ("train", "test", "ood"):
            row = found.losses[(found.losses["step"] == record["step"]) & (found.losses["set"] == name)]
            assert row["loss"].tolist() == [record[name]]
    assert set(found.losses["set"]) == {"train", "test", "ood", "batch"}
    history = json.loads((made.store.load(made.store.key(made.plan.base)).path / "ability.json").read_text())
    assert found.bases.to_dict("records") == [
        {"seed": 1, "base_step": 2, "ability": history[-1]["within_five"]}
    ]


def test_the_shipped_base_has_its_line_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (run,) = compute([base_spec(load_profile("lab"), 0)], store, quiet=True)
    frame = tables._base(run.path, 0)
    recorded = json.loads((run.path / "base" / "ability.json").read_text())[-1]
    assert frame.to_dict("records") == [
        {"seed": 0, "base_step": recorded["step"], "ability": recorded["within_five"]}
    ]


def test_tables_survive_their_files_and_written_twice_are_the_same_bytes(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    write(made.tables, tmp_path / "a")
    again = read(tmp_path / "a")
    assert again.seeds == [1]
    for field in fields(Tables):
        mine, theirs = getattr(made.tables, field.name), getattr(again, field.name)
        assert mine.astype(str).equals(theirs.astype(str))
    write(again, tmp_path / "b")
    names = {f"{field.name}.parquet" for field in fields(Tables)}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_seeds_come_apart_and_together_again() -> None:
    solved = np.array([True, False])
    parts = [study_of({0: {"ood": solved}, 5: {"ood": ~solved}}, seed=seed) for seed in (3, 1, 2)]
    together = joined(parts, Tables)
    assert together.seeds == [1, 2, 3]
    assert together.steps == [0, 5]
    for part in parts:
        alone = together.of_seed(part.seeds[0])
        assert alone.seeds == part.seeds
        pd.testing.assert_frame_equal(alone.episodes.reset_index(drop=True), part.episodes)


def test_what_is_kept_with_tables_belongs_to_them_alone() -> None:
    """A part of the tables starts afresh: else one base seed would be judged by the numbers of another."""
    solved = np.array([True, False])
    both = joined([study_of({0: {"ood": solved}}, seed=seed) for seed in (1, 2)], Tables)
    asked: list[list[int]] = []

    def measured(of: Tables) -> int:
        asked.append(of.seeds)
        return len(of.episodes)

    whole = both.once(measured)
    assert both.once(measured) == whole
    assert both.of_seed(2).once(measured) < whole
    assert joined([both.of_seed(2)], Tables).once(measured) < whole
    assert asked == [[1, 2], [2], [2]]


@pytest.mark.parametrize("name", [field.name for field in fields(Tables)])
def test_damaged_files_are_refused_and_named(name: str, tmp_path: Path) -> None:
    write(study_of({0: {"ood": np.array([True])}}, {"ood": {0: 1.0}}), tmp_path / "seed-1")
    file = tmp_path / "seed-1" / f"{name}.parquet"
    for data in (file.read_bytes()[:-20], None):
        file.unlink() if data is None else file.write_bytes(data)
        with refused(file.name, "seed-1"):
            read(tmp_path / "seed-1")
