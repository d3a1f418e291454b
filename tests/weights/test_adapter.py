"""LoRA adapters as checkpoints, held against peft: what it writes is read, what it merges is what we compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
from lab_helpers import refused
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from rlheals.cli import main as cli
from rlheals.weights.adapter import Adapted, opened
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.linalg import effective_rank, product_effective_rank, product_values
from rlheals.weights.spectra_stage import SpectraSettings, compare

TARGETS = ["q_proj", "v_proj", "down_proj"]
KINDS_OF_LORA: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "by module": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}},
    "embeddings and a whole head": {
        "target_modules": [*TARGETS, "embed_tokens"],
        "modules_to_save": ["lm_head"],
    },
    "biases": {"bias": "all", "target_modules": ["q_proj", "k_proj"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.folder(tmp_path_factory.mktemp("adapter") / "base", "qwen2")


def made(base: Path, out: Path, **changes: Any) -> tuple[Path, Path]:
    """An adapter of random numbers and the model that peft merges it into."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": TARGETS, **changes})
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    model.save_pretrained(out / "adapter")
    merged = model.merge_and_unload()
    merged.save_pretrained(out / "merged")
    return out / "adapter", out / "merged"


@pytest.mark.parametrize("kind", KINDS_OF_LORA)
def test_base_with_adapter_is_what_peft_merges(base: Path, tmp_path: Path, kind: str) -> None:
    adapter, merged = made(base, tmp_path, **KINDS_OF_LORA[kind])
    found, wanted = opened(adapter, Checkpoint(base)), Checkpoint(merged)
    assert isinstance(found, Adapted)
    assert found.places.keys() == wanted.places.keys()
    changed = 0
    for name in wanted.places:
        torch.testing.assert_close(found.tensor(name).float(), wanted.tensor(name), rtol=1e-5, atol=1e-6)
        changed += not torch.equal(wanted.tensor(name), Checkpoint(base).tensor(name))
    assert changed >= 4


def test_fused_matrices_stored_as_in_out(tmp_path: Path) -> None:
    """GPT-2 stores (in, out), and q, k and v in one: their factors are rows of the adapter's."""
    config = AutoConfig.for_model("gpt2", vocab_size=40, n_embd=16, n_head=4, n_layer=1, n_positions=32)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    adapter, merged = made(
        tmp_path / "base", tmp_path, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True
    )
    before, wanted = Checkpoint(tmp_path / "base"), Checkpoint(merged)
    found = Adapted(before, adapter)
    seen = 0
    for piece in before.matrices():
        first, second = piece.of(before.tensor(piece.tensor)).double(), piece.of(found.tensor(piece.tensor))
        torch.testing.assert_close(
            second.float(), piece.of(wanted.tensor(piece.tensor)), rtol=1e-5, atol=1e-6
        )
        if (factors := found.factors(piece)) is not None:
            torch.testing.assert_close(factors[0] @ factors[1], second - first)
            seen += 1
    assert seen == 4  # q, k, v and up


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (3, 40)])
def test_spectrum_of_a_product_without_the_product(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(shape[0], 3).double(), torch.randn(3, shape[1]).double()
    torch.testing.assert_close(product_values(left, right), torch.linalg.svdvals(left @ right)[:3])
    torch.testing.assert_close(product_effective_rank(left, right), effective_rank(left @ right))


def test_spectra_of_an_adapter_are_those_of_the_merged_model(base: Path, tmp_path: Path) -> None:
    adapter, merged = made(base, tmp_path)
    settings, first = SpectraSettings(draws=2, nulls=("gaussian",)), Checkpoint(base)
    found, wanted = (
        compare(first, after, settings) for after in (Adapted(first, adapter), Checkpoint(merged))
    )
    mine, theirs = (one.matrices.set_index(["tensor", "what", "draw"]) for one in (found, wanted))
    for column in ("relative_change", "rotation_energy", "intruders"):
        assert mine[column].to_numpy() == pytest.approx(theirs[column].to_numpy(), rel=1e-3, abs=1e-5)
    touched = mine[(mine["what"] if "what" in mine else mine.index.get_level_values("what")) == "change"]
    ranks = touched[touched["relative_change"] > 0]["effective_rank"]
    assert len(ranks) == 6
    assert ranks.max() <= 4 + 1e-9


def test_commands_take_an_adapter_where_it_can_be_measured_and_refuse_it_elsewhere(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, _ = made(base, tmp_path)
    assert cli.main(["spectra", str(base), str(adapter), "--null", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert any("LoRA adapter, 6 tensors" in note for note in said["notes"])
    assert set(said["intruders"]) == set(said["intruders_null"])
    for asked in (
        ["spectra", str(adapter), str(base)],
        ["edit", str(base), str(adapter), "--edit", "rollback()", "--out", str(tmp_path / "out")],
    ):
        assert cli.main(asked) == 2
        assert "merge it first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def changed(adapter: Path, **config: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


def first_renamed(adapter: Path, name: str) -> None:
    state = load_file(adapter / "adapter_model.safetensors")
    state[name] = state.pop(sorted(state)[0])
    save_file(state, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda at: changed(at, peft_type="IA3"), "only LORA is read"),
        (lambda at: changed(at, use_dora=True), "use_dora is set"),
        (lambda at: changed(at, r=3), "lora_A has 4 rows"),
        (lambda at: changed(at, lora_alpha="6"), "lora_alpha is '6'"),
        (lambda at: changed(at, alpha_pattern=[1]), "alpha_pattern is"),
        (lambda at: changed(at, fan_in_fan_out=True), "its product is"),
        (lambda at: first_renamed(at, "base_model.model.elsewhere.lora_A.weight"), "needs lora_A, lora_B"),
        (lambda at: first_renamed(at, "base_model.model.elsewhere.lora_magnitude_vector"), "is nothing that"),
        (lambda at: (at / "adapter_model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
        (lambda at: (at / "adapter_config.json").write_text("[" * 50_000), "cannot be read"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(base: Path, tmp_path: Path, harm: Any, words: str) -> None:
    adapter, _ = made(base, tmp_path)
    harm(adapter)
    with refused(match=words):
        opened(adapter, Checkpoint(base))
