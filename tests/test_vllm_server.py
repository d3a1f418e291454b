"""Episodes played by a vLLM server: the same seam as our own engines, one run at a time, and one line if it is not so.

A stand-in that speaks as the server does, over HTTP, is enough for most. The real one is started by `rlheals serve` in
the second half, where vLLM is installed: `make test-vllm`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import requests
import torch
from lab_helpers import one_line
from safetensors.torch import load_file, save_file
from vllm_here import INPUTS, PLAYED, Stand, needs_vllm

from rlheals import evaluate_vllm, models, rl_vllm, vllm_serve
from rlheals.cli import main
from rlheals.dialects import Compact
from rlheals.engines import Generation, HFEngine, Sampling, refresh
from rlheals.errors import BadInput
from rlheals.evaluate import EvaluateSettings
from rlheals.models import SHIPPED_BASE
from rlheals.stage import Work
from rlheals.vllm_engine import VLLMEngine
from rlheals.vllm_server import SERVER, ServedEngine

GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.7)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def stand() -> Stand:
    return Stand()


@pytest.fixture
def address(stand: Stand) -> Iterator[str]:
    with stand.listening() as here:
        yield here


@pytest.fixture(scope="module")
def prompts(dialect: Compact) -> list[list[int]]:
    hands = ("3 5 9 12", "1 5 11 13", "2 2 6 10", "7 8 8 13", "4 9 12 12", "1 2 3 4")
    return [dialect.encode(f"{hand} so") for hand in hands]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with the base, its head turned around: other weights of the same shape."""
    weights = load_file(SHIPPED_BASE / "model.safetensors")
    weights["lm_head.weight"] = -weights["lm_head.weight"]
    folder = tmp_path / "other"
    folder.mkdir()
    for described in SHIPPED_BASE.glob("*.json"):
        (folder / described.name).write_bytes(described.read_bytes())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def greedy(engine: ServedEngine | HFEngine | VLLMEngine, prompts: list[list[int]]) -> list[Generation]:
    return engine.generate(prompts, [f"k/{number}" for number in range(len(prompts))], GREEDY)


def ours(folder: Path, prompts: list[list[int]]) -> list[Generation]:
    return greedy(HFEngine(models.load(folder), models.load_tokenizer(folder), rows=16), prompts)


def play(stage: ModuleType, settings: dict[str, Any], folder: Path) -> Path:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    stage.run(Work(out, scratch, settings, 1, INPUTS))
    return out


# --- with a stand-in


def test_a_server_says_what_the_engine_behind_it_says(address: str, prompts: list[list[int]]) -> None:
    engine = ServedEngine(address, SHIPPED_BASE)
    for made, wanted in zip(greedy(engine, prompts), ours(SHIPPED_BASE, prompts), strict=True):
        assert made.tokens == wanted.tokens
        assert np.allclose(made.logprobs, wanted.logprobs, atol=1e-5)
        assert np.allclose(made.entropies, wanted.entropies, atol=1e-5)
    assert engine.generate([], [], WARM) == []
    engine.close()


