"""Which ways of protecting SFT are tried; part of a profile, as text that can be changed."""

from __future__ import annotations

import math
from typing import get_args

from pydantic import Field, field_validator

from rlheals.errors import BadInput
from rlheals.protected import Kind
from rlheals.settings import Int, Settings

NAMES = (*get_args(Kind), "learning_rate", "weight_decay")


class Protection(Settings):
    """Training runs from the same base, and how finely they are measured.

    >>> Protection(ways=("subspace=0.10",)).ways
    ('subspace=0.1',)
    """

    ways: tuple[str, ...] = Field((), description="NAME=VALUE, see `protection.py`")
    steps: tuple[Int, ...] = Field((), description="SFT steps that get a census")
    reader_ways: tuple[str, ...] = Field((), description="those of a reader's fresh run")
    decodes: Int = Field(1, ge=1, description="censuses of every checkpoint")

    @field_validator("ways", "reader_ways")
    @classmethod
    def _readable(cls, ways: tuple[str, ...]) -> tuple[str, ...]:
        spelled = tuple(way_text(*read_way(way)) for way in ways)
        if len(set(spelled)) < len(spelled):
            raise ValueError("a way is there twice")
        return spelled


def read_way(text: str) -> tuple[str, float]:
    """Name and value of a way; BadInput when it cannot be read.

    >>> read_way("kl=0.3")
    ('kl', 0.3)
    """
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if name.strip() not in NAMES or not math.isfinite(number) or number < 0:
        raise BadInput(f"way {text!r:.60}: accepted is NAME=VALUE, NAME one of {', '.join(NAMES)}")
    return name.strip(), number


def way_text(name: str, value: float) -> str:
    """What `read_way` reads back.

    >>> way_text("learning_rate", 1e-4)
    'learning_rate=0.0001'
    """
    return f"{name}={value:g}"
