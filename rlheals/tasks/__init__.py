"""Tasks by name, found without a list: a list that stages import would make recorded runs stale with every addition."""

from __future__ import annotations

import pkgutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.stage import task_module
from rlheals.tasks.base import Item, Task, Verdict

__all__ = ["Item", "Task", "Verdict", "checked_splits", "graded", "load_task", "task_names"]


def load_task(name: str, **options: Any) -> Any:
    """The task in the folder of that name, or the class `package.module:CLASS`, with its options.

    `general_points` has the option compat=None or "reference". Raises BadInput for an unknown name or option.

    >>> load_task("general_points").name
    'general_points'
    """
    kind = _class(name)
    if unknown := sorted(set(options) - set(kind.options)):
        accepted = ", ".join(kind.options) or "none"
        raise BadInput(f"task {name}: option {unknown[0]!r:.40} is not known; accepted: {accepted}")
    return kind(**options)


def task_names() -> list[str]:
    """The tasks that have a folder here."""
    return sorted(file.parent.name for file in Path(__file__).parent.glob("*/task.py"))


def _class(name: str) -> type[Task]:
    """The class of a task; BadInput with one line when there is none."""
    here = task_names()
    if not isinstance(name, str) or (":" not in name and name not in here):
        raise BadInput(
            f"task {name!r:.60} is not known; accepted: {', '.join(here)}, or package.module:CLASS of your own"
        )
    place = f"{task_module(name)}:{name.partition(':')[2] or 'TASK'}"
    try:
        found = pkgutil.resolve_name(place)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"task {name!r:.60}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, type) or not issubclass(found, Task):
        raise BadInput(f"task {name!r:.60} is no subclass of rlheals.tasks.Task")
    return found


def graded(task: str, ident: str, reply: str, compat: str | None = None) -> dict[str, Any]:
    """What a task's verifier says of a reply to one of its items, which is called by its id; BadInput for another id.

    >>> graded("determinant", "id/3,0;2,3", '{"answer": 9}')["category"]
    'correct'
    """
    chosen = load_task(task, **({} if compat is None else {"compat": compat}))
    splits = (*chosen.splits, *chosen.more_splits, *chosen.paired)
    items = (item for split in splits for item in chosen.items(split) if item.id == ident)
    item = next(items, None)
    if item is None:
        first = chosen.items(chosen.splits[0])[0].id
        raise BadInput(
            f"{ident!r:.60} is no item of {task}; such as {first!r} is accepted (rlheals census --task {task})"
        )
    verdict = chosen.grade(item, reply)
    return {"task": task, "item": ident, "rule": item.rule, **asdict(verdict)}


def checked_splits(splits: tuple[str, ...], task: str | None, *more: str) -> tuple[str, ...]:
    """Different splits of a task, or `more`; ValueError for anything else. None: a task that is not known."""
    if not splits or len(set(splits)) < len(splits):
        raise ValueError("a list of one or more different splits is accepted")
    found = None if task is None else load_task(task)
    known = splits if found is None else (*found.splits, *found.more_splits, *more)
    if unknown := [split for split in splits if split not in known]:
        raise ValueError(f"{unknown[0]!r:.40} is no split of {task}; accepted: {', '.join(known)}")
    return splits
