"""Several processes that hold a model's weights together train as one does, are killed, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from lab_helpers import TIMED, Killed, dies_at, files_of, one_line, work_in
from safetensors.torch import load
from small_study import RL, SMALL

from rlheals.engines import fsdp, models
from rlheals.engines.fsdp import together
from rlheals.errors import BadInput
from rlheals.settings import Settings
from rlheals.stage import Tick, Work, no_tick
from rlheals.tasks.general_points.compact import Compact
from rlheals.training import resume, sft
from rlheals.training.rl import stage as rl
from rlheals.training.rl.settings import RLSettings

LONG = pytest.mark.long
LANGUAGE: dict[str, Any] = {"micro_batch_size": None, "prompts": "diverse"}
SETTINGS = SMALL.sft.model_copy(
    update={"batch": 8, "micro_batch_size": 2, "warmup_steps": 2, "learning_rate": 1e-2}
)


def work_of(folder: Path, settings: dict[str, Any], tick: Tick = no_tick) -> Work:
    """For `parts`."""
    return replace(work_in(folder, Settings(), tick=tick), settings=settings)


def trained(folder: Path, base: Path, tick: Tick = no_tick, **changes: Any) -> dict[str, bytes]:
    sft.run(work_in(folder, SETTINGS.model_copy(update=changes), {"base": base}, tick=tick))
    return files_of(folder / "out")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's base: an output head of its own, in float32."""
    folder = tmp_path_factory.mktemp("lab")
    models.save(folder / "base", models.load(models.SHIPPED_BASE), Compact().tokenizer)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model; embeddings and output head are one matrix."""
    folder = tmp_path_factory.mktemp("qwen")
    tiny_models.folder(folder / "base", "qwen2", tied=True)
    return folder


@pytest.fixture(scope="module")
def mllama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of which the half that sees pictures has no gradient."""
    folder = tmp_path_factory.mktemp("mllama")
    tiny_models.folder(folder / "base", "mllama")
    return folder


# The same training ----------------------------------------------------------------------------------------------------


def alike(mine: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    """The same files: weights and losses up to rounding, all else byte for byte."""
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.endswith(".safetensors"):
            one, other = load(mine[name]), load(theirs[name])
            assert {n: (v.shape, v.dtype) for n, v in one.items()} == {
                n: (v.shape, v.dtype) for n, v in other.items()
            }
            for weight in one:
                assert torch.allclose(one[weight], other[weight], rtol=0, atol=2e-5), f"{name}: {weight}"
        elif name == "losses.json":
            one, other = json.loads(mine[name]), json.loads(theirs[name])
            for kind in ("sets", "train"):
                for a, b in zip(one[kind], other[kind], strict=True):
                    assert a == pytest.approx(b, rel=1e-4)
        else:
            assert mine[name] == theirs[name], name


def test_two_processes_train_as_one_does(lab: Path, group: Group, tmp_path: Path, qwen: Path) -> None:
    """The lab's model and a language model."""
    alike(group.files("lab"), trained(tmp_path / "lab", lab))
    alike(group.files("qwen"), trained(tmp_path / "qwen", qwen, **LANGUAGE))
    models.load(group.folder / "qwen/out/step-00005")  # of the class that it was before it was taken apart


@LONG
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}], ids=str)
def test_a_language_model_in_slices(qwen: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    alike(trained(tmp_path / "two", qwen, processes=2, **changes), trained(tmp_path / "one", qwen, **changes))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=LONG)])
def test_a_model_of_which_only_a_part_learns_goes_on_as_well(
    mllama: Path, tmp_path: Path, processes: int
) -> None:
    calm = trained(tmp_path / "calm", mllama, processes=processes)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", mllama, dies_at(4), processes=processes, save_every=1)
    assert trained(tmp_path / "killed", mllama, processes=processes, save_every=1) == calm
    if processes > 1:
        alike(calm, trained(tmp_path / "one", mllama))


@LONG
def test_four_processes_share_matrices_that_they_cannot_share_evenly(lab: Path, tmp_path: Path) -> None:
    shapes = {tuple(p.shape) for p in models.load(lab / "base").parameters()}
    assert any(shape[0] % 4 for shape in shapes)
    alike(trained(tmp_path / "four", lab, processes=4), trained(tmp_path / "one", lab))


PLAY: dict[str, Any] = {
    **RL.model_dump(mode="json"), "folder": "step-00003", "algorithm": "ppo", "log_kl": False, "checkpoints": (1, 3),
    "episodes": 16, "attempts": 3, "learning_rate": 1e-3,
}  # fmt: skip


ABLE: dict[str, Any] = {
    **PLAY, "folder": "base", "algorithm": "grpo", "sampling": {"temperature": 0.7}, "checkpoints": (1, 2),
    "episodes": 64, "micro_batch_size": 8,
}  # fmt: skip
"""From the shipped base, which solves some of the hands: groups of equal returns teach nothing."""
SHIPPED = {"model": models.SHIPPED_BASE.parent, "base": models.SHIPPED_BASE.parent}
CLIPPED = {**ABLE, "epochs": 2, "clip_range": 0.01}


