"""How vLLM's own server is started: `rlheals serve`.

Who reaches it can exchange its weights and have it read any folder. So it listens on a unix socket in a folder of its
own that only this user may enter, or on a port where every request has to bring a token.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

import torch

from rlheals.engines import vllm
from rlheals.engines.vllm_server import SERVER, TOKEN
from rlheals.errors import BadInput

SOCKET_NAME = 107
"""Bytes of a socket's path that Linux takes; macOS takes 103."""
MODULE = "vllm.entrypoints.openai.api_server"
"""`vllm serve` does not start where the package has another name, as the build for processors has."""


@dataclass(frozen=True)
class Place:
    """Where a server listens: on a unix socket, or on a port, where it wants a token."""

    options: dict[str, Any]
    address: str
    token: str = ""
    warning: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What whoever asks it has to export."""
        return {SERVER: self.address, **({TOKEN: self.token} if self.token else {})}


def place(host: str | None, port: int | None) -> Place:
    """A new socket in a folder that only this user may enter; with a host or a port, those, and a token.

    BadInput when a server cannot listen there.
    """
    if host is None and port is None:
        path = Path(tempfile.gettempdir()).absolute() / f"rlheals-{secrets.token_hex(8)}" / "vllm"
        if len(os.fsencode(path)) > SOCKET_NAME:
            raise BadInput(f"serve: {str(path.parent.parent)!r:.200} is too long for a socket; set TMPDIR")
        return Place({"uds": path}, f"unix:{path}")
    host, port = host or "127.0.0.1", port or 8000
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise BadInput(f"serve: {host}:{port} cannot be used ({error.strerror})") from None
    warning = (
        ""
        if ip_address(str(found[0]).partition("%")[0]).is_loopback
        else (f"other machines reach {host}, and what is sent there is not encrypted, the token neither")
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    options = {"host": host, "port": port, "middleware": f"{__name__}.{Guard.__name__}"}
    return Place(options, address, os.environ.get(TOKEN) or secrets.token_urlsafe(32), warning)


Message = MutableMapping[str, Any]


class Guard:
    """For the server: requests without the token end here, whatever they ask for (ASGI)."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ[TOKEN]}".encode()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})


def command(
    model: str | Path,
    at: Place,
    rows: int,
    positions: int | None,
    cache_gb: float | None,
    gpus: int,
    more: Sequence[str] = (),
) -> list[str]:
    """The command line of the server; more: options of vLLM's own, which come last and win."""
    folder, config = vllm.described(model)
    options = {
        "model": folder.resolve(),
        **at.options,
        "allowed_origins": "[]",  # no page in a browser is meant to ask it
        "uvicorn_log_level": "warning",
        "tensor_parallel_size": gpus,
        **vllm.started_with(config, not torch.cuda.is_available(), rows, positions, cache_gb),
    }
    return [sys.executable, "-m", MODULE, *_flags(options), *more]


def check() -> None:
    """BadInput when a server cannot start here."""
    if find_spec("vllm") is None:
        raise BadInput("serve: vLLM is not installed here; on a CUDA machine pip install -e '.[vllm]'")


def become(command: Sequence[str], at: Place) -> NoReturn:
    """Become the server: signals and exit code are its own from here on."""
    sys.stdout.flush()
    if "uds" in at.options:
        at.options["uds"].parent.mkdir(0o700)
    own = {**vllm.QUIET, "VLLM_SERVER_DEV_MODE": "1", **os.environ, **at.environment}
    os.execve(command[0], list(command), own)


def _flags(options: dict[str, object]) -> list[str]:
    """vLLM's command line calls a setting as Python does, with dashes.

    >>> _flags({"max_num_seqs": 8, "enforce_eager": True, "enable_chunked_prefill": False, "max_model_len": None})
    ['--max-num-seqs=8', '--enforce-eager', '--no-enable-chunked-prefill']
    """
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return [
        f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}"
        for flag, value in given.items()
    ]
