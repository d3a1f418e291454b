"""The wheel holds what it needs: installed elsewhere, it works in an empty folder without the repository.

The installed dependencies are used again, all of them or those of the core alone; only the package itself comes from
the wheel. The report alone: `pytest tests/test_wheel.py -k report`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from lab_helpers import TINY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
PIP = ("-m", "pip", "--disable-pip-version-check")
CORE_BYTES = 300_000_000
"""Of the files that installing the package without extras brings, before Python compiles them."""
LINES = """
import numpy as np
from rlheals import compare_checkpoints
from rlheals.formula import evaluate
from rlheals.linalg import principal_angles

assert evaluate("8/(3-8/3)") == 24
assert compare_checkpoints("before", "after", kinds=["q"], draws=0).angles["change"].between(0, 90).all()
assert (principal_angles(np.eye(4)[:, :2], np.eye(4)[:, 1:3]) == [0, np.pi / 2]).all()
"""
TABLES = """
import json
from rlheals import compare_checkpoints, edits
from rlheals.weights.arrays import torch

texts = '''values(top=20%); subspace(top=3); partial(top=2, of=random); noise(); interpolate(0.3);
interpolate(0.3, along=rotation); directions(all) then values(bottom=2); left(top=3) like rollback()'''
base, target = edits.Checkpoint("before"), edits.Checkpoint("after")
made = compare_checkpoints("before", "after", ks=[1, 4], draws=3).spectra
tables = {name: frame.select_dtypes("number").to_numpy().tolist() for name, frame in vars(made).items()}
for text in texts.split(";"):
    edited = edits.apply(base, target, edits.parse(text.strip()))
    tables[text] = [tensor.tolist() for _, tensor in edited if tensor.shape == (12, 12)]
print(json.dumps({"arrays": torch.__name__} | tables))
"""
pytestmark = pytest.mark.slow


def called(*command: object, folder: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in a folder, without settings of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RLHEALS_")}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment | changes,
        capture_output=True,
        text=True,
        timeout=560,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "rlheals", folder / "rlheals", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    out = tmp_path_factory.mktemp("wheel")
    done = called(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package from the wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    done = called(*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def needed(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """What a package needs without extras, and it itself."""
    if canonicalize_name(name) not in found:
        found[canonicalize_name(name)] = distribution(name)
        for text in distribution(name).requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                needed(wanted.name, found)
    return found


@pytest.fixture(scope="module")
def core(installed: Path) -> dict[str, Distribution]:
    """The packages without which ours is not installed, ours left out."""
    (ours,) = (one for one in Distribution.discover(path=[str(installed)]) if one.name == "rlheals")
    found: dict[str, Distribution] = {}
    for wanted in map(Requirement, ours.requires or ()):
        if wanted.marker is None:
            needed(wanted.name, found)
    return found


@pytest.fixture(scope="module")
def light(
    core: dict[str, Distribution], installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Python in a folder where only ours and the core's packages are installed."""
    site = tmp_path_factory.mktemp("core")
    for one in core.values():
        for top in {file.parts[0] for file in one.files or () if file.parts[0] != ".."}:
            (site / top).symlink_to(one.locate_file(top))
    path = os.pathsep.join(map(str, (installed, site)))
    return lambda *command, folder: called("-S", "-P", *command, folder=folder, PYTHONPATH=path)


