"""What a vLLM server is asked over HTTP, and what of its answers is believed: only data of the expected form."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import requests
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from urllib3 import Retry

from rlheals.engines import fsdp as sharded
from rlheals.engines import models
from rlheals.engines import vllm as vllm_asking
from rlheals.engines.hf import Engine, Generation
from rlheals.engines.vllm import VLLMEngine
from rlheals.errors import BadInput

TIMEOUT = (10.0, 1200.0)  # seconds to connect, and for an answer, which may wait for others
AGAIN = Retry(2, backoff_factor=0.2, allowed_methods=None, status=0)
"""A server closes connections that were idle while a model learnt. Whatever is asked may be asked twice."""

SHOWN = 200  # characters of what a server says, in an error


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())


class ModelInfo(_Said):
    """How the server was started: its model."""

    logprobs_mode: str
    generation_config: str
    dtype: str
    max_logprobs: int
    max_model_len: int


class _Load(_Said):
    load_format: str


class _Device(_Said):
    device: str | None


class _Config(_Said):
    model: ModelInfo = Field(alias="model_config")
    load_config: _Load
    device_config: _Device


class Info(_Said):
    """How the server was started."""

    vllm_config: _Config


class _Logprobs(_Said):
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class Choice(_Said):
    """One continuation."""

    token_ids: list[int]
    logprobs: _Logprobs


class Answer(_Said):
    """What a prompt is answered with."""

    choices: list[Choice] = Field(min_length=1, max_length=1)


class Done(_Said):
    """Whether something was done."""

    success: bool


class Version(_Said):
    """The label of the server's weights."""

    weight_version: str


class _Nothing(_Said):
    """What only has to have worked."""


Kind = TypeVar("Kind", bound=_Said)


