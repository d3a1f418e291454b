"""Episodes played by a vLLM server: the same seam as our own engines, one run at a time, and one line if it is not so.

A stand-in that speaks as the server does, over HTTP, is asked; at the end the real one, where vLLM is installed.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from lab_helpers import one_line, refused
from vllm_here import PLAYED, Stand, asked, greedy, logs_of_one_and_two, needs_vllm, ours, play, turned

from rlheals.cli.main import main
from rlheals.engines import models, vllm_serve, vllm_server
from rlheals.engines.hf import Sampling, refresh
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.vllm import VLLMEngine
from rlheals.engines.vllm_serve import Guard
from rlheals.engines.vllm_server import SERVER, TOKEN, ServedEngine
from rlheals.errors import BadInput
from rlheals.evaluation import evaluate_vllm
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.tasks.general_points.compact import Compact
from rlheals.training.rl import stage_vllm as rl_vllm


@pytest.fixture
def stand() -> Stand:
    return Stand()


@pytest.fixture
def address(stand: Stand) -> Iterator[str]:
    with stand.listening() as here:
        yield here


@pytest.fixture(scope="module")
def prompts(dialect: Compact) -> list[list[int]]:
    return asked(dialect)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return turned(tmp_path / "other")


def test_a_server_says_what_the_engine_behind_it_says(address: str, prompts: list[list[int]]) -> None:
    engine = ServedEngine(address, SHIPPED_BASE)
    for made, wanted in zip(greedy(engine, prompts), ours(SHIPPED_BASE, prompts), strict=True):
        assert made.tokens == wanted.tokens
        assert np.allclose(made.logprobs, wanted.logprobs, atol=1e-5)
        assert np.allclose(made.entropies, wanted.entropies, atol=1e-5)
    assert engine.generate([], [], Sampling()) == []
    engine.close()


def test_large_vocabularies_have_no_entropies(
    stand: Stand, address: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlheals.engines.vllm.WHOLE", 38)
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
    else:  # the other one's weights are being read, and that is all so far

        def stolen(body: Any) -> tuple[int, Any]:
            stand.version = "of another"
            return 200, {"choices": [stand.continued(body)]}

        stand.spoil["/v1/completions"] = stolen
    with refused("one at a time"):
        greedy(engine, prompts)


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
    with refused("no answer"):
        greedy(ServedEngine(address, SHIPPED_BASE), prompts[:1])


def test_weights_are_labelled_before_and_after_they_are_read(stand: Stand, address: str) -> None:
    """Else who plays while they are read, or reads others at the same time, would not notice."""
    seen = []

    def read(body: Any) -> tuple[int, Any]:
        seen.append(stand.version)
        stand.version = "of another"
        return 200, stand.said("/collective_rpc", body)

    stand.spoil["/collective_rpc"] = read
    ServedEngine(address, SHIPPED_BASE)
    assert seen == [stand.version]
    assert stand.version not in ("default", "of another")


def lacks(part: str, name: str, value: object) -> Callable[[Stand], None]:
    return lambda stand: stand.info[part].__setitem__(name, value)


def answers(path: str, status: int, said: object) -> Callable[[Stand], None]:
    return lambda stand: stand.spoil.__setitem__(path, (status, said))


def packed(stand: Stand) -> None:
    """An answer of 100 MB in 100 kB that nobody asked to have packed."""
    stand.headers.append(("Content-Encoding", "gzip"))
    stand.spoil["/weight_info"] = 200, gzip.compress(b" " * 100_000_000)


NO_WEIGHTS = {"error": {"message": "Worker failed with error 'nothing at\nthat place'"}}


def choice(
    tokens: list[int], logprob: float = -1.0, words: int = 39, reason: str = "stop", count: int = 1
) -> Any:
    """The log-probabilities of so many tokens, whatever the tokens."""
    row = {f"token_id:{word}": logprob for word in range(words)}
    logprobs = {"token_logprobs": [logprob] * count, "top_logprobs": [row] * count}
    said = {"token_ids": tokens, "finish_reason": reason, "logprobs": logprobs}
    return answers("/v1/completions", 200, {"choices": [said]})


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
        (answers("/v1/completions", 200, {"choices": []}), "choices.0.token_ids is not what vLLM says"),
        (choice([5, 6]), "without the log-probabilities"),
        (choice([5], words=1), "without the log-probabilities"),
        (choice([5], logprob=0.01), "less than or equal to 0.001"),
        (choice([5], logprob=float("nan")), "is not what vLLM says"),
        (choice([5], logprob=float("-inf")), "is not what vLLM says"),
        (choice([5], reason="abort"), "finish_reason is not what vLLM says"),
        (choice([5], reason="length"), "cut at 1 of 28 tokens"),
        (choice([], count=0), "cut at 0 of 28 tokens"),
        (packed, "weight_info: the answer is not what vLLM says"),
        (choice([39]), "that the model does not have"),
        (answers("/v1/completions", 200, b"[" * 100_000), "is not what vLLM says"),
        (answers("/v1/completions", 500, b"[" * 100_000), "status 500"),
        (answers("/v1/completions", 200, b" " * 300_000), "an answer of over 200,000 bytes"),
        (answers("/v1/completions", 302, {}), "/v1/completions"),
        (answers("/v1/completions", 400, {"error": {"message": "no\x1b[31m"}}), "/v1/completions: no"),
    ],
)
def test_what_a_server_cannot_do_is_one_line(
    stand: Stand,
    address: str,
    prompts: list[list[int]],
    spoil: Callable[[Stand], None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_server, "LARGEST", 200_000)
    spoil(stand)
    with pytest.raises(BadInput) as caught:
        greedy(ServedEngine(address, SHIPPED_BASE), prompts)
    assert said in one_line(caught.value)
    assert address in str(caught.value) or "positions" in said


def test_an_answer_that_never_ends_is_given_up(
    stand: Stand, address: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps a connection alive; the deadline is that of the whole answer."""

    engine = ServedEngine(address, SHIPPED_BASE)
    stand.spoil["/weight_info"] = lambda body: (200, (time.sleep(0.05) or b" " for _ in range(100)))
    monkeypatch.setattr(vllm_server, "DEADLINE", 0.3)
    started = time.monotonic()
    with pytest.raises(BadInput, match=r"no whole answer within 0\.3 seconds") as caught:
        greedy(engine, prompts[:1])
    assert time.monotonic() - started < 2
    one_line(caught.value)