def test_large_vocabularies_have_no_entropies(
    stand: Stand, address: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlheals.vllm_asking.WHOLE", 38)
    stand._row = lambda entropy, words: {"token_id:0": -0.5}  # type: ignore[method-assign]
    for made, wanted in zip(
        greedy(ServedEngine(address, SHIPPED_BASE), prompts), ours(SHIPPED_BASE, prompts), strict=True
    ):
        assert made.tokens == wanted.tokens
        assert np.isnan(made.entropies).all()


def test_every_run_brings_its_own_weights(
    stand: Stand, address: str, prompts: list[list[int]], other: Path
) -> None:
    first = ServedEngine(address, other)
    assert [made.tokens for made in greedy(first, prompts)] == [made.tokens for made in ours(other, prompts)]
    refresh(first, models.load(SHIPPED_BASE))
    base = [made.tokens for made in ours(SHIPPED_BASE, prompts)]
    assert [made.tokens for made in greedy(first, prompts)] == base
    first.load_weights(other / "model.safetensors")
    assert [made.tokens for made in greedy(first, prompts)] != base
    assert not stand.read[-1]["folder"].exists()


@pytest.mark.parametrize("when", ["before", "while it plays"])
def test_a_second_run_on_the_same_server_is_noticed(
    stand: Stand, address: str, prompts: list[list[int]], when: str
) -> None:
    engine = ServedEngine(address, SHIPPED_BASE)
    if when == "before":
        ServedEngine(address, SHIPPED_BASE)
    else:

        def stolen(body: Any) -> tuple[int, Any]:
            stand.version = "of another"
            return 200, {"choices": [stand.continued(body)]}

        stand.spoil["/v1/completions"] = stolen
    with pytest.raises(BadInput, match="one at a time") as caught:
        greedy(engine, prompts)
    one_line(caught.value)


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("path", ["/weight_info", "/v1/completions", "/collective_rpc"])
def test_a_connection_that_is_cut_is_made_again(
    stand: Stand, address: str, prompts: list[list[int]], path: str, times: int
) -> None:
    cuts = iter(range(times))

    def cut(body: Any) -> tuple[int, Any]:
        if next(cuts, None) is not None:
            raise ConnectionError
        return 200, stand.said(path, body)

    stand.spoil[path] = cut
    if times == 1:
        made = greedy(ServedEngine(address, SHIPPED_BASE), prompts[:1])
        assert [one.tokens for one in made] == [one.tokens for one in ours(SHIPPED_BASE, prompts[:1])]
        return
    with pytest.raises(BadInput, match="no answer") as caught:
        greedy(ServedEngine(address, SHIPPED_BASE), prompts[:1])
    one_line(caught.value)


def lacks(part: str, name: str, value: object) -> Callable[[Stand], None]:
    return lambda stand: stand.info[part].__setitem__(name, value)


def answers(path: str, status: int, said: object) -> Callable[[Stand], None]:
    return lambda stand: stand.spoil.__setitem__(path, (status, said))


NO_WEIGHTS = {"error": {"message": "Worker failed with error 'nothing at\nthat place'"}}
SHORT = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:5": -1.0}]}}
UNSURE = {"token_ids": [5], "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:5": -1.0}]}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lacks("model_config", "logprobs_mode", "raw_logprobs"), "logprobs_mode is 'raw_logprobs'"),
        (lacks("model_config", "generation_config", "auto"), "generation_config is 'auto'"),
        (lacks("model_config", "dtype", "torch.bfloat16"), "dtype is 'bfloat16', not 'float32'"),
        (lacks("load_config", "load_format", "auto"), "load_format is 'auto'"),
        (lacks("model_config", "max_logprobs", 20), "20 log-probabilities per token, not 39"),
        (lacks("model_config", "max_model_len", 20), "does not fit the model's 20 positions"),
        (lacks("model_config", "max_model_len", "long"), "max_model_len is not what vLLM says"),
        (
            answers("/server_info?config_format=json", 404, {"detail": "Not Found"}),
            "`rlheals serve` starts one",
        ),
        (answers("/server_info?config_format=json", 200, b"<html>"), "is not what vLLM says"),
        (answers("/collective_rpc", 500, NO_WEIGHTS), "see that folder as this machine does"),
        (answers("/collective_rpc", 502, b"bad gateway"), "status 502"),
        (answers("/reset_prefix_cache", 200, {"success": False}), "kept keys and values"),
        (answers("/v1/completions", 200, {"choices": []}), "choices is not what vLLM says"),
        (answers("/v1/completions", 200, {"choices": [SHORT]}), "without the log-probabilities"),
        (answers("/v1/completions", 200, {"choices": [UNSURE]}), "without the log-probabilities"),
        (answers("/v1/completions", 302, {}), "/v1/completions"),
        (answers("/v1/completions", 400, {"error": {"message": "no\x1b[31m"}}), "/v1/completions: no"),
    ],
)
def test_what_a_server_cannot_do_is_one_line(
    stand: Stand, address: str, prompts: list[list[int]], spoil: Callable[[Stand], None], said: str
) -> None:
    spoil(stand)
    with pytest.raises(BadInput) as caught:
        greedy(ServedEngine(address, SHIPPED_BASE), prompts)
    assert said in one_line(caught.value)
    assert address in str(caught.value) or "positions" in said


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "ftp://127.0.0.1", "gpu2:8000", "http://[", "nonsense"]
)
def test_no_server_is_one_line(address: str) -> None:
    with pytest.raises(BadInput, match="`rlheals serve` starts one") as caught:
        ServedEngine(address, SHIPPED_BASE)
    one_line(caught.value)


