"""`rlheals serve`: a vLLM server that generates for runs on other GPUs."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option, Typer

from rlheals.cli.options import Json
from rlheals.cli.terminal import show

app = Typer()


@app.command(epilog="Example: rlheals serve ./model --gpus 2 -- --gpu-memory-utilization 0.8")
def serve(
    model: Annotated[str, Argument(help="A folder or hub id; any weights of the shape to be served.")],
    host: Annotated[str, Option(help="Who may reach it, without being asked who they are.")] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535, help="Where it listens.")] = 8000,
    rows: Annotated[int, Option(min=1, help="Sequences continued at a time.")] = 256,
    positions: Annotated[int | None, Option(min=1, help="Longest episode; by default the model's.")] = None,
    cache_gb: Annotated[float | None, Option(min=0.01, help="Memory for keys and values, in GiB.")] = None,
    gpus: Annotated[int, Option(min=1, help="GPUs that hold one copy together.")] = 1,
    json: Json = False,
    more: Annotated[list[str] | None, Argument(help="After --: options of vLLM's own.")] = None,
) -> None:
    """A vLLM server, until Ctrl-C. Runs with `engine: vllm` use it where RLHEALS_VLLM_SERVER is its address."""
    from rlheals.engines import vllm_server as server

    started = server.command(model, host, port, rows, positions, cache_gb, gpus, more or ())
    server.check(host, port)
    address = f"http://{host}:{port}"
    show({"address": address, "command": started}, lambda: [f"export {server.SERVER}={address}"], json)
    server.become(started)
