"""Notebooks on Colab: the top of each, the set-up cell, a store elsewhere, and a session with Colab's versions.

`make test-colab` runs the last of these, which installs gigabytes; the others are quick.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import pytest
from kernels import Session, code_cells
from lab_helpers import one_line

from rlheals import __version__
from rlheals.book import colab, kernel
from rlheals.book.notebooks import parameters
from rlheals.errors import BadInput
from rlheals.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = colab.address_of(ROOT / "_config.yml")
PUBLISHED = "https://github.com/ada/rlheals"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST = ROOT / "notebooks/01_sft_forgets.ipynb"
KEPT = {
    "torch", "numpy", "pandas", "transformers", "accelerate", "matplotlib", "ipywidgets", "ipykernel", "ipython",
}  # fmt: skip


def pins(file: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


# --- what stands at the top


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_top_of_a_notebook_is_of_todays_address_and_version(path):
    """Else run `make tops`. The badge comes first, and the set-up before anything of ours is imported."""
    first, code = nbformat.read(path, as_version=4).cells[0], code_cells(path)
    assert (first.id, first.source) == (colab.BADGE, colab.badge(path.stem, ADDRESS))
    assert first.metadata.tags == ["remove-cell"], "the book loads nothing from elsewhere"
    assert list(code)[:3] == ["parameters", colab.INSTALL, "setup"]
    assert code[colab.INSTALL] == colab.install(ADDRESS)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with copies of the notebooks, at another address."""
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/ada/lovelace}")
    for folder in (colab.SOURCES, colab.COPIES):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.p*"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_another_address_reaches_every_notebook(repository):
    assert colab.main() == 0
    for file in (folder / path.name for folder in (colab.SOURCES, colab.COPIES) for path in NOTEBOOKS):
        text = file.read_text()
        assert f"github.com/ada/lovelace/blob/v{__version__}/book/colab.md" in text
        assert f"research.google.com/github/ada/lovelace/blob/v{__version__}/notebooks/{file.name}" in text
        assert f"--branch v{__version__} https://github.com/ada/lovelace" in text
        assert "OWNER" not in text


def test_tops_are_written_in_the_repository_only_and_into_cells_that_are_there(repository, capsys):
    nbformat.write(nbformat.v4.new_notebook(), colab.SOURCES / FIRST.name)
    assert colab.main() == 2
    assert "has no cell with id colab or install" in capsys.readouterr().err
    shutil.rmtree(colab.COPIES)
    assert colab.main() == 2
    assert "in the repository" in capsys.readouterr().err


def test_at_the_placeholder_nothing_is_fetched():
    cell, first = colab.install("https://github.com/OWNER/rlheals"), colab.badge(FIRST.stem, ADDRESS)
    assert "OWNER" not in cell + first
    assert "git" not in cell
    missing = cell.replace('find_spec("rlheals")', 'find_spec("no_such_package")')
    with pytest.raises(RuntimeError, match="not published yet"):
        exec(missing, {})
    assert "git clone --quiet --config advice.detachedHead=false --depth 1 {_source}" in colab.install(
        PUBLISHED
    )


def test_a_configuration_without_an_address_is_refused(tmp_path):
    for text in ("", "repository: 3", "repository: {branch: main}", "a: [", "- 1"):
        (tmp_path / "_config.yml").write_text(text)
        with pytest.raises(BadInput, match=r"repository\.url"):
            colab.address_of(tmp_path / "_config.yml")


def test_colab_gets_the_versions_that_are_tested_and_no_torch():
    tested = pins("constraints.txt")
    chosen = pins("colab.txt")
    assert chosen
    assert all(tested[name] == version for name, version in chosen.items())
    assert not set(chosen) & KEPT


# --- a package that was replaced while it was loaded


