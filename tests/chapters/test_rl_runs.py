"""The RL study: which runs belong to it, that it is recorded unit by unit, and the chapter made of it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from lab_helpers import files_of, one_line
from small_study import CLIMB, SMALL

from rlheals.chapters.rl import figures as recovery_figures
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rl.runs import MAIN, Cell, RecoveryTables, collect, plan, units
from rlheals.display.style import Drawn
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.profiles.sections import CONTROLS, LATE
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.compute import compute
from rlheals.training.rl.settings import RLSettings


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("climb")
    store, lines = shared, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        for part in rl_runs.STUDY.in_units(CLIMB):
            record.record(CLIMB, [2, 3], store, root / "results", say=lines.append, part=part)
    return SimpleNamespace(root=root, store=store, folder=root / "results/climb-recovery", lines=lines)


# Which runs --------------------------------------------------------------------------------------------------------


def test_every_start_is_measured_once_and_every_run_as_often_as_its_decodes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rl_starts = load_profile("lab").rl_starts
    seen: dict[tuple[Cell, int], int] = {}
    for unit in units(load_profile("lab")):
        made = plan(load_profile("lab"), 1, store, unit)
        for key in made.censuses:
            seen[key] = seen.get(key, 0) + 1
        if unit != "controls":
            assert {cell.run for cell in made.runs} == {unit}
            assert [cell.start for cell in made.runs] == list(rl_starts.starts)
    assert set(seen.values()) == {1}
    main = [cell for cell, _ in seen if cell.control == MAIN]
    assert len(main) == len(rl_starts.starts) * (1 + rl_starts.runs) * rl_starts.decodes
    asked = {cell.control for cell, _ in seen}
    assert set(CONTROLS) <= asked
    assert {LATE, "no-feedback", "temperature-0.3"} <= asked


def test_noise_is_shared_before_and_after_rl_and_by_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = {(seed, unit): plan(load_profile("lab"), seed, store, unit) for seed in (1, 2) for unit in (0, 1)}
    for one in made.values():
        assert {spec.seed for (_, decode), spec in one.censuses.items() if decode == 3} == {
            100 * one.seed + 3
        }
    rl = {(seed, unit): {spec.seed for spec in one.runs.values()} for (seed, unit), one in made.items()}
    assert rl == {(1, 0): {100}, (1, 1): {101}, (2, 0): {200}, (2, 1): {201}}


def test_inputs_stand_before_what_needs_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for unit in units(CLIMB):
        known: set[str] = set()
        for spec in plan(CLIMB, 2, store, unit).specs():
            assert set(spec.inputs.values()) <= known
            known.add(store.key(spec))


def test_controls_change_what_their_name_says_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lab = load_profile("lab")
    made = plan(lab, 1, store, "controls")
    main = plan(lab, 1, store, 0).runs[Cell(MAIN, 160, 0)].settings
    for name, changes in CONTROLS.items():
        mine = made.runs[Cell(name, 160, 0)].settings
        assert {key for key in main if main[key] != mine[key]} == set(changes)
        RLSettings.model_validate(mine)


def test_a_reader_runs_early_middle_and_late_once() -> None:
    mine = load_profile("lab").for_reader(recorded=True).rl_starts
    assert mine.starts == (10, 160, 1280)
    assert (mine.runs, mine.decodes, mine.control_start) == (1, 1, None)
    assert units(load_profile("lab").for_reader(recorded=True)) == [0]


@pytest.mark.parametrize("field", ["starts", "reader_starts", "late_starts", "control_start"])
def test_a_start_that_is_no_checkpoint_is_refused_by_name(field: str) -> None:
    with pytest.raises(BadInput, match=field):
        load_profile("lab", {f"rl_starts.{field}": 77 if field == "control_start" else [77]})


# Recorded ----------------------------------------------------------------------------------------------------------


def test_units_are_recorded_one_by_one_and_read_as_one(recorded: SimpleNamespace) -> None:
    assert recorded.lines == [
        f"recorded climb-recovery seed {seed} {unit}"
        for unit in ("run 0", "run 1", "controls")
        for seed in (2, 3)
    ]
    found, manifests = record.read(recorded.folder, RecoveryTables)
    assert sorted({manifest.seed for manifest in manifests}) == [2, 3]
    assert found.seeds == [2, 3]
    assert found.starts == [3, 5]
    plans = [plan(CLIMB, seed, recorded.store, unit) for seed in (2, 3) for unit in units(CLIMB)]
    fresh = collect(plans, recorded.store)
    for field in fields(RecoveryTables):
        mine, theirs = getattr(fresh, field.name), getattr(found, field.name)
        order = list(mine.columns)
        sides = [side[order].astype(str).sort_values(order).reset_index(drop=True) for side in (mine, theirs)]
        pd.testing.assert_frame_equal(*sides)


def test_recording_again_writes_the_same_bytes(recorded: SimpleNamespace) -> None:
    before = files_of(recorded.folder)
    record.record(
        CLIMB, [2], recorded.store, recorded.root / "results", say=lambda line: None, part=rl_runs.STUDY
    )
    assert files_of(recorded.folder) == before


def test_the_same_run_decoded_without_feedback_is_logged_once(recorded: SimpleNamespace) -> None:
    found, _ = record.read(recorded.folder, RecoveryTables)
    assert "no-feedback" in set(found.episodes["control"])
    assert "no-feedback" not in set(found.log["control"])
    keys = ["seed", "control", "start", "run", "update"]
    assert not found.log.duplicated(keys).any()


def test_a_table_that_has_changed_since_is_refused(recorded: SimpleNamespace, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(recorded.folder, tmp_path / "climb-recovery")
    file = tmp_path / "climb-recovery/seed-3-run-1/log.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BadInput) as caught:
        record.read(tmp_path / "climb-recovery", RecoveryTables)
    assert "seed-3-run-1: log.parquet" in one_line(caught)


# The chapter ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chapter(recorded: SimpleNamespace) -> rl_runs.RecoveryChapter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        return rl_runs.rl(CLIMB, [1], 1, recorded.root / "results", recorded.store, quiet=True)


@pytest.mark.parametrize("figure", recovery_figures.RL, ids=lambda figure: figure.__name__)
def test_every_figure_is_an_image_with_its_data_and_where_they_come_from(chapter, figure) -> None:
    drawn: Drawn = figure(chapter)
    assert drawn.svg.startswith(b"<?xml")
    assert len(drawn.frame) > 0
    assert ("base seed 1" in drawn.origin) == ("fresh run" in drawn.caption.lower())
    assert "base seeds 2-3" in drawn.origin
    assert figure(chapter).svg == drawn.svg


def test_a_seed_that_is_recorded_cannot_be_the_fresh_one(recorded: SimpleNamespace) -> None:
    with pytest.raises(BadInput, match="base seed 3 is in the recorded study"):
        rl_runs.rl(CLIMB, [3], 1, recorded.root / "results", recorded.store, quiet=True)


def test_a_profile_without_starts_has_no_chapter(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rl_starts\.starts is empty"):
        rl_runs.rl(SMALL, [1], 1, tmp_path, Store(tmp_path), quiet=True)


def test_figures_without_a_recorded_study_show_the_fresh_run(
    recorded: SimpleNamespace, tmp_path: Path
) -> None:
    alone = rl_runs.rl(CLIMB, [1], 1, tmp_path, recorded.store, quiet=True)
    assert alone.recorded is None
    for figure in recovery_figures.RL:
        assert "There is no recorded study" in figure(alone).caption


def test_an_rl_run_is_a_unit_of_work_like_any_other(recorded: SimpleNamespace) -> None:
    spec = plan(CLIMB, 2, recorded.store, 0).runs[Cell(MAIN, 3, 0)]
    (run,) = compute([spec], recorded.store, quiet=True)
    assert {"log.parquet", "advantages.parquet", "losses.json"} <= set(run.manifest.files)
    assert isinstance(CLIMB, Profile)


def test_a_profile_that_asks_for_vllm_plays_everything_with_it_and_trains_as_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for unit in units(CLIMB):
        own = plan(CLIMB, 1, store, unit).specs()
        theirs = plan(CLIMB.model_copy(update={"engine": "vllm"}), 1, store, unit).specs()
        for one, other in zip(own, theirs, strict=True):
            played = one.stage in ("evaluate", "rl")
            assert other.stage == (f"{one.stage}_vllm" if played else one.stage)
            assert (other.settings, other.seed) == (one.settings, one.seed)
