"""The nbval regression: the committed copies hold on this machine, and a broken package turns a named cell red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from rlheals.book.references import NEED_NO_RUNS, TRIMMED
from rlheals.project import STORE_FOLDER

ROOT = Path(__file__).resolve().parents[2]
COPIES = ROOT / "tests" / "notebooks"
COMPARED = {
    "01_sft_forgets.ipynb": {"exact", "shipped", "trained"},
    "02_rl_heals.ipynb": {"credit", "recovery"},
    "03_what_moves.ipynb": {"known-angles", "rotation"},
    "04_swapping_directions.ipynb": {"laws", "swaps"},
    "audit.ipynb": {"audit"},
    TRIMMED: set(NEED_NO_RUNS),
}
CHAPTERS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
PRINTED = {"exact", "credit", "audit", "laws"}

pytestmark = pytest.mark.slow


def code_cells(notebook: Path) -> list:
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def nbval(copy: Path, tmp_path: Path, store: Path, mutation: str | None = None) -> dict[str, bool]:
    """Run nbval on a copy; for each code cell by name (or number), whether it is green."""
    report, ipython = tmp_path / "report.xml", tmp_path / "ipython"
    environment = {
        **os.environ,
        "RLHEALS_STORE": str(store),
        "IPYTHONDIR": str(ipython),
        "OMP_NUM_THREADS": "1",
    }
    if mutation is not None:
        startup = ipython / "profile_default" / "startup"
        startup.mkdir(parents=True)
        shutil.copy(COPIES / "mutations.py", startup / "00-mutations.py")
        environment["RLHEALS_MUTATION"] = mutation
    options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={COPIES / 'sanitize.cfg'}"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *options,
        copy,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cells, green = code_cells(copy), {}
    for case in ElementTree.parse(report).iter("testcase"):
        number = int(case.attrib["name"].removeprefix("Cell "))
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        assert all("Cell outputs differ" in (child.text or "") for child in trouble), done.stdout
        green[cells[number].metadata.get("name", str(number))] = not trouble
    assert len(green) == len(cells)
    return green


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make book` has computed here with the same code, or an empty store that the notebooks share."""
    made = ROOT / STORE_FOLDER
    return made if made.is_dir() else tmp_path_factory.mktemp("store")


def cut(tmp_path: Path, *names: str) -> Path:
    """The trimmed copy with some of its cells only."""
    book = nbformat.read(COPIES / TRIMMED, as_version=4)
    book.cells = [cell for cell in book.cells if cell.metadata.name in ("setup", *names)]
    assert len(book.cells) == 1 + len(names)
    nbformat.write(book, tmp_path / "cut.ipynb")
    return tmp_path / "cut.ipynb"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_copy_is_of_todays_notebook(name):
    """Else run `make references`, and say in the commit what changed."""
    source = [cell.source for cell in code_cells(ROOT / "notebooks" / name)]
    copy = [
        cell.source
        for cell in code_cells(COPIES / name)
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    assert copy == source


@pytest.mark.parametrize("name", [*CHAPTERS, TRIMMED])
def test_the_copies_hold_what_is_compared_and_all_of_it_is_inside(name):
    compared = {
        cell.metadata.get("name"): cell.outputs
        for cell in code_cells(COPIES / name)
        if "nbval-ignore-output" not in cell.metadata.get("tags", []) and cell.outputs
    }
    assert set(compared) == COMPARED[name]
    for cell, outputs in compared.items():
        (output,) = outputs
        text = output.data["text/plain"]
        assert "outside" not in text
        assert "not compared" not in text
        assert cell in PRINTED or text.count("inside") >= 6
    assert (COPIES / name).stat().st_size < 100_000


@pytest.mark.parametrize("name", [*CHAPTERS, TRIMMED])
def test_the_copy_holds_on_this_machine(name: str, tmp_path: Path, store: Path) -> None:
    green = nbval(COPIES / name, tmp_path, store)
    assert COMPARED[name] <= green.keys()
    assert all(green.values()), sorted(cell for cell, fine in green.items() if not fine)


def test_a_flipped_digit_in_the_copy_turns_its_cell_red(tmp_path: Path) -> None:
    copy = cut(tmp_path, "exact")
    text = copy.read_text()
    assert text.count(" 796,") == 1
    copy.write_text(text.replace(" 796,", " 797,"))
    assert nbval(copy, tmp_path, tmp_path / "store") == {"setup": True, "exact": False}


@pytest.mark.parametrize(
    ("mutation", "cells", "red"),
    [
        ("swapped_rule", ("exact",), {"exact"}),
        ("negated_reward", ("exact", "shipped"), {"exact", "shipped"}),
        ("dropped_feedback", ("exact", "shipped", "credit"), {"shipped"}),
        ("no_baseline", ("exact", "credit"), {"credit"}),
    ],
)
def test_a_broken_package_turns_a_named_cell_red(
    tmp_path: Path, mutation: str, cells: tuple[str, ...], red: set[str]
) -> None:
    green = nbval(cut(tmp_path, *cells), tmp_path, tmp_path / "store", mutation)
    assert {name for name, fine in green.items() if not fine} == red