def test_a_replaced_package_is_named_with_both_versions(monkeypatch):
    import pyarrow

    for name in kernel.needed():
        if name != "pyyaml":
            importlib.import_module(name.replace("-", "_"))
    assert {"numpy", "pyyaml", "pyarrow", "torch", "papermill"} <= set(kernel.needed())
    kernel.ready()  # nothing was replaced yet
    installed = importlib.metadata.version("pyarrow")
    monkeypatch.setattr(pyarrow, "__version__", "18.1.0")
    with pytest.raises(BadInput) as caught:
        kernel.ready()
    assert f"pyarrow 18.1.0 is loaded, {installed} is installed" in one_line(caught.value)
    assert "Restart session" in str(caught.value)


# --- the recorded study of a package that was installed from a folder, and the store


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """Called with what pip has noted; the test runs in an empty folder."""
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")

    def note(text: str | None) -> None:
        beside = types.SimpleNamespace(read_text={"direct_url.json": text}.__getitem__)
        monkeypatch.setattr(kernel.importlib.metadata, "distribution", lambda name: beside)

    return note


def test_the_recorded_study_is_found_where_the_package_came_from(noted, tmp_path):
    source = tmp_path / "a copy"
    (source / "results").mkdir(parents=True)
    noted(json.dumps({"url": source.as_uri(), "dir_info": {}}))
    assert parameters({}).results == source / "results"
    assert parameters({"results": "other"}).results == Path("other")
    (tmp_path / "content/.rlheals").mkdir()
    (tmp_path / "content/results").mkdir()
    assert parameters({}).results == Path("results"), "the reader's own comes first"


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "null", "{}", '{"url": 3}', '{"url": "https://github.com/a/b"}', '{"url": "file:///no/such"}',
     '{"url": "file://[::1"}', '{"url": null}'],
)  # fmt: skip
def test_whatever_pip_has_noted_no_folder_is_no_error(noted, text):
    noted(text)
    assert kernel.installed_from() is None
    assert parameters({}).results == Path("results")


def fake_colab(monkeypatch, mount):
    """A machine on which `google.colab.drive.mount` is this."""
    drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))


def test_a_store_in_drive_is_mounted_on_colab_only_and_only_once(monkeypatch):
    mounted: list[str] = []
    inside = {"store": "/content/drive/MyDrive/rlheals"}
    assert parameters(dict(inside)).store == Path(inside["store"])
    fake_colab(monkeypatch, mounted.append)
    parameters(dict(inside))
    assert mounted == ["/content/drive"]
    parameters({"store": "/content/runs"})
    parameters({"store": "/content/drive/../runs"})
    parameters({})
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    parameters(dict(inside))
    assert mounted == ["/content/drive"]


def test_drive_that_is_refused_ends_with_one_line(monkeypatch):
    def refused(path):
        raise ValueError("mount failed\nwith details")

    fake_colab(monkeypatch, refused)
    with pytest.raises(BadInput, match="Google Drive was not mounted") as caught:
        parameters({"store": "/content/drive/MyDrive/rlheals"})
    one_line(caught.value)


