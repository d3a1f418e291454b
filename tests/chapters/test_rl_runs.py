"""The RL study: which runs belong to it, and what is logged of them."""

from __future__ import annotations

from pathlib import Path

from chapter_studies import recorded_study

from rlheals.chapters.rl.runs import MAIN, Cell, RLTables, plan, units
from rlheals.profiles import load_profile
from rlheals.profiles.sections import CONTROLS, LATE
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.training.rl.settings import RLSettings

LAB = load_profile("lab")


def test_every_start_is_measured_once_and_every_run_as_often_as_its_decodes(tmp_path: Path) -> None:
    store, rl_starts = Store(tmp_path), LAB.rl_starts
    seen: list[tuple[Cell, int]] = []
    for unit in units(LAB):
        made = plan(LAB, 1, store, unit)
        seen += made.censuses
        if unit != "controls":
            assert {cell.run for cell in made.runs} == {unit}
            assert [cell.start for cell in made.runs] == list(rl_starts.starts)
    assert len(set(seen)) == len(seen)
    main = [cell for cell, _ in seen if cell.control == MAIN]
    assert len(main) == len(rl_starts.starts) * (1 + rl_starts.runs) * rl_starts.decodes
    assert {cell.control for cell, _ in seen} >= {*rl_starts.controls, LATE, "no-feedback", "temperature-0.3"}


def test_noise_is_shared_before_and_after_rl_and_by_nothing_else(tmp_path: Path) -> None:
    for seed, unit in ((1, 0), (1, 1), (2, 0), (2, 1)):
        made = plan(LAB, seed, Store(tmp_path), unit)
        assert {spec.seed for (_, decode), spec in made.censuses.items() if decode == 3} == {100 * seed + 3}
        assert {spec.seed for spec in made.runs.values()} == {100 * seed + unit}


def test_controls_change_what_their_name_says_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = plan(LAB, 1, store, "controls")
    start = LAB.rl_starts.control_start
    main = plan(LAB, 1, store, 0).runs[Cell(MAIN, start, 0)].settings
    assert LAB.rl_starts.controls
    for name in LAB.rl_starts.controls:
        mine = made.runs[Cell(name, start, 0)].settings
        assert {key for key in main if main[key] != mine[key]} == set(CONTROLS[name])
        RLSettings.model_validate(mine)


def test_the_same_run_evaluated_without_feedback_is_logged_once(tmp_path: Path, shared: Store) -> None:
    found, _ = record.read(recorded_study("recovery", shared, tmp_path).folder, RLTables)
    assert found.starts == [3, 5]
    assert "no-feedback" in set(found.episodes["control"])
    assert "no-feedback" not in set(found.log["control"])
    assert not found.log.duplicated(["seed", "control", "start", "run", "update"]).any()
