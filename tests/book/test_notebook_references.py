"""The nbval regression: the committed copies hold on this machine, and a broken package turns a named cell red."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mutations
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rlheals.book.references import CHAPTERS, PROFILES, SMALL
from rlheals.chapters.base import core
from rlheals.chapters.registry import CHAPTERS as PARTS
from rlheals.profiles import load_profile
from rlheals.project import STORE_FOLDER
from rlheals.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
COPIES = ROOT / "tests" / "notebooks"
COMPARED = {
    "01_sft_forgets.ipynb": {"exact", "shipped", "trained"},
    "02_rl_heals.ipynb": {"credit", "recovery"},
    "03_what_moves.ipynb": {"known-angles", "rotation"},
    "04_swapping_directions.ipynb": {"laws", "swaps"},
    "05_when_rl_heals.ipynb": {"healing"},
    "06_beyond_cards.ipynb": {"beyond"},
    "07_a_real_language_model.ipynb": set(),
    "audit.ipynb": {"audit"},
}
PRINTED = {"exact", "credit", "audit", "laws"}
FLIPPED = "a digit flipped"
BROKEN = {
    "swapped_rule": (("exact",), {"exact"}),
    "negated_reward": (("exact", "shipped"), {"exact", "shipped"}),
    "dropped_feedback": (("exact", "shipped", "credit"), {"shipped"}),
    "no_baseline": (("exact", "credit"), {"credit"}),
}
"""What is broken: the cells that are run then, and those that turn red."""

pytestmark = pytest.mark.slow


def code_cells(notebook: Path) -> list[Any]:
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def flipped() -> list[Any]:
    """A copy's cell with one digit of its output changed."""
    (cell,) = (cell for cell in code_cells(COPIES / CHAPTERS[0]) if cell.metadata.get("name") == "exact")
    data = cell.outputs[0].data
    assert data["text/plain"].count(" 796,") == 1
    data["text/plain"] = data["text/plain"].replace(" 796,", " 797,")
    return [new_code_cell("from rlheals.chapters import checks"), cell]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the runs that the notebooks show: what `make book` has left here, or a new one."""
    here = ROOT / STORE_FOLDER
    folder = here if (here / "runs").is_dir() else tmp_path_factory.mktemp("store")
    wanted: dict[str, list[Any]] = {}
    for one in PARTS.values():
        wanted.setdefault(PROFILES[f"{one.notebook}.ipynb"], []).append(one.chapter)
    for profile, chapters in wanted.items():
        name = str(COPIES / profile) if profile == SMALL else profile
        core(chapters, load_profile(name), results=ROOT / "results", store=Store(folder), quiet=True)
    return folder


@pytest.fixture(scope="module")
def green(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bool]:
    """nbval's word on every code cell of the copies, by notebook and the cell's name (or number).

    The copies are run one after the other in one kernel, whose variables are deleted in between.
    """
    project = tmp_path_factory.mktemp("project")
    (project / "notebooks").mkdir()
    (project / "results").symlink_to(ROOT / "results")
    shutil.copy(COPIES / SMALL, project / "notebooks")
    books = {name: code_cells(COPIES / name) for name in COMPARED} | {FLIPPED: flipped()}
    places, cells = [], []
    for name, mine in books.items():
        cells += [new_code_cell("%reset -f"), *mine]
        places += [
            (name, "reset"),
            *((name, cell.metadata.get("name", str(at))) for at, cell in enumerate(mine)),
        ]
    joined, report = project / "notebooks" / "joined.ipynb", project / "report.xml"
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    nbformat.write(new_notebook(cells=cells), joined)
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
    ]
    environment = {**os.environ, "RLHEALS_STORE": str(store), "IPYTHONDIR": str(project / "ipython")}
    done = subprocess.run(
        [*command, joined], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        assert all("Cell outputs differ" in (child.text or "") for child in trouble), done.stdout
        found[places[int(case.attrib["name"].removeprefix("Cell "))]] = not trouble
    assert len(found) == len(cells)
    return found


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_copy_is_of_todays_notebook(name: str) -> None:
    """Else run `make references`, and say in the commit what changed."""
    source = [cell.source for cell in code_cells(ROOT / "notebooks" / name)]
    copy = [
        cell.source
        for cell in code_cells(COPIES / name)
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    assert copy == source


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_copies_hold_what_is_compared_and_all_of_it_is_inside(name: str) -> None:
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
        assert cell in PRINTED or text.count("inside") >= 5
    assert (COPIES / name).stat().st_size < 100_000


def test_the_copies_hold_on_this_machine_and_a_flipped_digit_turns_its_cell_red(
    green: dict[tuple[str, str], bool],
) -> None:
    assert {(name, cell) for name, cells in COMPARED.items() for cell in cells} <= green.keys()
    assert [place for place, fine in green.items() if not fine] == [(FLIPPED, "exact")]


@pytest.fixture(scope="module")
def broken() -> dict[str, dict[str, str]]:
    """By what is broken, what cells show then; each in a process that has imported nothing of ours yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "pandas", "scipy.stats"])
    asked = [(mutation, cells) for mutation, (cells, _) in BROKEN.items()]
    with context.Pool(1, maxtasksperchild=1) as pool:
        return dict(zip(BROKEN, pool.starmap(mutations.shown, asked, chunksize=1), strict=True))


@pytest.mark.parametrize("mutation", BROKEN)
def test_a_broken_package_turns_named_cells_red(mutation: str, broken: dict[str, dict[str, str]]) -> None:
    """A cell is red where it shows something else than the copy holds, as of the flipped digit."""
    stored = {
        cell.metadata.get("name"): cell.outputs[0].data["text/plain"]
        for name in CHAPTERS
        for cell in code_cells(COPIES / name)
        if cell.outputs
    }
    shown, (_, red) = broken[mutation], BROKEN[mutation]
    assert {cell for cell, text in shown.items() if text != stored[cell]} == red
