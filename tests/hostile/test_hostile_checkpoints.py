"""`spectra` and `edit` on hostile model folders: the right numbers, or one line that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlheals.cli import main as cli
from rlheals.weights.checkpoint import Checkpoint


def run(capsys: pytest.CaptureFixture[str], *asked: object) -> dict[str, Any]:
    assert cli.main([*map(str, asked), "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # strict JSON: no NaN


@pytest.mark.parametrize("make", folders.READ, ids=lambda make: make.__name__)
def test_what_transformers_would_load_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path]
) -> None:
    base, target = folders.model(tmp_path / "base", folders.tensors(0)), make(tmp_path / "target")
    measured = run(capsys, "spectra", base, target, "--null", 0)
    true = folders.tensors(1)
    size = float(
        (true[folders.Q] - folders.tensors(0)[folders.Q]).norm() / folders.tensors(0)[folders.Q].norm()
    )
    assert measured["relative_change"]["q"]["size"] == pytest.approx(size)
    out = tmp_path / "out"
    run(capsys, "edit", base, target, "--edit", "rollback()", "--where", "everything", "--out", out)
    again = load_file(out / "model.safetensors")
    assert all(torch.equal(again[name], one) for name, one in folders.tensors(0).items())
    if make is not folders.buffers:
        assert again.keys() == true.keys()
        assert any("not read, as transformers would not" in note for note in measured["notes"])


@pytest.mark.parametrize("name", folders.REFUSED)
def test_what_cannot_be_believed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    base, out = folders.model(tmp_path / "base", folders.tensors(0)), tmp_path / "out"
    make, words = folders.REFUSED[name]
    make(tmp_path / "target")
    for asked in (
        ["spectra", base, tmp_path / "target", "--null", 0],
        ["edit", base, tmp_path / "target", "--edit", "values(all)", "--where", "attention", "--out", out],
    ):
        assert cli.main([*map(str, asked)]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert words in said.err
        assert not said.out
    assert not out.exists()


@pytest.mark.parametrize("heads", [(False, True), (True, False), (True, True)])
def test_a_tied_head_is_the_embedding_whether_it_is_stored_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], heads: tuple[bool, bool]
) -> None:
    for seed, (name, has_head) in enumerate(zip(("base", "target"), heads, strict=True)):
        state = folders.tensors(seed)
        state.pop(folders.HEAD)
        if has_head:
            state[folders.HEAD] = state[folders.EMBED].clone()
        folders.model(tmp_path / name, state, tie_word_embeddings=True)
    pair = (tmp_path / "base", tmp_path / "target")
    assert "head" not in run(capsys, "spectra", *pair, "--null", 0)["relative_change"]
    run(capsys, "edit", *pair, "--edit", "rollback()", "--where", "kinds=embed", "--out", tmp_path / "out")
    made = Checkpoint(tmp_path / "out")
    assert torch.equal(made.tensor(folders.EMBED), folders.tensors(0)[folders.EMBED])
    assert folders.HEAD not in made.places


def test_a_file_without_config_is_read_as_the_other_side_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedding twice, as one file of a tied model may hold it, beside a folder that holds it once."""
    state = folders.tensors(0)
    state[folders.HEAD] = state[folders.EMBED].clone()
    (tmp_path / "alone").mkdir()
    save_file(state, tmp_path / "alone" / "model.safetensors", {"format": "pt"})
    tied = folders.model(
        tmp_path / "tied", folders.tensors(1, without=folders.HEAD), tie_word_embeddings=True
    )
    for pair in ((tmp_path / "alone", tied), (tied, tmp_path / "alone" / "model.safetensors")):
        assert "head" not in run(capsys, "spectra", *pair, "--null", 0)["relative_change"]


def test_numbers_that_are_not_finite_are_refused_outside_of_the_chosen_part_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = folders.tensors(1)
    state[folders.NORM][2] = torch.inf
    base, target = (
        folders.model(tmp_path / "base", folders.tensors(0)),
        folders.model(tmp_path / "target", state),
    )
    asked = ["edit", base, target, "--edit", "values(all)", "--where", "kinds=q", "--out", tmp_path / "out"]
    assert cli.main([*map(str, asked)]) == 2
    assert f"{folders.NORM} holds numbers that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_zero_matrices_have_an_answer_in_numbers_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As block expansion makes them: nothing to rotate, no size to divide by."""
    zero = folders.tensors(0)
    zero[folders.O].zero_()
    zero[folders.NORM].zero_()
    base, target = folders.model(tmp_path / "base", zero), folders.model(tmp_path / "target")
    said = run(capsys, "spectra", base, target, "--null", 1, "--out", tmp_path / "out")
    assert said["relative_change"]["o"] == {"size": None, "values": None}
    assert (tmp_path / "out" / "index.html").is_file()
    edited = run(
        capsys, "edit", target, base, "--edit", "rollback()", "--where", "everything", "--out", tmp_path / "e"
    )
    row = next(row for row in edited["tensors"] if row["tensor"] == folders.O)
    assert row["change"] is None
    assert json.loads((tmp_path / "e" / "edit.json").read_text())["tensors"] == edited["tensors"]


def test_equal_and_tiny_checkpoints_have_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = folders.model(tmp_path / "base", folders.tensors(0))
    assert run(capsys, "spectra", base, base, "--null", 1)["relative_change"]["q"]["size"] == 0
    tiny = {folders.Q: torch.eye(6) + 0.1}
    for name, factor in (("one", 1.0), ("other", 1.001)):
        folders.model(tmp_path / name, {folders.Q: tiny[folders.Q] * factor})
    found = run(capsys, "spectra", tmp_path / "one", tmp_path / "other", "--null", 0)
    assert found["relative_change"]["q"]["size"] == pytest.approx(0.001, rel=1e-3)


def test_what_is_not_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, target = folders.model(tmp_path / "base", folders.tensors(0)), folders.model(tmp_path / "target")
    said = run(capsys, "spectra", base, target, "--null", 0, "--matrices", "q,k", "--k", "4,8,12")
    assert (
        "not measured: 10 tensors (down 1, embed 1, gate 1, head 1, norms 3, o 1, up 1, v 1)" in said["notes"]
    )
    assert "k = 8: left out of 1 matrices with no more singular values" in said["notes"]
    edited = run(capsys, "edit", base, target, "--edit", "rollback()", "--out", tmp_path / "out")
    assert "not edited: 5 tensors (embed 1, head 1, norms 3)" in edited["notes"]


@pytest.mark.parametrize("name", ["notes.json", "tokenizer.model"])
def test_a_link_out_of_the_folder_is_not_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    base, target = folders.model(tmp_path / "base", folders.tensors(0)), folders.model(tmp_path / "target")
    (tmp_path / "secret").write_text("a secret")
    for link, words in (("../secret", "is a link out of its folder"), ("nowhere", "is a broken link")):
        (target / name).unlink(missing_ok=True)
        (target / name).symlink_to(link)
        asked = ["edit", base, target, "--edit", "values(all)", "--out", tmp_path / "out"]
        assert cli.main([*map(str, asked)]) == 2
        assert f"{name}' {words}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
