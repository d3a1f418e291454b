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
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "rlheals")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that nothing is left in the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package from the wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-compile", "--target", str(target)]
    done = subprocess.run(
        [*pip, "install", *options, str(wheel)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`rlheals ...` as the wheel's own script starts it, in a folder, with no way to the repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RLHEALS_")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    script = installed / "bin/rlheals"
    return subprocess.run(
        [sys.executable, "-P", str(script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=560,
    )


def test_wheel_holds_every_file_of_the_package_and_the_license(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    files = (path for path in (ROOT / "rlheals").rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert {"rlheals/claims.yaml", "rlheals/base/model.safetensors"} <= wanted
    assert {name for name in names if ".dist-info" not in name} == wanted
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 1_500_000


def test_the_package_under_test_is_that_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import rlheals; print(rlheals.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_doctor_and_grade_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    doctor = run(installed, tmp_path, "doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert json.loads(doctor.stdout)["problems"] == []
    graded = run(installed, tmp_path, "grade", "3 3 8 8", "8/(3-8/3)", "--json")
    assert json.loads(graded.stdout)["solved"], graded.stderr
    assert list(tmp_path.iterdir()) == []


def test_claims_and_census_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    claims = run(installed, tmp_path, "claims", "--json")
    parts = json.loads(claims.stdout).values()
    assert {claim["verdict"] for part in parts for claim in part["claims"]} == {None}
    census = run(installed, tmp_path, "census", "--rule", "ood", "--json")
    assert json.loads(census.stdout)["count"] == 796
    assert list(tmp_path.iterdir()) == []


def test_report_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "report", "--profile", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"report", ".rlheals"}
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(made["files"])
    page = (tmp_path / "report/index.html").read_text()
    assert "No recorded study" in page
    assert page.count("<figure") >= 8
    again = run(installed, tmp_path, "report", "--profile", "smoke", "--json")
    assert "computing" not in again.stderr
    assert again.stderr.count("loaded") == 7