@pytest.fixture(scope="module")
def full(installed: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same with all that is installed here."""
    return lambda *command, folder: called("-P", *command, folder=folder, PYTHONPATH=str(installed))


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`rlheals ...` as the wheel's own script starts it, in an empty folder, with no way to the repository."""
    ours = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    where = called("-P", "-c", "import rlheals; print(rlheals.__file__)", folder=tmp_path, **ours)
    assert Path(where.stdout.strip()).is_relative_to(installed)
    return lambda *arguments: called("-P", installed / "bin/rlheals", *arguments, folder=tmp_path, **ours)


def test_wheel_holds_every_file_of_the_package_and_the_license(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    files = (path for path in (ROOT / "rlheals").rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert {"rlheals/claims.yaml", "rlheals/base/model.safetensors"} <= wanted
    assert {name for name in names if ".dist-info" not in name} == wanted
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 1_500_000


def test_doctor_grade_claims_and_census_work_in_an_empty_folder(run, tmp_path: Path) -> None:
    doctor = run("doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert json.loads(doctor.stdout)["problems"] == []
    graded = run("grade", "3 3 8 8", "8/(3-8/3)", "--json")
    assert json.loads(graded.stdout)["solved"], graded.stderr
    parts = json.loads(run("claims", "--json").stdout).values()
    assert {claim["verdict"] for part in parts for claim in part["claims"]} == {None}
    assert json.loads(run("census", "--rule", "ood", "--json").stdout)["count"] == 796
    assert list(tmp_path.iterdir()) == []


def test_report_works_in_an_empty_folder(run, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = run("report", "--profile", "tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"report", ".rlheals", "tiny.yaml"}
    files = (path for path in (tmp_path / "report").rglob("*") if path.is_file())
    assert sorted(path.relative_to(tmp_path / "report").as_posix() for path in files) == sorted(made["files"])
    page = (tmp_path / "report/index.html").read_text()
    assert "There is no recorded study" in page
    assert page.count("<figure") >= 8


def test_core_is_small_and_says_what_other_commands_need(core, light, tmp_path: Path) -> None:
    assert not {"torch", "transformers", "trl", "pyarrow", "matplotlib", "distributed"} & core.keys()
    files = (file.locate() for one in core.values() for file in one.files or () if file.suffix != ".pyc")
    assert sum(Path(file).stat().st_size for file in files if Path(file).is_file()) < CORE_BYTES
    graded = light("-m", "rlheals", "grade", "3 3 8 8", "8/(3-8/3)", "--json", folder=tmp_path)
    assert json.loads(graded.stdout)["solved"], graded.stderr
    claims = json.loads(light("-m", "rlheals", "claims", "--json", folder=tmp_path).stdout)
    assert sum(len(part["claims"]) for part in claims.values()) > 40
    assert json.loads(light("-m", "rlheals", "doctor", "--json", folder=tmp_path).stdout)["ok"]
    for command, extra in (
        (("sft", "--seed", "0"), "train"),
        (("doctor", "--profiles"), "train"),
        (("spectra", "no-model", "no-model", "--out", "page"), "report"),
        (("report", "--readme", "no-file"), "train"),
    ):
        asked = light("-m", "rlheals", *command, folder=tmp_path)
        assert (asked.returncode, asked.stdout) == (2, ""), command
        (line,) = asked.stderr.splitlines()
        assert line.endswith(f"pip install 'rlheals[{extra}]'"), command
    assert list(tmp_path.iterdir()) == []


def test_spectra_and_edits_are_the_same_without_torch(light, full, tmp_path: Path) -> None:
    """To rounding, the draws of null models and random directions included."""
    random = np.random.default_rng(0)
    names = [f"model.layers.{i}.self_attn.{kind}_proj.weight" for i in (0, 1) for kind in "qv"]
    before = {name: random.normal(size=(12, 7 + 5 * (name[-15] == "q"))) for name in names}
    after = {name: matrix + 0.1 * random.normal(size=matrix.shape) for name, matrix in before.items()}
    for folder, tensors in (("before", before), ("after", after)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
    ours, theirs = light("-c", TABLES, folder=tmp_path), full("-c", TABLES, folder=tmp_path)
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    ours, theirs = json.loads(ours.stdout), json.loads(theirs.stdout)
    assert [ours.pop("arrays"), theirs.pop("arrays")] == ["rlheals.weights.numpy_arrays", "torch"]
    assert len(ours["angles"]) == 4 * (1 + 5 * 3) * 8, "matrices, with draws of all nulls, sides, ends, k"
    for name, rows in theirs.items():
        np.testing.assert_allclose(ours[name], rows, rtol=1e-11, atol=1e-12, err_msg=name)
    assert light("-c", LINES, folder=tmp_path).stderr == ""
    edit = ("edit", "before", "after", "--edit", "values(all)", "--out", "made")
    assert light("-m", "rlheals", *edit, folder=tmp_path).returncode == 0
    assert (tmp_path / "made/model.safetensors").is_file()


def test_the_recorded_study_is_judged_without_torch(light, full, tmp_path: Path) -> None:
    """With the tables' reader; a study without it is one line."""
    shutil.copytree(ROOT / "results/lab", tmp_path / "results/lab")
    (tmp_path / "notebooks").mkdir()
    command = ("-m", "rlheals", "claims", "--json")
    asked = light(*command, folder=tmp_path)
    assert (asked.returncode, asked.stderr.count("\n")) == (2, 1)
    assert asked.stderr.endswith("pip install 'rlheals[report]'\n")
    tables = tmp_path / "tables"
    tables.mkdir()
    for top in ("pyarrow", "pyarrow.libs"):
        if (place := Path(distribution("pyarrow").locate_file(top))).exists():
            (tables / top).symlink_to(place)
    code = (
        f"import sys; sys.path.append({str(tables)!r}); from rlheals.__main__ import main; main(['claims'])"
    )
    said = light("-c", code, folder=tmp_path)
    assert "holds" in said.stdout, said.stderr
    shutil.rmtree(tmp_path / ".rlheals")  # where verdicts are kept
    assert said.stdout == full("-m", "rlheals", "claims", folder=tmp_path).stdout


def test_wheel_and_sdist_have_the_same_bytes_twice(source: Path, tmp_path: Path) -> None:
    build = "from flit_core.buildapi import *; print(build_wheel({0!r}), build_sdist({0!r}))"
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for file in source.rglob("*"):
            os.utime(file)
        done = called("-c", build.format(str(tmp_path / name)), folder=source, SOURCE_DATE_EPOCH="1700000000")
        assert done.returncode == 0, done.stderr
        made.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 2


@pytest.mark.long
def test_core_is_installed_from_an_index(wheel: Path, tmp_path: Path) -> None:
    """Seconds and megabytes are printed: both depend on the network and on what Python compiles."""
    called("-m", "venv", tmp_path / "env")
    python, started = tmp_path / "env/bin/python", time.monotonic()
    done = subprocess.run([python, *PIP, "install", "-q", wheel], capture_output=True, text=True)
    if done.returncode:
        assert "Could not find a version" in done.stderr, done.stderr
        pytest.skip("no package index is reachable")
    print(f"{time.monotonic() - started:.0f} s")
    graded = subprocess.run(
        [tmp_path / "env/bin/rlheals", "grade", "3 3 8 8", "8/(3-8/3)"], capture_output=True, text=True
    )
    assert graded.stdout.startswith("correct"), graded.stderr
