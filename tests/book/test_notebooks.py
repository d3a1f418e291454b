"""Notebooks: parameters fail early and on one line, executed copies are whole and repeatable."""

from __future__ import annotations

import math
import os
import pwd
from pathlib import Path
from unittest.mock import Mock

import nbformat
import papermill
import pytest
from lab_helpers import one_line
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from rlheals.book.notebooks import NotebookFailed, NotebookParameters, execute, parameters
from rlheals.cli.main import main
from rlheals.errors import BadInput
from rlheals.project import project_root

PARAMETERS = ("parameters", 'profile = "lab"\nseeds = None\nworkers = 2  # processes', ["parameters"])


def notebook(path: Path, *cells: tuple[str, str, list[str]]) -> Path:
    """A notebook of (name, source, tags)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    )
    for name, source, tags in cells:
        named = {"name": name} if name else {}
        book.cells.append(new_code_cell(source, id=name or "unnamed", metadata={**named, "tags": tags}))
    nbformat.write(book, path)
    return path


@pytest.fixture
def no_kernel(monkeypatch):
    """A test that must not get as far as starting a kernel."""
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *args, **more: pytest.fail("a kernel was to start")
    )


# --- parameters in the notebook


@pytest.mark.parametrize("seeds", [[7], (7,), 7, "[7]", "7", " [ 7 ] "])
def test_seeds_may_be_a_list_a_number_or_text(seeds):
    assert parameters({"seeds": seeds}).seeds == (7,)


def test_text_is_read_as_yaml_only_where_no_text_is_meant():
    found = parameters({"profile": "smoke", "results": "1", "workers": "3", "seeds": "null"})
    assert found == NotebookParameters(profile="smoke", results="1", workers=3, seeds=None)
    assert found.store is None, "unless it is named"


def test_what_a_kernel_and_imports_define_is_let_be():
    names = {
        "In": ["", "seeds = 1"], "Out": {1: 2}, "_": 3, "_i1": "x", "__name__": "__main__", "math": math, "Path": Path,
        "exit": object(), "quit": object(), "get_ipython": len, "open": open, "chosen": NotebookParameters(),
    }  # fmt: skip
    assert parameters(names) == NotebookParameters()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"sedes": [1]}, "sedes is not a parameter of this notebook; accepted: profile, task, seeds, workers, results"),
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"nothing": None}, "nothing"),
        ({"profile": "labb"}, "profile"),
        ({"profile": 3}, "profile"),
        ({"seeds": [1.5]}, "seeds"),
        ({"seeds": [True]}, "seeds"),
        ({"seeds": ["1"]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": "[1"}, "seeds"),
        ({"seeds": "!!python/object/apply:os.getcwd []"}, "seeds"),
        ({"seeds": "[" + "1," * 200 + "]"}, "seeds"),
        ({"workers": 0}, "workers"),
        ({"workers": None}, "workers"),
        ({"workers": 2.0}, "workers"),
        ({"store": ""}, "store"),
        ({"store": "  "}, "store"),
        ({"store": True}, "store"),
        ({"store": 1.5}, "store"),
        ({"store": ["a"]}, "store"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_on_one_line(given, named):
    with pytest.raises(BadInput) as caught:
        parameters(given)
    assert named in one_line(caught.value)


def test_running_the_cell_again_lets_later_variables_be_but_not_misspelt_ones():
    names: dict[str, object] = {"profile": "smoke"}
    parameters(names)
    names |= {"curve": [1, 2], "seeds": [3]}
    assert parameters(names).seeds == (3,)
    with pytest.raises(BadInput, match="seedz"):
        parameters(names | {"seedz": [4]})


# --- execute: what is refused before a kernel starts


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"steps": 3}, "notebook a.ipynb: steps is not a parameter; accepted: profile, seeds, workers"),
        ({"results": "x"}, "notebook a.ipynb: results is not a parameter; accepted: profile, seeds, workers"),
        ({"seeds": ["x"]}, "notebook a.ipynb: seeds.0: "),
        ({"profile": "labb"}, "notebook a.ipynb: profile: "),
    ],
)
def test_parameters_are_refused_before_a_kernel_starts(tmp_path, given, line):
    source = notebook(tmp_path / "a.ipynb", PARAMETERS)
    with pytest.raises(BadInput) as caught:
        execute(source, tmp_path / "out" / "a.ipynb", given)
    assert str(caught.value).startswith(line)
    without = notebook(tmp_path / "b.ipynb", ("one", "seeds = 1", []))
    with pytest.raises(BadInput, match="accepted: none"):
        execute(without, tmp_path / "out" / "b.ipynb", {"seeds": [1]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "assigned", ['store = "/runs/lr=1e-3"', 'store: "str | None" = None  # = 3', "a = store = 1"]
)
def test_a_parameter_is_known_however_its_default_looks(tmp_path, monkeypatch, assigned):
    source = notebook(tmp_path / "a.ipynb", ("parameters", assigned, ["parameters"]))
    began = executions(monkeypatch, source)
    execute(source, tmp_path / "b.ipynb", {"store": "x"})
    assert began == [{"store": "x"}]
    notebook(source, ("parameters", "%store x", ["parameters"]))
    with pytest.raises(BadInput, match="its parameters cell is not plain Python"):
        execute(source, tmp_path / "b.ipynb", {"store": "x"})


def executions(monkeypatch, source: Path) -> list[dict[str, object]]:
    """The parameters of every execution from now on, none of which really is one."""
    began: list[dict[str, object]] = []

    def execute_notebook(book, out, given, **more):
        began.append(given)
        return nbformat.read(source, as_version=4)

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    return began


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    "asked", [["store", "#scratch"], ["store", "runs #1"], ["store", "''"], ["seeds", "{a: 1, a: 2}"]]
)
def test_a_value_that_is_not_what_was_typed_is_refused(tmp_path, monkeypatch, capsys, asked):
    monkeypatch.chdir(tmp_path)
    notebook(tmp_path / "a.ipynb", ("parameters", "seeds = store = None", ["parameters"]))
    assert main(["notebook", "a.ipynb", "-p", *asked]) == 2
    assert asked[0] in one_line(capsys.readouterr().err.removesuffix("\n"))


@pytest.mark.parametrize(
    ("typed", "store"),
    [("None", None), ("null", None), ("4711", "4711"), ("2026-11-29", "2026-11-29"), ("1e3", "1e3"), ("'#1'", "#1"),
     ("0x10", "0x10"), ("a=None", "a=None")],
)  # fmt: skip
def test_a_store_is_called_as_it_was_typed(tmp_path, monkeypatch, typed, store):
    monkeypatch.chdir(tmp_path)
    source = notebook(tmp_path / "a.ipynb", ("parameters", "store = None", ["parameters"]))
    began = executions(monkeypatch, source)
    assert main(["notebook", "a.ipynb", "-p", "store", typed]) == 0
    assert began == [{"store": store}]
    assert parameters({"store": 4711}).store == Path("4711"), "as papermill's own -p passes it"


@pytest.mark.usefixtures("no_kernel")
def test_where_the_copy_cannot_be_written_no_kernel_starts(tmp_path, monkeypatch):
    source = notebook(tmp_path / "a.ipynb", PARAMETERS)
    for out in (Path("/proc/b.ipynb"), tmp_path):  # where not even root may write; a folder
        with pytest.raises(BadInput, match=r"cannot write b\.ipynb in /proc|is a folder") as caught:
            execute(source, out)
        one_line(caught.value)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", Mock(side_effect=KeyError("uid not found")))
    with pytest.raises(BadInput, match="set HOME to a folder"):
        execute(source, tmp_path / "b.ipynb")


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    "text", ["", "no json", "{}", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}', "\xff"]
)
def test_what_is_no_notebook_is_named(tmp_path, text):
    (tmp_path / "a.ipynb").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"a.ipynb'? is not a notebook file: [^\n]*$"):
        execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    with pytest.raises(BadInput, match=r"none\.ipynb'?: No such file"):
        execute(tmp_path / "none.ipynb", tmp_path / "b.ipynb")


def test_the_project_root_is_the_nearest_project(tmp_path, monkeypatch):
    inside = tmp_path / "paper" / "notebooks"
    inside.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    assert project_root(inside) == inside, "a folder that happens to be called results is no project"
    (tmp_path / "paper" / "results").mkdir()
    assert project_root(inside) == tmp_path / "paper"
    (inside / ".rlheals").mkdir()
    monkeypatch.chdir(inside)
    assert project_root() == inside


# --- execute: with kernels


BUSY = """import os, sys
import ipywidgets
for number in range(3):
    print(number, flush=True)
    print("noise", file=sys.stderr, flush=True)
