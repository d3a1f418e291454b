"""From a reply to the formula in it."""

from __future__ import annotations

import json
import re

_LENIENT = re.compile(r'"formula"\s*:\s*"([^"]*)"')
_REFERENCE = re.compile(r'"formula": "([^"]*)"')


def formula_of(reply: str, reference: bool = False) -> str | None:
    """The formula field of a reply, None when it has none that is text.

    First the whole reply as strict JSON; then the first `"formula": "..."` anywhere, so a trailing comma or
    words around the object do no harm (`reference`: with exactly one space after the colon). A reply without
    braces and double quotes is taken to be the formula itself. Never raises for text.
    Source: the field extraction of the reference environment; the bare formula is our addition.

    >>> formula_of('{"cards": ["A"], "formula": "8/(3-8/3)=24",}'), formula_of("8/(3-8/3)")
    ('8/(3-8/3)=24', '8/(3-8/3)')
    >>> formula_of('{"formula": 24}'), formula_of('{"number": [1]}')
    (None, None)
    """
    try:
        read = json.loads(reply)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, dict) and "formula" in read:
        return read["formula"] if isinstance(read["formula"], str) else None
    match = (_REFERENCE if reference else _LENIENT).search(reply)
    if match is not None:
        return match.group(1)
    return None if "{" in reply or '"' in reply else reply
