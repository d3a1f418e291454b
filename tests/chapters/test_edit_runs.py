"""The study of edits: which runs belong to it, that effects are taken against the right checkpoints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from chapter_studies import recorded_study

from rlheals.chapters.edits import figures as swaps_figures
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import ANCHOR, EditTables, plan
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rows import only
from rlheals.profiles import load_profile
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.training.sft import checkpoint_name
from rlheals.weights.edit_parser import read_entry

LAB = load_profile("lab")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> EditTables:
    tables, _ = record.read(
        recorded_study("swaps", shared, tmp_path_factory.mktemp("edit")).folder, EditTables
    )
    return tables


def test_edits_are_made_of_the_runs_of_the_other_chapters(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, other = plan(LAB, 1, store, {1: 20}), rl_runs.plan(LAB, 1, store, 0)
    assert store.key(made.rl) in {store.key(spec) for spec in other.specs()}
    late, start = (checkpoint_name(step) for step in (LAB.swaps.late or 0, LAB.swaps.start or 0))
    for swap, spec in made.edited.items():
        ends = (spec.settings["base"], spec.settings["target"])
        wanted = {"swap": (late, "update-00080"), "lend": ("update-00080", start)}
        assert ends == wanted.get(swap.kind, ("step-00020", late))
        with_ = {"other": made.other, "lend": made.rl}.get(swap.kind, made.before.sft)
        assert spec.inputs["base"] == store.key(with_)
        assert spec.inputs["target"] == store.key(made.rl if swap.kind == "swap" else made.before.sft)
    assert made.other.inputs == made.before.sft.inputs
    assert made.other.seed > 9999 + made.before.sft.seed - 1
    without = plan(LAB.for_reader(recorded=True), 1, store, {1: 20})
    assert not {store.key(made.other), store.key(made.rl)} & {store.key(spec) for spec in without.specs()}
    anchors = {of.edit for of, _ in made.censuses if of.kind == ANCHOR}
    assert anchors == {"peak", "late", "start", "rl", "other-peak"}


def test_a_rollback_of_everything_does_what_the_other_checkpoint_does(recorded: EditTables) -> None:
    effects = recorded.effects.set_index(["seed", "decode", "split"]).sort_index()
    counts = ["solved", "first", "hands"]
    back = effects.loc[effects["where"].astype(str).str.contains("norms"), counts]
    assert len(back)
    pd.testing.assert_frame_equal(back, only(effects, kind=ANCHOR, edit="peak")[counts])


def test_effects_are_taken_against_the_checkpoint_that_was_edited(recorded: EditTables) -> None:
    rows = measured.effects(recorded)
    assert len(rows) == 2 * 7
    levels = measured.accuracy(recorded).set_index(["seed", "edit"])["value"]
    for _, row in rows.iterrows():
        target, other = measured.TARGETS[row["kind"]]
        assert row["target"] == levels[row["seed"], target]
        assert row["other"] == levels[row["seed"], other]
        assert row["effect"] == pytest.approx(row["value"] - row["target"])
    sizes = rows.set_index(["seed", "kind", "edit"])["size"]
    for seed in (2, 3):
        assert sizes[seed, "restore", "rollback()"] == pytest.approx(1)
        noise, directions = "noise() like directions(all)", "directions(all)"
        assert sizes[seed, "swap", noise] == pytest.approx(sizes[seed, "swap", directions], rel=1e-3)


def test_every_edit_that_is_listed_in_a_figure_is_in_the_grid() -> None:
    grid = {"restore": LAB.swaps.restore, "other": LAB.swaps.other}
    blocks = {kind: {read_entry(entry) for entry in entries} for kind, entries in grid.items()}
    for kind, edit in swaps_figures.LISTED:
        assert (edit, swaps_figures.BLOCKS) in blocks[kind], edit
