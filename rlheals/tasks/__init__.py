"""Tasks by name."""

from __future__ import annotations

from typing import Any

from rlheals.errors import BadInput
from rlheals.tasks.base import Item, Task, Verdict
from rlheals.tasks.general_points.task import GeneralPoints

__all__ = ["TASKS", "GeneralPoints", "Item", "Task", "Verdict", "load_task"]

TASKS = {GeneralPoints.name: GeneralPoints}


def load_task(name: str, **options: Any) -> GeneralPoints:
    """A task by its name, with its options (`general_points`: compat=None or "reference").

    Raises BadInput for an unknown name or option.

    >>> load_task("general_points").name
    'general_points'
    """
    if name not in TASKS:
        raise BadInput(f"task {name!r:.40} is not known; accepted: {', '.join(sorted(TASKS))}")
    unknown = sorted(set(options) - set(TASKS[name].options))
    if unknown:
        raise BadInput(
            f"task {name}: option {unknown[0]!r:.40} is not known; accepted: {', '.join(TASKS[name].options)}"
        )
    return TASKS[name](**options)
