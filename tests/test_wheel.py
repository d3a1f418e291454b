"""The wheel holds what it needs: installed elsewhere, it works in an empty folder without the repository.

The installed dependencies are used again; only the package itself comes from the wheel. The report alone:
`pytest tests/test_wheel.py -k report`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = ("-m", "pip", "--disable-pip-version-check")
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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that nothing is left in the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "rlheals", source / "rlheals", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
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
    done = run("report", "--profile", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"report", ".rlheals"}
    files = (path for path in (tmp_path / "report").rglob("*") if path.is_file())
    assert sorted(path.relative_to(tmp_path / "report").as_posix() for path in files) == sorted(made["files"])
    page = (tmp_path / "report/index.html").read_text()
    assert "There is no recorded study" in page
    assert page.count("<figure") >= 8
    again = run("report", "--profile", "smoke", "--json")
    assert "computing" not in again.stderr
    assert again.stderr.count("loaded") == 7
