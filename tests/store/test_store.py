"""Runs: found when nothing that determines them has changed, missed otherwise."""

from __future__ import annotations

import calendar
import hashlib
import importlib.metadata
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from store_lab import SPEC, Lab

from rlheals.errors import BadInput
from rlheals.stage import Work
from rlheals.store import cleanup, machine
from rlheals.store.runs import MANIFEST, RunSpec
from rlheals.store.store import default_store


def test_the_second_call_loads_and_both_say_so(lab: Lab) -> None:
    run = lab.ensure()
    again = lab.ensure()
    assert again == run
    assert lab.computed == 1
    name = f"train {run.id[:12]}"
    assert [line.partition(" (")[0] for line in lab.lines] == [f"{name}: computing", f"{name}: loaded"]
    assert run.path == lab.store.root / "runs" / run.id
    assert lab.store.find(SPEC) == lab.store.load(run.id) == run
    assert lab.store.ids() == [run.id]
    assert lab.left() == []
    assert lab.store.check().ok
    assert run.file("deep/rows.csv").read_text() == "{'steps': 40, 'lr': 0.0003} 1 []\n"


def test_the_manifest_says_what_made_the_run_and_nothing_about_whose_machine(lab: Lab) -> None:
    run = lab.ensure()
    text = (run.path / MANIFEST).read_text()
    found = run.manifest
    assert (found.stage, found.settings, found.seed, found.inputs) == ("train", SPEC.settings, 1, {})
    assert found.versions["numpy"] == importlib.metadata.version("numpy")
    assert [name.rpartition(".")[2] for name in found.modules[1:]] == ["models", "tensors", "train"]
    data = (run.path / "weights.bin").read_bytes()
    assert found.files["weights.bin"].sha256 == hashlib.sha256(data).hexdigest()
    assert found.files["weights.bin"].bytes == 2560
    started = calendar.timegm(time.strptime(found.started, "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(time.time() - started) < 3600
    assert found.machine == machine.this_machine()
    for private in (socket.gethostname(), str(lab.store.root), os.path.expanduser("~")):
        assert f'{private}"' not in text
        assert f'"{private}' not in text


def test_an_edit_in_a_helper_behind_a_helper_misses_and_a_comment_does_not(lab: Lab) -> None:
    lab.ensure()
    (lab.package / "tensors.py").write_text('"""Sizes."""\n\n# in units\nsize = (1)\n')
    (lab.package / "aside.py").write_text("y = 2  # nobody imports this\n")
    lab.ensure()
    assert lab.computed == 1
    (lab.package / "tensors.py").write_text("size = 12\n")
    assert lab.store.find(SPEC) is None
    lab.ensure()
    assert lab.computed == 2
    assert len(lab.store.ids()) == 2


@pytest.mark.parametrize("library", ["torch", "transformers", "trl", "numpy"])
def test_a_changed_library_version_misses(
    lab: Lab, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.store.key(SPEC)
    for changed in (library, "pandas"):
        about = tmp_path / changed / f"{changed}-99.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: {changed}\nVersion: 99.0\n\nVersion: 1.0\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(about.parent)
            assert (lab.store.key(SPEC) != before) == (changed == library)
    assert lab.store.key(SPEC) == before


def test_everything_asked_for_is_in_the_key(lab: Lab) -> None:
    one, two = "1" * 64, "2" * 64
    (lab.package / "measure.py").write_text("from .models import create\n")
    asked: dict[str, Any] = {"stage": "train", "settings": SPEC.settings, "seed": 1}
    changes: list[dict[str, Any]] = [
        {},
        {"stage": "measure"},
        {"seed": 2},
        *({"settings": {"steps": steps, "lr": 3e-4}} for steps in (41, 40.0, "40")),
        {"settings": {"steps": 40, "lr": 3e-4, "x": None}},
        *({"inputs": inputs} for inputs in ({"base": one}, {"base": two}, {"model": one})),
    ]
    specs = [RunSpec(**asked | change) for change in changes]
    keys = [lab.store.key(spec) for spec in specs]
    assert len(set(keys)) == len(keys)
    turned = RunSpec(stage="train", settings={"lr": 3e-4, "steps": 40}, seed=1)
    assert lab.store.key(turned) == keys[0]
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


BAD: dict[str, list[Any]] = {
    "stage": ["../train", "Train", ""],
    "seed": ["1", 1.0, True],
    "inputs": [{"base": "abc"}, {"": "1" * 64}],
    "settings": [{"x": float("nan")}, {"x": float("inf")}, {"x": {1, 2}}, {1: "x"}, {"x": "\ud800"}, [1]],
    "extra": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in BAD for value in BAD[field]])
def test_a_bad_spec_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        RunSpec(**{"stage": "train", "settings": {}, "seed": 0, field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_settings_are_not_shared_with_the_stage(lab: Lab) -> None:
    def meddle(work: Work) -> None:
        work.settings["steps"] = 0
        lab.compute(work)

    run = lab.store.ensure(SPEC, meddle, lab.lines.append)
    assert run.manifest.settings["steps"] == 40
    assert lab.store.find(SPEC) == run


def test_inputs_are_handed_over_and_must_be_there(lab: Lab) -> None:
    base = lab.ensure()
    seen: dict[str, Path] = {}

    def compute(work: Work) -> None:
        seen.update(work.inputs)
        lab.compute(work)

    lab.store.ensure(RunSpec(stage="train", inputs={"base": base.id}), compute, lab.lines.append)
    assert seen == {"base": base.path}
    with pytest.raises(BadInput, match="run 999999999999 is not in"):
        lab.ensure(RunSpec(stage="train", inputs={"base": "9" * 64}))
    for bad in ("", "abc", "../" + base.id, base.id.upper() + "/", "G" * 64):
        with pytest.raises(BadInput, match="not a run's id"):
            lab.store.load(bad)
    with pytest.raises(BadInput, match=r"no module '.*\.absent'"):
        lab.ensure(RunSpec(stage="absent"))


def test_only_files_of_the_run_are_given(lab: Lab) -> None:
    run = lab.ensure()
    assert run.file("weights.bin").stat().st_size == 2560
    for name in ("manifest.json", "../x", "/etc/passwd", "deep", "no.csv", ""):
        with pytest.raises(BadInput, match=r"has no file .*; it has deep/rows.csv, weights.bin"):
            run.file(name)


def test_asking_creates_nothing(lab: Lab) -> None:
    assert lab.store.find(SPEC) is None
    assert lab.store.ids() == []
    assert lab.store.check().ok
    assert cleanup.clean(lab.store.root) == []
    assert not lab.store.root.exists()


def test_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLHEALS_STORE", raising=False)
    assert default_store().root == tmp_path / ".rlheals"
    monkeypatch.setenv("RLHEALS_STORE", "elsewhere")
    assert default_store().root == tmp_path / "elsewhere"
    monkeypatch.chdir("/")
    assert default_store().root == Path("/elsewhere")


def test_said_on_stderr_by_default(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run = lab.store.ensure(SPEC, lab.compute)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"train {run.id[:12]}: computing\n")