# --- in kernels


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would say where rlheals and its store are."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RLHEALS_")}
    return ours | {"OMP_NUM_THREADS": "1", "CI": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"} | more


def finished(store: Path) -> set[str]:
    return {path.name for path in store.glob("runs/*")}


@pytest.mark.slow
@pytest.mark.long  # 40 s: a notebook in two places, each in a kernel of its own
def test_a_session_that_is_gone_goes_on_from_its_store_in_another_place(tmp_path):
    cells, store = code_cells(FIRST), tmp_path / "drive" / "rlheals"
    set_up = (cells["parameters"], f'profile = "smoke"; store = "{store}"', cells["install"])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with Session(tmp_path / "one", environment()) as session:
        for source in set_up:
            assert session.run(source).error is None
        session.begin(cells["setup"])
        until = time.monotonic() + 600
        while len(finished(store)) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        session.kill()
    before = finished(store)
    assert len(before) >= 3
    with Session(tmp_path / "two", environment()) as session:
        for source in set_up:
            session.run(source)
        ran = session.run(cells["setup"])
        assert ran.error is None
        assert session.run(cells["accuracy"]).error is None
    for run in before:
        assert re.search(rf"{run[:12]}.*loaded", ran.text)
    assert before < finished(store)
    assert Store(store).check().damaged == ()
    assert [path.name for name in ("one", "two") for path in (tmp_path / name).iterdir()] == []


def here_as_repository(folder: Path) -> Path:
    """The working tree as a repository of one commit with the version's tag."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for step in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"], ["tag", f"v{__version__}"]):
        subprocess.run([*git, *step], cwd=folder, check=True)
    return folder


def versions(python: Path) -> dict[str, str]:
    """What is installed, by name in small letters."""
    code = "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=environment())
    return {name.lower(): version for name, version in json.loads(done.stdout)}


@pytest.mark.colab
def test_a_session_with_the_versions_of_colab_runs_every_notebook(tmp_path):
    bin_folder, content = tmp_path / "colab/bin", tmp_path / "content"
    python = bin_folder / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "colab"], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    there = ROOT / "tests/colab-versions.txt"
    torch = f"torch=={pins('constraints.txt')['torch']}"
    subprocess.run([*pip, "install", "-q", f"pip=={pins(str(there))['pip']}"], check=True, env=environment())
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    subprocess.run([*pip, "install", "-q", *index, torch], check=True, env=environment())
    subprocess.run([*pip, "install", "-q", torch, "-r", there], check=True, env=environment())
    source = here_as_repository(tmp_path / "repository")
    env = environment(
        PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0=f"url.{source.as_uri()}.insteadOf",
        GIT_CONFIG_VALUE_0=PUBLISHED,
        HF_HUB_OFFLINE="1",
    )
    env.pop("PYTHONPATH", None)
    content.mkdir()
    shutil.copy(FIRST, content)
    cells = code_cells(content / FIRST.name) | {"install": colab.install(PUBLISHED)}
    store = tmp_path / "drive" / "rlheals"
    changed = f'profile = "smoke"; store = "{store}"'
    before = versions(python)
    assert "rlheals" not in before

    with Session(content, env, python) as session:
        assert session.run("import pandas, sys; 'pyarrow' in sys.modules").shown[0]["text/plain"] == "True"
        session.run(cells["parameters"])
        asked = session.run(cells["install"])
        after = versions(python)
        again = session.run(cells["install"])
    for ran in (asked, again):
        assert ran.error is not None, asked.text
        assert ran.error["ename"] == "BadInput"
        assert "pyarrow" in ran.error["evalue"]
        assert len(ran.error["traceback"]) == 1
    assert versions(python) == after
    replaced = {name for name in before if after[name] != before[name]}
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert replaced <= {*pins("colab.txt"), "huggingface_hub"}
    assert after.keys() - before.keys() == {"rlheals", "trl"}
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, env=environment())
    assert checked.returncode == 0, checked.stdout

    notebooks = {}
    for path in NOTEBOOKS:
        ran = notebooks[path.stem] = {}
        with Session(content, env, python) as session:
            session.run("import pandas")
            for name, code in code_cells(path).items():
                ran[name] = session.run(code)
                assert ran[name].error is None, (path.stem, name, ran[name].error)
                if name == "parameters" and path.stem != "audit":
                    session.run(changed)
    ran = notebooks[FIRST.stem]
    assert ran["install"].text == ""
    assert "<strong>holds</strong>" in ran["claims"].seen, "the recorded study came with the installation"
    assert "<svg" in ran["accuracy"].seen
    assert "796" in ran["exact"].seen
    assert "application/vnd.jupyter.widget-view+json" in notebooks["04_swapping_directions"]["panel"].shown[0]
    assert finished(store)
    assert {path.name for path in content.iterdir()} == {FIRST.name, f"rlheals-v{__version__}"}