class Server:
    """The server at an address; `at_once` requests may be in flight."""

    def __init__(self, address: str, at_once: int) -> None:
        self.address = address.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between the machines of a cluster
        for scheme in ("http://", "https://"):
            self._session.mount(
                scheme, requests.adapters.HTTPAdapter(pool_maxsize=at_once, max_retries=AGAIN)
            )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def info(self) -> Info:
        """How it was started."""
        return self._asked("GET", "/server_info", Info, parameters={"config_format": "json"})

    def label(self) -> str:
        """The label of its weights."""
        return self._asked("GET", "/weight_info", Version).weight_version

    def read_weights(self, folder: str, label: str) -> None:
        """Have it read the weights in a folder that it sees, and label them.

        Before, so that who plays meanwhile notices; and after, should somebody else have done the same meanwhile.
        """
        self._labelled(label)
        read = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self._asked(
            "POST", "/collective_rpc", _Nothing, read, hint="it has to see that folder as this machine does"
        )
        if not self._asked("POST", "/reset_prefix_cache", Done).success:
            raise self.error("it kept keys and values of the weights before")
        self._labelled(label)

    def continued(self, prompt: Sequence[int], wanted: dict[str, Any]) -> Choice:
        """One prompt, continued as is wanted; words that look alike stay apart."""
        tokens = {"prompt": list(prompt), "return_token_ids": True, "return_tokens_as_token_ids": True}
        return self._asked("POST", "/v1/completions", Answer, {**tokens, **wanted}).choices[0]

    def _labelled(self, label: str) -> None:
        self._asked("POST", "/update_weight_version", _Nothing, {"new_version": label})

    def error(self, text: str) -> BadInput:
        """An error that says which server it is about."""
        return BadInput(f"vLLM server {self.address:.100}: {' '.join(text.split())}")

    def _asked(
        self,
        verb: str,
        path: str,
        kind: type[Kind],
        body: Any = None,
        parameters: dict[str, str] | None = None,
        hint: str = "",
    ) -> Kind:
        try:
            said = self._session.request(
                verb,
                self.address + path,
                json=body,
                params=parameters,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as error:
            raise self.error(f"no answer ({type(error).__name__}); `rlheals serve` starts one") from None
        if said.status_code == requests.codes.not_found:
            raise self.error(f"it has no {path}; `rlheals serve` starts one that has, of vLLM 0.30 for one")
        if not said.ok:
            raise self.error(f"{path}: {_message(said)}{hint and f' ({hint})'}")
        try:
            return kind.model_validate_json(said.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise self.error(f"{path}: {where} is not what vLLM says: {first['msg']}") from None


def _message(said: requests.Response) -> str:
    try:
        return str(said.json()["error"]["message"])[:SHOWN]
    except (ValueError, KeyError, TypeError):
        return f"status {said.status_code}"


MODULE = "vllm.entrypoints.openai.api_server"
"""`vllm serve` does not start where the package has another name, as the build for processors has."""


def command(
    model: str | Path,
    host: str,
    port: int,
    rows: int,
    positions: int | None,
    cache_gb: float | None,
    gpus: int,
    more: Sequence[str] = (),
) -> list[str]:
    """The command line of the server; more: options of vLLM's own, which come last and win."""
    folder = vllm_asking.local(model)
    config = vllm_asking.read_config(folder)
    vllm_asking.refuse_unfit(config, folder, str(model))
    chosen = vllm_asking.started_with(config, not torch.cuda.is_available(), rows, positions, cache_gb)
    listening = {"host": host, "port": port, "uvicorn_log_level": "warning"}
    options = {"model": folder.resolve(), **listening, "tensor_parallel_size": gpus, **chosen}
    return [sys.executable, "-m", MODULE, *_flags(options), *more]


def check(host: str, port: int) -> None:
    """BadInput when a server cannot start here."""
    if find_spec("vllm") is None:
        raise BadInput("serve: vLLM is not installed here; on a CUDA machine pip install -e '.[vllm]'")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise BadInput(f"serve: {host}:{port} cannot be used ({error.strerror})") from None


def become(command: Sequence[str]) -> NoReturn:
    """Become the server: signals and exit code are its own from here on."""
    sys.stdout.flush()
    environment = {**vllm_asking.QUIET, "VLLM_SERVER_DEV_MODE": "1", **os.environ}
    os.execve(command[0], list(command), environment)


def _flags(options: dict[str, object]) -> list[str]:
    """vLLM's command line calls a setting as Python does, with dashes.

    >>> _flags({"max_num_seqs": 8, "enforce_eager": True, "enable_chunked_prefill": False, "max_model_len": None})
    ['--max-num-seqs=8', '--enforce-eager', '--no-enable-chunked-prefill']
    """
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags.append(f"--{flag}={value}")
    return flags


SERVER = "RLHEALS_VLLM_SERVER"
"""The environment variable with the server's address: where episodes are played is no part of a run's settings."""

AT_ONCE = 256  # requests in flight, each of them one sequence


class Closing(Engine, Protocol):
    """An engine that is closed when it is not needed any more."""

    def close(self) -> None: ...


def open_vllm(folder: Path, rows: int, cache_gb: float | None = None) -> Closing:
    """vLLM for a model's folder: the server that the environment names, or an engine in this process."""
    if address := os.environ.get(SERVER):
        return ServedEngine(address, folder, rows)
    return VLLMEngine(folder, rows, cache_gb=cache_gb)


class ServedEngine(vllm_asking.Asking):
    """The weights in a folder, played by the vLLM server at an address.

    Processes that train `together` open theirs together: one of them brings the weights, all of them ask.
    """

    def __init__(self, address: str, folder: Path, rows: int = AT_ONCE) -> None:
        self.tokenizer = models.load_tokenizer(folder)
        self.config = vllm_asking.read_config(folder)
        self._at_once = min(rows, AT_ONCE)
        self._server = Server(address, self._at_once)
        self.positions = self._checked()
        vllm_asking.refuse_unfit(self.config, folder, str(folder))
        self._exchange(folder)

    def close(self) -> None:
        """Close the connections; the server goes on, with the weights that it got last."""
        self._server.close()

    def load_weights(self, file: Path) -> None:
        """Replace the weights by those of a safetensors file with the same names and shapes."""
        with self._alone(file) as folder:
            self._exchange(folder)

    def _continued(self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> list[Generation]:
        self._check_label()
        with ThreadPoolExecutor(self._at_once) as threads:
            made = list(threads.map(lambda one: self._server.continued(*one), asked))
        self._check_label()
        return [self._generation(choice) for choice in made]

    def _generation(self, choice: Choice) -> Generation:
        words, count = vllm_asking.words(self.config), len(choice.token_ids)
        own, others = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        if not len(own) == len(others) == count or not all(len(row) >= words for row in others):
            raise self._server.error(f"{count} tokens came without the log-probabilities that were asked for")
        rows = [list(row.values()) if words else [] for row in others]
        table = np.array([[value, *row] for value, row in zip(own, rows, strict=True)])
        return vllm_asking.generation(choice.token_ids, table.reshape(count, -1))

    def _exchange(self, folder: Path) -> None:
        """Give the server the weights in a folder."""
        self._label = sharded.of_first(uuid.uuid4().hex)
        if sharded.rank() == 0:
            self._server.read_weights(str(folder.resolve()), self._label)
        sharded.wait()

    def _check_label(self) -> None:
        if self._server.label() != self._label:
            raise self._server.error("its weights are another run's by now; a server plays for one at a time")

    def _checked(self) -> int:
        """The server's longest episode; BadInput when it would say something else than `VLLMEngine` does."""
        said = self._server.info().vllm_config
        wanted = vllm_asking.started_with(self.config, False, self._at_once, None, None)
        found = {**said.model.model_dump(), **said.load_config.model_dump()}
        found["dtype"] = found["dtype"].removeprefix("torch.")
        for name in ("logprobs_mode", "generation_config", "load_format", "dtype"):
            if found[name] != wanted[name]:
                raise self._server.error(
                    f"{name} is {found[name]!r:.60}, not {wanted[name]!r}; `rlheals serve` starts it as it has to be"
                )
        if 0 <= said.model.max_logprobs < wanted["max_logprobs"]:
            raise self._server.error(
                f"it gives {said.model.max_logprobs} log-probabilities per token, not {wanted['max_logprobs']}; "
                "`rlheals serve` starts it as it has to be"
            )
        if said.device_config.device == "cpu" and getattr(self.config, "tie_word_embeddings", False):
            raise self._server.error(
                "on a processor the output head of this model, which is tied to its embedding, would keep its old "
                f"weights; without {SERVER} vLLM plays in this process"
            )
        return said.model.max_model_len
