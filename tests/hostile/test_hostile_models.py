"""Model folders of anybody, loaded as models: no code of theirs runs, no memory is taken on their word."""

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
import torch
from lab_helpers import refused
from safetensors.torch import load_file, save_file

from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput

CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Mine:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    shutil.copytree(SHIPPED_BASE, made)
    return made


def changed(folder: Path, file: str = "config.json", **values: Any) -> None:
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(data | values))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ["config", "model", "tokenizer"])
def test_code_beside_a_model_does_not_run_though_every_question_is_answered_with_yes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = folder.parent / "RAN"
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    if kind == "config":
        changed(
            folder,
            model_type="mine",
            auto_map={"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"},
        )
    elif kind == "model":
        changed(folder, auto_map={"AutoModelForCausalLM": "mine.Mine"})
    else:
        file = "tokenizer_config.json"
        changed(folder, file, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]})
    for load in (models.load, models.load_tokenizer):
        with contextlib.suppress(BadInput):
            load(folder)
    assert not marker.exists()


def test_a_config_that_names_code_of_its_own_still_loads_our_class(folder: Path) -> None:
    changed(folder, auto_map={"AutoModelForCausalLM": "mine.Mine"})
    assert type(models.load(folder)).__name__ == "LlamaForCausalLM"


def not_a_number(state: dict[str, torch.Tensor]) -> None:
    state["model.layers.1.mlp.up_proj.weight"][2, 3] = torch.nan


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "quantised": (lambda at: changed(at, quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "bitsandbytes": (
        lambda at: changed(at, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "quantised"
    ),
    "width in words": (lambda at: changed(at, hidden_size="64"), "hidden_size"),
    "no heads": (lambda at: changed(at, num_attention_heads=0, num_key_value_heads=0), "model "),
    "heads below zero": (lambda at: changed(at, num_attention_heads=-1), "model "),
    "a type to load": (lambda at: changed(at, dtype="load"), "model "),
    "a foreign kernel": (
        lambda at: changed(at, attn_implementation="kernels-community/flash-attn2"), "not for a model to say|kernels"
    ),
    "vocabulary of a billion": (lambda at: changed(at, vocab_size=10**9), "weights, the files hold"),
    "layers without end": (lambda at: changed(at, num_hidden_layers=10**7), "says 10000000 layers"),
    "not finite": (lambda at: weights(at, not_a_number), "up_proj.weight holds numbers that are not finite"),
    "a weight less": (lambda at: weights(at, lambda s: s.pop("lm_head.weight")), "missing lm_head.weight|weights"),
    "a weight more": (
        lambda at: weights(at, lambda s: s.update({"extra.weight": torch.ones(2, 2)})), "unknown extra.weight"
    ),
    "unknown activation": (lambda at: changed(at, hidden_act="evil"), "hidden_act = 'evil'|hidden_act"),
    "unknown type": (lambda at: changed(at, model_type="mine"), "model "),
    "a picture model": (lambda at: changed(at, architectures=["ViTModel"]), "does not continue text"),
    "config cut off": (lambda at: (at / "config.json").write_text('{"model_type": "ll'), "model "),
    "config deep": (lambda at: (at / "config.json").write_text('{"a":' * 10_000), "model "),
    "pickled weights only": (
        lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), r"holds no \*\.safetensors file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_one_line_and_takes_no_memory(folder: Path, name: str) -> None:
    harm, words = HOSTILE[name]
    harm(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(match=words):
        models.load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', '{"a":' * 10_000, "\xff\xfe"], ids=range(6)
)
def test_a_broken_tokenizer_is_one_line(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_bytes(text.encode("latin-1"))
    with refused("tokenizer"):
        models.load_tokenizer(folder)


def test_an_adapter_beside_the_weights_is_not_added_in_silence(folder: Path) -> None:
    """transformers adds it where peft is installed, and only there."""
    model = peft.get_peft_model(models.load(folder), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(folder.parent / "adapter")
    assert models.load(folder).lm_head is not None
    for file in (folder.parent / "adapter").glob("adapter_*"):
        shutil.copy(file, folder)
    with refused("a LoRA adapter lies beside the weights"):
        models.load(folder)


def test_a_tokenizer_that_makes_its_library_panic_is_one_line(folder: Path) -> None:
    """Merges whose result is shorter than their parts: no Exception for Python, which then ends with a traceback."""
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    data["model"] = {
        "type": "BPE",
        "vocab": {"A": 0, "B": 1},
        "merges": [["A", "B"]],
        "continuing_subword_prefix": "AAA",
    }
    file.write_text(json.dumps(data))
    with refused("tokenizer of"):
        models.load_tokenizer(folder)
