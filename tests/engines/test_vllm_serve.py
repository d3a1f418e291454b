"""`rlheals serve`: how the server is started, and, where vLLM is installed, the server itself (`make test-vllm`)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from lab_helpers import refused
from vllm_here import PLAYED, asked, greedy, needs_vllm, ours, play, turned

from rlheals.cli.main import main
from rlheals.engines import vllm_serve
from rlheals.engines.hf import Sampling
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.vllm import VLLMEngine
from rlheals.engines.vllm_server import SERVER, TOKEN, ServedEngine
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.training.rl import stage_vllm as rl_vllm

GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.7)


@pytest.fixture(scope="module")
def prompts(dialect: Compact) -> list[list[int]]:
    return asked(dialect)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return turned(tmp_path / "other")


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
