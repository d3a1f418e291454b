"""When a GPU's memory is not enough: once more with less at once, then one line that says what to change."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from rlheals.errors import BadInput

Made = TypeVar("Made")


def once_smaller(do: Callable[[int], Made], rows: int, whole: int, where: str) -> Made:
    """`do(rows)`, or if that is too much, `do` with half of it at most; BadInput when that is too much as well.

    whole: what the rows are a part of; only its divisors are tried. where: what takes `rows`, as "sft.slice_rows".
    """
    size = rows
    for size in (rows, *_smaller(rows, whole)):
        try:
            return do(size)
        except torch.OutOfMemoryError:
            pass  # leave the block first: the error holds on to what filled the memory
        gc.collect()
        torch.cuda.empty_cache()
    raise BadInput(
        f"out of GPU memory with {where}={size}; make it smaller, set recompute to true, or take a smaller model"
    )


def _smaller(rows: int, whole: int) -> list[int]:
    """The largest divisor of `whole` up to half of `rows`, if there is one."""
    return [size for size in range(rows // 2, 0, -1) if whole % size == 0][:1]
