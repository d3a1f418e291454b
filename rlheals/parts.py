"""Which singular directions an edit speaks of: the first or last ones, a range, a share, all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch

from rlheals.errors import BadInput

Kind = Literal["top", "bottom", "range", "all"]
_AMOUNT = re.compile(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,6})?)%")


@dataclass(frozen=True)
class Part:
    """Some of the directions of a matrix, the largest singular value first.

    kind "top" and "bottom": `amount` of them, or of every 100 where `share` is true; "range": from `amount` to `last`,
    counted from 1; "all". More than there are is all of them.

    >>> str(Part.parse("top=20%")), Part.parse("top=20%").indices(10).tolist()
    ('top=20%', [0, 1])
    """

    kind: Kind = "all"
    amount: float = 0
    last: int = 0
    share: bool = False

    @classmethod
    def parse(cls, text: str) -> Part:
        """`all`, `top=8`, `top=20%`, `bottom=8`, `range=5-10`; BadInput for anything else."""
        kind, _, amount = text.strip().partition("=")
        if text.strip() == "all":
            return ALL
        if kind == "range" and (found := re.fullmatch(r"(\d{1,9})-(\d{1,9})", amount)):
            first, last = int(found[1]), int(found[2])
            if 1 <= first <= last:
                return cls("range", first, last)
        elif kind in ("top", "bottom") and (found := _AMOUNT.fullmatch(amount)):
            share = found[2] is not None
            value = float(found[2]) if share else int(found[1])
            if not share or value <= 100:
                return cls("top" if kind == "top" else "bottom", value, 0, share)
        raise BadInput(f"part {text.strip()!r:.60}: accepted are all, top=8, top=20%, bottom=8, range=5-10")

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"
        if self.kind == "range":
            return f"range={self.amount:g}-{self.last}"
        return f"{self.kind}={self.amount:g}{'%' if self.share else ''}"

    def indices(self, rank: int) -> torch.Tensor:
        """Places, from 0, of a matrix with that many directions."""
        if self.kind == "all":
            return torch.arange(rank)
        if self.kind == "range":
            return torch.arange(min(int(self.amount) - 1, rank), min(self.last, rank))
        count = int(rank * self.amount / 100 + 0.5) if self.share else int(self.amount)
        count = min(count, rank)
        return torch.arange(count) if self.kind == "top" else torch.arange(rank - count, rank)


ALL = Part()


def top(amount: float, share: bool = False) -> Part:
    """The first ones."""
    return Part("top", amount, 0, share)


def bottom(amount: float, share: bool = False) -> Part:
    """The last ones."""
    return Part("bottom", amount, 0, share)
