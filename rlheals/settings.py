"""The base of all settings: frozen, no unknown key, no infinite number, no truth value where a number is meant."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Settings of a stage; they live beside the stage they describe."""

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
