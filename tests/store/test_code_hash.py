"""The code hash: what a stage runs decides it, what a stage does not run never does."""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rlheals
from rlheals.errors import BadInput
from rlheals.store.code_hash import Code, snapshot
from rlheals.store.stages import STAGES

ROOT = Path(rlheals.__file__).parents[1]
ABOVE = {"cli", "book", "publish", "planning", "chapters", "study", "profiles"}
Files = dict[str, str]
Make = Callable[[Files], "Toy"]
_numbers = itertools.count()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a package of the given files (``PKG`` stands for its name) on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: Files) -> Toy:
        toy = Toy(tmp_path / f"toy_sources_{next(_numbers)}")
        for relative, text in {"__init__.py": "", **files}.items():
            toy.edit(relative, textwrap.dedent(text))
        importlib.invalidate_caches()
        return toy

    return write


class Toy:
    """A package whose module ``stage`` is hashed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name

    def edit(self, relative: str, text: str) -> None:
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PKG", self.name), encoding="utf-8")
        later = (
            path.stat().st_mtime_ns + next(_numbers) * 1_000_000
        )  # two edits within a tick of the file clock
        os.utime(path, ns=(later, later))

    def code(self) -> Code:
        return snapshot([f"{self.name}.stage"], self.name)

    def hash(self) -> str:
        return self.code().hash


FORMS = {
    "import a.b as c": "import PKG.low as low",
    "from a import module": "from PKG import low",
    "relative name": "from .low import value",
    "star": "from PKG.low import *",
    "in a function, in a branch": "def run():\n    if True:\n        from PKG.low import value\n    return value",
    "through a sub-package, relative from below": "import PKG.sub.deep.climber",
}
REST = {
    "low.py": "value = 1\n",
    "high.py": "from .low import value\n",
    "sub/__init__.py": "from ..high import value as thing\n",
    "sub/deep/__init__.py": "",
    "sub/deep/leaf.py": "",
    "sub/deep/climber.py": "from ...low import value\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_behind_any_import_form_changes_the_hash(form: str, make: Make) -> None:
    toy = make({**REST, "stage.py": FORMS[form]})
    before = toy.hash()
    toy.edit("low.py", "value = 3\n")
    assert toy.hash() != before


def enumerated(module: str) -> list[str]:
    """The same closure, read from the syntax trees by hand; the package's own imports are all absolute."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        place = ROOT.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if name in found or not name.startswith("rlheals") or not file.is_file():
            continue
        found.add(name)
        waiting.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.module
                assert not node.level
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_code_behind_a_stage_is_all_that_it_imports_and_nothing_above_it(stage: str) -> None:
    """Otherwise an edit of a figure makes the recorded study stale."""
    found = snapshot([STAGES[stage]]).modules
    assert found == enumerated(STAGES[stage])
    assert not ABOVE & {module.split(".")[1] for module in found if "." in module}


def test_python_loads_nothing_that_is_not_counted() -> None:
    program = (
        "import sys, rlheals.store.store; print(*(m for m in sys.modules if m.split('.')[0] == 'rlheals'))"
    )
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "rlheals.store.cleanup" in loaded
    assert set(loaded.split()) <= set(snapshot(["rlheals.store.store"]).modules)


STAGE = '''
"""What it does."""
from PKG.low import value

class Thing:
    """A thing."""

    size: int = 1
    """How large."""

def run(x: int, *, y: str = "a") -> float:
    """Runs."""
    # why
    return value * (x + 1) if y == "a" else f"{x}!"

def nothing():
    """Only text."""
'''
SAME = '''# a licence line
from PKG.low import (
    value,
)


class Thing:
    size: int = 1


def run(
    x: int,
    *,
    y: str = 'a',
) -> float:
    """Says something else, at
    length."""
    return (value * (x + 1)) if y == "a" else f"{x}!"


def nothing():
    pass  # really
'''
OTHER = {
    "a constant": ("x + 1", "x + 2"),
    "the type of a constant": ("x + 1", "x + 1.0"),
    "an operator": ("value * (x", "value / (x"),
    "brackets that matter": ("(x + 1)", "x + 1"),
    "a default": ('y: str = "a"', 'y: str = "b"'),
    "a name": ("size", "weight"),
    "a text that is used": ('{x}!"', '{x}?"'),
    "an annotation": ("-> float", "-> str"),
    "an added statement": ("    # why\n", "    x += 0\n"),
    "keyword-only": ("*, y", "y"),
}


def test_comments_docstrings_and_layout_do_not_count(make: Make) -> None:
    toy = make({"stage.py": STAGE, "low.py": "value = 1\n"})
    before = toy.hash()
    toy.edit("stage.py", SAME)
    toy.edit("low.py", '"""New words."""\nvalue    =    1  # one\n')
    assert toy.hash() == before