def test_weights_of_another_shape_never_reach_the_server(
    stand: Stand, address: str, tiny_folder: Path
) -> None:
    engine, before = ServedEngine(address, SHIPPED_BASE), len(stand.read)
    with pytest.raises(BadInput, match="do not fit the architecture") as caught:
        engine.load_weights(tiny_folder / "model.safetensors")
    one_line(caught.value)
    assert len(stand.read) == before


def test_a_tied_head_is_refused_where_its_old_copy_would_stay(
    stand: Stand, address: str, tmp_path: Path
) -> None:
    base = models.load(SHIPPED_BASE)
    base.config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        tied = type(base)(base.config)
    models.save(tmp_path / "tied", tied, models.load_tokenizer(SHIPPED_BASE))
    stand.info["device_config"]["device"] = "cpu"
    with pytest.raises(BadInput, match=f"without {SERVER}") as caught:
        ServedEngine(address, tmp_path / "tied")
    one_line(caught.value)


def test_census_and_rl_ask_the_server_that_the_environment_names(
    stand: Stand, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER, address)
    asked = EvaluateSettings(folder="base", splits=("ood",), hands=6, attempts=2).model_dump(mode="json")
    episodes = pd.read_parquet(play(evaluate_vllm, asked, tmp_path / "census") / "episodes.parquet")
    assert len(episodes) == 6
    stand.read.clear()
    settings = PLAYED.model_copy(update={"checkpoints": (3,)}).model_dump(mode="json")
    log = pd.read_parquet(play(rl_vllm, settings, tmp_path / "rl") / "log.parquet")
    assert log["update"].tolist() == [1, 2, 3]
    assert log["kl_start"].iloc[0] == pytest.approx(0, abs=1e-3)
    weights = [one["weight"] for one in stand.read]
    assert weights[0] == weights[1]  # the start, then what plays each update
    learnt = (log["gradient_norm"] > 0).tolist()[:2]
    assert any(learnt)
    assert [weights[i + 1] != weights[i] for i in (1, 2)] == learnt


@pytest.mark.long
def test_processes_that_train_together_share_a_server(
    stand: Stand, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER, address)
    logs = []
    for processes in (1, 2):
        stand.read.clear()
        changes = {"processes": processes, "learning_rate": 1e-3, "log_kl": False}
        settings = PLAYED.model_copy(update=changes).model_dump(mode="json")
        out = play(rl_vllm, settings, tmp_path / str(processes))
        logs.append(pd.read_parquet(out / "log.parquet").set_index("update"))
        assert len(stand.read) == 3  # by one of them, for all
    one, two = (log[["return", "tokens", "entropy", "gradient_norm"]] for log in logs)
    assert two.loc[1].tolist() == pytest.approx(one.loc[1].tolist(), rel=1e-3)
    assert two.loc[2, "entropy"] == pytest.approx(one.loc[2, "entropy"], rel=0.05)