def played(
    where: Path, inputs: dict[str, Path], settings: dict[str, Any], tick: Tick = no_tick
) -> dict[str, bytes]:
    rl.run(work_in(where, RLSettings.model_validate(settings), inputs, tick=tick))
    return files_of(where / "out")


@dataclass
class Group:
    """What two processes made of several runs, one after the other, and what they told of each."""

    folder: Path
    told: dict[str, list[int]]

    def files(self, name: str) -> dict[str, bytes]:
        return files_of(self.folder / name / "out")


@pytest.fixture(scope="module")
def group(lab: Path, qwen: Path, inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Processes take seconds to start: these are started twice, the first time to be killed in the run "killed"."""

    def dies(done: int, total: int, unit: str) -> None:
        told["killed"].append(done)
        if done == 4:
            raise Killed

    folder, told = tmp_path_factory.mktemp("group"), defaultdict(list)
    with pytest.raises(Killed):
        trained(folder / "killed", lab, dies, processes=2, save_every=1)
    two = SETTINGS.model_copy(update={"processes": 2})
    runs: dict[str, tuple[ModuleType, Work]] = {
        name: (stage, work_in(folder / name, settings, inputs))
        for name, stage, settings, inputs in [
            ("ppo", rl, RLSettings(**PLAY | {"processes": 2}), inputs),
            ("grpo", rl, RLSettings(**CLIPPED | {"processes": 2}), SHIPPED),
            ("lab", sft, two, {"base": lab}),
            ("killed", sft, two.model_copy(update={"save_every": 1}), {"base": lab}),
            ("qwen", sft, two.model_copy(update=LANGUAGE), {"base": qwen}),
        ]
    }
    jobs = {
        name: {
            "module": stage.__name__,
            "scratch": str(work.scratch),
            "settings": work.settings,
            "inputs": {kind: str(path) for kind, path in work.inputs.items()},
        }
        for name, (stage, work) in runs.items()
    }
    whole = work_of(folder / "all", {"jobs": jobs}, tick=lambda done, total, name: told[name].append(done))
    together("parts", whole, 2)
    with pytest.MonkeyPatch.context() as patch:  # their parts are done
        patch.setattr(fsdp, "together", lambda *_: None)
        for stage, work in runs.values():
            stage.run(work)
    return Group(folder, told)


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out/log.parquet").drop(columns=[*TIMED, "kl_start", "kl_base"])


def same_updates(one: Path, other: Path) -> None:
    """The same episodes, and the same updates up to rounding."""
    np.testing.assert_allclose(log_of(one), log_of(other), rtol=1e-3, atol=1e-5)
    for file in sorted((one / "out").rglob("*.safetensors")):
        mine, theirs = load(file.read_bytes()), load((other / file.relative_to(one)).read_bytes())
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.allclose(mine[name], theirs[name], rtol=0, atol=2e-4), f"{file.name}: {name}"


def test_two_processes_play_and_learn_as_one_does(
    group: Group, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """With a value head and without one."""
    played(tmp_path / "ppo", inputs, PLAY)
    same_updates(group.folder / "ppo", tmp_path / "ppo")
    assert log_of(group.folder / "ppo")["gradient_norm"].min() > 0
    played(tmp_path / "grpo", SHIPPED, CLIPPED)
    same_updates(group.folder / "grpo", tmp_path / "grpo")
    assert log_of(group.folder / "grpo")["gradient_norm"].max() > 0


@LONG
@pytest.mark.parametrize(
    "settings",
    [
        {**PLAY, "gradient_checkpointing": True, "epochs": 1},
        {**ABLE, "gradient_checkpointing": True, "micro_batch_size": 4},
        {**ABLE, "algorithm": "rloo", "advantage_estimator": "attempt"},
        {**ABLE, "algorithm": "expert_iteration"},
    ],
    ids=["ppo", "grpo", "rloo", "expert_iteration"],
)
def test_two_processes_learn_as_one_does_in_other_ways(
    inputs: dict[str, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    inputs = SHIPPED if settings["folder"] == "base" else inputs
    for processes in (1, 2):
        played(tmp_path / f"{processes}", inputs, {**settings, "processes": processes})
    same_updates(tmp_path / "2", tmp_path / "1")
    assert log_of(tmp_path / "2")["gradient_norm"].max() > 0


@LONG
def test_a_language_model_plays_and_learns_shared_as_well(qwen: Path, tmp_path: Path) -> None:
    trained(tmp_path / "sft", qwen)
    inputs = {"model": tmp_path / "sft/out", "base": qwen}
    for processes in (1, 2):
        settings = {**PLAY, "processes": processes, "sampling": {"max_new_tokens": 12}}
        played(tmp_path / f"{processes}", inputs, settings)
    same_updates(tmp_path / "2", tmp_path / "1")


@LONG
def test_shared_rl_that_was_killed_goes_on_to_the_same_bytes(
    group: Group, inputs: dict[str, Path], tmp_path: Path
) -> None:
    def tick(done: int, total: int, unit: str) -> None:
        told.append(done)
        if told == [1]:
            raise Killed

    told: list[int] = []
    with pytest.raises(Killed):
        played(tmp_path, inputs, {**PLAY, "processes": 2}, tick)
    made, calm = played(tmp_path, inputs, {**PLAY, "processes": 2}, tick), group.files("ppo")
    assert told == [1, 2, 3]
    assert log_of(tmp_path).equals(log_of(group.folder / "ppo"))
    assert made | {"log.parquet": b""} == calm | {"log.parquet": b""}


# Kills ----------------------------------------------------------------------------------------------------------------


def test_processes_that_were_killed_go_on_to_the_same_bytes(group: Group) -> None:
    assert group.files("killed") == group.files("lab")
    assert group.told["killed"].count(1) == 1, "the first step was not taken again"
    assert group.told["killed"][-1] == group.told["lab"][-1] == 5


@LONG
def test_processes_that_are_killed_again_and_again_go_on(lab: Path, group: Group, tmp_path: Path) -> None:
    told: list[int] = []

    def tick(done: int, total: int, unit: str) -> None:
        told.append(done)
        if told.count(done) == 1 and done in (2, 3, 4):
            raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            trained(tmp_path, lab, tick, processes=2, save_every=1)
    assert trained(tmp_path, lab, tick, processes=2, save_every=1) == group.files("lab")
    assert told.count(1) == 1


def test_a_state_counts_when_every_process_has_written_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsdp, "processes", lambda: 2)
    monkeypatch.setattr(fsdp, "rank", lambda: 1)
    files = resume.Files(tmp_path / "state.safetensors")
    assert files.newest() is None
    for step, rank in [(3, 0), (3, 1), (5, 1), (12, 0)]:
        (tmp_path / f"state-{step:07d}-{rank}-of-2.safetensors").touch()
    assert files.newest() == files.at(3)
    (tmp_path / "state-0000005-0-of-2.safetensors").touch()
    assert files.newest() == files.at(5)
    monkeypatch.setattr(fsdp, "processes", lambda: 3)
    assert resume.Files(tmp_path / "state.safetensors").newest() is None, "of another number of processes"


def test_parts_of_another_model_are_refused(tmp_path: Path, lab: Path) -> None:
    model, file = models.load(lab / "base"), tmp_path / "state.safetensors"
    optimizer = torch.optim.AdamW(model.parameters())
    resume.save(file, {"model": model}, optimizer, {})
    other = models.create(models.ModelSettings(hidden=16, mlp=16), Compact().tokenizer, 1)
    with pytest.raises(BadInput, match="of another model or number of processes; delete it"):
        resume.load(file, {"model": other}, torch.optim.AdamW(other.parameters()), "sft")


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_parts_meet_and_the_first_one_tells_of_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int, str]] = []
    together("parts", work_of(tmp_path, {}, tick=lambda *said: told.append(said)), 2)
    assert {name: text.decode() for name, text in files_of(tmp_path / "out").items()} == {
        f"sum-{rank}": "3.0 of 2, 1" for rank in range(2)
    }
    assert told == [(1, 3, "part")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="processes=2: this machine has 1 GPU"):
        together("parts", work_of(tmp_path, {}), 2)


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=LONG)])
@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ("input", BadInput, "card 14 is no card"),
        ("memory", torch.OutOfMemoryError, "out of memory"),
        ("bug", RuntimeError, "ended with status 1(.|\n)*ZeroDivisionError: by zero"),
        pytest.param("death", RuntimeError, "ended with status 7", marks=LONG),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_and_is_told(
    tmp_path: Path, wrong: str, kind: type[Exception], said: str, rank: int
) -> None:
    work = work_of(tmp_path, {"wrong": wrong, "rank": rank, "wait": True})
    with pytest.raises(kind, match=said) as caught:
        together("parts", work, 2)
    if kind is BadInput:
        one_line(caught.value)
    assert_gone(tmp_path, 2)


@LONG
def test_too_little_memory_in_one_process_is_tried_with_less(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def full(module: str, work: Work, processes: int) -> None:
        asked.append(work.settings["micro_batch_size"])
        if asked[-1] > 1:
            raise torch.OutOfMemoryError
        together(module, work, processes)

    monkeypatch.setattr(sft.fsdp, "together", full)
    made = trained(tmp_path / "full", lab, processes=2)
    assert asked == [2, 1]
    alike(made, trained(tmp_path / "one", lab))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    work_of(tmp_path, {})
    code = (
        "from pathlib import Path; from rlheals.stage import Work; from rlheals.engines.fsdp import together; "
        f"work = Work(Path({str(tmp_path / 'out')!r}), Path({str(tmp_path / 'scratch')!r}), {{'wait': 1}}); "
        "together('parts', work, 2)"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    wait_until(lambda: len(list((tmp_path / "scratch").glob("pid-*"))) == 2, 60)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert_gone(tmp_path, 2)


def wait_until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_gone(folder: Path, count: int) -> None:
    pids = [int(file.read_text()) for file in (folder / "scratch").glob("pid-*")]
    assert len(pids) <= count

    def running() -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and not zombie(pid)]

    wait_until(lambda: not running(), 20)


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
