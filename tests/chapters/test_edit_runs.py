"""The study of edits: which runs belong to it, that effects are taken against the right checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from lab_helpers import one_line
from small_study import EDIT, SPIN

from rlheals.chapters.edits import figures as swaps_figures
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits import runs as edit_runs
from rlheals.chapters.edits import runs as swaps_chapter
from rlheals.chapters.edits.runs import ANCHOR, Swap, SwapTables, plan
from rlheals.chapters.rl import runs as rl_runs
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.edit_grid import read_entry
from rlheals.store.store import Store
from rlheals.study import record

LAB = load_profile("lab")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("edit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        record.record(EDIT, [2, 3], shared, root / "results", say=str, part=edit_runs.STUDY.at({2: 3, 3: 3}))
    return SimpleNamespace(root=root, store=shared, folder=root / "results/edit-swaps")


def test_edits_are_made_of_the_runs_of_the_other_chapters(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, other = plan(LAB, 1, store, {1: 20}), rl_runs.plan(LAB, 1, store, 0)
    known = {store.key(spec) for spec in other.specs()}
    assert store.key(made.rl) in known
    seen: set[str] = set()
    for spec in made.specs():
        assert set(spec.inputs.values()) <= seen
        seen.add(store.key(spec))
    for swap, spec in made.edited.items():
        ends = (spec.settings["base"], spec.settings["target"])
        wanted = {"swap": ("step-00640", "update-00080"), "lend": ("update-00080", "step-00160")}
        assert ends == wanted.get(swap.kind, ("step-00020", "step-00640"))
        with_ = {"other": made.other, "lend": made.rl}.get(swap.kind, made.before.sft)
        assert spec.inputs["base"] == store.key(with_)
        assert spec.inputs["target"] == store.key(made.rl if swap.kind == "swap" else made.before.sft)
    assert made.other.inputs == made.before.sft.inputs
    assert made.other.seed > 9999 + made.before.sft.seed - 1
    without = plan(LAB.for_reader(recorded=True), 1, store, {1: 20})
    assert store.key(made.other) not in {store.key(spec) for spec in without.specs()}
    anchors = {of.edit for of, _ in made.censuses if of.kind == ANCHOR}
    assert anchors == {"peak", "late", "start", "rl", "other-peak"}


def test_a_rollback_of_everything_does_what_the_other_checkpoint_does(recorded: SimpleNamespace) -> None:
    tables, _ = record.read(recorded.folder, SwapTables)
    assert tables.seeds == [2, 3]
    effects = tables.effects.astype({"kind": str, "edit": str, "where": str})
    for seed in (2, 3):
        mine = effects[effects["seed"] == seed]
        back = mine[mine["where"].str.contains("norms")].set_index(["decode", "split"])[
            ["solved", "first", "hands"]
        ]
        peak = mine[(mine["kind"] == ANCHOR) & (mine["edit"] == "peak")].set_index(["decode", "split"])
        pd.testing.assert_frame_equal(back.sort_index(), peak[["solved", "first", "hands"]].sort_index())


def test_effects_are_taken_against_the_checkpoint_that_was_edited(recorded: SimpleNamespace) -> None:
    tables, _ = record.read(recorded.folder, SwapTables)
    rows = measured.effects(tables)
    assert len(rows) == 2 * 7
    levels = measured.accuracy(tables).set_index(["seed", "edit"])["value"]
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


@pytest.mark.parametrize("with_recorded", [True, False])
def test_figures_are_drawn(recorded: SimpleNamespace, tmp_path: Path, with_recorded: bool) -> None:
    results = recorded.root / "results" if with_recorded else tmp_path
    chapter = swaps_chapter.edits(EDIT, [1], 1, results, recorded.store, quiet=True)
    assert set(chapter.fresh.sizes["edit"]) == {"directions(all)"}
    for figure in swaps_figures.SWAPS:
        drawn = figure(chapter)
        assert ("base seed 1" in drawn.origin) == ("fresh run" in drawn.caption.lower())
        assert ("There is no recorded study" in drawn.caption) != with_recorded


def test_profiles_that_edit_nothing_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"swaps\.late"):
        edit_runs.STUDY.check(SPIN)
    with pytest.raises(BadInput, match=r"swaps\.late") as refused:
        swaps_chapter.edits(SPIN, [1])
    one_line(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"swaps.restore": ["values(all)"]}, "EDIT @ WHERE"),
        ({"swaps.restore": ["conjure() @ blocks"]}, "accepted are values"),
        ({"swaps.swap": ["values(all) @ walls"]}, "accepted are blocks"),
        ({"swaps.swap": ["values() @ blocks", "values(all)@blocks"]}, "there twice"),
        ({"swaps.late": 7}, "not one of sft.checkpoints"),
    ],
)
def test_impossible_edits_are_one_line(changes: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        load_profile("lab", changes)
    one_line(refused.value)


def test_the_same_entry_has_one_spelling() -> None:
    made = load_profile("lab", {"swaps.restore": ["values( all )@layers=0-1"]})
    assert made.swaps.restore == ("values(all) @ kinds=q,k,v,o,gate,up,down layers=0,1",)
    assert Swap("restore", "a") == Swap("restore", "a", "")


def test_every_edit_that_is_listed_in_a_figure_is_in_the_grid() -> None:
    grid = {"restore": LAB.swaps.restore, "other": LAB.swaps.other}
    blocks = {kind: {read_entry(entry) for entry in entries} for kind, entries in grid.items()}
    for kind, edit in swaps_figures.LISTED:
        assert (edit, swaps_figures.BLOCKS) in blocks[kind], edit