def test_headers_that_never_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "DEADLINE", 0.3)
    ended = threading.Event()

    def trickle(listening: socket.socket) -> None:
        connection = listening.accept()[0]
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                try:
                    connection.sendall(b"x: y\r\n")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        started = time.monotonic()
        with pytest.raises(BadInput, match=r"no whole answer within 0\.3 seconds"):
            ServedEngine(f"http://127.0.0.1:{listening.getsockname()[1]}", SHIPPED_BASE)
        assert time.monotonic() - started < 2
        ended.set()
        thread.join()


def test_a_server_on_a_socket_is_asked_there(stand: Stand, prompts: list[list[int]], tmp_path: Path) -> None:
    with stand.listening(tmp_path / "vllm") as address:
        made = greedy(ServedEngine(address, SHIPPED_BASE), prompts)
    assert [one.tokens for one in made] == [one.tokens for one in ours(SHIPPED_BASE, prompts)]
    with pytest.raises(BadInput, match="`rlheals serve` starts one"):
        ServedEngine(address, SHIPPED_BASE)


def test_a_server_that_asks_for_a_token_gets_it(
    stand: Stand, address: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.token = "a-secret"
    for given in ("", "another"):
        monkeypatch.setenv(TOKEN, given)
        with pytest.raises(BadInput, match=TOKEN) as caught:
            ServedEngine(address, SHIPPED_BASE)
        assert "secret" not in one_line(caught.value)
    monkeypatch.setenv(TOKEN, "a-secret")
    assert len(greedy(ServedEngine(address, SHIPPED_BASE), prompts)) == len(prompts)


@pytest.mark.parametrize(
    ("kind", "given", "answers"),
    [
        ("http", None, [401]),
        ("http", b"Bearer another", [401]),
        ("http", b"Bearer \xff", [401]),
        ("http", b"a-secret", [401]),
        ("http", b"Bearer a-secret", ["inside"]),
        ("websocket", None, [1008]),
        ("websocket", b"Bearer a-secret", ["inside"]),
        ("lifespan", None, ["inside"]),
    ],
)
def test_nobody_passes_the_guard_without_the_token(
    kind: str, given: bytes | None, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "a-secret")
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said.append("inside")

    async def send(message: Any) -> None:
        said.extend(message[name] for name in ("status", "code") if name in message)

    scope = {"type": kind, "path": "/collective_rpc"}
    if kind != "lifespan":
        scope["headers"] = [] if given is None else [(b"authorization", given)]
    asyncio.run(Guard(app)(scope, None, send))  # type: ignore[arg-type]
    assert said == answers


@pytest.mark.parametrize(
    ("prompt", "temperature", "said"),
    [
        ([5, 6], 0.0099, r"0\.01 and above"),
        ([5, 39], 0.7, "not one of the model's 39"),
        ([5, -1], 0.7, "not one of the model's 39"),
        ([5] * 229, 0.7, "256 positions"),
    ],
)
def test_what_vllm_would_answer_otherwise_is_not_asked(
    address: str, prompt: list[int], temperature: float, said: str
) -> None:
    with refused(match=said):
        ServedEngine(address, SHIPPED_BASE).generate([prompt], ["k"], Sampling(temperature=temperature))


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1",
        "ftp://127.0.0.1",
        "gpu2:8000",
        "http://[",
        "nonsense",
        "unix:/nowhere",
        "unix:here",
    ],
)
def test_no_server_is_one_line(address: str) -> None:
    with refused("`rlheals serve` starts one"):
        ServedEngine(address, SHIPPED_BASE)


