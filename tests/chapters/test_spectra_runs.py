"""The spectra study: which runs belong to it, what is recorded, that the chapter can be drawn from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from chapter_studies import PEAK, recorded_study
from lab_helpers import one_line
from small_study import SPIN

from rlheals.chapters import checks
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rows import only
from rlheals.chapters.spectra.runs import RL, SFT, Point, SpectraTables, pairs, plan
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.sections import BRANCHES
from rlheals.store.store import Store
from rlheals.study import record, tables
from rlheals.study.peaks import peak_of, recorded_points
from rlheals.study.plan import plan as sft_plan

LAB = load_profile("lab")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> SimpleNamespace:
    return recorded_study("rotation", shared, tmp_path_factory.mktemp("spin"))


def test_runs_are_those_of_the_other_chapters_wherever_they_can_be(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, other = plan(LAB, 1, store, {1: 20}), rl_runs.plan(LAB, 1, store, 0)
    known = {store.key(spec) for spec in [*other.specs(), *sft_plan(LAB, 1, store).specs()]}
    assert {store.key(made.trained[RL, start]) for start in LAB.rl_starts.starts} <= known
    controls = {store.key(spec) for spec in rl_runs.plan(LAB, 1, store, "controls").specs()}
    for name in LAB.rotation.controls:
        assert store.key(made.trained[name, LAB.rl_starts.control_start]) in controls
        mine = {store.key(spec) for (at, _), spec in made.censuses.items() if at.branch == name}
        assert mine <= controls
    asked = {at for at, _ in made.censuses if at.branch in (SFT, RL)}
    shared = {at for (at, _), spec in made.censuses.items() if store.key(spec) in known}
    assert asked == shared
    assert made.trained[SFT, -1] == sft_plan(LAB, 1, store).sft


def test_a_branch_differs_from_sft_in_its_one_setting(tmp_path: Path) -> None:
    made = plan(LAB, 1, Store(tmp_path), {1: 20})
    plain = made.trained[SFT, -1]
    assert LAB.rotation.branches
    for name in LAB.rotation.branches:
        branch = made.trained[name, -1]
        differ = {key for key, value in branch.settings.items() if plain.settings[key] != value}
        assert differ == set(BRANCHES[name])
        assert (branch.inputs, branch.seed) == (plain.inputs, plain.seed)


def test_pairs_seen_from_the_peak_start_where_rl_started_after_it() -> None:
    for peak in (10, 160, 640, 2560):
        made = pairs(LAB, peak)
        top = Point(SFT, -1, peak)
        for name, pair in made.items():
            kind, _, start = name.partition("-")
            assert (pair.reference == top) == (kind in ("back", "on"))
            if kind == "back":
                assert int(start) > peak
                assert pair.after == Point(RL, int(start), 80)
                assert pair.before == Point(SFT, -1, int(start))
            if kind == "on":
                assert pair.after.step == 4 * pair.before.step
        assert ("peak-middle" in made) == (peak < LAB.rl_starts.control_start)


def test_rl_from_one_start_is_one_pair() -> None:
    made = pairs(LAB.for_reader(recorded=True), 160)
    runs = [(pair.before, pair.after) for name, pair in made.items() if name.endswith("-rl")]
    assert len(set(runs)) == len(runs) == len(LAB.rl_starts.reader_starts)


def test_every_point_has_a_place_a_behaviour_and_an_accuracy(recorded: SimpleNamespace) -> None:
    mine = tables.read(recorded.folder / "seed-2", SpectraTables)
    keys = ["branch", "start", "step"]
    points = [
        set(map(tuple, frame[keys].astype(str).to_numpy()))
        for frame in (mine.path, mine.behaviour, mine.accuracy)
    ]
    assert points[0] == points[1] == points[2]
    wanted = {("sft", "-1", step) for step in "035"} | {("lr-1e-3", "-1", step) for step in "35"}
    wanted |= {("rl", start, "1") for start in "35"} | {("rejection", "3", "1")}
    assert points[0] == wanted
    assert not mine.accuracy.duplicated([*keys, "decode", "split"]).any()
    assert (mine.accuracy["first"] <= mine.accuracy["solved"]).all()
    assert (mine.accuracy["hands"] == 3).all()


def test_numbers_of_a_pair_are_those_of_its_run(recorded: SimpleNamespace) -> None:
    made = plan(SPIN, 2, recorded.store, {2: PEAK})
    spec = made.pairs["peak-end"]
    run = recorded.store.load(recorded.store.key(spec)).path
    raw = pd.read_parquet(run / "angles.parquet")
    mine = tables.read(recorded.folder / "seed-2", SpectraTables).angles
    for _, row in only(mine, pair="peak-end", what="gaussian").head(40).iterrows():
        keys = ("tensor", "head", "side", "end", "k", "what")
        drawn = np.rad2deg(only(raw, **{key: row[key] for key in keys})["mean"])
        assert len(drawn) == 2
        assert row["mean"] == pytest.approx(drawn.mean(), rel=1e-5)
        assert row["low"] <= row["mean"] <= row["high"]


def test_peaks_come_from_the_recorded_study_of_chapter_one() -> None:
    found = recorded_points("peaks", "lab", [11, 15], Path("results").absolute())
    assert set(found) == {11, 15}
    assert all(10 <= peak <= 640 for peak in found.values())
    with pytest.raises(BadInput, match="three SFT steps"):
        peak_of(pd.Series({0: 1.0, 20: 0.5}))
    with pytest.raises(BadInput, match="base seed 99 of lab is not in results/lab") as refused:
        recorded_points("peaks", "lab", [11, 99], Path("results").absolute())
    one_line(refused.value)


def test_checks_notice_what_breaks_a_law(recorded: SimpleNamespace) -> None:
    whole, _ = record.read(recorded.folder, SpectraTables)

    def outside(**changes: pd.DataFrame) -> str:
        frames = {field.name: getattr(whole, field.name) for field in fields(SpectraTables)}
        report = checks.rotation(SimpleNamespace(fresh=SpectraTables(**{**frames, **changes})))
        assert not report.ok
        return "\n".join(line for line in report.lines if "outside" in line and "outside (" in line)

    known = whole.behaviour
    assert "negative divergences" in outside(behaviour=known.assign(kl=known["kl"] - 0.1))
    sizes = whole.changes
    wrong = sizes.assign(
        change_norm=sizes["change_norm"].where(sizes["what"] != "turned", 2 * sizes["change_norm"])
    )
    assert "norms of nulls" in outside(changes=wrong)
    assert "Weyl" in outside(values=whole.values.assign(after=whole.values["after"] + 100))
    assert "above 90" in outside(angles=whole.angles.assign(mean=whole.angles["mean"] + 91))
    assert checks.rotation(SimpleNamespace(fresh=whole)).ok
