"""The regression checks: their text follows from the references alone, and what has changed is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from rlheals.book.references import CHAPTERS, main
from rlheals.chapters import checks, references
from rlheals.chapters.rl import runs as rl_runs
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.study import record
from rlheals.study.tables import SFT, Tables, joined
from rlheals.tasks import load_task
from rlheals.tasks.general_points import task as hands
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE

COPIES = Path(__file__).parents[1] / "notebooks"
RESULTS = Path(__file__).parents[2] / "results"


# --- exact things


def test_exact_is_the_text_of_the_reference_copy_with_the_published_counts_and_200_verdicts():
    copy = nbformat.read(COPIES / CHAPTERS[0], as_version=4)
    exact = next(cell for cell in copy.cells if cell.metadata.get("name") == "exact")
    text = str(checks.exact())
    assert text == exact.outputs[0].data["text/plain"]
    assert all(count in text for count in ("1820", "1236", "796", "529"))
    assert text.count("100 replies graded") == 2


def test_graded_replies_cover_every_category():
    task = load_task("general_points")
    seen = {
        task.grade(task.item(hand, rule), reply).category
        for hand in hands.census("both")[::21][: hands.GRADED_HANDS]
        for reply in hands.replies(hand)
        for rule in (ID_RULE, OOD_RULE)
    }
    assert seen == {"correct", "partial", "no_solution", "wrong_number", "wrong_rule", "illegal_formula"}


# --- references


@pytest.mark.parametrize("name", ["ID, pass@1", "OOD, success@5"])
def test_two_hands_more_or_fewer_are_accepted_and_three_are_not(name):
    low, high = references.shipped_interval(name, 19.0)
    assert [low <= value <= high for value in (16, 17, 21, 22)] == [False, True, True, False]


def test_reward_intervals_are_what_two_hands_can_change():
    from rlheals.tasks.general_points.verifier import REWARDS

    once = max(REWARDS.values()) - min(REWARDS.values())
    episode = max(REWARDS.values()) - 5 * min(REWARDS.values())
    assert references.shipped_interval("ID, reward of first attempts", 0.0) == (-2 * once, 2 * once)
    assert references.shipped_interval("ID, reward of all attempts", 0.0) == (-2 * episode, 2 * episode)


def test_references_come_from_five_seeds_or_more_and_are_narrow_enough_to_mean_something():
    found = references.read()
    assert len(set(found.seeds)) >= 5
    for name, values in found.trained.items():
        low, high = references.trained_interval(name, values)
        assert len(values) == len(found.seeds)
        assert high - low < (0.1 if name.endswith("loss") else 24), name
        assert high - low >= 1.99 * references.LEAST["loss" if name.endswith("loss") else "hands"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trained": {}}'])
def test_damaged_references_are_one_line(tmp_path, text):
    (tmp_path / "smoke.json").write_text(text)
    with pytest.raises(BadInput, match=r"^references '?smoke.json'?[^\n]*$"):
        references.read(tmp_path / "smoke.json")
    with pytest.raises(BadInput, match=r"^references 'none.json' cannot be read[^\n]*$"):
        references.read(tmp_path / "none.json")


# --- trained values


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (None, 0.0),
        ("ood loss", 0.1),
        ("test loss", -0.1),
        ("batch loss", 0.1),
        ("sft, pass@1", -9),
        ("OOD, success@5, format-agnostic", 17),
        ("ood loss", float("nan")),
    ],
)
def test_only_the_value_that_changed_is_outside_of_what_other_seeds_gave(name, change):
    known = references.read().trained
    accepted = {one: references.trained_interval(one, values) for one, values in known.items()}
    got = {one: values[0] + (change if one == name else 0.0) for one, values in known.items()}
    report = checks.compared("fresh run", got, accepted)
    outside = [line for line in report.lines if not line.endswith(": inside")]
    assert report.ok == (name is None)
    assert len(outside) == (name is not None)
    assert all(line.startswith(f"fresh run, {name}: outside (got ") for line in outside)
    assert all(", accepted " in line for line in outside)


@pytest.fixture(scope="module")
def lab() -> Tables:
    found, _ = record.find("lab", SFT, RESULTS)
    assert found is not None
    return found


def chapter(lab: Tables, recorded: int, profile: str = "lab") -> SimpleNamespace:
    """The first recorded base seed in the place of a fresh run, beside so many others."""
    others = [lab.of_seed(seed) for seed in lab.seeds[1 : 1 + recorded]]
    beside = joined(others, Tables) if others else None
    return SimpleNamespace(profile=load_profile(profile), fresh=lab.of_seed(lab.seeds[0]), recorded=beside)


@pytest.mark.parametrize(("recorded", "profile"), [(0, "lab"), (2, "lab"), (0, "smoke")])
def test_runs_that_too_little_is_recorded_for_are_not_compared(lab, recorded, profile):
    report = checks.trained(chapter(lab, recorded, profile))
    assert report.ok
    assert "not compared" in str(report)


def test_a_fresh_run_is_compared_with_the_recorded_study(lab):
    one = chapter(lab, 4)
    report = checks.trained(one)
    assert report.ok, report
    assert "4 recorded base seeds" in report.lines[0]
    assert len(report.lines) > 10
    assert all(line.endswith(": inside") for line in report.lines[1:])
    losses = one.fresh.losses
    one.fresh = replace(
        one.fresh, losses=losses.assign(loss=losses["loss"] + 0.5 * (losses["set"] == "train"))
    )
    (outside,) = [line for line in checks.trained(one).lines[1:] if not line.endswith(": inside")]
    assert outside.startswith("fresh run, train loss: outside (got ")


@pytest.mark.parametrize("log_kl", [True, False])
def test_laws_of_rl_hold_for_the_recorded_runs_and_a_broken_one_is_named(log_kl):
    found, _ = record.find("lab", rl_runs.STUDY, RESULTS)
    log, advantages = (rows[rows["control"] == rl_runs.MAIN] for rows in (found.log, found.advantages))
    log = log if log_kl else log.drop(columns="kl_start")
    profile = load_profile("lab", {"rl_starts.rl.log_kl": log_kl})
    runs = SimpleNamespace(profile=profile, fresh=SimpleNamespace(log=log, advantages=advantages))
    report = checks.recovery(runs)
    assert report.ok, report
    assert ("KL to the RL start" in str(report)) == log_kl
    runs.fresh.log = log.assign(first_try=log["solved"] + 0.01)
    assert "pass@1 above the share that is solved: outside" in str(checks.recovery(runs))


def test_names_that_do_not_agree_are_outside():
    report = checks.compared("x", {"a": 1.0}, {"a": (0.0, 2.0), "b": (0.0, 2.0)})
    assert not report.ok
    assert "'b'" in str(report)


# --- making references


def test_references_are_made_in_the_repository_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "repository" in error


def test_a_failed_measurement_leaves_the_references_alone(tmp_path, monkeypatch):
    file = tmp_path / "smoke.json"
    file.write_text(json.dumps({"old": 1}))

    def fails(*arguments):
        raise BadInput("no")

    monkeypatch.setattr(references, "_train", fails)
    with pytest.raises(BadInput, match="no"):
        references.make(file, say=lambda line: None)
    assert json.loads(file.read_text()) == {"old": 1}
