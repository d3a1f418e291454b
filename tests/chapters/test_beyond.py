"""Chapter 06: other chapters' estimators asked of one task, laws of the rates of routes, figures with and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import healing_tables
import numpy as np
import pandas as pd
import pytest

from rlheals.chapters import checks
from rlheals.chapters.beyond import figures, measures, runs
from rlheals.chapters.beyond.claims import ASKED, CLAIMS, by_seed, in_task
from rlheals.chapters.beyond.runs import CARDS, FRESH, TASKS, BeyondChapter, BeyondTables
from rlheals.chapters.beyond.takeaways import TAKEAWAYS
from rlheals.chapters.drawing import paper_points
from rlheals.errors import BadInput
from rlheals.profiles import load_profile, of_task
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.claims import ESTIMATORS
from rlheals.study.tables import Tables

TINY = {
    "pretrain.min_steps": 1,
    "pretrain.max_steps": 2,
    "pretrain.check_every": 1,
    "pretrain.panel_hands": 16,
    "pretrain.model": {"hidden": 16, "layers": 1, "heads": 1, "mlp": 16},
    "sft.checkpoints": [0, 2, 4],
    "evaluated": [0, 2, 4],
    "evaluate.splits": ["sft", "held_out", "ood", "control"],
    "evaluate.hands": 4,
    "rule_steps": [],
    "rl_starts.starts": [],
    "rotation.steps": [],
    "swaps.late": None,
    "swaps.start": None,
    "protection.steps": [],
}
STEPS = (0, 10, 40, 160)
LEFT = {"ood": (0.2, 0.9, 0.6, 0.3), "held_out": (0.1, 0.7, 0.8, 0.9), "control": (0.8, 0.8, 0.8, 0.8)}
"""Share of routes whose first turn is solved, by split and step; later turns keep .1 more."""
KINDS = ("turn", "forward", "turn", "forward", "turn", "stop")


TOLD = {
    "beyond-stages": " of 3 tasks (0 clearly): cards ",
    "beyond-curves": "rises and then falls (27 %, 97 %, 37 %) in navigation and rises and then falls",
    "beyond-routes": "30 % of OOD first turns are solved, below the 40 % of later turns; whole routes: 30 %",
    "beyond-healed": "regains more than ID-rule RL in 3 of 3 tasks (3 clearly): cards ",
    "beyond-weights": "",
}


def curves(seeds: tuple[int, ...] = (11, 12, 13, 14, 15), decodes: int = 4) -> Tables:
    """SFT of navigation made by hand: 40 routes of six nodes; on the way all is solved."""
    rows = []
    for split, levels in LEFT.items():
        for step, level in zip(STEPS, levels, strict=True):
            for route in range(40):
                for node, kind in enumerate(KINDS):
                    turn = KINDS[: node + 1].count("turn") if kind == "turn" else 0
                    solved = not turn or route < round(40 * min(1.0, level + 0.1 * (turn > 1)))
                    own = split if turn else f"{split}_way"
                    rows.append(
                        (f"{split}/{route}/{node}", own, f"r{route}", node, kind, turn, step, int(solved))
                    )
    names = ["item", "split", "route", "node", "kind", "turn", "step", "solved_at"]
    frame = pd.DataFrame(rows, columns=names).assign(first_direction_right=True)
    frame["solved_at_either"] = frame["solved_at"]
    frame["first"] = np.where(frame["solved_at"] == 1, "correct", "wrong_action")
    repeated = [frame.assign(seed=seed, decode=decode) for seed in seeds for decode in range(decodes)]
    losses = pd.DataFrame({"seed": seeds, "step": 0, "set": "ood", "loss": 1.0})
    empty = pd.DataFrame({"seed": list(seeds)})
    return Tables(pd.concat(repeated, ignore_index=True), empty, empty, losses, empty)


@pytest.fixture(scope="module")
def made() -> BeyondTables:
    study = healing_tables.study(abilities=(0.9,))
    parts = {"sft": curves(), "healing": study}
    return BeyondTables({CARDS: {"healing": study}, **dict.fromkeys(TASKS, parts)})


def test_an_estimator_of_another_chapter_gives_what_it_gives_there(made: BeyondTables) -> None:
    measured, asked = by_seed(made), 0
    assert sorted(measured) == made.seeds == [11, 12, 13, 14, 15]
    for claim in CLAIMS.read().claims:
        if claim.estimator != "in_task":
            continue
        options = dict(claim.options)
        task, chapter, estimate = (options.pop(name) for name in ("task", "chapter", "estimate"))
        tables = made.of(task, chapter)
        for seed, mine in measured.items():
            found = in_task(mine, task, chapter, estimate, **options)
            if tables is None:
                assert np.isnan(found), claim.id
                continue
            there = tables.once(ASKED[chapter].by_seed)[seed]
            assert found == ESTIMATORS[chapter][estimate](there, **options), claim.id
            asked += 1
    assert asked == 5 * 20  # five base seeds; ten claims of either task on chapters 1 and 5


def test_every_claim_asks_what_there_is() -> None:
    for claim in CLAIMS.read().claims:
        if claim.estimator == "in_task":
            assert claim.options["task"] in TASKS
            assert claim.options["estimate"] in ESTIMATORS[claim.options["chapter"]]
    for options in (("navigation", "sft", "rises"), ("navigation", "chapter 1", "rise")):
        with pytest.raises(BadInput, match=r"has no estimator"):
            in_task({}, *options)


def test_falls_are_those_that_were_made_and_first_turns_fall_more_when_they_do(made: BeyondTables) -> None:
    (fall, more) = (
        next(claim for claim in CLAIMS.read().claims if claim.id == name)
        for name in ("navigation-falls", "navigation-first-turns")
    )
    # a first turn falls from .9 to .3, the two later ones from 1.0 to .4
    assert list(CLAIMS.estimates(fall, made).values()) == pytest.approx([0.6] * 5, abs=0.1)
    assert list(CLAIMS.estimates(more, made).values()) == pytest.approx([0.0] * 5, abs=0.1)
    kept = curves()
    later = kept.episodes["turn"] > 1
    for column in ("solved_at", "solved_at_either"):
        kept.episodes.loc[later, column] = 1
    other = BeyondTables({"navigation": {"sft": kept}})
    assert min(CLAIMS.estimates(more, other).values()) > 0.4


def test_rates_of_routes_are_those_of_each_evaluation(made: BeyondTables) -> None:
    rates = measures.rates(made).set_index(["rate", "seed", "step"])["value"]
    level = dict(zip(STEPS, LEFT["ood"], strict=True))
    for step, first in level.items():
        later = min(1.0, first + 0.1)
        assert rates["routes", 11, step] == pytest.approx(first)
        assert rates["nodes", 11, step] == pytest.approx((3 + first + 2 * later) / 6)
        # of a route that fails at its first turn nothing else is asked: two attempts, none of them right
        assert rates["per step", 11, step] == pytest.approx(
            first * 6 / (first * 6 + (1 - first) * 2), abs=0.01
        )
    kinds = measures.nodes(made).set_index(["kind", "seed", "step"])["value"]
    assert kinds["first turn", 12, 160] == pytest.approx(0.3)
    assert kinds["later turns", 12, 160] == pytest.approx(0.4)
    assert kinds["stop", 12, 160] == kinds["forward", 12, 160] == 1


def test_verdicts_wait_for_every_task_and_seed(made: BeyondTables) -> None:
    found = CLAIMS.outcome(made)  # weights are not recorded in this study
    assert "navigation-directions-restore" in found.no_data
    assert "navigation-falls" in {one.claim.id for one in found.judged}
    less = BeyondTables({**made.by_task, TASKS[1]: {"sft": curves((11, 12))}})
    assert CLAIMS.outcome(less).missing == ("base seed 13", "base seed 14", "base seed 15")
    fewer = BeyondTables({**made.by_task, TASKS[1]: {"sft": curves(decodes=3)}})
    assert CLAIMS.outcome(fewer).missing[0] == "base seed 11: 3 of 4 sampling seeds"
    assert CLAIMS.outcome(None).missing is None


def test_nothing_recorded_is_no_study_and_cards_alone_are_none(tmp_path: Path) -> None:
    assert BeyondChapter.find(load_profile("lab"), tmp_path) == (None, [])
    cards = load_profile("smoke", {"name": "cards", **TINY})
    record.record(cards, [1], Store(tmp_path / "store"), tmp_path, say=lambda line: None)
    assert BeyondChapter.find(cards, tmp_path) == (None, [])


def test_a_profile_of_ones_own_plays_other_tasks_with_its_own_settings() -> None:
    mine = load_profile("smoke", {"name": "mine", "sft.learning_rate": 2e-3})
    other = of_task(mine, "navigation")
    assert (other.name, other.task, other.sft.learning_rate) == ("mine-navigation", "navigation", 2e-3)
    assert of_task(other, "navigation") == other
    assert of_task(load_profile("lab"), "navigation") == load_profile("lab-navigation")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> BeyondChapter:
    """A fresh run beside the recorded studies of two base seeds, of navigation's SFT alone."""
    place = tmp_path_factory.mktemp("beyond")
    mine = load_profile("smoke", {"name": "tiny", **TINY})
    walked, store = of_task(mine, "navigation"), Store(place / "store")
    record.record(walked, [1, 2], store, place / "results", say=lambda line: None)
    return runs.beyond(mine, results=place / "results", store=place / "store", quiet=True)


