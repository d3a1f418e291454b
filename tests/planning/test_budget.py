"""Profiles of language models: the arithmetic before anything is loaded; and how fast runs really were computed."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from lab_helpers import refused
from small_study import CLIMB
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlheals.chapters.rl import runs as rl_runs
from rlheals.cli import main as cli
from rlheals.cli.options import parse_settings
from rlheals.cli.terminal import rows_of
from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.engines.vllm_server import SERVER
from rlheals.evaluation.evaluate import EvaluateSettings, attempts_table, census_items
from rlheals.planning import dry_run, speed
from rlheals.planning.budget import GB, SINGLE, budget
from rlheals.planning.dry_run import Here
from rlheals.profiles import PROFILES, load_profile, names
from rlheals.profiles.hardware import GPUS
from rlheals.profiles.profile import Profile
from rlheals.store.machine import Machine
from rlheals.store.runs import Run
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.sft import SFTSettings, examples

LANGUAGE = [name for name in names() if load_profile(name).model is not None]
SCALES = [name for name in names() if name.startswith("scale-")]
ROOM = 10_000 * GB


def changed(profile: Profile, **groups: dict[str, Any]) -> Profile:
    return profile.model_copy(
        update={name: getattr(profile, name).model_copy(update=change) for name, change in groups.items()}
    )


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any network: a dry run asks nobody."""
    refuse = Mock(side_effect=AssertionError("a dry run asked the network"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def with_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that profile `smollm2` takes its model from, with a file that is none."""
    source = load_profile("smollm2").model
    assert source is not None
    file = folder / "packages" / source.name.removeprefix("package:")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(folder / "packages"))


def test_a_profile_for_processors_says_how_long_it_takes_on_this_one_and_what_its_memory_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_package(tmp_path, monkeypatch)
    profile, store = load_profile("smollm2"), Store(tmp_path / "store")
    assert 0.0001 < dry_run.multiplied() < 100
    hours = {}
    for peak in (0.1, 0.4, 1.2):
        machine = Here("processor core", 16 * GB, True, ROOM, peak)
        found = dry_run.examine(profile, store, machine)
        hours[peak] = found["budget"]["hours"]
        assert found["problems"] == []
        text = "\n".join(dry_run.lines(found))
        assert f"{peak:.2f} TFLOP/s in bfloat16, measured" in text
        assert "GPU" not in text
    assert hours[0.1] > 2 * hours[0.4] > 4 * hours[1.2]
    small = dry_run.examine(profile, store, Here("processor core", 4 * GB, True, ROOM, 0.4))
    assert re.match(r"memory: [\d.]+ GB are needed, 4.0 GB are available", small["problems"][0])
    assert "--set" in small["changes"][0]


def test_the_profiles_that_are_promised_are_there() -> None:
    assert {"smollm2", "colab", "gpu", "gpu-3b", "paper-qwen", "paper-llama"} == set(LANGUAGE)
    assert {"scale-1m", "scale-10m", "scale-100m"} == set(SCALES)
    assert set(names()) == {*PROFILES, *LANGUAGE, *SCALES, "lab-determinant-rules", "lab-navigation"}


@pytest.mark.parametrize("name", names())
def test_every_profile_passes_a_dry_run(
    name: str, tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_package(tmp_path, monkeypatch)
    tmp_path = tmp_path / "store"
    tmp_path.mkdir()
    profile = load_profile(name)
    card = GPUS[profile.hardware.gpu] if profile.hardware else GPUS["T4"]
    machine = Here("the card it is made for", card.memory * GB, card.bfloat16, ROOM)
    found = dry_run.examine(profile, Store(tmp_path), machine)
    assert found["problems"] == [], found
    assert found["profile"] == name
    assert sum(found["runs"].values()) > 3
    assert json.loads(json.dumps(found)) == found
    text = "\n".join(dry_run.lines(found))
    assert text.endswith("it runs here")
    assert "J" in found["question"]
    assert not list(tmp_path.iterdir())
    if profile.hardware:
        assert 0.01 < found["budget"]["hours"] <= profile.hardware.hours


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_shape_has_as_many_weights_as_the_model(name: str) -> None:
    shape = load_profile(name).shape
    assert shape is not None
    common: dict[str, Any] = {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "intermediate_size": shape.mlp,
        "vocab_size": shape.vocabulary, "tie_word_embeddings": shape.tied, "num_attention_heads": shape.hidden // 64,
        "num_key_value_heads": shape.kv_width // 64,
    }  # fmt: skip
    kind, settings = (Qwen2ForCausalLM, Qwen2Config) if shape.bias else (LlamaForCausalLM, LlamaConfig)
    with torch.device("meta"):
        model = kind(settings(**common))
    assert model.num_parameters() == shape.parameters - shape.other


@pytest.mark.parametrize("name", LANGUAGE)
def test_memory_grows_with_what_fills_it(name: str) -> None:
    profile = load_profile(name)

    def of(stage: str, **groups: dict[str, Any]) -> float:
        return budget(changed(profile, **groups)).stages[stage].memory

    def rl(**change: Any) -> dict[str, Any]:
        return {"rl_starts": {"rl": profile.rl_starts.rl.model_copy(update=change)}}

    assert of("sft", sft={"micro_batch_size": 1}) < of("sft") < of("sft", sft={"micro_batch_size": 64})
    again, kept = (of("sft", sft={"gradient_checkpointing": choice}) for choice in (True, False))
    assert again < kept
    assert of("census", evaluate={"rows": 1}) < of("census") < of("census", evaluate={"rows": 512})
    assert of("rl", **rl(play_rows=1, micro_batch_size=1)) <= of("rl") < of("rl", **rl(play_rows=1024))
    assert of("rl", **rl(log_kl=False)) < of("rl", **rl(log_kl=True))
    assert of("sft", model={"dtype": "bfloat16"}) <= of("sft") <= of("sft", model={"dtype": "float32"})
    if profile.model.dtype == "float32":
        own, short = (of("census", evaluate={"precision": precision}) for precision in ("own", "bf16"))
        saved = own - short
        assert saved > 2 * budget(profile).parameters
        few = {"play_rows": 1, "micro_batch_size": 1, "gradient_checkpointing": True}
        own, short = (of("rl", **rl(precision=precision, **few)) for precision in ("own", "bf16"))
        more = short - own
        assert 0 < more < 4 * budget(profile).parameters  # weights for a pass and for the engine
    weights = budget(profile).parameters * (4 if profile.model.dtype == "float32" else 2)
    assert budget(profile).memory > 4 * weights


def test_hours_grow_with_the_work_and_a_profile_without_shape_has_none() -> None:
    profile = load_profile("colab")
    more = changed(
        profile,
        sft={"checkpoints": (0, 10, 20, 40, 80, 160, 320, 640, 1280)},
        evaluate={"attempts": 10},
        rl_starts={"starts": (20, 40, 80, 640)},
    )
    for stage, need in budget(profile).stages.items():
        assert budget(more).stages[stage].seconds > 1.2 * need.seconds, stage
    assert budget(more).disk > budget(profile).disk
    with refused("colab"):
        budget(load_profile("colab").model_copy(update={"shape": None}))


@pytest.mark.parametrize("share", [0.9, 0.5])
@pytest.mark.parametrize("name", LANGUAGE)
def test_the_changes_that_are_named_make_it_fit(
    name: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_package(tmp_path, monkeypatch)
    profile = load_profile(name)
    machine = Here("smaller", share * budget(profile).memory, True, ROOM)
    found = dry_run.examine(profile, Store(tmp_path), machine)
    assert "GPU memory:" in found["problems"][0]
    named = [line for line in found["changes"] if line.startswith("--set")]
    hopeless = [line for line in found["changes"] if line.startswith("nothing")]
    assert named or hopeless
    asked = [one for line in named for one in line.split(" makes ")[0].replace("--set ", "").split()]
    smaller = budget(load_profile(name, parse_settings(asked)))
    for stage, need in smaller.stages.items():
        assert need.memory <= machine.memory or any(f"makes {stage} fit" in line for line in hopeless)


def test_what_is_missing_here_is_said(tmp_path: Path) -> None:
    profile, store = load_profile("gpu-3b"), Store(tmp_path)
    without = dry_run.examine(profile, store, Here("none", 0.0, False, 1.0))
    assert [re.split("[;:]", line)[0] for line in without["problems"]] == ["there is no GPU", "disk"]
    old = dry_run.examine(profile, store, Here("Tesla T4", ROOM, False, ROOM))
    assert old["problems"] == ["this GPU has no bfloat16"]
    assert any("model.dtype=float32" in change for change in old["changes"])
    chosen = {"sft.precision": "own", "evaluate.precision": "bf16", "rl_starts.rl.precision": "bf16"}
    old = dry_run.examine(load_profile("gpu-3b", chosen), store, Here("Tesla T4", ROOM, False, ROOM))
    assert old["problems"] == ["this GPU has no bfloat16"]
    asked = [word for word in old["changes"][0].split() if "=" in word]
    new = dry_run.examine(
        load_profile("gpu-3b", chosen | parse_settings(asked)), store, Here("Tesla T4", ROOM, False, ROOM)
    )
    assert new["problems"] == []


def test_an_engine_that_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def problems() -> list[str]:
        profile = load_profile("gpu", {"engine": "vllm"})
        return dry_run.examine(profile, Store(tmp_path), Here("x", ROOM, True, ROOM))["problems"]

    monkeypatch.delenv(SERVER, raising=False)
    monkeypatch.setattr(dry_run, "find_spec", lambda package: None)
    assert [problem.split(":")[0] for problem in problems()] == ["engine vllm"]
    monkeypatch.setenv(SERVER, "http://gpu2:8000")
    assert problems() == []
    monkeypatch.delenv(SERVER)
    monkeypatch.setattr(dry_run, "find_spec", lambda package: package)
    assert problems() == []


def test_a_model_at_hand_shows_its_own_template(tmp_path: Path) -> None:
    folder = tiny_models.folder(tmp_path / "model", "qwen2")
    profile = load_profile("colab", {"model.name": str(folder)})
    found = dry_run.examine(profile, Store(tmp_path / "store"), Here("x", ROOM, True, ROOM))
    assert found["question"].startswith("<|im_start|>system")
    assert found["question"].rstrip().endswith("<|im_start|>assistant")


@pytest.mark.parametrize("gpu", ["none", "H200"])
def test_doctor_and_study_say_it_on_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, alone: None, gpu: str
) -> None:
    machine = Here(gpu, GPUS[gpu].memory * GB, True, ROOM) if gpu in GPUS else Here(gpu, 0.0, False, ROOM)
    monkeypatch.setattr(dry_run, "here", lambda *_: machine)
    for arguments in (["doctor"], ["study", "--dry-run"]):
        assert cli.main([*arguments, "--profile", "paper-qwen", "--json"]) == (0 if gpu in GPUS else 1)
        said = json.loads(capsys.readouterr().out)
        assert (said["model"], said["made_for"]) == ("Qwen/Qwen2.5-7B-Instruct", "H200")
        assert cli.main([*arguments, "--profile", "smoke"]) == 0
        assert "it runs here" in capsys.readouterr().out
    assert cli.main(["doctor", "--profile", "nonsense"]) == 2
    assert "accepted: smoke, lab, colab" in capsys.readouterr().err


# How fast runs were computed -----------------------------------------------------------------------------------------


H200 = Machine(kind="gpu", model="NVIDIA H200", isa="avx512", threads=8)


@pytest.fixture(scope="module")
def runs(shared: Store) -> list[Run]:
    return compute(rl_runs.plan(CLIMB, 1, shared, 0).specs(), shared, quiet=True)


def on(machine: Machine, runs: list[Run]) -> list[Run]:
    return [
        replace(run, manifest=run.manifest.model_copy(update={"machine": machine, "seconds": 2.0}))
        for run in runs
    ]


def of(found: pd.DataFrame, stage: str) -> pd.Series:
    (one,) = (row for _, row in found[found["stage"] == stage].iterrows())
    return one


def test_tokens_are_those_of_the_stages(runs: list[Run], shared: Store, dialect) -> None:
    found = speed.speeds(runs, shared)
    kinds = [run.manifest.stage for run in runs]
    assert dict(zip(found["stage"], found["runs"], strict=True)) == {
        stage: kinds.count(stage) for stage in kinds
    }
    by_stage = {stage: [run for run in runs if run.manifest.stage == stage] for stage in kinds}
    logs = [pd.read_parquet(run.file("log.parquet")) for run in by_stage["rl"]]
    assert of(found, "rl").tokens == sum(log["tokens"].sum() for log in logs)
    assert of(found, "rl").seconds == pytest.approx(sum(log["seconds_rollout"].sum() for log in logs))
    (sft,) = by_stage["sft"]
    settings = SFTSettings.model_validate(sft.manifest.settings)
    stream = [len(row) for row in examples(dialect, settings, sft.manifest.seed)["input_ids"]]
    assert of(found, "sft").tokens == pytest.approx(sum(stream), rel=0.1)
    seconds = sum(run.manifest.seconds for run in by_stage["evaluate"])
    assert of(found, "evaluate").seconds == pytest.approx(seconds)


def test_a_census_counts_what_was_written_and_what_both_protocols_share_once(base, dialect) -> None:
    engine, written = HFEngine(base, dialect.tokenizer), list[int]()

    def counted(*arguments, **options):
        made = HFEngine.generate(engine, *arguments, **options)
        written.extend(len(one.tokens) for one in made)
        return made

    engine.generate = counted
    settings = EvaluateSettings(splits=("ood",), hands=60, attempts=3, sampling=Sampling(temperature=1.5))
    task = GeneralPoints()
    frame = attempts_table(engine, dialect, task, census_items(task, settings), settings, 5)
    both = frame.groupby("item")["protocol"].nunique()
    assert (both == 2).any(), "some episodes have a plain answer, and are played on under the other protocol"
    assert speed.generated(frame) == sum(written)


def test_shares_by_hand_on_a_gpu(runs: list[Run], shared: Store) -> None:
    card = GPUS["H200"]
    found = speed.speeds(on(H200, runs), shared)
    (census, *others) = [run for run in runs if run.manifest.stage == "evaluate"]
    folder = shared.load(census.manifest.inputs["model"]).path / census.manifest.settings["folder"]
    weights = sum(p.numel() for p in models.load(folder).parameters())
    size = (folder / "model.safetensors").stat().st_size
    one = of(found, "evaluate")
    assert one.seconds == 2.0 * (1 + len(others))
    peak = card.peak * 1e12 * SINGLE  # the small models' weights are in float32
    assert one.of_peak == pytest.approx(2 * weights * one.tokens / one.seconds / peak)
    rows = census.manifest.settings["rows"]
    assert one.of_ceiling == pytest.approx(one.tokens / rows * size / (card.bandwidth * GB) / one.seconds)
    learnt = of(found, "sft")
    assert learnt.of_peak == pytest.approx(6 * weights * learnt.tokens / learnt.seconds / peak)
    assert np.isnan(learnt.of_ceiling)


def test_what_is_not_known_is_left_out_and_machines_are_kept_apart(runs: list[Run], shared: Store) -> None:
    sft = [run for run in runs if run.manifest.stage == "sft"]
    other = H200.model_copy(update={"model": "NVIDIA Something"})
    found = speed.speeds([*sft, *on(other, sft), *on(H200, sft)], shared)
    assert list(found["runs"]) == [1, 1, 1]
    assert found["machine"].is_unique
    assert (found["tokens_per_second"] > 0).all()
    assert [one["of_peak"] is None for one in rows_of(found)] == [True, True, False]
    assert "of the ceiling" not in speed.shown(found), "nothing was generated"
    assert not {"of the peak", "of the ceiling"} & set(speed.shown(found[:2])), "no data sheet is known"


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("Tesla T4", "T4"), ("NVIDIA L4", "L4"), ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA H200", "H200"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA L40S", None),
        ("NVIDIA A10G", None),
    ],
)  # fmt: skip
def test_cards_are_known_by_the_names_of_their_drivers(name: str, card: str | None) -> None:
    assert speed.card_of(name) == (GPUS[card] if card else None)


def test_the_command_reads_the_store_and_computes_nothing(
    tmp_path: Path, shared: Store, runs: list[Run], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with refused("rlheals study --profile climb"):
        speed.of_profile(CLIMB, Store(tmp_path / "store"))
    profile = CLIMB.model_copy(update={"rl_starts": CLIMB.rl_starts.model_copy(update={"starts": ()})})
    # Other test processes write to this store meanwhile, so that its runs before and after cannot be compared.
    monkeypatch.setattr(Store, "ensure", lambda *_: pytest.fail("a run was asked for that may be computed"))
    assert set(speed.of_profile(CLIMB, shared)["stage"]) == {"pretrain", "sft", "evaluate", "rl"}
    assert set(speed.of_profile(profile, shared)["stage"]) == {"pretrain", "sft", "evaluate"}
    monkeypatch.setenv("RLHEALS_STORE", str(shared.root))
    monkeypatch.setattr("rlheals.profiles.load_profile", lambda name, changes: CLIMB)
    assert cli.main(["speed", "--profile", "climb"]) == 0
    assert "tokens per second" in capsys.readouterr().out
    assert cli.main(["speed", "--profile", "climb", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert np.isclose(told[0]["tokens_per_second"], told[0]["tokens"] / told[0]["seconds"])
