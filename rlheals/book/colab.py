"""The top of every notebook: Colab badge, what it takes there, and the set-up cell.

`make tops` (`python -m rlheals.book.colab`) writes these two cells anew, with the address in `_config.yml` and the
package's version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rlheals import __version__
from rlheals.book.references import CHAPTERS, COPIES, SOURCES, in_repository
from rlheals.chapters.registry import AUDIT, BEYOND, EDITS, HEALING, LANGUAGE
from rlheals.errors import BadInput
from rlheals.store.files import atomic_write
from rlheals.yaml_file import read_yaml

PLACEHOLDER = "https://github.com/OWNER/"
"""Begins an address at which nothing of ours is: whoever has that name could put anything there."""
BADGE, INSTALL = "colab", "install"
"""Ids of the two cells."""

COST = {
    AUDIT: "nothing is trained, so no GPU is needed.",
    EDITS: "profile `lab` takes minutes and needs no GPU; profile `colab` edits no weights.",
    HEALING: "profile `lab` takes minutes and needs no GPU; profile `colab` compares no second stages.",
    BEYOND: "profile `lab` takes minutes and needs no GPU.",
    LANGUAGE: "what is recorded is drawn and nothing is computed.",
}
ANY_COST = (
    "profile `lab` takes minutes and needs no GPU; `colab` is made for a T4, where nobody has run it yet."
)


def badge(name: str, address: str) -> str:
    """The first cell: opens the notebook in Colab, and says what it takes there."""
    if address.startswith(PLACEHOLDER):
        return f"Not published yet, so without a link to Colab. There: {COST.get(name, ANY_COST)}"
    page = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    link = f"[![Open in Colab]({image})]({page}/blob/v{__version__}/notebooks/{name}.ipynb)"
    steps = f"Step by step: [On Colab]({address}/blob/v{__version__}/book/colab.md)."
    return f"{link}\n\nOn Colab: {COST.get(name, ANY_COST)} {steps}"


def install(address: str) -> str:
    """The set-up cell: where the package is missing, installs the notebook's own version and keeps torch."""
    here, needed = f"{address.rpartition('/')[2]}-v{__version__}", "metadata, util"
    source = f"""\
    _torch = "torch==" + metadata.version("torch")
    _source = "--branch v{__version__} {address}"
    !git clone --quiet --config advice.detachedHead=false --depth 1 {{_source}} {here}
    %pip install --quiet --constraint {here}/colab.txt {{_torch}} "./{here}[cluster,train]\""""
    if address.startswith(PLACEHOLDER):
        needed = "util"
        source = (
            '    raise RuntimeError("not published yet, so it is not known from where to install rlheals")'
        )
    return f"""\
# Where rlheals is missing, as on Colab, this installs the version that the notebook belongs to, and keeps torch.
from importlib import {needed}

if util.find_spec("rlheals") is None:
{source}

from rlheals.book import kernel

kernel.ready()  # says so if the session has to be restarted before it goes on"""


def address_of(config: Path) -> str:
    """The repository's address, from the book's configuration."""
    try:
        return str(read_yaml(config, str(config))["repository"]["url"]).rstrip("/")
    except (BadInput, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, BadInput) else type(error).__name__
        raise BadInput(f"{config}: has no repository.url ({reason})") from None


def main() -> int:
    """Write the cells into the notebooks and their executed copies."""
    import nbformat

    try:
        address = address_of(Path("_config.yml"))
        in_repository()
        for file in (folder / name for folder in (SOURCES, COPIES) for name in CHAPTERS):
            book = nbformat.read(file, as_version=4)
            made = {BADGE: badge(file.stem, address), INSTALL: install(address)}
            for cell in book.cells:
                cell.source = made.pop(cell.id, cell.source)
            if made:
                raise BadInput(f"{file}: has no cell with id {' or '.join(made)}")
            atomic_write(file, nbformat.writes(book) + "\n")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
