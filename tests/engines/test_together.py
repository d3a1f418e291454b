"""Several processes that hold a model's weights together train as one does, are killed, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from lab_helpers import files_of, one_line, quick_start
from pydantic import ValidationError
from safetensors.torch import load
from small_study import RL, SMALL

from rlheals.engines import fsdp, models
from rlheals.engines.fsdp import together
from rlheals.errors import BadInput
from rlheals.stage import Tick, Work, no_tick
from rlheals.tasks.general_points.compact import Compact
from rlheals.training import resume, sft
from rlheals.training.protected import ProtectedSettings
from rlheals.training.rl import stage as rl
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

LONG = pytest.mark.long
TIMED = ["seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb"]
SETTINGS = SMALL.sft.model_copy(
    update={"batch": 8, "micro_batch_size": 2, "warmup_steps": 2, "learning_rate": 1e-2}
)


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def work_of(folder: Path, settings: dict[str, Any], base: Path | None = None, tick: Tick = no_tick) -> Work:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Work(folder / "out", folder / "scratch", settings, 1, {"base": base} if base else {}, tick)


def trained(folder: Path, base: Path, tick: Tick = no_tick, **changes: Any) -> dict[str, bytes]:
    settings = SETTINGS.model_copy(update=changes).model_dump(mode="json")
    sft.run(work_of(folder, settings, base, tick))
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


@pytest.fixture(scope="module")
def undisturbed(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return trained(tmp_path_factory.mktemp("undisturbed"), lab, processes=2)


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


def test_two_processes_train_as_one_does(lab: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    alike(undisturbed, trained(tmp_path, lab))


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_size": None, "prompts": "diverse"},
        pytest.param({}, marks=LONG),
        pytest.param({"gradient_checkpointing": True}, marks=LONG),
    ],
    ids=str,
)
def test_a_language_model_as_well(qwen: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    two = trained(tmp_path / "two", qwen, processes=2, **changes)
    alike(two, trained(tmp_path / "one", qwen, **changes))
    models.load(tmp_path / "two/out/step-00005")  # of the class that it was before it was taken apart


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=LONG)])
def test_a_model_of_which_only_a_part_learns_goes_on_as_well(
    mllama: Path, tmp_path: Path, processes: int
) -> None:
    def tick(done: int, total: int, unit: str) -> None:
        if done == 4:
            raise Killed

    calm = trained(tmp_path / "calm", mllama, processes=processes)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", mllama, tick, processes=processes, save_every=1)
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


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return quick_start(tmp_path_factory.mktemp("start"), (3,))


def played(where: Path, inputs: dict[str, Path], tick: Tick = no_tick, **changes: Any) -> dict[str, bytes]:
    settings = RLSettings.model_validate({**PLAY, **changes}).model_dump(mode="json")
    rl.run(replace(work_of(where, settings, tick=tick), inputs=inputs))
    return files_of(where / "out")


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


@pytest.mark.parametrize(
    "changes", [{}, pytest.param({"gradient_checkpointing": True, "epochs": 1}, marks=LONG)], ids=str
)
def test_two_processes_play_and_learn_as_one_does(
    start: dict[str, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    played(tmp_path / "two", start, processes=2, **changes)
    played(tmp_path / "one", start, **changes)
    same_updates(tmp_path / "two", tmp_path / "one")
    assert log_of(tmp_path / "two")["gradient_norm"].min() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "grpo", "epochs": 2, "clip_range": 0.01},
        pytest.param(
            {"algorithm": "grpo", "gradient_checkpointing": True, "micro_batch_size": 4}, marks=LONG
        ),
        pytest.param({"algorithm": "rloo", "advantage_estimator": "attempt"}, marks=LONG),
        pytest.param({"algorithm": "expert_iteration"}, marks=LONG),
    ],
    ids=str,
)
def test_without_a_value_head_two_processes_learn_as_one_does(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """From the shipped base, which solves some of the hands: groups of equal returns teach nothing."""
    able = {"model": models.SHIPPED_BASE.parent, "base": models.SHIPPED_BASE.parent}
    more = {"folder": "base", "sampling": {"temperature": 0.7}, "checkpoints": (1, 2), "episodes": 64}
    changes = {**more, "micro_batch_size": 8, **changes}
    played(tmp_path / "two", able, processes=2, **changes)
    played(tmp_path / "one", able, **changes)
    same_updates(tmp_path / "two", tmp_path / "one")
    assert log_of(tmp_path / "two")["gradient_norm"].max() > 0


@LONG
def test_a_language_model_plays_and_learns_shared_as_well(qwen: Path, tmp_path: Path) -> None:
    trained(tmp_path / "sft", qwen)
    inputs = {"model": tmp_path / "sft/out", "base": qwen}
    for processes in (1, 2):
        played(tmp_path / f"{processes}", inputs, processes=processes, sampling={"max_new_tokens": 12})
    same_updates(tmp_path / "2", tmp_path / "1")


@LONG
def test_shared_rl_that_was_killed_goes_on_to_the_same_bytes(start: dict[str, Path], tmp_path: Path) -> None:
    def tick(done: int, total: int, unit: str) -> None:
        told.append(done)
        if told == [1]:
            raise Killed

    told: list[int] = []
    calm = played(tmp_path / "calm", start, processes=2)
    with pytest.raises(Killed):
        played(tmp_path / "killed", start, tick, processes=2)
    made = played(tmp_path / "killed", start, tick, processes=2)
    assert told == [1, 2, 3]
    assert log_of(tmp_path / "killed").equals(log_of(tmp_path / "calm"))
    assert {n: made[n] for n in made if n != "log.parquet"} == {
        n: calm[n] for n in calm if n != "log.parquet"
    }


def test_what_shared_rl_cannot_do_is_refused() -> None:
    for changes, said in [
        ({"log_kl": True, "processes": 2}, "processes=2 needs log_kl=false"),
        ({"processes": 3}, "processes=3 does not divide episodes=16"),
        ({"processes": 2, "micro_batch_size": 16}, "micro_batch_size=16 does not divide episodes=16/2"),
    ]:
        with pytest.raises(ValidationError, match=said):
            RLSettings.model_validate({**PLAY, **changes})


def test_the_batch_is_divided_among_processes_and_slices() -> None:
    assert SFTSettings(batch=8, processes=4).rows == 2
    with pytest.raises(ValidationError, match="processes=3 does not divide batch=8"):
        SFTSettings(batch=8, processes=3)
    with pytest.raises(ValidationError, match="micro_batch_size=4 does not divide batch=8/4"):
        SFTSettings(batch=8, processes=4, micro_batch_size=4)
    with pytest.raises(ValidationError, match="by one process"):
        ProtectedSettings(processes=2)


# Kills ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moments", [(4,), pytest.param((2, 3, 4), marks=LONG)], ids=str)
def test_processes_that_were_killed_go_on_to_the_same_bytes(
    lab: Path, undisturbed: dict[str, bytes], tmp_path: Path, moments: tuple[int, ...]
) -> None:
    told: list[int] = []

    def tick(done: int, total: int, unit: str) -> None:
        told.append(done)
        if told.count(done) == 1 and done in moments:
            raise Killed

    for _ in moments:
        with pytest.raises(Killed):
            trained(tmp_path, lab, tick, processes=2, save_every=1)
    made = trained(tmp_path, lab, tick, processes=2, save_every=1)
    assert made == undisturbed
    assert told.count(1) == 1, "the first step was not taken again"
    assert told[-1] == 5


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


def test_parts_meet_and_the_first_one_tells_of_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    together("parts", work_of(tmp_path, {}, tick=lambda *said: told.append(said)), 3)
    assert {name: text.decode() for name, text in files_of(tmp_path / "out").items()} == {
        f"sum-{rank}": "6.0 of 3, 1" for rank in range(3)
    }
    assert told == [(1, 3, "part")]


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=LONG)])
@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ("input", BadInput, "card 14 is no card"),
        ("memory", torch.OutOfMemoryError, "out of memory"),
        ("bug", RuntimeError, "ended with status 1(.|\n)*ZeroDivisionError: by zero"),
        ("death", RuntimeError, "ended with status 7"),
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


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="processes=2: this machine has 1 GPU"):
        together("parts", work_of(tmp_path, {}), 2)


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
