"""`rlheals serve`: a vLLM server that plays for runs on other GPUs."""

from __future__ import annotations

from typing import Annotated

import typer

from rlheals.cli.options import Json
from rlheals.cli.terminal import show

app = typer.Typer()


@app.command(epilog="Example: rlheals serve ./model --gpus 2 -- --gpu-memory-utilization 0.8")
def serve(
    model: Annotated[
        str, typer.Argument(help="A folder or hub id; any weights of the shape that is to be played.")
    ],
    host: Annotated[
        str,
        typer.Option("--host", help="Who may reach it; by default this machine only, for nobody is asked."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens.")] = 8000,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Sequences continued at a time.")] = 256,
    positions: Annotated[
        int | None, typer.Option("--positions", min=1, help="Longest episode; by default the model's.")
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option("--cache-gb", min=0.01, help="Memory for keys and values, in GiB.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs that hold one copy together.")] = 1,
    json: Json = False,
    more: Annotated[list[str] | None, typer.Argument(help="After --: options of vLLM's own.")] = None,
) -> None:
    """A vLLM server, until Ctrl-C. Runs with `engine: vllm` use it where RLHEALS_VLLM_SERVER is its address."""
    from rlheals.engines import vllm_server

    started = vllm_server.command(model, host, port, rows, positions, cache_gb, gpus, more or ())
    vllm_server.check(host, port)
    address = f"http://{host}:{port}"
    show({"address": address, "command": started}, lambda: [f"export {vllm_server.SERVER}={address}"], json)
    vllm_server.become(started)
