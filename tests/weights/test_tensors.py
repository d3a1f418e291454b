"""Checkpoints as streams of tensors: single, sharded, damaged, and two that do not belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lab_helpers import one_line
from safetensors.torch import save_file

from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.weight_files import INDEX
from rlheals.errors import BadInput
from rlheals.weights.architectures import KINDS
from rlheals.weights.checkpoint import Checkpoint, require_same_tensors


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The shipped base in several files, as transformers writes them."""
    model = models.load(SHIPPED_BASE)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    return tmp_path / "sharded"


def test_one_file_a_folder_and_shards_hold_the_same_tensors(sharded: Path) -> None:
    state = models.load(SHIPPED_BASE).state_dict()
    for source in (SHIPPED_BASE, SHIPPED_BASE / "model.safetensors", sharded, str(sharded)):
        found = Checkpoint(source)
        assert found.places.keys() == state.keys()
        for name, tensor in state.items():
            assert torch.equal(found.tensor(name), tensor)
            assert found.places[name].shape == tuple(tensor.shape)
    require_same_tensors(Checkpoint(SHIPPED_BASE), Checkpoint(sharded))


def test_matrices_come_by_layer_with_their_kinds() -> None:
    found = Checkpoint(SHIPPED_BASE).matrices()
    seen = [(place.layer, place.kind) for place in found]
    blocks = [kind for kind in KINDS if kind not in ("embed", "head")]
    assert seen == [
        *((layer, kind) for layer in range(4) for kind in blocks),
        (None, "embed"),
        (None, "head"),
    ]
    assert [place.kind for place in Checkpoint(SHIPPED_BASE).matrices(["down", "q"])] == ["q", "down"] * 4


# What is refused ------------------------------------------------------------------------------------------------------


def refused(source: str | Path, *words: str) -> None:
    with pytest.raises(BadInput) as caught:
        Checkpoint(source)
    for word in words:
        assert word in one_line(caught)


def test_what_is_no_checkpoint_is_refused_on_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such file or folder")
    refused(tmp_path, "holds no *.safetensors file")
    (tmp_path / "model.bin").write_bytes(b"pickle")
    refused(tmp_path / "model.bin", "only .safetensors files are read")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    refused(tmp_path, "model.safetensors cannot be read")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    data = (SHIPPED_BASE / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(tmp_path, "model.safetensors cannot be read")


def test_a_file_that_is_damaged_after_it_was_opened_is_named(tmp_path: Path) -> None:
    shutil.copy(SHIPPED_BASE / "model.safetensors", tmp_path)
    found = Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=r"model\.safetensors is damaged"):
        found.tensor("lm_head.weight")


def change_index(folder: Path, **changes: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= changes
    (folder / INDEX).write_text(json.dumps(index))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    refused(sharded, gone.name, "is missing")


def test_an_index_that_does_not_tell_the_truth_is_refused(sharded: Path) -> None:
    first = sorted(sharded.glob("*.safetensors"))[0]
    change_index(sharded, **{"made.up.weight": first.name})
    refused(sharded, "made.up.weight is not in", first.name)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_cannot_point_out_of_its_folder(sharded: Path, file: str) -> None:
    change_index(sharded, **{"lm_head.weight": file})
    refused(sharded, "outside of the folder")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "\xff"])
def test_an_index_that_is_none_is_refused(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text, encoding="latin-1")
    refused(sharded, INDEX)


def test_two_models_are_told_apart_by_names_and_shapes(tmp_path: Path) -> None:
    def made(name: str, **tensors: torch.Tensor) -> Checkpoint:
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return Checkpoint(tmp_path / f"{name}.safetensors")

    one = made("one", a=torch.ones(2, 2), b=torch.ones(3))
    for other, words in (
        (made("less", a=torch.ones(2, 2)), "b is only in the first"),
        (made("more", a=torch.ones(2, 2), b=torch.ones(3), c=torch.ones(1)), "c is only in the second"),
        (made("wide", a=torch.ones(2, 3), b=torch.ones(3)), r"a is \(2, 2\) in the first and \(2, 3\)"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            require_same_tensors(one, other)
        one_line(caught)


def test_kinds_that_are_not_there_or_unknown_are_refused(tmp_path: Path) -> None:
    save_file({"transformer.h.0.attn.c_attn.weight": torch.ones(2, 2)}, tmp_path / "gpt2.safetensors")
    with pytest.raises(BadInput, match=r"no matrix of the kinds q; it holds transformer\.h\.0"):
        Checkpoint(tmp_path / "gpt2.safetensors").matrices(["q"])
    with pytest.raises(BadInput, match="'query' is not one of q, k, v"):
        Checkpoint(SHIPPED_BASE).matrices(["query"])