def test_the_server_is_started_with_what_is_checked_later() -> None:
    started = vllm_serve.command(
        SHIPPED_BASE, "127.0.0.1", 8000, 64, None, None, 2, ["--gpu-memory-utilization=0.8"]
    )
    assert started[:3] == [sys.executable, "-m", vllm_serve.MODULE]
    for flag in (
        f"--model={SHIPPED_BASE.resolve()}",
        "--load-format=safetensors",
        "--logprobs-mode=processed_logprobs",
        "--generation-config=vllm",
        "--dtype=float32",
        "--max-logprobs=39",
        "--max-num-seqs=64",
        "--tensor-parallel-size=2",
    ):
        assert flag in started
    assert started[-1] == "--gpu-memory-utilization=0.8"


def test_a_port_that_is_taken_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm_serve, "find_spec", lambda name: True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(SHIPPED_BASE), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be used" in capsys.readouterr().err


# --- with vLLM's own server


class Served:
    """The real server, and its process."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("rlheals")), "serve", str(folder), "--port", str(port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        for _ in range(600):
            time.sleep(0.5)
            assert self.process.poll() is None, log.read_text()[-2000:]
            try:
                if requests.get(f"{self.address}/health", timeout=5).ok:
                    return
            except requests.ConnectionError:
                continue
        raise AssertionError(log.read_text()[-2000:])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(SHIPPED_BASE, tmp_path_factory.mktemp("served") / "log.txt")
    yield server
    server.stop()


@needs_vllm
def test_the_server_gives_the_tokens_of_the_engine_in_this_process(
    served: Served, prompts: list[list[int]]
) -> None:
    keys = [f"k/{number}" for number in range(20)]
    many = [prompts[number % len(prompts)] for number in range(20)]
    there = ServedEngine(served.address, SHIPPED_BASE)
    found = [there.generate(many, keys, how) for how in (GREEDY, WARM)]
    there.close()
    here = VLLMEngine(SHIPPED_BASE)
    wanted = [here.generate(many, keys, how) for how in (GREEDY, WARM)]
    here.close()
    for one, other in zip([*found[0], *found[1]], [*wanted[0], *wanted[1]], strict=True):
        assert one.tokens == other.tokens
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert np.allclose(one.entropies, other.entropies, atol=1e-5)


@needs_vllm
def test_the_server_takes_new_weights_and_forgets_the_old(
    served: Served, prompts: list[list[int]], other: Path
) -> None:
    engine = ServedEngine(served.address, SHIPPED_BASE)
    for folder in (SHIPPED_BASE, other, SHIPPED_BASE):
        engine.load_weights(folder / "model.safetensors")
        assert [made.tokens for made in greedy(engine, prompts)] == [
            made.tokens for made in ours(folder, prompts)
        ]
    ServedEngine(served.address, other)
    with pytest.raises(BadInput, match="one at a time"):
        greedy(engine, prompts)


@needs_vllm
def test_rl_on_the_server_is_rl_with_an_engine_of_its_own(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, logs = PLAYED.model_dump(mode="json"), []
    for where in (served.address, ""):
        monkeypatch.setenv(SERVER, where)
        out = play(rl_vllm, settings, tmp_path / (where[-4:] or "here"))
        logs.append(pd.read_parquet(out / "log.parquet"))
    columns = ["return", "tokens", "entropy", "gradient_norm"]
    assert np.allclose(logs[0][columns], logs[1][columns], rtol=1e-3)


@needs_vllm
def test_a_server_that_ends_is_one_line_and_leaves_nothing(prompts: list[list[int]], tmp_path: Path) -> None:
    server = Served(SHIPPED_BASE, tmp_path / "log.txt")
    engine = ServedEngine(server.address, SHIPPED_BASE)
    greedy(engine, prompts)
    server.stop()
    with pytest.raises(BadInput, match="no answer") as caught:
        greedy(engine, prompts)
    one_line(caught.value)
    for _ in range(100):
        if not running(server.process.pid):
            return
        time.sleep(0.1)
    raise AssertionError(running(server.process.pid))


def running(group: int) -> list[str]:
    """Commands of the processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found