def test_a_chapter_has_a_readers_navigation_beside_what_is_recorded(chapter: BeyondChapter) -> None:
    assert set(chapter.fresh.by_task) == {"navigation"}
    assert set(chapter.fresh.by_task["navigation"]) == set(FRESH)
    assert chapter.recorded is not None
    assert chapter.recorded.seeds == [1, 2]
    assert len(chapter.manifests) == 2
    assert checks.beyond(chapter).ok
    broken = chapter.fresh.by_task["navigation"]["sft"].episodes.assign(turn=0)
    parts = dict(chapter.fresh.by_task["navigation"])
    parts["sft"] = replace(parts["sft"], episodes=broken)
    assert not checks.beyond(replace(chapter, fresh=BeyondTables({"navigation": parts}))).ok


def test_figures_show_what_there_is_and_say_where_nothing_is(
    chapter: BeyondChapter, made: BeyondTables
) -> None:
    whole = replace(chapter, recorded=made)
    for figure in figures.BEYOND:
        alone, drawn = (figure(one) for one in (chapter, whole))
        assert alone.caption
        assert alone.svg
        assert drawn.caption
        assert drawn.svg
        assert TOLD[drawn.name] in drawn.takeaway
        assert drawn.takeaway or drawn.name == "beyond-weights", "of which nothing is made here"
    assert TOLD.keys() == TAKEAWAYS.keys()
    stages = figures.stages(whole).frame
    paper = stages[stages["study"] == "paper"]
    for key in (key for keys in figures.PAPERS.values() for key in keys):
        points = paper_points()[key]["points"]
        shown = paper[paper["series"] == f"{key}, ood"]["value"]
        assert shown.to_list() == pytest.approx(
            [points[f"ood_{stage}"] / 100 for stage in figures.PAPERS_STAGES]
        )
    ours = stages[stages["study"] == "recorded"]
    assert set(ours["series"]) == {f"{task}, {split}" for task in (CARDS, *TASKS) for split in figures.SERIES}
    healed = figures.healed(whole).frame
    assert healed["interval"].nunique() == 1
    assert len(healed) == 3 * 2 * 3  # tasks, second stages, starts
