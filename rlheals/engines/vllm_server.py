"""vLLM's own OpenAI-compatible server, which `rlheals serve` starts (`vllm_serve`), asked over HTTP as an engine.

Token ids in and out, a seed per request, weights exchanged from a folder that the server sees. What it answers is
believed only where it has the expected form; its label of the weights is checked before and after every batch.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AliasPath, BaseModel, Field, ValidationError
from pydantic_core import from_json
from urllib3 import HTTPConnectionPool, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util import parse_url

from rlheals.engines import fsdp, models, vllm
from rlheals.engines.hf import Engine, Generation, Opens
from rlheals.errors import BadInput

SERVER = "RLHEALS_VLLM_SERVER"
"""The environment variable with the server's address: where episodes are played is no part of a run's settings."""
TOKEN = "RLHEALS_VLLM_TOKEN"
"""The environment variable, at both ends, with what a server on a port asks for."""
AT_ONCE = 256  # requests in flight, each of them one sequence
CONNECT = 10.0  # seconds to reach the server
DEADLINE = 1200.0  # seconds for an answer with all tries, which may wait for others
LARGEST = 64_000_000  # bytes of an answer, which is not decompressed
PAUSES = (0.2, 0.4)
"""Seconds before it is asked again: a server closes connections that were idle while a model learnt. Whatever is asked
may be asked twice."""

LogProbability = Annotated[float, Field(le=1e-3, allow_inf_nan=False)]
"""Rounding may leave a certain token a little above 0; vLLM says -9999 for what is impossible."""


def _at(first: str, *more: str | int) -> Any:
    """A value inside a server's answer."""
    return Field(validation_alias=AliasPath(first, *more))


class _Continuation(BaseModel, strict=True):
    token_ids: list[int] = _at("choices", 0, "token_ids")
    finish_reason: Literal["stop", "length"] = _at("choices", 0, "finish_reason")
    own: list[LogProbability] = _at("choices", 0, "logprobs", "token_logprobs")
    others: list[dict[str, LogProbability]] = _at("choices", 0, "logprobs", "top_logprobs")


class _Info(BaseModel, strict=True):
    """How the server was started."""

    logprobs_mode: str = _at("vllm_config", "model_config", "logprobs_mode")
    generation_config: str = _at("vllm_config", "model_config", "generation_config")
    dtype: str = _at("vllm_config", "model_config", "dtype")
    max_logprobs: int = _at("vllm_config", "model_config", "max_logprobs")
    max_model_len: int = _at("vllm_config", "model_config", "max_model_len")
    load_format: str = _at("vllm_config", "load_config", "load_format")
    device: str | None = _at("vllm_config", "device_config", "device")


class _Done(BaseModel, strict=True):
    success: bool


class _Version(BaseModel, strict=True):
    weight_version: str


class _Anything(BaseModel):
    """What only has to have worked."""


Kind = TypeVar("Kind", bound=BaseModel)


@contextmanager
def closing_vllm(cache_gb: float | None = None) -> Iterator[Opens]:
    """Opens vLLM for a model's folder: the server that the environment names, or an engine in this process.

    What was opened is closed at the end. cache_gb: as of `VLLMEngine`.
    """
    with ExitStack() as engines:

        def opens(folder: Path, rows: int, precision: models.Precision) -> Engine:
            if precision != "own":
                raise BadInput(
                    f"precision={precision} is for engine=hf; vLLM multiplies as the weights are stored"
                )
            if address := os.environ.get(SERVER):
                return engines.enter_context(closing(ServedEngine(address, folder, rows)))
            return engines.enter_context(closing(vllm.VLLMEngine(folder, rows, cache_gb=cache_gb)))

        yield opens