def test_weights_that_would_not_arrive_are_refused(
    stand: Stand, address: str, tiny_folder: Path, tmp_path: Path
) -> None:
    engine, before = ServedEngine(address, SHIPPED_BASE), len(stand.read)
    with refused("do not fit the architecture"):
        engine.load_weights(tiny_folder / "model.safetensors")
    assert len(stand.read) == before
    base = models.load(SHIPPED_BASE)
    base.config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        tied = type(base)(base.config)
    models.save(tmp_path / "tied", tied, models.load_tokenizer(SHIPPED_BASE))
    stand.info["device_config"]["device"] = "cpu"
    with refused(match=f"without {SERVER}"):
        ServedEngine(address, tmp_path / "tied")


def test_census_and_rl_ask_the_server_that_the_environment_names(
    stand: Stand, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER, address)
    census = EvaluateSettings(folder="base", splits=("ood",), hands=3, attempts=2)
    episodes = pd.read_parquet(play(evaluate_vllm, census, tmp_path / "census") / "episodes.parquet")
    assert len(episodes) == 3
    stand.read.clear()
    log = pd.read_parquet(play(rl_vllm, PLAYED, tmp_path / "rl") / "log.parquet")
    assert log["update"].tolist() == [1, 2]
    assert log["kl_start"].iloc[0] == pytest.approx(0, abs=1e-3)
    weights = [one["weight"] for one in stand.read]
    assert weights[0] == weights[1]  # the start, then what plays each update
    assert log["gradient_norm"].iloc[0] > 0
    assert weights[2] != weights[1]


@pytest.mark.long
def test_processes_that_train_together_share_a_server(
    stand: Stand, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER, address)
    logs_of_one_and_two(tmp_path)
    assert len(stand.read) == 2 * 3  # by one of the processes, for all


# How it is started ---------------------------------------------------------------------------------------------------


WARM = Sampling(temperature=0.7)


def test_the_server_is_started_with_what_is_checked_later() -> None:
    there = vllm_serve.Place({"uds": Path("/private/vllm")}, "unix:/private/vllm")
    started = vllm_serve.command(SHIPPED_BASE, there, 64, None, None, 2, ["--gpu-memory-utilization=0.8"])
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
        "--allowed-origins=[]",
        "--uds=/private/vllm",
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


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What the process would have become: the command and its environment."""
    become: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(vllm_serve, "find_spec", lambda name: True)
    monkeypatch.setattr(os, "execve", lambda path, command, own: become.append((command, own)))
    monkeypatch.delenv(TOKEN, raising=False)
    return become


def exported(said: str) -> dict[str, str]:
    return dict(line.removeprefix("export ").split("=", 1) for line in said.splitlines())


def test_by_default_it_listens_where_only_this_user_may_enter(
    became: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = set()
    for _ in range(2):
        assert main(["serve", str(SHIPPED_BASE)]) == 0
        said = exported(capsys.readouterr().out)
        assert said.keys() == {SERVER}
        path = Path(said[SERVER].removeprefix("unix:"))
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert not path.exists()
        (command, _) = became.pop()
        assert f"--uds={path}" in command
        assert not [flag for flag in command if flag.startswith(("--port", "--host", "--middleware"))]
        paths.add(path)
    assert len(paths) == 2
    monkeypatch.setattr("tempfile.tempdir", f"/{'long' * 25}")
    assert main(["serve", str(SHIPPED_BASE)]) == 2
    assert "set TMPDIR" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_on_a_port_it_asks_for_a_token(
    became: list[Any], capsys: pytest.CaptureFixture[str], host: str, warned: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["serve", str(SHIPPED_BASE), "--host", host, "--port", str(port)]) == 0
    out, err = capsys.readouterr()
    said, (command, own) = exported(out), became.pop()
    assert said[SERVER] == f"http://{host}:{port}"
    assert len(said[TOKEN]) >= 40
    assert own[TOKEN] == said[TOKEN]
    assert said[TOKEN] not in " ".join(command), "every user of the machine sees a command line"
    assert "--middleware=rlheals.engines.vllm_serve.Guard" in command
    assert ("other machines reach 0.0.0.0" in err) == warned


# --- with vLLM's own server


class Served:
    """The real server, and its process."""

    def __init__(self, folder: Path, log: Path) -> None:
        command = [str(Path(sys.executable).with_name("rlheals")), "serve", str(folder)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        for _ in range(600):
            time.sleep(0.5)
            assert self.process.poll() is None, log.read_text()[-2000:]
            said = exported("".join(line for line in log.open() if line.startswith("export ")))
            self.address = said.get(SERVER, "")
            try:
                with socket.socket(socket.AF_UNIX) as there:
                    there.connect(self.address.removeprefix("unix:"))
                return
            except OSError:
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
    found = [there.generate(many, keys, how) for how in (Sampling(temperature=0), WARM)]
    there.close()
    here = VLLMEngine(SHIPPED_BASE)
    wanted = [here.generate(many, keys, how) for how in (Sampling(temperature=0), WARM)]
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
    settings, logs = PLAYED, []
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
    with refused("no answer"):
        greedy(engine, prompts)
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
