"""What the tests of vLLM share: whether it is installed, prompts, a small RL run, and a stand-in for its server."""

from __future__ import annotations

import importlib.util
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lab_helpers import work_in
from safetensors.torch import load_file, save_file

from rlheals.engines import models
from rlheals.engines.hf import Engine, Generation, HFEngine, Sampling
from rlheals.engines.models import SHIPPED_BASE
from rlheals.settings import Settings
from rlheals.tasks.general_points.compact import Compact
from rlheals.training.rl import stage_vllm as rl_vllm
from rlheals.training.rl.settings import RLSettings

INSTALLED = importlib.util.find_spec("vllm") is not None
PLAYED = RLSettings(
    folder="base", checkpoints=(2,), episodes=16, group=4, micro_batch_size=8, loss_examples=4
)
INPUTS = {"model": SHIPPED_BASE.parent, "base": SHIPPED_BASE.parent}


NEEDS_VLLM = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not INSTALLED,
        reason="vLLM is not installed here; `make test-vllm` installs its CPU build and runs this",
    ),
]


def needs_vllm(test):
    for mark in NEEDS_VLLM:
        test = mark(test)
    return test


def asked(dialect: Compact) -> list[list[int]]:
    """Prompts of a few hands."""
    hands = ("3 5 9 12", "1 5 11 13", "2 2 6 10", "7 8 8 13", "4 9 12 12", "1 2 3 4")
    return [dialect.encode(f"{hand} so") for hand in hands]


def turned(folder: Path) -> Path:
    """The base with its head turned around, in a folder: other weights of the same shape."""
    weights = load_file(SHIPPED_BASE / "model.safetensors")
    weights["lm_head.weight"] = -weights["lm_head.weight"]
    folder.mkdir()
    for described in SHIPPED_BASE.glob("*.json"):
        (folder / described.name).write_bytes(described.read_bytes())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def greedy(engine: Engine, prompts: list[list[int]]) -> list[Generation]:
    return engine.generate(
        prompts, [f"k/{number}" for number in range(len(prompts))], Sampling(temperature=0)
    )


def ours(folder: Path, prompts: list[list[int]]) -> list[Generation]:
    """What our own engine makes of them."""
    return greedy(HFEngine(models.load(folder), models.load_tokenizer(folder), rows=16), prompts)


def play(stage: ModuleType, settings: Settings, folder: Path) -> Path:
    """A stage, run from the shipped base; its output."""
    stage.run(work_in(folder, settings, INPUTS))
    return folder / "out"


def logs_of_one_and_two(folder: Path, **changes: Any) -> list[pd.DataFrame]:
    """What one process and two that train together log of the small run; the first update is the same."""
    settings = PLAYED.model_copy(update={"learning_rate": 1e-3, "log_kl": False, **changes})
    made = []
    for processes in (1, 2):
        out = play(rl_vllm, settings.model_copy(update={"processes": processes}), folder / str(processes))
        log = pd.read_parquet(out / "log.parquet").set_index("update")
        made.append(log[["return", "tokens", "entropy", "gradient_norm"]])
    one, two = made
    assert two.loc[1].tolist() == pytest.approx(one.loc[1].tolist(), rel=1e-3)
    assert two.loc[2, "entropy"] == pytest.approx(one.loc[2, "entropy"], rel=0.05)
    return made


