"""The stage of edits: an edited model can be played, and its sizes say what was done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors.torch import load_file

from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.stage import Work
from rlheals.weights import edit_stage as edited


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the base and with a noisy version of it."""
    root = tmp_path_factory.mktemp("runs")
    for name, size in (("base", 0.0), ("moved", 0.01)):
        tiny_models.moved_base(root / name, size)
    return root


def done(runs: Path, out: Path, edit: str, where: str = "everything") -> dict[str, float]:
    out.mkdir()
    settings = {
        "base": "base",
        "target": "moved",
        "origin": "base",
        "edit": edit,
        "where": where,
        "questions": 12,
    }
    inputs = dict.fromkeys(("base", "target", "origin"), runs)
    edited.run(Work(out, out, settings, 3, inputs))
    return json.loads((out / "sizes.json").read_text())


def test_a_rollback_is_the_base_and_its_sizes_say_so(runs: Path, tmp_path: Path) -> None:
    sizes = done(runs, tmp_path / "out", "rollback()")
    made = load_file(tmp_path / "out/model/model.safetensors")
    assert all(
        torch.equal(made[name], tensor) for name, tensor in load_file(runs / "base/model.safetensors").items()
    )
    assert sizes["left"] == 0
    assert sizes["edit_norm"] == pytest.approx(sizes["distance"])
    assert sizes["kl_origin"] == 0
    assert sizes["kl_target"] > 0
    models.load(tmp_path / "out/model")


def test_an_edit_of_nothing_leaves_the_target_and_its_distance(runs: Path, tmp_path: Path) -> None:
    sizes = done(runs, tmp_path / "out", "directions(top=0)", "blocks")
    assert sizes["edit_norm"] == 0
    assert sizes["left"] == pytest.approx(sizes["distance"])
    assert sizes["kl_target"] == 0
    assert sizes["kl_origin"] > 0


def test_the_same_edit_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    names = []
    for name in ("one", "two"):
        done(runs, tmp_path / name, "noise(seed=2) like values(all)", "attention layers=0-1")
        names.append(
            {file.name: file.read_bytes() for file in (tmp_path / name).rglob("*") if file.is_file()}
        )
    assert names[0] == names[1]


@pytest.mark.parametrize(("field", "value"), [("edit", "conjure()"), ("where", "walls"), ("questions", 0)])
def test_settings_are_read_before_anything_is_computed(field: str, value: object) -> None:
    settings = {"base": "a", "target": "b", "edit": "rollback()", field: value}
    with pytest.raises(BadInput, match=field):
        validated(edited.EditedSettings, settings, "edited")


def test_settings_have_one_spelling() -> None:
    one = edited.EditedSettings(base="a", target="b", edit="values( top=8 )", where="layers=0-1")
    other = edited.EditedSettings(base="a", target="b", edit="values(top=8)", where="blocks layers=0,1")
    assert one == other