@pytest.mark.parametrize("what", OTHER)
def test_any_change_of_code_counts(what: str, make: Make) -> None:
    toy = make({"stage.py": STAGE, "low.py": "value = 1\n"})
    before = toy.hash()
    old, new = OTHER[what]
    assert STAGE.count(old) >= 1
    toy.edit("stage.py", STAGE.replace(old, new))
    assert toy.hash() != before


def test_packages_on_the_way_and_modules_that_appear_count_and_what_is_not_imported_does_not(
    make: Make,
) -> None:
    toy = make({**REST, "stage.py": "import os, PKG_not.low\nimport PKG.sub.deep.leaf\n"})
    hashes = [toy.hash()]
    for aside in ("new.py", "sub/deep/climber.py", "data.yaml"):
        toy.edit(aside, "value = 9\n")
        assert toy.hash() == hashes[0]
    for counted in ("high.py", "__init__.py", "sub/deep/__init__.py", "sub/__init__.py"):
        toy.edit(counted, "x = 1\n")
        hashes.append(toy.hash())
    assert len(set(hashes)) == 5
    toy = make({"stage.py": "try:\n    from . import extra\nexcept ImportError:\n    pass\n"})
    before = toy.hash()
    toy.edit("extra.py", "")
    assert toy.hash() != before


def test_declared_data_counts(make: Make) -> None:
    declared = 'CODE_DATA: tuple[str, ...] = ("sub/t.bin",)\n'
    toy = make({"stage.py": "from . import low\n", "low.py": declared, "sub/t.bin": "1"})
    before = toy.hash()
    toy.edit("sub/t.bin", "2")
    assert toy.hash() != before
    (toy.folder / "sub/t.bin").unlink()
    with pytest.raises(BadInput, match=r"low: CODE_DATA names 'sub/t.bin'"):
        toy.hash()


@pytest.mark.parametrize("declared", ['("../secret",)', '("/etc/hostname",)', "(1,)", "names()", '"a"'])
def test_declared_data_stays_beside_the_module(declared: str, make: Make) -> None:
    toy = make({"stage.py": f"CODE_DATA = {declared}\n"})
    toy.edit("../secret", "x")
    with pytest.raises(BadInput, match="CODE_DATA"):
        toy.hash()


def test_modules_are_not_imported_and_bad_ones_named(make: Make) -> None:
    toy = make(
        {"__init__.py": "raise SystemExit", "stage.py": "from . import low", "low.py": "raise SystemExit"}
    )
    assert len(toy.hash()) == 64
    assert not any(module.startswith(toy.name) for module in sys.modules)
    toy = make({"stage.py": "from . import low", "low.py": "def ("})
    with pytest.raises(BadInput, match=rf"{toy.name}/low.py, line 1: def \("):
        toy.hash()
    for module, package in [
        (f"{toy.name}.absent", toy.name),
        ("os.path", toy.name),
        (f"{toy.name}..stage", toy.name),
        ("x.y", "no_such_pkg"),
    ]:
        with pytest.raises(BadInput, match="no "):
            snapshot([module], package)


def test_a_hash_takes_milliseconds_and_the_file_clock_may_be_slow(make: Make) -> None:
    toy = make({"stage.py": "from . import low", "low.py": "value = 1"})
    first, low = toy.hash(), toy.folder / "low.py"
    times = low.stat()
    low.write_text("value = 2")  # the same size, and the same time of the last edit
    os.utime(low, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert toy.hash() != first
    snapshot(["rlheals.training.sft"])
    begun = time.process_time()
    for _ in range(20):
        snapshot(["rlheals.training.sft"])
    assert time.process_time() - begun < 20 * 0.02


def test_older_code_in_memory_is_noticed(make: Make) -> None:
    toy = make({"stage.py": "from . import low", "low.py": "value = 1"})
    low, before = f"{toy.name}.low", toy.code()
    toy.edit("low.py", "value = 20")
    assert before.changed_meanwhile() == [low]  # not loaded: either version may be loaded later
    module = importlib.import_module(low)
    loaded = toy.code()
    assert loaded.edited_since_loaded() == []
    toy.edit("low.py", "value = 300")
    assert loaded.changed_meanwhile() == []  # loaded before: what runs is what was hashed
    assert toy.code().edited_since_loaded() == [low]
    toy.edit("low.py", "value = 300  # the same")
    assert toy.code().edited_since_loaded() == [low]
    importlib.reload(module)
    assert toy.code().edited_since_loaded() == []
