"""How fast runs were computed: tokens counted once, operations by hand, peaks only where they are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab_helpers import refused
from small_study import CLIMB

from rlheals.chapters.rl import runs as rl_runs
from rlheals.cli import main as cli
from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.evaluation.evaluate import EvaluateSettings, attempts_table, census_items
from rlheals.planning import speed
from rlheals.planning.budget import GB, SINGLE
from rlheals.profiles.hardware import GPUS
from rlheals.store.machine import Machine
from rlheals.store.runs import Run
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.sft import SFTSettings, examples

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
    assert [one["of_peak"] is None for one in speed.as_json(found)] == [True, True, False]
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
    before = shared.ids()
    assert set(speed.of_profile(CLIMB, shared)["stage"]) == {"pretrain", "sft", "evaluate", "rl"}
    assert set(speed.of_profile(profile, shared)["stage"]) == {"pretrain", "sft", "evaluate"}
    assert shared.ids() == before
    monkeypatch.setenv("RLHEALS_STORE", str(shared.root))
    monkeypatch.setattr("rlheals.profiles.load_profile", lambda name, changes: CLIMB)
    assert cli.main(["speed", "--profile", "climb"]) == 0
    assert "tokens per second" in capsys.readouterr().out
    assert cli.main(["speed", "--profile", "climb", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert np.isclose(told[0]["tokens_per_second"], told[0]["tokens"] / told[0]["seconds"])
