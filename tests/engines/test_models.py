"""Models: what is saved is loaded bit for bit; what does not fit, or means harm, is refused on one line."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
from conftest import TINY
from lab_helpers import files_of, refused, same_weights, weights_of
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.models import ModelSettings
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.training.adopt import weights_hash

WEIGHTS = "model.safetensors"


def test_the_shape_is_that_of_the_settings_and_the_weights_those_of_the_seed(dialect: Compact) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = models.create(TINY, dialect.tokenizer, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(one, models.create(TINY, dialect.tokenizer, seed=3))
    assert not same_weights(one, models.create(TINY, dialect.tokenizer, seed=4))
    settings = ModelSettings()
    model = models.create(settings, dialect.tokenizer, seed=0)
    d, m, layers, words = settings.hidden, settings.mlp, settings.layers, len(dialect.tokenizer)
    per_layer = 4 * d * d + 3 * d * m + 2 * d
    assert sum(p.numel() for p in model.parameters()) == 2 * words * d + layers * per_layer + d

    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight


def test_what_is_saved_is_loaded_bit_for_bit_ready_for_use(
    tiny: PreTrainedModel, tiny_folder: Path, dialect: Compact, tmp_path: Path
) -> None:
    again = models.load(tiny_folder)
    assert same_weights(again, tiny)
    assert not again.training
    ids = torch.tensor([dialect.encode("<s> J 11 Q 12 K 13 cards J 3 5 A answer")])
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, tiny.eval()(ids).logits)
    models.save(tmp_path / "twice", again, models.load_tokenizer(tiny_folder))
    twice, once = files_of(tmp_path / "twice"), files_of(tiny_folder)
    for name in (WEIGHTS, "config.json", "generation_config.json", "tokenizer.json"):
        assert twice[name] == once[name]
    assert models.load_tokenizer(tiny_folder).get_vocab() == dialect.tokenizer.get_vocab()
    tiny.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert same_weights(models.load(tmp_path / "shards"), tiny)


@pytest.mark.parametrize("tied", [False, True])
def test_another_architecture_loads_through_the_same_code(tmp_path: Path, tied: bool) -> None:
    """Qwen2, with its head tied to the embeddings as in its small members, or not."""
    model, other = (
        tiny_models.model("qwen2", tiny_models.tokenizer("qwen2"), seed, tied).eval() for seed in (0, 1)
    )
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / WEIGHTS)) != tied
    again = models.load(tmp_path)
    assert type(again) is type(model)
    assert same_weights(again, model)
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)
    head, embedding = again.get_output_embeddings().weight, again.get_input_embeddings().weight
    assert (head.data_ptr() == embedding.data_ptr()) == tied
    models.load_weights(other, tmp_path / WEIGHTS)
    assert same_weights(other, model)
    change(tmp_path, lambda state: state.pop("model.layers.1.self_attn.k_proj.bias"))
    with pytest.raises(BadInput, match=r"missing model\.layers\.1\.self_attn\.k_proj\.bias"):
        models.load(tmp_path)


def test_the_shipped_base_is_whole_small_and_has_its_hash(dialect: Compact) -> None:
    base = models.load(models.SHIPPED_BASE)
    assert base.config.max_position_embeddings == ModelSettings().max_tokens
    assert weights_of(base).keys() == weights_of(models.create(ModelSettings(), dialect.tokenizer, 0)).keys()
    assert models.load_tokenizer(models.SHIPPED_BASE).get_vocab() == dialect.tokenizer.get_vocab()
    assert sum(f.stat().st_size for f in models.SHIPPED_BASE.iterdir()) < 1_500_000
    assert len(weights_hash()) == 64


# What is refused ------------------------------------------------------------------------------------------------------


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / WEIGHTS)
    edit(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def configured(folder: Path, file: str = "config.json", **values: Any) -> None:
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(data | values))


def not_a_number(state: dict[str, torch.Tensor]) -> None:
    state["model.layers.1.mlp.up_proj.weight"][2, 3] = torch.nan


HEAD = "lm_head.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no *.safetensors"),
    "missing key": (lambda folder: change(folder, lambda s: s.pop(HEAD)), f"missing {HEAD}"),
    "extra key": (lambda folder: change(folder, lambda s: s.update(x=torch.zeros(1))), "unknown x"),
    "wrong shape": (
        lambda folder: change(folder, lambda s: s.update({HEAD: torch.zeros(3, 16)})),
        f"{HEAD} has shape (3, 16), not (",
    ),
    "many missing": (lambda folder: change(folder, lambda s: s.clear()), "more)"),
    "cut": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
        WEIGHTS,
    ),
    "noise": (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 1000), WEIGHTS),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), WEIGHTS),
    "no config": (lambda folder: (folder / "config.json").unlink(), "tiny"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), "tiny"),
    "unknown architecture": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'),
        "nonsense",
    ),
    "gptq": (lambda at: configured(at, quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "bitsandbytes": (
        lambda at: configured(at, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "quantised",
    ),
    "width in words": (lambda at: configured(at, hidden_size="64"), "hidden_size"),
    "no heads": (lambda at: configured(at, num_attention_heads=0, num_key_value_heads=0), "model "),
    "heads below zero": (lambda at: configured(at, num_attention_heads=-1), "model "),
    "a type to load": (lambda at: configured(at, dtype="load"), "model "),
    "a foreign kernel": (
        lambda at: configured(at, attn_implementation="kernels-community/flash-attn2"), "not for a model to say"
    ),
    "vocabulary of a billion": (lambda at: configured(at, vocab_size=10**9), "weights, the files hold"),
    "layers without end": (lambda at: configured(at, num_hidden_layers=10**7), "says 10000000 layers"),
    "not finite": (lambda at: change(at, not_a_number), "up_proj.weight holds numbers that are not finite"),
    "unknown activation": (lambda at: configured(at, hidden_act="evil"), "hidden_act"),
    "a picture model": (lambda at: configured(at, architectures=["ViTModel"]), "does not continue text"),
    "config deep": (lambda at: (at / "config.json").write_text('{"a":' * 10_000), "model "),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_folder_that_does_not_fit_is_refused_and_left_as_it_is(tiny_folder: Path, damage: str) -> None:
    damaging, named = DAMAGES[damage]
    damaging(tiny_folder)
    before, memory = files_of(tiny_folder), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(named):
        models.load(tiny_folder)
    assert files_of(tiny_folder) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # kilobytes


def test_pickled_weights_are_not_read(tiny: PreTrainedModel, tiny_folder: Path) -> None:
    (tiny_folder / WEIGHTS).unlink()
    torch.save(tiny.state_dict(), tiny_folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="other weight formats are not read"):
        models.load(tiny_folder)


@pytest.mark.parametrize(
    "name",
    ["no/such/folder", "./nowhere", "/nowhere", "~/nowhere", "nowhere", "", "owner/not-downloaded", "a/b\nc"],
)
def test_a_name_that_is_neither_a_folder_nor_at_hand_is_refused(name: str) -> None:
    for load in (models.load, models.load_tokenizer):
        with refused(repr(name)):
            load(name)


def test_weights_are_replaced_in_place_or_not_at_all(
    tiny: PreTrainedModel, tiny_folder: Path, dialect: Compact, tmp_path: Path
) -> None:
    other = models.create(TINY, dialect.tokenizer, seed=9)
    pointers = {name: tensor.data_ptr() for name, tensor in tiny.state_dict().items()}
    models.save(tmp_path / "other", other)
    models.load_weights(tiny, tmp_path / "other" / WEIGHTS)
    assert same_weights(tiny, other)
    assert {name: tensor.data_ptr() for name, tensor in tiny.state_dict().items()} == pointers
    for damage in ("missing key", "extra key", "wrong shape", "cut", "noise", "no weights"):
        shutil.copy(tmp_path / "other" / WEIGHTS, tiny_folder / WEIGHTS)
        change(tiny_folder, lambda state: [tensor.zero_() for tensor in state.values()])
        DAMAGES[damage][0](tiny_folder)
        with refused(WEIGHTS):
            models.load_weights(tiny, tiny_folder / WEIGHTS)
        assert same_weights(tiny, other), damage


CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Mine:\n    pass\n"


@pytest.mark.parametrize("kind", ["config", "model", "tokenizer"])
def test_code_beside_a_model_does_not_run_though_every_question_is_answered_with_yes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = tiny_folder.parent / "RAN"
    (tiny_folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    own = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    if kind == "config":
        configured(tiny_folder, model_type="mine", auto_map=own)
    elif kind == "model":
        configured(tiny_folder, auto_map=own)
        assert type(models.load(tiny_folder)).__name__ == "LlamaForCausalLM"
    else:
        words = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
        configured(tiny_folder, "tokenizer_config.json", **words)
    for load in (models.load, models.load_tokenizer):
        with contextlib.suppress(BadInput):
            load(tiny_folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', '{"a":' * 10_000, "\xff\xfe"], ids=range(6)
)
def test_a_broken_tokenizer_is_one_line(tiny_folder: Path, text: str) -> None:
    (tiny_folder / "tokenizer.json").write_bytes(text.encode("latin-1"))
    with refused("tokenizer"):
        models.load_tokenizer(tiny_folder)


def test_an_adapter_beside_the_weights_is_not_added_in_silence(tiny_folder: Path) -> None:
    """transformers adds it where peft is installed, and only there."""
    model = peft.get_peft_model(models.load(tiny_folder), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tiny_folder.parent / "adapter")
    assert models.load(tiny_folder).lm_head is not None
    for file in (tiny_folder.parent / "adapter").glob("adapter_*"):
        shutil.copy(file, tiny_folder)
    with refused("a LoRA adapter lies beside the weights"):
        models.load(tiny_folder)


def test_a_tokenizer_that_makes_its_library_panic_is_one_line(tiny_folder: Path) -> None:
    """Merges whose result is shorter than their parts: no Exception for Python, which then ends with a traceback."""
    file = tiny_folder / "tokenizer.json"
    data = json.loads(file.read_text())
    shorter = {"merges": [["A", "B"]], "continuing_subword_prefix": "AAA"}
    data["model"] = {"type": "BPE", "vocab": {"A": 0, "B": 1}} | shorter
    file.write_text(json.dumps(data))
    with refused("tokenizer of"):
        models.load_tokenizer(tiny_folder)
