"""Checkpoints: every tensor of an architecture is known or named, as transformers computes with it; files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lab_helpers import one_line
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.weight_files import INDEX
from rlheals.errors import BadInput
from rlheals.weights.architectures import KINDS, NAMED, NORMS, TOWER, Architecture
from rlheals.weights.checkpoint import Checkpoint, require_same_tensors
from rlheals.weights.edited import apply
from rlheals.weights.edits import Rollback
from rlheals.weights.selection import Where

SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
DENSE = {"q", "k", "v", "o", "gate", "up", "down", "embed", "head"}
MOE = (DENSE - {"gate", "up", "down"}) | {"expert_gate", "expert_up", "expert_down", "router"}
MODELS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "llama": ({}, DENSE),
    "mistral": ({}, DENSE),
    "qwen2": ({}, DENSE),
    "qwen3": ({}, DENSE),
    "gemma": ({}, DENSE),
    "gemma2": ({}, DENSE),
    "phi3": ({}, DENSE),
    "gpt2": (
        {"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 32},
        DENSE - {"gate"} | {"32x16"},
    ),
    "gpt_neox": ({}, DENSE - {"gate"}),
    "mixtral": (EXPERTS, MOE),
    "qwen3_moe": (EXPERTS, MOE),
    "gpt_oss": (EXPERTS, MOE),
}
NORMED = {"qwen3": "qk", "qwen3_moe": "qk", "gemma2": ("v", "o", "up", "down")}
"""Kinds whose size a norm behind them takes away."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of every architecture as transformers writes it; biases and position embeddings are drawn, too."""
    made = {}
    for name, (own, _) in MODELS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SMALL, **own}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
    return made


def logits(folder: Path, change: Any = None) -> torch.Tensor:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if change is not None:
        change(model)
    with torch.no_grad():
        return model(torch.arange(3, 15)[None]).logits


def scaled(folder: Path, out: Path, factors: Mapping[str, float], biases: bool = False) -> Path:
    """The model with every matrix of a kind times a factor; biases: those of q, k, v, up are 0."""
    found = Checkpoint(folder)
    state = {name: found.tensor(name).clone() for name in found.places}
    for piece in found.pieces.values():
        if piece.kind in factors:
            piece.put(state[piece.tensor], piece.of(state[piece.tensor]) * factors[piece.kind])
        elif not biases and piece.kind == NORMS and piece.name.endswith("bias") and "norm" not in piece.name:
            state[piece.tensor].zero_()
    out.mkdir()
    save_file(state, out / "model.safetensors", {"format": "pt"})
    for beside in folder.glob("*.json"):
        (out / beside.name).write_bytes(beside.read_bytes())
    return out


@pytest.mark.parametrize("name", MODELS)
def test_pieces_hold_every_entry_once_and_have_the_kinds_of_the_architecture(
    folders: dict[str, Path], name: str
) -> None:
    found = Checkpoint(folders[name])
    counts = {tensor: torch.zeros(place.shape) for tensor, place in found.places.items()}
    for piece in found.pieces.values():
        assert tuple(piece.of(counts[piece.tensor]).shape) == piece.shape
        piece.put(counts[piece.tensor], piece.of(counts[piece.tensor]) + 1)
    assert all(bool((count == 1).all()) for count in counts.values())
    kinds = {piece.kind for piece in found.pieces.values()} - {NORMS}
    assert kinds == MODELS[name][1]
    assert {piece.kind for piece in found.matrices()} == kinds
    layers = Counter(piece.layer for piece in found.pieces.values() if piece.kind in ("q", "k", "v", "o"))
    assert layers == {0: 4, 1: 4}


