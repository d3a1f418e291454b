"""The code hash: what a stage runs decides it, what a stage does not run never does."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from rlheals.errors import BadInput
from rlheals.store import code_hash as sources
from rlheals.store.stages import STAGES

Files = dict[str, str]
Make = Callable[[Files], str]
_numbers = itertools.count()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a package of the given files (``PKG`` stands for its name) on the path; returns the name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: Files) -> str:
        name = f"toy_sources_{next(_numbers)}"
        for relative, text in {"__init__.py": "", **files}.items():
            edit(tmp_path / name / relative, textwrap.dedent(text).replace("PKG", name))
        importlib.invalidate_caches()
        return name

    return write


def edit(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    later = path.stat().st_mtime_ns + next(_numbers) * 1_000_000  # two edits within a tick of the file clock
    os.utime(path, ns=(later, later))


FORMS = {
    "import a.b": "import PKG.low",
    "import a.b as c": "import PKG.low as low",
    "from a import module": "from PKG import low",
    "from a.b import name": "from PKG.low import value",
    "several": "from PKG import (\n    other as o, low as l)",
    "relative module": "from . import low",
    "relative name": "from .low import value",
    "star": "from PKG.low import *",
    "in a function": "def run():\n    from PKG.low import value\n    return value\nrun()",
    "in a class and a branch": "class A:\n    if True:\n        import PKG.low",
    "through a helper": "from PKG.high import value",
    "through a sub-package": "from PKG.sub import thing",
    "through a sub-package's module": "import PKG.sub.deep.leaf",
    "relative from below": "from PKG.sub.deep import climber",
    "star of a package with __all__": "from PKG.starred import *",
    "written-out import_module": "from importlib import import_module\nimport_module('PKG.low')",
    "relative import_module": "import importlib\nimportlib.import_module('.low', __package__)",
    "renamed import_module": "from importlib import import_module as load\nload(name='PKG.low')",
    "__import__": "__import__('PKG.low')",
    "computed": "import importlib\nname = 'l' + 'ow'\nimportlib.import_module(f'PKG.{name}')",
    "computed, sum": "import importlib\nname = 'low'\nimportlib.import_module('PKG.' + name)",
    "computed, relative": "import importlib\nname = 'low'\nimportlib.import_module('.' + name, __package__)",
    "computed throughout": "import importlib\nname = 'PKG.low'\nimportlib.import_module(name)",
}
REST = {
    "low.py": "value = 1\n",
    "other.py": "value = 2\n",
    "high.py": "from .low import value\n",
    "sub/__init__.py": "from ..high import value as thing\n",
    "sub/deep/__init__.py": "",
    "sub/deep/leaf.py": "",
    "sub/deep/climber.py": "from ...low import value\n",
    "starred/__init__.py": "__all__ = ['inner']\n",
    "starred/inner.py": "import PKG.low\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_behind_any_import_form_changes_the_hash(form: str, make: Make, tmp_path: Path) -> None:
    name = make({**REST, "stage.py": FORMS[form]})
    before = sources.code_hash(f"{name}.stage", name)
    assert f"{name}.low" in sources.modules_of(f"{name}.stage", name)
    edit(tmp_path / name / "low.py", "value = 3\n")
    assert sources.code_hash(f"{name}.stage", name) != before


@pytest.mark.parametrize(
    "text",
    [
        "import PKG\nuse = lambda: PKG.low.value",
        "import PKG.other as o, PKG as p\nuse = lambda: p.low",
        "import PKG.other\nuse = lambda: PKG.low",
        "def f():\n  import PKG as p\n  p.low\ndef g():\n  import os as p",
        "from PKG import up as u\nuse = lambda: u.low.value",
        "from . import up\nuse = lambda: up.low.value",
    ],
)
def test_a_module_used_as_an_attribute_counts_though_another_has_to_load_it(text: str, make: Make) -> None:
    name = make({"stage.py": text, "low.py": "", "up/__init__.py": "", "up/low.py": "", "other.py": ""})
    found = sources.modules_of(f"{name}.stage", name)
    assert f"{name}.up.low" in found if "up" in text else f"{name}.low" in found


def test_python_itself_loads_nothing_that_is_not_counted(make: Make, tmp_path: Path) -> None:
    """The oracle is a fresh interpreter: what is in `sys.modules` after the import must be listed."""
    names = {form: make({**REST, "stage.py": text}) for form, text in FORMS.items()}
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name + '.stage')\n"
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in sys.argv]))"
    )
    run = [sys.executable, "-c", program, *names.values()]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    loaded = set(json.loads(subprocess.run(run, env=env, check=True, capture_output=True).stdout))
    for form, name in names.items():
        mine = {module for module in loaded if module.split(".")[0] == name}
        assert f"{name}.low" in mine, form
        assert mine <= set(sources.modules_of(f"{name}.stage", name)), form


def test_the_own_package_is_covered() -> None:
    program = "import json, sys, rlheals.store.store; print(json.dumps([m for m in sys.modules if m[:7] == 'rlheals']))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout
    )
    assert "rlheals.store.cleanup" in loaded
    assert set(loaded) <= set(sources.modules_of("rlheals.store.store"))


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


def test_comments_docstrings_and_layout_do_not_count(make: Make, tmp_path: Path) -> None:
    name = make({"stage.py": STAGE, "low.py": "value = 1\n"})
    before = sources.code_hash(f"{name}.stage", name)
    edit(tmp_path / name / "stage.py", SAME.replace("PKG", name))
    edit(tmp_path / name / "low.py", '"""New words."""\nvalue    =    1  # one\n')
    assert sources.code_hash(f"{name}.stage", name) == before


@pytest.mark.parametrize("what", OTHER)
def test_any_change_of_code_counts(what: str, make: Make, tmp_path: Path) -> None:
    name = make({"stage.py": STAGE, "low.py": "value = 1\n"})
    before = sources.code_hash(f"{name}.stage", name)
    old, new = OTHER[what]
    assert STAGE.count(old) >= 1
    edit(tmp_path / name / "stage.py", STAGE.replace(old, new).replace("PKG", name))
    assert sources.code_hash(f"{name}.stage", name) != before


def test_what_is_not_imported_does_not_count(make: Make, tmp_path: Path) -> None:
    name = make(
        {**REST, "__init__.py": "", "stage.py": "import os, json, PKG_not.low\nfrom .low import value\n"}
    )
    before = sources.code_hash(f"{name}.stage", name)
    assert sources.modules_of(f"{name}.stage", name) == [name, f"{name}.low", f"{name}.stage"]
    edit(tmp_path / name / "high.py", "value = 9\n")
    edit(tmp_path / name / "new.py", "value = 9\n")
    edit(tmp_path / name / "data.yaml", "value: 9\n")
    assert sources.code_hash(f"{name}.stage", name) == before


def test_inits_of_all_packages_above_count(make: Make, tmp_path: Path) -> None:
    name = make({**REST, "__init__.py": "", "stage.py": "import PKG.sub.deep.leaf\n"})
    above = [name, f"{name}.sub", f"{name}.sub.deep", f"{name}.sub.deep.leaf"]
    assert set(above) <= set(sources.modules_of(f"{name}.stage", name))
    assert set(above) <= set(sources.modules_of(above[-1], name))  # which itself imports nothing
    hashes = [sources.code_hash(f"{name}.stage", name)]
    for init in ("__init__.py", "sub/__init__.py", "sub/deep/__init__.py"):
        edit(tmp_path / name / init, "x = 1\n")
        hashes.append(sources.code_hash(f"{name}.stage", name))
    assert len(set(hashes)) == 4


def test_a_module_that_appears_or_moves_counts(make: Make, tmp_path: Path) -> None:
    name = make({"stage.py": "try:\n    from . import extra\nexcept ImportError:\n    pass\n"})
    before = sources.code_hash(f"{name}.stage", name)
    edit(tmp_path / name / "extra.py", "")
    assert sources.code_hash(f"{name}.stage", name) != before


def test_circular_imports_end(make: Make) -> None:
    name = make(
        {"stage.py": "from . import a\n", "a.py": "from . import b\n", "b.py": "from . import a, stage\n"}
    )
    assert len(sources.modules_of(f"{name}.stage", name)) == 4
    assert sources.modules_of(f"{name}.stage", name) == sources.modules_of(f"{name}.a", name)


def test_declared_data_counts(make: Make, tmp_path: Path) -> None:
    name = make(
        {
            "stage.py": "from . import low\n",
            "low.py": 'CODE_DATA: tuple[str, ...] = ("sub/t.bin",)\n',
            "sub/t.bin": "1",
        }
    )
    before = sources.code_hash(f"{name}.stage", name)
    edit(tmp_path / name / "sub/t.bin", "2")
    assert sources.code_hash(f"{name}.stage", name) != before
    (tmp_path / name / "sub/t.bin").unlink()
    with pytest.raises(BadInput, match=r"low: CODE_DATA names 'sub/t.bin'"):
        sources.code_hash(f"{name}.stage", name)


@pytest.mark.parametrize("declared", ['("../secret",)', '("/etc/hostname",)', "(1,)", "names()", '"a"'])
def test_declared_data_stays_beside_the_module(declared: str, make: Make, tmp_path: Path) -> None:
    name = make({"stage.py": f"CODE_DATA = {declared}\n"})
    edit(tmp_path / "secret", "x")
    with pytest.raises(BadInput, match="CODE_DATA"):
        sources.code_hash(f"{name}.stage", name)


def test_nothing_is_imported(make: Make) -> None:
    name = make(
        {"__init__.py": "raise SystemExit", "stage.py": "from . import low", "low.py": "raise SystemExit"}
    )
    assert len(sources.code_hash(f"{name}.stage", name)) == 64
    assert not any(module.startswith(name) for module in sys.modules)


def test_bad_modules_are_named(make: Make) -> None:
    name = make({"stage.py": "from . import low", "low.py": "def ("})
    with pytest.raises(BadInput, match=rf"{name}\.low is not valid Python"):
        sources.code_hash(f"{name}.stage", name)
    for module, package in [
        (f"{name}.absent", name),
        ("os.path", name),
        (f"{name}..stage", name),
        ("x.y", "no_such_pkg"),
    ]:
        with pytest.raises(BadInput, match="no "):
            sources.code_hash(module, package)


def test_the_cache_reads_a_file_once_and_notices_edits(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make({"stage.py": "from . import low", "low.py": "value = 1"})
    read: list[str] = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or plain(path))
    first = sources.code_hash(f"{name}.stage", name)
    assert sources.code_hash(f"{name}.stage", name) == first
    assert sorted(read) == ["__init__.py", "low.py", "stage.py"]
    edit(tmp_path / name / "low.py", "value = 2")  # the same size
    assert sources.code_hash(f"{name}.stage", name) != first
    assert read[3:] == ["low.py"]


def test_older_code_in_memory_is_noticed(make: Make, tmp_path: Path) -> None:
    name = make({"stage.py": "from . import low", "low.py": "value = 1"})
    before = sources.snapshot(f"{name}.stage", name)
    edit(tmp_path / name / "low.py", "value = 20")
    assert before.changed_meanwhile() == [f"{name}.low"]  # not loaded: either version may be loaded later
    module = importlib.import_module(f"{name}.low")
    loaded = sources.snapshot(f"{name}.stage", name)
    assert loaded.edited_since_loaded() == []
    edit(tmp_path / name / "low.py", "value = 300")
    assert loaded.changed_meanwhile() == []  # loaded before: what runs is what was hashed
    assert sources.snapshot(f"{name}.stage", name).edited_since_loaded() == [f"{name}.low"]
    edit(tmp_path / name / "low.py", "value = 300  # the same")
    assert sources.snapshot(f"{name}.stage", name).edited_since_loaded() == [f"{name}.low"]
    importlib.reload(module)
    assert sources.snapshot(f"{name}.stage", name).edited_since_loaded() == []


ABOVE = {
    f"rlheals.{name}"
    for name in ("cli", "claims", "figures", "profiles", "record", "report", "store", "study")
}


def test_there_are_stages() -> None:
    assert {"pretrain", "sft", "rl", "evaluate", "spectra", "edited", "protected"} <= set(STAGES)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_code_behind_a_stage_is_nothing_above_it(stage: str) -> None:
    """Otherwise an edit of a figure makes the recorded study stale."""
    assert not ABOVE & set(sources.modules_of(STAGES[stage]))
