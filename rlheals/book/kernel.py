"""What a notebook's kernel needs before anything else is imported: fresh packages, errors on one line, Drive.

It imports next to nothing, so that a package that was replaced is noticed before it is used.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rlheals.errors import BadInput

DRIVE = Path("/content/drive")
"""Where Colab mounts Google Drive."""
EXTRAS = ("report", "train", "book")
"""What notebooks use beside the core."""


def ready() -> None:
    """Called by the set-up cell: BadInput when the kernel has to be restarted before it goes on.

    A kernel may have loaded a package before pip put another version in its place, as Colab's kernels load pandas.
    """
    show_bad_input_on_one_line()
    if old := replaced():
        raise BadInput(
            f"restart the kernel and run all cells again (on Colab: Runtime > Restart session and run all): "
            f"{', '.join(old)}; nothing is installed a second time"
        )


def replaced() -> list[str]:
    """Packages that ours needs and that are loaded in another version than the installed one."""
    found = []
    for name in needed():
        loaded = getattr(sys.modules.get(name.replace("-", "_")), "__version__", None)
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # loaded from elsewhere, such as PYTHONPATH
            continue
        # a local part, as in 2.11.0+cu128, stands in only one of the two
        if loaded is not None and str(loaded).partition("+")[0] != installed.partition("+")[0]:
            found.append(f"{name} {loaded} is loaded, {installed} is installed")
    return found


def needed() -> list[str]:
    """The packages that ours and its notebooks need, by name; none where ours is not installed as a package."""
    try:
        lines = importlib.metadata.requires("rlheals") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = (re.match(r"(?!rlheals\W)([\w.-]+)(?:.*extra == ['\"](\w+))?", line) for line in lines)
    return [match[1] for match in found if match and match[2] in (None, *EXTRAS)]


def show_bad_input_on_one_line() -> None:
    """Inside IPython, BadInput is an error of its own kind and text, without the traceback."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    def show(
        shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any
    ) -> list[str]:
        line = f"{kind.__name__}: {error}"
        shell._showtraceback(kind, error, [line])
        return [line]

    if (shell := get_ipython()) is not None:
        shell.set_custom_exc((BadInput,), show)


def mount_drive(folder: Path) -> None:
    """On Colab, mount Google Drive when a folder lies in it; BadInput when that is refused or fails."""
    if not Path(os.path.abspath(folder)).is_relative_to(DRIVE) or os.path.ismount(DRIVE):
        return
    try:
        from google.colab import drive
    except ImportError:  # another machine, where the name has no meaning
        return
    try:
        drive.mount(str(DRIVE))
    except (
        Exception
    ) as error:  # whatever the reason: on the session's own disk the runs would be lost with it
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"store {str(folder)!r}: Google Drive was not mounted ({said})") from None


def installed_from() -> Path | None:
    """The local folder that pip installed the package from, if it is still there: it holds the recorded study.

    pip notes the folder in `direct_url.json` beside the package; nothing is noted for a wheel from an index.
    """
    try:
        noted = importlib.metadata.distribution("rlheals").read_text("direct_url.json")
        url = urlsplit(str(json.loads(noted or "{}")["url"]))
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
    folder = Path(unquote(url.path))
    return folder if url.scheme == "file" and folder.is_dir() else None
