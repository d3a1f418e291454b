"""The regression checks: their text follows from the references alone, and what has changed is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from rlheals.book.references import CHAPTERS, main
from rlheals.chapters import checks, references
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.study.tables import Tables, joined
from rlheals.tasks import load_task
from rlheals.tasks.general_points import census
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE

COPIES = Path(__file__).parents[1] / "notebooks"
SPLITS = {"sft": "sft", "rl": "rl", "held-out": "held_out", "OOD": "ood"}


@dataclass(frozen=True)
class Chapter:
    profile: Profile
    fresh: Tables
    recorded: Tables | None = None


def chapter_with(values: dict[str, float], profile: str = "smoke", seed: int = 0) -> Chapter:
    """A chapter whose last losses and counts of solved hands are those given."""
    losses = [(name.removesuffix(" loss"), value) for name, value in values.items() if name.endswith(" loss")]
    rows = []
    for name, split in SPLITS.items():
        first, five, either = (
            int(values[f"{name}, {measure}"])
            for measure in ("pass@1", "success@5", "success@5, format-agnostic")
        )
        for hand in range(32):
            at = 1 if hand < first else 2 if hand < five else 0
            rows.append((f"{split}/{hand}", split, at, at or (3 if hand < either else 0)))
    episodes = pd.DataFrame(rows, columns=["item", "split", "solved_at", "solved_at_either"])
    earlier = episodes.assign(step=30, solved_at=0, solved_at_either=0)
    return Chapter(
        load_profile(profile),
        Tables(
            episodes=pd.concat([episodes.assign(step=60), earlier]).assign(seed=seed, decode=0),
            categories=pd.DataFrame({"seed": [seed]}),
            rules=pd.DataFrame({"seed": [seed]}),
            losses=pd.concat(
                [
                    pd.DataFrame(losses, columns=["set", "loss"]).assign(step=60),
                    pd.DataFrame([("ood", 9.0, 30)], columns=["set", "loss", "step"]),
                ]
            ).assign(seed=seed),
            bases=pd.DataFrame({"seed": [seed]}),
        ),
    )


@pytest.fixture
def measured() -> dict[str, float]:
    """What seed 0 gave when the references were made."""
    return {name: values[0] for name, values in references.read().trained.items()}


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
        for hand in census.census("both")[::21][: census.GRADED_HANDS]
        for reply in census.replies(hand)
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
        assert high - low < (0.1 if name.endswith("loss") else 20), name
        assert high - low >= 1.99 * references.LEAST["loss" if name.endswith("loss") else "hands"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trained": {}}'])
def test_damaged_references_are_one_line(tmp_path, text):
    (tmp_path / "smoke.json").write_text(text)
    with pytest.raises(BadInput, match=r"^references '?smoke.json'?[^\n]*$"):
        references.read(tmp_path / "smoke.json")
    with pytest.raises(BadInput, match=r"^references 'none.json' cannot be read[^\n]*$"):
        references.read(tmp_path / "none.json")


# --- trained values


def test_what_the_references_were_made_of_is_inside(measured):
    report = checks.trained(chapter_with(measured))
    assert report.ok
    assert [line.rsplit(": ")[1] for line in report.lines] == ["inside"] * len(measured)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ood loss", 0.1),
        ("test loss", -0.1),
        ("batch loss", 0.1),
        ("sft, pass@1", -9),
        ("OOD, success@5, format-agnostic", 8),
        ("ood loss", float("nan")),
    ],
)
def test_only_the_value_that_changed_is_outside(measured, name, change):
    report = checks.trained(chapter_with(measured | {name: measured[name] + change}))
    (outside,) = [line for line in report.lines if not line.endswith(": inside")]
    assert not report.ok
    assert outside.startswith(f"fresh run, {name}: outside (got ")
    assert ", accepted " in outside


@pytest.mark.parametrize(("profile", "seed"), [("lab", 0), ("smoke", 7)])
def test_runs_that_nothing_is_recorded_for_are_not_compared(measured, profile, seed):
    report = checks.trained(chapter_with(measured, profile, seed))
    assert report.ok
    assert "not compared" in str(report)


def recorded_with(values: dict[str, float], seeds: int) -> Tables:
    """A recorded study around these values: every seed solves one hand more or fewer, at a slightly other loss."""
    parts = []
    for seed in range(1, seeds + 1):
        shift = (-1) ** seed
        mine = {
            name: value + shift * (0.005 if name.endswith("loss") else 1) for name, value in values.items()
        }
        parts.append(chapter_with(mine, "lab", seed).fresh)
    return joined(parts, Tables)


def test_a_fresh_run_is_compared_with_the_recorded_study(measured):
    values = measured | {name: 10.0 for name in measured if not name.endswith("loss")}
    recorded = recorded_with(values, 6)
    alike = replace(chapter_with(values, "lab"), recorded=recorded)
    report = checks.trained(alike)
    assert report.ok, report
    assert "6 recorded base seeds" in report.lines[0]
    assert all(line.endswith(": inside") for line in report.lines[1:])
    far = replace(chapter_with(values | {"ood loss": values["ood loss"] + 0.3}, "lab"), recorded=recorded)
    outside = [line for line in checks.trained(far).lines[1:] if not line.endswith(": inside")]
    assert len(outside) == 1
    assert outside[0].startswith("fresh run, ood loss: outside (got ")
    few = replace(alike, recorded=recorded_with(values, 2))
    assert "not compared" in str(checks.trained(few))


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
