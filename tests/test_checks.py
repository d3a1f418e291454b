"""The regression checks: their text follows from the references alone, and what has changed is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlheals import bands, checks
from rlheals.cards import ID_RULE, OOD_RULE
from rlheals.errors import BadInput
from rlheals.profiles import Profile, load_profile
from rlheals.tables import Tables
from rlheals.tasks import load_task

COPIES = Path(__file__).parent / "notebooks"
SPLITS = {"sft": "sft", "rl": "rl", "held-out": "held_out", "OOD": "ood"}


@dataclass(frozen=True)
class Chapter:
    profile: Profile
    fresh: Tables


def chapter_with(values: dict[str, float], profile: str = "smoke", seed: int = 0) -> Chapter:
    """A chapter whose last losses and counts of solved hands are those given."""
    losses = [(name.removesuffix(" loss"), value) for name, value in values.items() if name.endswith(" loss")]
    rows = []
    for name, split in SPLITS.items():
        first, five, either = (
            int(values[f"{name}, {measure}"])
            for measure in ("first try", "within five", "within five in either layout")
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
    return {name: values[0] for name, values in bands.read().levels["avx512"].trained.items()}


# --- exact things


def test_exact_is_the_text_of_the_reference_copy():
    copy = nbformat.read(COPIES / checks.TRIMMED, as_version=4)
    stored = next(cell for cell in copy.cells if cell.metadata.name == "exact").outputs[0].data["text/plain"]
    assert repr(checks.exact()) == stored


def test_exact_holds_the_published_counts_and_200_verdicts():
    text = str(checks.exact())
    for count in ("1820", "1236", "796", "529"):
        assert count in text
    assert text.count("100 replies graded") == 2


def test_graded_replies_cover_every_category():
    task = load_task("general_points")
    seen = {
        task.grade(task.item(hand, rule), reply).category
        for hand in checks.census("both")[::21][: checks.GRADED_HANDS]
        for reply in checks._replies(hand)
        for rule in (ID_RULE, OOD_RULE)
    }
    assert seen == {"correct", "partial", "no_solution", "wrong_number", "wrong_rule", "illegal_formula"}


# --- bands


def test_references_come_from_both_instruction_sets_and_five_seeds_or_more():
    references = bands.read()
    assert set(references.levels) == {"avx512", "avx2"}
    assert len(set(references.seeds)) >= 5
    for level, found in references.levels.items():
        assert found.machine.isa == level
        assert all(len(values) == len(references.seeds) for values in found.trained.values())
    trained = [level.trained for level in references.levels.values()]
    assert trained[0] != trained[1], "two instruction sets that agree in every bit were one and the same"
    assert references.profile == bands.settings_of(load_profile("smoke")), (
        "smoke has changed: `make references`"
    )


def test_bands_outlive_a_setting_that_is_added_and_left_at_its_default(tmp_path):
    file = tmp_path / "bands.json"
    data = json.loads(bands.FILE.read_text())
    del data["profile"]["sft"]["clip"], data["profile"]["evaluate"]["rows"]
    file.write_text(json.dumps(data))
    assert bands.read(file).profile == bands.settings_of(load_profile("smoke"))
    data["profile"]["sft"]["batch"] += 1
    file.write_text(json.dumps(data))
    assert bands.read(file).profile != bands.settings_of(load_profile("smoke"))


@pytest.mark.parametrize("name", ["ID, first try", "OOD, within five"])
def test_two_hands_more_or_fewer_are_accepted_and_three_are_not(name):
    low, high = bands.shipped_band(name, [19.0, 19.0])
    assert [low <= value <= high for value in (16, 17, 21, 22)] == [False, True, True, False]


def test_reward_bands_are_what_two_hands_can_change():
    from rlheals.tasks.verifier import REWARDS

    once = max(REWARDS.values()) - min(REWARDS.values())
    episode = max(REWARDS.values()) - 5 * min(REWARDS.values())
    assert bands.shipped_band("ID, reward of first tries", [0.0]) == (-2 * once, 2 * once)
    assert bands.shipped_band("ID, reward of all attempts", [0.0]) == (-2 * episode, 2 * episode)


@given(st.lists(st.lists(st.floats(0, 100), min_size=6, max_size=6).map(tuple), min_size=1, max_size=3))
def test_a_trained_band_holds_every_value_seen_and_never_shrinks_with_more_levels(levels):
    low, high = bands.trained_band("x, within five", levels)
    assert all(low <= value <= high for values in levels for value in values)
    assert high - low >= 2 * bands.LEAST["hands"]
    alike = bands.trained_band("x, within five", [levels[0], levels[0]])
    assert alike == pytest.approx(bands.trained_band("x, within five", levels[:1]))


def test_bands_are_narrow_enough_to_mean_something():
    levels = bands.read().levels.values()
    for name in next(iter(levels)).trained:
        low, high = bands.trained_band(name, [level.trained[name] for level in levels])
        assert high - low < (0.1 if name.endswith("loss") else 20), name


@pytest.mark.parametrize("text", ["", "{", "[]", '{"levels": {}}'])
def test_damaged_references_are_one_line(tmp_path, text):
    (tmp_path / "bands.json").write_text(text)
    with pytest.raises(BadInput, match=r"^references '?bands.json'?[^\n]*$"):
        bands.read(tmp_path / "bands.json")
    with pytest.raises(BadInput, match=r"^references 'none.json' cannot be read[^\n]*$"):
        bands.read(tmp_path / "none.json")


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
        ("sft, first try", -9),
        ("OOD, within five in either layout", 8),
    ],
)
def test_only_the_value_that_changed_is_outside(measured, name, change):
    report = checks.trained(chapter_with(measured | {name: measured[name] + change}))
    outside = [line for line in report.lines if not line.endswith(": inside")]
    assert not report.ok
    assert len(outside) == 1
    assert outside[0].startswith(f"fresh run, {name}: outside (got ")
    assert ", accepted " in outside[0]


def test_a_loss_that_is_not_a_number_is_outside(measured):
    assert not checks.trained(chapter_with(measured | {"ood loss": float("nan")})).ok


@pytest.mark.parametrize(("profile", "seed"), [("lab", 0), ("smoke", 7)])
def test_runs_that_have_no_bands_are_not_compared(measured, profile, seed):
    report = checks.trained(chapter_with(measured, profile, seed))
    assert report.ok
    assert "not compared" in str(report)


def test_names_that_do_not_agree_are_outside():
    report = checks.compared("x", {"a": 1.0}, {"a": (0.0, 2.0), "b": (0.0, 2.0)})
    assert not report.ok
    assert "'b'" in str(report)


# --- making references


def test_references_are_made_in_the_repository_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert checks.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "repository" in error


@pytest.mark.slow
def test_a_machine_without_the_instruction_set_makes_no_references(tmp_path):
    file = tmp_path / "measured.json"
    done = subprocess.run(
        [sys.executable, "-m", "rlheals.checks", "--measure", "avx512", str(file)],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "references need a machine with avx512" in done.stderr.splitlines()[-1]
    assert not file.exists()


def test_a_failed_measurement_leaves_the_references_alone(tmp_path, monkeypatch):
    file = tmp_path / "bands.json"
    file.write_text(json.dumps({"old": 1}))
    monkeypatch.setattr(bands.sys, "executable", "/bin/false")
    with pytest.raises(BadInput, match="nothing was changed"):
        bands.make(file, say=lambda line: None)
    assert json.loads(file.read_text()) == {"old": 1}