@pytest.mark.parametrize("name", MODELS)
def test_kinds_are_what_the_model_computes_with_them(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Scores see q times k, the output v times o, a gated block up times down: factors that cancel change nothing."""
    alike = [{"q": 2.0, "k": 0.5}, {"v": 2.0, "o": 0.5}]
    if name not in ("gpt2", "gpt_neox", "gpt_oss"):  # not linear in up
        alike.append({"up": 2.0, "down": 0.5, "expert_up": 2.0, "expert_down": 0.5})
    plain = logits(scaled(folders[name], tmp_path / "plain", {}))
    for number, factors in enumerate(alike):
        for kind in factors:
            alone = scaled(folders[name], tmp_path / f"{number}-{kind}", {kind: factors[kind]})
            if kind in MODELS[name][1] and kind not in NORMED.get(name, ""):
                assert bool((logits(alone) - plain).abs().max() > 1e-3), kind
        both = logits(scaled(folders[name], tmp_path / str(number), factors))
        torch.testing.assert_close(both, plain, rtol=1e-4, atol=1e-4)


def test_gate_and_up_of_gpt_oss_lie_as_its_code_reads_them(folders: dict[str, Path], tmp_path: Path) -> None:
    """It computes (up + 1) times a function of gate: with up = 0 and a bias of -1 nothing leaves the experts."""
    silent = scaled(folders["gpt_oss"], tmp_path / "up", {"expert_up": 0.0})
    state = load_file(silent / "model.safetensors")
    for name, tensor in state.items():
        if name.endswith("gate_up_proj_bias"):
            tensor[:, 1::2] = -1
    save_file(state, silent / "model.safetensors", {"format": "pt"})
    none = scaled(folders["gpt_oss"], tmp_path / "down", {"expert_down": 0.0})
    torch.testing.assert_close(logits(silent), logits(none), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_everything_is_every_tensor_and_blocks_leave_the_rest(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    before = Checkpoint(folders[name])
    after = Checkpoint(scaled(folders[name], tmp_path / "after", dict.fromkeys(NAMED, 1.5) | {"32x16": 1.5}))
    back = dict(apply(before, after, Rollback(), Where.parse("everything")))
    assert all(torch.equal(back[tensor], before.tensor(tensor)) for tensor in before.places)
    blocks = dict(apply(before, after, Rollback(), Where.parse("blocks")))
    outside = {"embed", "head", "router", NORMS, "32x16"}
    for piece in before.pieces.values():
        source = after if piece.kind in outside else before
        assert torch.equal(piece.of(blocks[piece.tensor]), piece.of(source.tensor(piece.tensor))), piece.name


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "gpt_neox"])
def test_heads_are_those_that_the_model_attends_with(folders: dict[str, Path], name: str) -> None:
    """One head's q put back: the rows of that head change, and config.json says how many there are."""
    before = Checkpoint(folders[name])
    config = AutoConfig.from_pretrained(folders[name])
    q = next(piece for piece in before.matrices(["q"]))
    k = next(piece for piece in before.matrices(["k"]))
    groups = 4 if name in ("gpt2", "gpt_neox") else config.num_key_value_heads
    assert (q.heads, k.heads) == (config.num_attention_heads, groups)
    assert len(q.by_head(torch.zeros(q.shape), q.heads)) == q.heads
    with pytest.raises(BadInput, match="says 4 heads for q, not 2"):
        q.by_head(torch.zeros(q.shape), 2)


def test_towers_of_pictures_are_apart_from_the_text(tmp_path: Path) -> None:
    import tiny_models

    found = Checkpoint(tiny_models.folder(tmp_path / "mllama", "mllama"))
    assert not any("vision" in piece.name for piece in found.matrices())
    kinds = {piece.kind for piece in found.matrices()}
    assert kinds >= {"q", "cross_q", "cross_o", "gate"}
    assert {piece.layer for piece in found.matrices(["cross_q"])} == {1}
    towers = [piece for piece in found.pieces.values() if piece.kind == TOWER]
    assert all("vision" in piece.name or "multi_modal" in piece.name for piece in towers)
    assert {piece.layer for piece in Where.parse("attention layers=1").pieces(found).values()} == {1}


def test_what_is_not_known_has_a_kind_by_its_shape() -> None:
    pieces = Architecture("unheard_of").pieces("net.0.mixer.in_proj.weight", (6, 4))
    assert [(piece.kind, piece.is_matrix) for piece in pieces] == [("6x4", True)]
    experts = Architecture("unheard_of").pieces("net.0.experts.w_in", (3, 6, 4))
    assert [(piece.kind, piece.expert, piece.is_matrix) for piece in experts] == [
        ("6x4", n, True) for n in range(3)
    ]
    (filters,) = Architecture().pieces("net.0.conv.weight", (6, 4, 3))
    assert (filters.kind, filters.is_matrix) == ("6x4x3", False)


def test_what_config_does_not_explain_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match=r"qkv_proj.weight: 30 rows do not divide into the 8 parts"):
        Architecture("phi3", 4, 2).pieces("model.layers.0.self_attn.qkv_proj.weight", (30, 16))
    with pytest.raises(BadInput, match="num_attention_heads is 0"):
        Architecture.of({"num_attention_heads": 0})
    before, k = Checkpoint(folders["llama"]), "model.layers.0.self_attn.k_proj.weight"
    with pytest.raises(BadInput, match="says 2 heads for k, not 4"):
        list(apply(before, before, Rollback(), Where.parse("kinds=k heads=0/4")))
    made = dict(apply(before, before, Rollback(), Where.parse("kinds=k heads=0/2")))
    assert torch.equal(made[k], before.tensor(k))


# Files ---------------------------------------------------------------------------------------------------------------


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


def test_matrices_come_by_layer_with_their_kinds_and_no_others(tmp_path: Path) -> None:
    found = Checkpoint(SHIPPED_BASE).matrices()
    seen = [(place.layer, place.kind) for place in found]
    blocks = [kind for kind in KINDS if kind not in ("embed", "head")]
    assert seen == [
        *((layer, kind) for layer in range(4) for kind in blocks),
        (None, "embed"),
        (None, "head"),
    ]
    assert [place.kind for place in Checkpoint(SHIPPED_BASE).matrices(["down", "q"])] == ["q", "down"] * 4
    save_file({"transformer.h.0.attn.c_attn.weight": torch.ones(2, 2)}, tmp_path / "gpt2.safetensors")
    with pytest.raises(BadInput, match=r"no matrix of the kinds q; it holds transformer\.h\.0"):
        Checkpoint(tmp_path / "gpt2.safetensors").matrices(["q"])
    with pytest.raises(BadInput, match="'query' is not one of q, k, v"):
        Checkpoint(SHIPPED_BASE).matrices(["query"])


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


def test_an_index_that_cannot_be_believed_is_refused(sharded: Path) -> None:
    shards, whole = sorted(sharded.glob("*.safetensors")), (sharded / INDEX).read_text()
    for file in ("../model.safetensors", "/etc/passwd", "a/b.safetensors"):
        change_index(sharded, **{"lm_head.weight": file})
        refused(sharded, "outside of the folder")
    for text in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "\xff"):
        (sharded / INDEX).write_text(text, encoding="latin-1")
        refused(sharded, INDEX)
    (sharded / INDEX).write_text(whole)
    change_index(sharded, **{"made.up.weight": shards[0].name})
    refused(sharded, "made.up.weight is not in", shards[0].name)
    (sharded / INDEX).write_text(whole)
    shards[1].unlink()
    refused(sharded, shards[1].name, "is missing")


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
