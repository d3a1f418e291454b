"""One dial: a profile sets the model, the sizes and the steps of every stage. Profiles are read and written as YAML."""

from __future__ import annotations

from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.tasks import load_task, task_names
from rlheals.yaml_file import read_yaml

FILES = Path(str(resources.files("rlheals.profiles")))
"""Folder with a file per profile."""

_FEWER = {
    "evaluated": (0, 20, 80, 160, 320, 480, 640, 960, 1280, 1600, 1920, 2560, 3840, 5120),
    "rule_steps": (),
    "healing.map": ("rl", "rl-varied", "imitate-varied", "expert-varied"),
    "healing.window": (),
    "healing.arms": (),
    "healing.edits": (),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "75": {**_FEWER, "pretrain.ability": 0.75},
    "50": {**_FEWER, "pretrain.ability": 0.5},
    "diverse": {**_FEWER, "sft.prompts": "diverse", "decodes": 1},
}
"""What changes when the lab is made in another way: less able bases, other words; with less of what the lab has."""


def load_profile(name_or_file: str | Path, changes: dict[str, Any] | None = None) -> Profile:
    """The profile of that name, or that of a YAML file, with `changes` such as {"sft.learning_rate": 1e-3}.

    `smoke-navigation` is `smoke` for the task `navigation`, where there is no file of that name; see `for_task`.
    A change of `pretrain.*` means a base of its own for seed 0 too, so it also sets `shipped_base` to false; another
    `model.name` has other commits, so it also unsets `model.revision`.
    Raises BadInput with one line that names the field when something is unknown, of the wrong type or impossible.
    """
    if str(name_or_file) in PROFILES:
        data = PROFILES[str(name_or_file)].model_dump(mode="json")
    else:
        data = _read(name_or_file)
    for path, value in (changes or {}).items():
        _set(data, path, value)
        if path == "model.name":
            data["model"]["revision"] = (changes or {}).get("model.revision")
        if path.startswith("pretrain."):
            data["shipped_base"] = bool((changes or {}).get("shipped_base", False))
    return validated(Profile, data, f"profile {name_or_file}")


def names() -> list[str]:
    """The names of profiles that have a file."""
    files = sorted(file.stem for file in FILES.glob("*.yaml"))
    return [*PROFILES, *(name for name in files if name not in PROFILES)]


def larger() -> list[Profile]:
    """Those that play cards with other models than the book's: larger ones of the lab, and language models."""
    others = (load_profile(name) for name in names() if name not in PROFILES)
    return [profile for profile in others if profile.task == PROFILES["lab"].task]


def for_task(profile: str, task: str) -> str:
    """The name of a profile for another task.

    >>> for_task("lab", "determinant_rules")
    'lab-determinant-rules'
    """
    return f"{profile}-{task.replace('_', '-')}"


def of_task(profile: Profile, task: str) -> Profile:
    """A profile for another task: the one that has a name, see `for_task`, or else this one's settings.

    >>> of_task(PROFILES["smoke"], "navigation").evaluate.attempts
    2
    """
    if profile.task == task:
        return profile
    name = for_task(profile.name, task)
    if profile.name in names():
        return load_profile(name)
    data = _of_task(profile.model_dump(mode="json"), task) | {"name": name}
    return validated(Profile, data, f"profile {name}")


def variant(name: str) -> Profile:
    """The lab with one thing changed; BadInput for a name that is not one of `VARIANTS`.

    >>> variant("75").pretrain.ability
    0.75
    """
    if name not in VARIANTS:
        raise BadInput(f"variant {name!r:.40} is not known; accepted: {', '.join(VARIANTS)}")
    return load_profile("lab", {"name": f"lab-{name}", **VARIANTS[name]})


def to_yaml(profile: Profile) -> str:
    """The profile as YAML that `load_profile` reads back."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(name_or_file: str | Path) -> dict[str, Any]:
    file = FILES / f"{name_or_file}.yaml"
    said = f"profile {str(name_or_file)!r}"
    if not file.is_file():
        for name, task in product(names(), task_names()):
            if str(name_or_file) == for_task(name, task):
                return _of_task(_read(name), task) | {"name": str(name_or_file)}
        file = Path(name_or_file)
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        known = f"{', '.join(names())} or a .yaml file; a name with -TASK behind it for another task"
        raise BadInput(f"{said} is not known; accepted: {known}")
    return read_yaml(file, said)


def _of_task(data: dict[str, Any], task: str) -> dict[str, Any]:
    """A profile's settings for another task than the one it is made for: attempts, answers and splits of that task."""
    kind = load_task(task)
    if (splits := data.get("evaluate", {}).get("splits")) is not None:
        there = (*kind.splits, *kind.more_splits, "rules")
        _set(data, "evaluate.splits", [split for split in splits if split in there])
    for stage in ("evaluate", "rl_starts.rl"):
        _set(data, f"{stage}.attempts", kind.attempts)
        if kind.answer_tokens is not None and data.get("model") is None:
            _set(data, f"{stage}.sampling.max_new_tokens", kind.answer_tokens)
    for group in (data.get("sft", {}), data.get("evaluate", {}), data.get("rl_starts", {}).get("rl", {})):
        if kind.short_form is None and group.get("prompts") == "short":
            group["prompts"] = "fixed"
    return data | {"task": task, "shipped_base": False}


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise BadInput(f"{path}: {parent} is not a group of settings")
        data = inner
    data[last] = value


PROFILES = {name: validated(Profile, _read(name), f"profile {name}") for name in ("smoke", "lab")}
"""The profiles of the lab, by name."""