print(os.environ["OMP_NUM_THREADS"], os.path.basename(os.getcwd()))
ipywidgets.VBox([ipywidgets.IntSlider(), ipywidgets.IntSlider()])"""


@pytest.mark.slow
def test_two_executions_give_the_same_bytes_without_times_paths_or_ids(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "lab" / "results").mkdir(parents=True)
    source = notebook(tmp_path / "lab" / "notebooks" / "a.ipynb", PARAMETERS, ("busy", BUSY, []))
    before = source.read_bytes()
    one = execute(source, tmp_path / "{out}" / "a.ipynb", {"seeds": "[7]"}, quiet=True)
    two = execute(source, tmp_path / "b.ipynb", {"seeds": [7]}, quiet=True)
    assert one.read_bytes() == two.read_bytes()
    assert source.read_bytes() == before
    assert "OMP_NUM_THREADS" not in os.environ
    book = nbformat.read(one, as_version=4)
    nbformat.validate(book)
    injected, busy = book.cells[1:]
    assert "seeds = [7]" in injected.source
    texts = {output.name: output.text for output in busy.outputs if output.output_type == "stream"}
    assert texts == {"stdout": "0\n1\n2\n1 lab\n", "stderr": "noise\n" * 3}
    text = one.read_text()
    assert str(tmp_path) not in text
    assert "papermill" not in text
    assert "start_time" not in text
    assert sorted(path.name for path in one.parent.iterdir()) == ["a.ipynb"]


@pytest.mark.slow
def test_a_failing_cell_is_named_and_the_copy_kept_until_it_works(tmp_path):
    out = tmp_path / "out" / "a.ipynb"
    out.parent.mkdir()
    out.write_text("an older copy")
    source = notebook(
        tmp_path / "a.ipynb", ("fine", "1 + 1", []), ("division", "1 / 0", []), ("after", "2", [])
    )
    with pytest.raises(NotebookFailed) as caught:
        execute(source, out, quiet=True)
    failed = out.with_name("a.failed.ipynb")
    said = one_line(caught.value)
    assert said.startswith("notebook a.ipynb, cell 'division': ZeroDivisionError: division by zero")
    assert str(failed) in said
    assert caught.value.error_name == "ZeroDivisionError"
    assert out.read_text() == "an older copy"
    kept = {cell.metadata.get("name"): cell for cell in nbformat.read(failed, as_version=4).cells}
    assert kept["fine"].outputs
    assert kept["division"].outputs[0].ename == "ZeroDivisionError"
    assert kept["after"].execution_count is None
    execute(notebook(source, ("fine", "1 + 1", [])), out, quiet=True)
    assert nbformat.read(out, as_version=4).cells[0].outputs[0].data["text/plain"] == "2"
    assert not failed.exists()


@pytest.mark.slow
def test_a_kernel_that_dies_is_told_with_the_cell_it_died_in(tmp_path):
    source = notebook(tmp_path / "a.ipynb", ("fine", "1", []), ("", "import os\nos._exit(1)", []))
    with pytest.raises(NotebookFailed, match=r"cell In \[[ 2]\] \(import os\): the kernel died"):
        execute(source, tmp_path / "b.ipynb", quiet=True)
    assert not (tmp_path / "b.ipynb").exists()


@pytest.mark.slow
def test_plain_papermill_passes_text_and_fails_with_one_line(tmp_path):
    first = "from rlheals.book import notebooks\nprint(notebooks.parameters(globals()).seeds)"
    later = "sedes = [1]\nnotebooks.parameters({'sedes': sedes})"
    source = notebook(tmp_path / "a.ipynb", PARAMETERS, ("first", first, []), ("later", later, []))
    out = tmp_path / "b.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(str(source), str(out), {"seeds": "[7]"}, progress_bar=False)
    assert caught.value.ename == "BadInput"
    cells = {cell.metadata.get("name"): cell for cell in nbformat.read(out, as_version=4).cells}
    assert cells["first"].outputs[0].text == "(7,)\n"
    error = cells["later"].outputs[0]
    assert error.traceback == [f"BadInput: {error.evalue}"]
    assert error.evalue.startswith("sedes is not a parameter of this notebook; accepted: profile")
