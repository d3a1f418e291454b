"""The profiles as tables: every setting with its meaning, and its value in each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rlheals.display.markup import Block, Table
from rlheals.profiles import PROFILES, VARIANTS

INTERNAL = {"name", "about", "evaluate.folder"}


def profiles_table() -> list[Block]:
    """Every setting with its meaning and its value in each profile, then the variants of the lab."""
    each = [list(_settings(profile)) for profile in PROFILES.values()]
    rows = tuple(
        (f"`{same[0][0]}`", same[0][1], *(_value(value) for _, _, value in same))
        for same in zip(*each, strict=True)
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


def _settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted name, meaning, value) of every setting."""
    for name, field in type(model).model_fields.items():
        value, path = getattr(model, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{path}.")
        elif path not in INTERNAL:
            yield path, field.description or "", value


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
