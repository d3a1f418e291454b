"""Profiles: what is written is read back, and whatever is unknown or impossible is refused with its field named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_helpers import one_line

from rlheals.errors import BadInput
from rlheals.profiles import PROFILES, VARIANTS, load_profile, to_yaml, variant
from rlheals.profiles.profile import Profile


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(source: str | Path, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        load_profile(source, changes)
    return one_line(caught.value)


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_survives_yaml(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    assert profile == PROFILES[name]
    assert load_profile(file(tmp_path, to_yaml(profile))) == profile
    assert yaml.safe_load(to_yaml(profile)) == profile.model_dump(mode="json")


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_variant_is_the_lab_with_one_thing_changed_and_fewer_censuses(name: str) -> None:
    profile, lab = variant(name), load_profile("lab")
    assert profile.name == f"lab-{name}"
    mine, theirs = profile.model_dump(), lab.model_dump()
    assert mine["shipped_base"] == (not any(path.startswith("pretrain.") for path in VARIANTS[name]))
    (thing,) = {"pretrain.ability", "sft.prompts"} & VARIANTS[name].keys()
    group, field = thing.split(".")
    assert mine[group].pop(field) != theirs[group].pop(field)
    for key in ("name", "evaluated", "rule_steps", "decodes", "shipped_base", "healing"):
        mine.pop(key), theirs.pop(key)
    assert mine == theirs
    assert set(profile.healing.map) < set(lab.healing.map)
    assert set(profile.census_steps) < set(lab.census_steps)


def test_a_reader_computes_less_than_a_study() -> None:
    lab = load_profile("lab")
    with_study, alone = lab.for_reader(recorded=True), lab.for_reader(recorded=False)
    assert with_study.rule_steps == ()
    last = alone.sft.checkpoints[-1]
    assert alone.rule_steps == tuple(step for step in lab.rule_steps if step <= last) != ()
    assert with_study.census_steps == alone.census_steps
    assert {0, last} < set(alone.census_steps) < set(lab.census_steps)
    assert (with_study.pretrain, with_study.evaluate) == (lab.pretrain, lab.evaluate)
    for reader in (with_study, alone):
        assert Profile.model_validate(reader.model_dump()) == reader  # whose steps are all checkpoints
        assert reader.sft.model_copy(update={"checkpoints": lab.sft.checkpoints}) == lab.sft
        assert len(reader.healing.states) == 1
    own = load_profile("lab", {"evaluated": [0, 40, 1280]})
    assert own.for_reader(recorded=True).census_steps == (0, 40, 1280)
    assert own.for_reader(recorded=True).sft == own.sft
    assert "reader_steps" in refused("lab", {"reader_steps": [7]})
    assert "need SFT to step" in refused("lab", {"reader_steps": [0, 20]})


def test_a_name_alone_is_the_lab_under_that_name_and_less_is_refused(
    tmp_path: Path,
) -> None:
    assert "name" in refused(file(tmp_path, "{}"))
    assert load_profile(file(tmp_path, "name: mine")) == Profile(name="mine")
    (tmp_path / "folder.yaml").mkdir()
    assert "is not known" in refused(tmp_path / "folder.yaml")


def test_changes_reach_their_field_and_leave_the_named_profile_alone() -> None:
    before = load_profile("smoke")
    changes = {"sft.learning_rate": 1e-5, "seeds": [7], "evaluate.sampling.temperature": 0}
    changed = load_profile("smoke", changes).model_dump()
    wanted = before.model_dump()
    wanted["sft"]["learning_rate"], wanted["seeds"] = 1e-5, (7,)
    wanted["evaluate"]["sampling"]["temperature"] = 0
    assert changed == wanted
    assert load_profile("smoke") == before


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sft.learning_rat": 1}, "sft.learning_rat is not a setting"),
        ({"learning_rate": 1}, "learning_rate is not a setting; accepted: name, about, task, model"),
        ({"sft.model.hidden": 64}, "sft.model is not a setting"),
        ({"name.first": "x"}, "name.first: name is not a group"),
        ({"name.first": 1}, "name is not a group"),
        ({"sft": 3}, "sft"),
        ({"sft.learning_rate": "fast"}, "sft.learning_rate"),
        ({"sft.checkpoints": [0, 7]}, "evaluated has 10"),
        ({"rule_steps": [61]}, "rule_steps has 61"),
        ({"evaluated": [0, 11]}, "evaluated has 11"),
        ({"pretrain.model.hidden": 63}, "pretrain.model: hidden=63 is not a multiple of heads=2"),
        ({"evaluate.sampling.temperature": -0.1}, "evaluate.sampling.temperature"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": 3}, "seeds"),
        ({"decodes": 0}, "decodes"),
        ({"name": "Lab"}, "name"),
        ({"name": "../etc"}, "name"),
        ({"name": ""}, "name"),
        ({"": 1}, "is not a setting"),
        # what could not run: seeds end at 2**32 - 1 in numpy, 20 attempts do not fit 256 positions
        ({"seeds": [2**40]}, "seeds"),
        ({"pretrain.model.max_tokens": 64}, "max_tokens"),
        ({"evaluate.attempts": 20}, "attempts"),
    ],
)
def test_unknown_or_impossible_settings_are_refused_and_named(changes: dict[str, Any], named: str) -> None:
    assert named in refused("smoke", changes)


@pytest.mark.parametrize("name", ["smok", "Lab", "", "lab.json", "nowhere.yaml", "labs/../lab", "."])
def test_an_unknown_profile_or_variant_is_refused_with_the_names_there_are(name: str) -> None:
    text = refused(name)
    assert "is not known" in text
    assert "smollm2 or a .yaml file" in text
    with pytest.raises(BadInput, match=r"is not known; accepted: .*diverse"):
        variant(name)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "mapping"),
        ("- lab", "mapping"),
        ("lab", "mapping"),
        ("name: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("name: !!int seven", "is not YAML"),
        ("name: mine\n1: 2", "1"),
        ('name: mine\n"a\\nb": 1', "is not a setting"),
        ("name: mine\nsft: {learning_rat: 1}", "sft.learning_rat"),
        ("name: mine\n#" + "x" * 100_001, "100,000 bytes"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str | bytes, named: str) -> None:
    answer = refused(file(tmp_path, text))
    assert named in answer
    assert "mine.yaml" in answer
