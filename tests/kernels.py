"""A notebook's cells, run one after the other in a kernel of any Python, as a reader would run them."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import nbformat
from jupyter_client import KernelManager

SECONDS = 900


@dataclass
class Ran:
    """What a cell printed and showed, and the error that ended it, if any."""

    text: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None

    @property
    def seen(self) -> str:
        """Everything shown, as text and HTML."""
        return self.text + "".join(str(one.get("text/html", one.get("text/plain", ""))) for one in self.shown)


class Session:
    """A kernel in a folder; as a context it is ended at last."""

    def __init__(
        self, folder: Path, environment: dict[str, str], python: str | Path = sys.executable
    ) -> None:
        self.manager = KernelManager()
        command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.kernel_spec.argv = command
        self.manager.start_kernel(cwd=str(folder), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        self.pid = int(self.run("import os; os.getpid()").shown[-1]["text/plain"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def begin(self, source: str) -> None:
        """Start a cell and do not wait for it."""
        self.client.execute(source)

    def run(self, source: str) -> Ran:
        """Run a cell to its end, or to its error."""
        ran = Ran()

        def hook(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                ran.text += content["text"]
            elif kind in ("display_data", "execute_result"):
                ran.shown.append(content["data"])
            elif kind == "error":
                ran.error = content

        self.client.execute_interactive(source, timeout=SECONDS, output_hook=hook)
        return ran

    def kill(self) -> None:
        """End the kernel and all that it has started at once, as a machine that is gone."""
        os.killpg(os.getpgid(self.pid), signal.SIGKILL)


def code_cells(notebook: Path) -> dict[str, str]:
    """The sources of a notebook's code cells by id, in order."""
    cells = nbformat.read(notebook, as_version=4).cells
    return {cell.id: cell.source for cell in cells if cell.cell_type == "code"}
