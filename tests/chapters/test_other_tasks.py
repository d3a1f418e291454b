"""Chapters for another task: by its name alone, in its words, beside what guesses score, without the paper's points."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from rlheals.book.notebooks import NotebookParameters
from rlheals.chapters import captions, checks, sentences
from rlheals.chapters.sft import figures, measures, runs
from rlheals.chapters.sft.takeaways import TAKEAWAYS
from rlheals.display import looks
from rlheals.errors import BadInput
from rlheals.profiles import for_task, load_profile, names
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.tasks import load_task

TASKS = ("determinant", "determinant_rules", "navigation", "rank")
LAB = ("determinant_rules", "navigation")
TINY = {
    "pretrain.min_steps": 1,
    "pretrain.max_steps": 2,
    "pretrain.check_every": 1,
    "pretrain.panel_hands": 16,
    "pretrain.model": {"hidden": 16, "layers": 1, "heads": 1, "mlp": 16},
    "sft.checkpoints": [0, 2, 4],
    "evaluated": [0, 2, 4],
    "evaluate.hands": 4,
    "rule_steps": [4],
    "rule_hands": 2,
    "rl_starts.starts": [],
    "rotation.steps": [],
    "swaps.late": None,
    "swaps.start": None,
    "protection.steps": [],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def chapter(store: Store) -> runs.SFTChapter:
    return runs.sft(load_profile(for_task("smoke", "navigation"), TINY), store=store, quiet=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", names())
def test_every_profile_has_one_for_every_task_with_the_attempts_of_the_task(name: str, task: str) -> None:
    profile = load_profile(for_task(name, task))
    assert (profile.task, profile.sft.task, profile.rl_starts.rl.task) == (task,) * 3
    assert profile.evaluate.attempts == profile.rl_starts.rl.attempts == load_task(task).attempts
    assert not profile.shipped_base
    if profile.name not in names():  # a file of that name has settings of its own
        assert profile.sft.checkpoints == load_profile(name).sft.checkpoints


@pytest.mark.parametrize("name", LAB)
def test_an_experts_answer_fits_into_an_attempt(name: str) -> None:
    task = load_task(name)
    dialect = task.dialect()
    longest = max(len(dialect.expert(item)) for split in task.splits for item in task.items(split))
    assert longest <= load_profile(for_task("smoke", name)).evaluate.sampling.max_new_tokens


def test_a_notebook_takes_the_task_beside_the_profile() -> None:
    chosen = NotebookParameters(profile="smoke", task="determinant_rules")
    assert load_profile(chosen.profile) == load_profile("smoke-determinant-rules")
    for given in ({"task": "navigations"}, {"task": "navigation", "profile": "smok"}, {"task": 3}):
        with pytest.raises((BadInput, ValueError), match=r"navigations|smok|3"):
            NotebookParameters(**given)


def test_results_of_another_task_under_a_profiles_name_are_refused(
    chapter: runs.SFTChapter, store: Store, tmp_path: Path
) -> None:
    name = chapter.profile.name
    record.record(chapter.profile, chapter.fresh.seeds, store, tmp_path, say=lambda line: None)
    cards = load_profile("smoke", {"name": name})
    said = rf"^profile {name} is about general_points, .* about navigation;[^\n]*$"
    with pytest.raises(BadInput, match=said):
        runs.sft(cards, results=tmp_path, store=store, quiet=True)


def test_figures_speak_of_the_tasks_items_and_attempts(chapter: runs.SFTChapter) -> None:
    one, several = load_task(chapter.profile.task).called
    for figure in figures.SFT:
        drawn = figure(chapter)
        written = re.sub(r"<[^>]*>", " ", drawn.svg.decode())
        takeaway = sentences.said(TAKEAWAYS[drawn.name], drawn.frame, {"fresh": 1})
        assert takeaway.startswith("In this one-seed fresh run, ") or drawn.name == "sft-sensitivity"
        takeaway = captions.worded(takeaway, chapter.profile)
        said = f"{drawn.title} {drawn.caption} {takeaway} {written}"
        assert not re.search(r"\b(hands?|success@5|five attempts)\b", said), figure.__name__
    assert checks.trained(chapter).ok
    said = figures.accuracy(chapter).caption
    assert "success@2" in said
    assert "within two attempts" in said
    assert (
        several in figures.error_categories(chapter).caption
        or one in figures.error_categories(chapter).caption
    )


@pytest.mark.parametrize(
    ("attempts", "said"),
    [(1, "success@1, one attempt"), (5, "success@5, five attempts"), (8, "success@5, five attempts")],
)
def test_more_attempts_than_the_measure_counts_do_not_rename_it(attempts: int, said: str) -> None:
    profile = load_profile("smoke", {"evaluate.attempts": attempts, "evaluate.sampling.max_new_tokens": 10})
    assert captions.worded("success@5, five attempts", profile) == said


def test_every_verdict_of_the_task_is_drawn(chapter: runs.SFTChapter) -> None:
    kinds = looks.verdicts(load_task(chapter.profile.task).rewards)
    for split in ("sft", "ood"):
        given = pd.concat(measures.verdict(chapter.fresh, split, name) for name in kinds)
        assert given.groupby("step")["value"].sum().tolist() == pytest.approx([1] * given["step"].nunique())


def test_a_verdict_of_a_task_of_your_own_is_called_by_its_name() -> None:
    assert looks.verdicts(["correct", "too_late"])["too_late"].label == "too late"


def test_what_guesses_score_stands_beside_accuracy_and_the_papers_points_do_not(
    chapter: runs.SFTChapter,
) -> None:
    chance = load_task(chapter.profile.task).chance()
    said = figures.accuracy(chapter).caption
    asked = {name: share for name, share in chance.items() if name.endswith(" on ood")}
    assert asked
    assert all(f"{name.removesuffix(' on ood')} {share:.2f}" in said for name, share in asked.items())
    beside = figures.paper_beside(chapter)
    assert "left out: it is about general_points" in beside.caption
    assert "paper" not in set(beside.frame["study"])


def test_the_rule_is_read_where_answers_state_what_it_makes_of_the_question(chapter: runs.SFTChapter) -> None:
    episodes = chapter.fresh.episodes
    (column,) = set(measures.RULE_READ) & set(episodes)
    readable = ~episodes["first"].isin(measures.UNREADABLE)
    counted = measures.PARTS["rule: read right, if readable"](episodes)
    assert counted.notna().tolist() == readable.tolist()
    assert counted[readable].tolist() == episodes.loc[readable, column].tolist()


def test_matrices_are_called_so_and_where_their_rule_is_read_is_known() -> None:
    task = load_task("determinant_rules")
    dialect, item = task.dialect(), task.items("ood")[0]
    columns = task.reply_columns(item, dialect.read(dialect.expert(item)))
    assert {f"first_{name}" for name in columns} & set(measures.RULE_READ)
    profile = load_profile(for_task("smoke", "determinant_rules"))
    assert captions.worded("hands, one face-card hand", profile) == "matrices, one matrix"
