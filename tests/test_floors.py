"""The rooms: arrows only downward, no circles, few files at the top, little code behind a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from rlheals.store.code_hash import snapshot
from rlheals.store.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
MOST_BEHIND_RL = 22
MOST_AT_THE_TOP = 12


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("rlheals", cache_dir=None)


def test_the_contracts_of_pyproject_hold() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    """Imports inside functions count: whoever reads one file must not need the files that need it."""
    circles = {
        name: sorted(graph.find_shortest_chain(imported, name) or ())
        for name in graph.modules
        for imported in graph.find_modules_directly_imported_by(name)
        if graph.chain_exists(imported, name)
    }
    assert not circles


def test_few_files_lie_outside_of_rooms_and_little_code_is_behind_rl() -> None:
    """Folders without code of their own do not count, nor does the code of the task that is played."""
    behind = [name for name in snapshot([STAGES["rl"]]).modules if not _only_says_what_it_is(name)]
    assert len(behind) <= MOST_BEHIND_RL, behind
    assert len(list((ROOT / "rlheals").glob("*.py"))) <= MOST_AT_THE_TOP


def _only_says_what_it_is(name: str) -> bool:
    file = ROOT.joinpath(*name.split("."), "__init__.py")
    return file.is_file() and file.read_text(encoding="utf-8").count("\n") <= 1
