"""What a stage is given: a plain value, so that a stage's code hash does not depend on how results are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Tick(Protocol):
    """Told about progress: so many of so many units are done."""

    def __call__(self, done: int, total: int, unit: str) -> object: ...


def no_tick(done: int, total: int, unit: str) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Work:
    """One unit of work of a stage.

    out: empty folder, what is written there is the result; scratch: folder that survives a kill, for finished parts;
    inputs: folders of the input runs by name; settings: JSON, validated by the stage; seed: of this run.
    """

    out: Path
    scratch: Path
    settings: Mapping[str, Any]
    seed: int = 0
    inputs: Mapping[str, Path] = field(default_factory=dict)
    tick: Tick = no_tick


def task_module(task: str) -> str:
    """The module that defines a task: that of the folder of its name, or of `package.module:CLASS`.

    >>> task_module("general_points"), task_module("mine.tasks:Sums")
    ('rlheals.tasks.general_points.task', 'mine.tasks')
    """
    return task.partition(":")[0] if ":" in task else f"rlheals.tasks.{task}.task"
