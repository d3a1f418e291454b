"""`rlheals serve`: become a vLLM server that says what our own engines say, for `vllm_server`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import torch

from rlheals import vllm_asking
from rlheals.errors import BadInput

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
