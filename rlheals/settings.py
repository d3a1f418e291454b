"""The base of all settings: frozen, no unknown key, no infinite number, no truth value where a number is meant."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rlheals.errors import BadInput


class Settings(BaseModel):
    """Settings of a stage, which live beside it; other records that are checked when they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is accepted, not a truth value")
    return value


Int = Annotated[int, BeforeValidator(_no_truth_value)]
Float = Annotated[float, BeforeValidator(_no_truth_value)]
Rate = Annotated[Float, Field(gt=0, le=1)]
"""A learning rate."""
Decay = Annotated[Float, Field(ge=0, lt=1)]
"""A decay rate of a running mean: 1 would divide by zero in AdamW's bias correction."""

TaskName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]
"""A folder of `rlheals/tasks/`, or `package.module:CLASS`."""


def _increasing(steps: tuple[int, ...]) -> tuple[int, ...]:
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0 or steps[-1] < 1:
        raise ValueError(f"{steps} is not an increasing list of steps that ends above 0")
    return steps


Checkpoints = Annotated[tuple[Int, ...], AfterValidator(_increasing)]
"""Steps of a training at which the weights are kept; the last one ends it."""

State = Literal[10, 50, 90]
STATES: tuple[State, ...] = (10, 50, 90)
"""Per cent of the peak's OOD ability that the start of a second stage has lost."""

Model = TypeVar("Model", bound=BaseModel)


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def validated(kind: type[Model], data: Any, where: str) -> Model:
    """`data` as a model; BadInput with one line that names the first offending field."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(" ".join(str(part).split())[:60] for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            known = (
                ", ".join(kind.model_fields) if len(first["loc"]) == 1 else "see `rlheals doctor --profiles`"
            )
            raise BadInput(f"{where}: {field} is not a setting; accepted: {known}") from None
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        got = "" if first["loc"] == () else f" (got {_SHORT.repr(first.get('input'))})"
        raise BadInput(f"{where}: {field}: {message}{got}") from None