class Stand:
    """Answers as a vLLM server that `rlheals serve` has started, with the shipped base and our own engine.

    info: what it says of itself; token: what it asks for;
    headers: what it sends beside; spoil: changes the answer of a path; read: the folders it was given weights from.
    """

    def __init__(self) -> None:
        tokenizer = models.load_tokenizer(SHIPPED_BASE)
        self.engine = HFEngine(models.load(SHIPPED_BASE), tokenizer, rows=16, remember=False)
        self.info: dict[str, Any] = {
            "model_config": {
                "logprobs_mode": "processed_logprobs",
                "generation_config": "vllm",
                "dtype": "torch.float32",
                "max_logprobs": len(tokenizer),
                "max_model_len": 256,
            },
            "load_config": {"load_format": "safetensors"},
            "device_config": {"device": "cuda"},
        }
        self.spoil: dict[str, Any] = {}
        self.token = ""
        self.headers: list[tuple[str, str]] = []
        self.read: list[dict[str, Any]] = []
        self.version = "default"
        self._lock = threading.Lock()

    @contextmanager
    def listening(self, path: Path | None = None) -> Iterator[str]:
        """Its address, as long as it listens; path: of a socket."""
        server = _Server(("127.0.0.1", 0) if path is None else str(path), self)
        server.handle_error = lambda *request: None  # type: ignore[method-assign] # who asked has gone away
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}" if path is None else f"unix:{path}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        with self._lock:
            if path in self.spoil:
                spoilt = self.spoil[path]
                return spoilt(body) if callable(spoilt) else spoilt
            return 200, self.said(path, body)

    def said(self, path: str, body: Any) -> Any:
        match path:
            case "/server_info?config_format=json":
                return {"vllm_config": self.info, "vllm_env": {}}
            case "/weight_info":
                return {"weight_version": self.version}
            case "/update_weight_version":
                self.version = body["new_version"]
                return {"success": True}
            case "/reset_prefix_cache":
                return {"success": True}
            case "/collective_rpc":
                assert body["method"] == "reload_weights"
                folder = Path(body["kwargs"]["weights_path"])
                self.engine.load_weights(folder / "model.safetensors")
                head = self.engine.model.get_output_embeddings().weight.detach()
                self.read.append({"folder": folder, "weight": float(head.double().sum())})
                return {"results": [None]}
            case "/v1/completions":
                return {"choices": [self.continued(body)]}
        raise AssertionError(path)

    def continued(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(temperature=body["temperature"], max_new_tokens=body["max_tokens"])
        (made,) = self.engine.generate([body["prompt"]], [str(body["seed"])], sampling)
        own, entropies = made.logprobs.tolist(), made.entropies
        rows = [self._row(entropy, body["logprobs"]) for entropy in entropies]
        reason = "stop" if made.tokens[-1] == self.engine.tokenizer.eos_token_id else "length"
        logprobs = {"token_logprobs": own, "top_logprobs": rows}
        return {"token_ids": list(made.tokens), "finish_reason": reason, "logprobs": logprobs}

    @staticmethod
    def _row(entropy: float, words: int) -> dict[str, float]:
        """A distribution over so many words that has this entropy: all mass but p on one, the rest even."""
        low, high = 0.0, 1 - 1 / words
        for _ in range(60):
            p = (low + high) / 2
            low, high = (p, high) if _entropy(p, words) < entropy else (low, p)
        return {f"token_id:{i}": float(np.log(1 - p if i == 0 else p / (words - 1))) for i in range(words)}


def _entropy(p: float, words: int) -> float:
    return float(-(1 - p) * np.log(1 - p) - p * np.log(max(p, 1e-300) / (words - 1)))


class _Server(ThreadingHTTPServer):
    """On a port, or on the socket of that path."""

    def __init__(self, address: tuple[str, int] | str, stand: Stand) -> None:
        self.address_family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        super().__init__(address, type("Handler", (_Handler,), {"stand": stand}))  # type: ignore[arg-type]

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without the name of the host, which a socket has not

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()[0], ("here", 0)


class _Handler(BaseHTTPRequestHandler):
    stand: Stand
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self._answer(json.loads(self.rfile.read(size)) if size else None)

    def _answer(self, body: Any) -> None:
        try:
            status, said = self.stand.answer(self.path, body)
            if self.stand.token and self.headers.get("Authorization") != f"Bearer {self.stand.token}":
                status, said = 401, b""
        except ConnectionError:  # the line goes dead
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in self.stand.headers:
            self.send_header(name, value)
        if isinstance(said, Iterator):  # piece by piece, until the connection is closed
            pieces, self.close_connection = said, True
        else:
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_header("Content-Length", str(len(content)))
            pieces = iter([content])
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(piece)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass
