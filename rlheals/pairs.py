"""One matrix of two checkpoints, and its decompositions: made when they are needed, once."""

from __future__ import annotations

from functools import cached_property

import torch

from rlheals.errors import BadInput
from rlheals.linalg import Decomposition, decompose
from rlheals.turning import matched


class Pair:
    """One matrix of both checkpoints in float64, decomposed when that is needed."""

    def __init__(self, b: torch.Tensor, t: torch.Tensor) -> None:
        if b.shape != t.shape:
            raise BadInput(f"edit: shapes {tuple(b.shape)} and {tuple(t.shape)} do not fit")
        self.b, self.t = b.to(torch.float64), t.to(torch.float64)

    @property
    def rank(self) -> int:
        return min(self.t.shape)

    @cached_property
    def target(self) -> Decomposition:
        return decompose(self.t)

    @cached_property
    def other(self) -> Decomposition:
        """b's decomposition, largest singular value first."""
        return decompose(self.b)

    @cached_property
    def base(self) -> Decomposition:
        """b's decomposition, in the order and with the signs of t's."""
        return matched(self.other, self.target)
