"""The executed copies of the notebooks that nbval compares, made anew: `python -m rlheals.book.references`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from rlheals.book import notebooks
from rlheals.chapters.registry import BEYOND, NOTEBOOKS
from rlheals.errors import BadInput
from rlheals.store.files import atomic_write

SOURCES = Path("notebooks")
COPIES = Path("tests/notebooks")
CHAPTERS = tuple(f"{name}.ipynb" for name in NOTEBOOKS)
SMALL = "small.yaml"
PROFILES = dict.fromkeys(CHAPTERS, SMALL) | {f"{name}.ipynb": "smoke" for name in (NOTEBOOKS[0], BEYOND)}
"""Of the copies: the first is compared with what `smoke` gave before; the checks of the others hold for any run."""


def in_repository() -> None:
    """BadInput in any other folder."""
    if not SOURCES.is_dir() or not COPIES.is_dir():
        raise BadInput(f"run this in the repository: {SOURCES} and {COPIES} have to be here")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the references anew: `chapters/smoke.json`, then the executed copies under `tests/notebooks`."""
    parser = argparse.ArgumentParser(prog="python -m rlheals.book.references", description=main.__doc__)
    parser.add_argument("--notebooks-only", action="store_true", help="leave smoke.json as it is")
    chosen = parser.parse_args(arguments)
    try:
        in_repository()
        if not chosen.notebooks_only:
            from rlheals.chapters import references

            references.make()
        for name in CHAPTERS:
            make_copy(SOURCES / name, COPIES / name)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def make_copy(source: Path, copy: Path) -> Path:
    """Execute a chapter from an empty store, in the folder of its copy.

    Outputs that nbval ignores are left out: the copy holds what is compared, and figures would only make it large.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RLHEALS_STORE"] = str(Path(scratch) / "store")
        given = {"profile": PROFILES[copy.name]}
        made = notebooks.execute(source, Path(scratch) / copy.name, given, cwd=copy.parent)
        executed = nbformat.read(made, as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "code" and "nbval-ignore-output" in cell.metadata.get("tags", []):
            cell.outputs = []
    executed.metadata.pop("widgets", None)
    atomic_write(copy, nbformat.writes(executed) + "\n")
    return copy


if __name__ == "__main__":
    sys.exit(main())