class _UntilThen(socket.socket):
    """A socket that reads until a moment, however many reads that takes."""

    end = float("inf")

    def recv_into(self, *into: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(None if left == float("inf") else left)
        return super().recv_into(*into)


class _Connection(HTTPConnection):
    """To a port, or to a unix socket; the time for reading is that of the whole answer."""

    def __init__(self, *given: Any, path: str | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self._path = path

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            made = self.sock
        else:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(self.timeout)
            try:
                made.connect(self._path)
            except OSError as error:
                made.close()
                raise NewConnectionError(self, str(error)) from error
        self.sock = _UntilThen(made.family, made.type, made.proto, fileno=made.detach())
        self.sock.settimeout(self.timeout)

    def getresponse(self) -> Any:
        sock: Any = self.sock
        sock.end = time.monotonic() + (self.timeout or DEADLINE)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


def _pool(address: str, size: int) -> HTTPConnectionPool:
    """Connections to http://HOST:PORT or unix:PATH; LocationParseError for anything else. Proxies are not asked."""
    if address.startswith("unix:/"):
        return _Pool("localhost", maxsize=size, path=address.removeprefix("unix:"))
    where = parse_url(address)
    if where.scheme != "http" or not where.host or where.path or where.query or where.auth:
        raise LocationParseError(address)
    return _Pool(where.host, where.port, maxsize=size)


class ServedEngine(vllm.Asking):
    """The weights in a folder, played by the vLLM server at an address.

    Processes that train together open theirs together: one of them brings the weights, all of them ask.
    """

    def __init__(self, address: str, folder: Path, rows: int = AT_ONCE) -> None:
        self.address = address.rstrip("/")
        self.tokenizer = models.load_tokenizer(folder)
        folder, self.config = vllm.described(folder)
        self._at_once = min(rows, AT_ONCE)
        try:
            self._connections = _pool(self.address, self._at_once)
        except LocationParseError:
            raise self._error(
                "is neither http://HOST:PORT nor unix:/PATH; `rlheals serve` starts one and says where"
            ) from None
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token := os.environ.get(TOKEN):
            self._headers["Authorization"] = f"Bearer {token}"
        self.positions = self._checked()
        self._exchange(folder)

    def close(self) -> None:
        """Close the connections; the server goes on, with the weights that it got last."""
        self._connections.close()

    def load_weights(self, file: Path) -> None:
        """Replace the weights by those of a safetensors file with the same names and shapes."""
        with self._alone(file) as folder:
            self._exchange(folder)

    def _continued(self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> list[Generation]:
        self._check_label()
        with ThreadPoolExecutor(self._at_once) as threads:
            made = list(threads.map(lambda one: self._completed(*one), asked))
        self._check_label()
        return made

    def _completed(self, prompt: Sequence[int], wanted: dict[str, Any]) -> Generation:
        """One prompt, continued as is wanted; words that look alike stay apart."""
        tokens = {"prompt": list(prompt), "return_token_ids": True, "return_tokens_as_token_ids": True}
        said = self._call("POST", "/v1/completions", _Continuation, {**tokens, **wanted})
        words, count, size = vllm.words(self.config), len(said.token_ids), vllm.vocabulary(self.config)
        if not len(said.own) == len(said.others) == count or any(len(row) < words for row in said.others):
            raise self._error(f"{count} tokens came without the log-probabilities that were asked for")
        if count == 0 or (said.finish_reason == "length" and count < wanted["max_tokens"]):
            raise self._error(f"an answer was cut at {count} of {wanted['max_tokens']} tokens")
        if count > wanted["max_tokens"] or not all(0 <= token < size for token in said.token_ids):
            raise self._error(f"{count} tokens came that nobody asked for, or that the model does not have")
        rows = [
            [value, *(row.values() if words else ())]
            for value, row in zip(said.own, said.others, strict=True)
        ]
        return vllm.generation(said.token_ids, np.array(rows).reshape(count, -1))

    def _exchange(self, folder: Path) -> None:
        """Give the server the weights in a folder, labelled.

        Before, so that who plays meanwhile notices; and after, should somebody else have done the same meanwhile.
        """
        self._label = fsdp.of_first(uuid.uuid4().hex)
        if fsdp.rank() == 0:
            label = {"new_version": self._label}
            read = {"method": "reload_weights", "kwargs": {"weights_path": str(folder.resolve())}}
            hint = " (it has to see that folder as this machine does)"
            self._call("POST", "/update_weight_version", _Anything, label)
            self._call("POST", "/collective_rpc", _Anything, read, hint)
            if not self._call("POST", "/reset_prefix_cache", _Done).success:
                raise self._error("it kept keys and values of the weights before")
            self._call("POST", "/update_weight_version", _Anything, label)
        fsdp.wait()

    def _check_label(self) -> None:
        if self._call("GET", "/weight_info", _Version).weight_version != self._label:
            raise self._error("its weights are another run's by now; a server plays for one at a time")

    def _checked(self) -> int:
        """The server's longest episode; BadInput when it would say something else than `VLLMEngine` does."""
        said = self._call("GET", "/server_info?config_format=json", _Info)
        wanted = vllm.started_with(self.config, False, self._at_once, None, None)
        found = {**said.model_dump(), "dtype": said.dtype.removeprefix("torch.")}
        as_it_has_to_be = "`rlheals serve` starts it as it has to be"
        for name in ("logprobs_mode", "generation_config", "load_format", "dtype"):
            if found[name] != wanted[name]:
                raise self._error(f"{name} is {found[name]!r:.60}, not {wanted[name]!r}; {as_it_has_to_be}")
        if 0 <= said.max_logprobs < wanted["max_logprobs"]:
            few = f"it gives {said.max_logprobs} log-probabilities per token"
            raise self._error(f"{few}, not {wanted['max_logprobs']}; {as_it_has_to_be}")
        if said.device == "cpu" and getattr(self.config, "tie_word_embeddings", False):
            raise self._error(
                "on a processor the output head of this model, which is tied to its embedding, would keep its old "
                f"weights; without {SERVER} vLLM plays in this process"
            )
        return said.max_model_len

    def _error(self, text: str) -> BadInput:
        return BadInput(f"vLLM server {self.address:.100}: {' '.join(text.split())}")

    def _call(self, verb: str, path: str, kind: type[Kind], body: Any = None, hint: str = "") -> Kind:
        end = time.monotonic() + DEADLINE
        try:
            status, content = self._content(verb, path, body, end)
        except BadInput:
            raise
        except ReadTimeoutError:
            raise self._error(f"{path}: no whole answer within {DEADLINE:g} seconds") from None
        except (HTTPError, OSError, ValueError) as error:
            raise self._error(f"no answer ({type(error).__name__}); `rlheals serve` starts one") from None
        path = path.partition("?")[0]
        if status in (401, 403):
            raise self._error(f"it asks for the token that `rlheals serve` said; export {TOKEN}=...")
        if status == 404:
            raise self._error(f"it has no {path}; `rlheals serve` starts one that has, of vLLM 0.30 for one")
        if status != 200:
            raise self._error(f"{path}: {_message(status, content)}{hint}")
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise self._error(f"{path}: {where} is not what vLLM says: {first['msg']}") from None

    def _content(self, verb: str, path: str, body: Any, end: float) -> tuple[int, bytes]:
        """Status and body of an answer, asked for again where a connection is cut."""
        for pause in PAUSES:
            try:
                return self._once(verb, path, body, end)
            except (NewConnectionError, ProtocolError):
                time.sleep(pause)
        return self._once(verb, path, body, end)

    def _once(self, verb: str, path: str, body: Any, end: float) -> tuple[int, bytes]:
        content = bytearray()
        said = self._connections.urlopen(
            verb,
            path,
            None if body is None else json.dumps(body),
            self._headers,
            retries=False,
            redirect=False,
            timeout=Timeout(connect=CONNECT, read=max(0.01, end - time.monotonic())),
            preload_content=False,
            decode_content=False,
        )
        try:
            while piece := said.read1(65_536):
                content += piece
                if len(content) > LARGEST:
                    raise self._error(f"{path}: an answer of over {LARGEST:,} bytes")
        except BaseException:
            said.close()  # what is left of it would be taken for the next answer
            raise
        said.release_conn()
        return said.status, bytes(content)


def _message(status: int, content: bytes) -> str:
    try:
        return str(from_json(content)["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
