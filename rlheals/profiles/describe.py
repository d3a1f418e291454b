"""TODO rlheals/profiles/describe.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rlheals.display.markup import Block, Table
from rlheals.profiles import PROFILES, VARIANTS

INTERNAL = {"name", "about", "evaluate.folder"}


def profiles_table() -> list[Block]:
    """Every setting with its meaning and its value in each profile, then the variants of the lab."""
    dumped = {name: dict(_settings(profile)) for name, profile in PROFILES.items()}
    meaning = {name: text for profile in PROFILES.values() for name, text in _meanings(profile)}
    rows = tuple(
        (f"`{name}`", text, *(_value(dumped[profile][name]) for profile in PROFILES))
        for name, text in meaning.items()
    )
    about = tuple((f"`{name}`", profile.about) for name, profile in PROFILES.items())
    variants = tuple(
        (f"`{name}`", ", ".join(f"`{field}` = {_value(value)}" for field, value in changes.items()))
        for name, changes in VARIANTS.items()
    )
    return [
        Table(("profile", "what it is for"), about),
        Table(("setting", "meaning", *(f"`{name}`" for name in PROFILES)), rows),
        Table(("variant of `lab`", "what is changed"), variants),
    ]


def _settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting."""
    for name in type(model).model_fields:
        value, path = getattr(model, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{path}.")
        elif path not in INTERNAL:
            yield path, value


def _meanings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in type(model).model_fields.items():
        value, path = getattr(model, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _meanings(value, f"{path}.")
        elif path not in INTERNAL:
            yield path, field.description or ""


def _value(value: Any) -> str:
    """
    >>> _value((0, 1280)), _value(None), _value(0.0003), _value(9000000)
    ('0, 1,280', 'none', '0.0003', '9,000,000')
    """
    if isinstance(value, tuple | list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
