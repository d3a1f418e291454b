"""What a vLLM server is asked over HTTP, and what of its answers is believed: only data of the expected form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from urllib3 import Retry

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
