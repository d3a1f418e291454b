"""Edits from text: `directions(top=20%)`, `values(all) then rollback()`, `noise(seed=1) like left(top=8)`."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache, reduce

from pydantic import TypeAdapter, ValidationError

from rlheals.errors import BadInput
from rlheals.weights.edits import EDITS, Edit, Like, Then
from rlheals.weights.selection import Part, Where

LONGEST = 1000
_CALL = re.compile(r"([a-z]{1,20})\(([^()]*)\)")


def parse(text: str) -> Edit:
    """The edit that a text describes; BadInput with one line otherwise.

    `like` binds closer than `then`; both group to the left.

    >>> str(parse("values(top=8) then noise() like rollback()"))
    'values(top=8) then noise() like rollback()'
    """
    if len(text) > LONGEST:
        raise BadInput(f"edit: text of {len(text)} characters, at most {LONGEST} are read")
    return reduce(Then, map(_likes, re.split(r"\s+then\s+", text.strip())))


def _likes(text: str) -> Edit:
    return reduce(Like, map(_one, re.split(r"\s+like\s+", text)))


def _one(text: str) -> Edit:
    found = _CALL.fullmatch(text.strip())
    if found is None or found[1] not in EDITS:
        raise BadInput(
            f"edit {text.strip()!r:.60}: accepted are {', '.join(f'{name}(...)' for name in EDITS)}"
        )
    name = found[1]
    known = [field.name for field in fields(EDITS[name])]  # type: ignore[arg-type]
    given: dict[str, object] = {}
    for argument in filter(None, (piece.strip() for piece in found[2].split(","))):
        key, value = _argument(name, argument, known)
        if key in given:
            raise BadInput(f"edit {name}: {key} is given twice")
        given[key] = value
    try:
        return _reader(name).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise BadInput(
                f"edit {name}: something is missing; its arguments are {', '.join(known)}"
            ) from None
        raise BadInput(f"edit {name}: {first['loc'][0]}={first['input']!r:.40}: {first['msg']}") from None


@cache
def _reader(name: str) -> TypeAdapter[Edit]:
    return TypeAdapter(EDITS[name])


def _argument(name: str, argument: str, known: list[str]) -> tuple[str, object]:
    key, _, value = argument.partition("=")
    if "part" in known and (argument == "all" or key in ("top", "bottom", "range")):
        return "part", Part.parse(argument)
    if name == "interpolate" and not value:
        key, value = "alpha", argument
    if key not in known or key == "part" or not value:
        words = ["all, top=8, top=20%, bottom=8, range=5-10" if one == "part" else f"{one}=" for one in known]
        accepted = ", ".join(words) or "it takes none"
        raise BadInput(f"edit {name}: {argument!r:.40} is not one of its arguments ({accepted})")
    return key, value


def read_entry(entry: str) -> tuple[str, str]:
    """(edit, where) in their one spelling; BadInput when either cannot be read.

    >>> read_entry("values(all) @ ends")
    ('values(all)', 'kinds=embed,head')
    """
    edit, mark, where = entry.partition("@")
    if not mark:
        raise BadInput(f"edit {entry!r:.60}; accepted: EDIT @ WHERE, such as values(all) @ blocks")
    return str(parse(edit)), str(Where.parse(where))
