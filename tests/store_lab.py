"""A store with a small package of its own, for the tests of runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rlheals.stage import Work
from rlheals.store.files import atomic_write
from rlheals.store.runs import Run, RunSpec
from rlheals.store.store import Store

SPEC = RunSpec(stage="train", settings={"steps": 40, "lr": 3e-4}, seed=1)


class Lab:
    """A store, a package of three modules (train imports models, models imports tensors), and what was said."""

    def __init__(self, folder: Path, package: str) -> None:
        self.package = folder / package
        self.package.mkdir()
        for name, text in {
            "__init__": "",
            "train": "from .models import create\n",
            "models": "from . import tensors\ndef create():\n    return tensors.size\n",
            "tensors": "size = 1\n",
            "aside": "y = 1\n",
        }.items():
            (self.package / f"{name}.py").write_text(text)
        self.store = Store(folder / "store", package=package)
        self.lines: list[str] = []
        self.computed = 0

    def compute(self, work: Work) -> None:
        self.computed += 1
        (work.out / "deep").mkdir()
        (work.out / "deep" / "rows.csv").write_text(f"{work.settings} {work.seed} {sorted(work.inputs)}\n")
        atomic_write(work.out / "weights.bin", bytes(range(256)) * 10)

    def ensure(self, spec: RunSpec = SPEC) -> Run:
        return self.store.ensure(spec, self.compute, self.lines.append)

    def left(self) -> list[str]:
        """Names in the store apart from runs."""
        root = self.store.root
        return sorted(
            f"{part}/{path.name}" for part in ("tmp", "scratch", "damaged") for path in root.glob(f"{part}/*")
        )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Lab(tmp_path, "toy_" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12])
