"""Edits as text, both ways: `directions(top=20%)`, `values(all) then rollback()`, `noise(seed=1) like left(top=8)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields

from rlheals.errors import BadInput
from rlheals.weights.edits import NAMES, Edit, Like, Then
from rlheals.weights.selection import Part

LONGEST = 1000
_CALL = re.compile(r"([a-z]{1,20})\(([^()]*)\)")


def parse(text_: str) -> Edit:
    """The edit that a text means; BadInput with one line otherwise.

    `like` binds closer than `then`; both group to the left.

    >>> str(parse("values(top=8) then noise() like rollback()"))
    'values(top=8) then noise() like rollback()'
    """
    if len(text_) > LONGEST:
        raise BadInput(f"edit: text of {len(text_)} characters, at most {LONGEST} are read")
    steps = [_likes(step) for step in re.split(r"\s+then\s+", text_.strip())]
    made = steps[0]
    for step in steps[1:]:
        made = Then(made, step)
    return made


def _likes(text_: str) -> Edit:
    made, *others = (_one(piece) for piece in re.split(r"\s+like\s+", text_))
    for other in others:
        made = Like(made, other)
    return made


def _one(text_: str) -> Edit:
    found = _CALL.fullmatch(text_.strip())
    if found is None or found[1] not in NAMES:
        raise BadInput(
            f"edit {text_.strip()!r:.60}: accepted are {', '.join(f'{name}(...)' for name in NAMES)}"
        )
    kind, given = NAMES[found[1]], {}
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for argument in filter(None, (piece.strip() for piece in found[2].split(","))):
        key, value = _argument(found[1], argument, known)
        if key in given:
            raise BadInput(f"edit {found[1]}: {key} is given twice")
        given[key] = value
    try:
        return kind(**given)
    except TypeError:
        needed = ", ".join(known)
        raise BadInput(f"edit {found[1]}: something is missing; its arguments are {needed}") from None


def _argument(name: str, argument: str, known: dict) -> tuple[str, object]:
    key, _, value = argument.partition("=")
    if "part" in known and (argument == "all" or key in ("top", "bottom", "range")):
        return "part", Part.parse(argument)
    if name == "interpolate" and not value:
        key, value = "alpha", argument
    if key not in known or key == "part" or not value:
        raise BadInput(f"edit {name}: {argument!r:.40} is not one of its arguments ({_accepted(known)})")
    reader, accepted = READERS[key]
    try:
        read = reader(value)
    except (ValueError, BadInput):
        raise BadInput(f"edit {name}: {key}={value!r:.40}, accepted is {accepted}") from None
    return key, read


def _accepted(known: dict) -> str:
    words = ["all, top=8, top=20%, bottom=8, range=5-10" if key == "part" else f"{key}=" for key in known]
    return ", ".join(words) or "it takes none"


def _number(text_: str) -> float:
    value = float(text_)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _count(text_: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text_):
        raise ValueError
    return int(text_)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text_: str) -> str:
        if text_ not in words:
            raise ValueError
        return text_

    return read


READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "alpha": (_number, "a number from 0 to 1"),
    "share": (_number, "a number from 0 to 1"),
    "seed": (_count, "a whole number"),
    "top": (_count, "a whole number"),
    "bottom": (_count, "a whole number"),
    "along": (_one_of("straight", "rotation"), "straight or rotation"),
    "of": (_one_of("target", "base", "random"), "target, base or random"),
}
