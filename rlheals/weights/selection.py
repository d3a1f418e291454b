"""Where an edit is made: kinds of tensors, layers, attention heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from rlheals.errors import BadInput
from rlheals.weights.checkpoint import KINDS, Checkpoint, Place

NORMS = "norms"
GROUPS: dict[str, tuple[str, ...]] = {
    "blocks": ("q", "k", "v", "o", "gate", "up", "down"),
    "attention": ("q", "k", "v", "o"),
    "mlp": ("gate", "up", "down"),
    "paper": ("q", "k", "v", "gate", "up", "down"),
    "ends": ("embed", "head"),
    "matrices": tuple(KINDS),
    "everything": (*KINDS, NORMS),
}
"""Names for the usual choices; "paper" is what the paper's text names, "everything" includes norms and biases."""


@dataclass(frozen=True)
class Where:
    """Tensors of some kinds, in some layers (None: all), in some of `of` attention heads (q, k, v, o only).

    >>> str(Where.parse("paper layers=0-1,3"))
    'kinds=q,k,v,gate,up,down layers=0,1,3'
    """

    kinds: tuple[str, ...] = GROUPS["blocks"]
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] = ()
    of: int = 0

    @classmethod
    def parse(cls, text: str) -> Where:
        """Words in any order: a group's name, `kinds=q,k`, `layers=0-3,7`, `heads=0,2/8`; BadInput otherwise."""
        kinds = GROUPS["blocks"]
        layers: tuple[int, ...] | None = None
        heads: tuple[int, ...] = ()
        of = 0
        for word in text.split():
            key, _, value = word.partition("=")
            if word in GROUPS:
                kinds = GROUPS[word]
            elif key == "kinds":
                kinds = tuple(value.split(","))
            elif key == "layers":
                layers = _numbers(value)
            elif key == "heads" and (found := re.fullmatch(r"([\d,-]+)/(\d{1,4})", value)):
                heads, of = _numbers(found[1]), int(found[2])
            else:
                groups = ", ".join(GROUPS)
                raise BadInput(
                    f"where {word!r:.60}: accepted are {groups}, kinds=q,k, layers=0-3,7, heads=0,2/8"
                )
        if unknown := [kind for kind in kinds if kind not in (*KINDS, NORMS)]:
            raise BadInput(f"where: kind {unknown[0]!r:.40} is not one of {', '.join((*KINDS, NORMS))}")
        if heads and (max(heads) >= of or not set(kinds) & set(GROUPS["attention"])):
            raise BadInput(
                f"where: heads {', '.join(map(str, heads))} of {of} of kinds {', '.join(kinds)}: no such heads"
            )
        return cls(kinds, layers, heads, of)

    def __str__(self) -> str:
        words = [f"kinds={','.join(self.kinds)}"]
        if self.layers is not None:
            words.append(f"layers={','.join(map(str, self.layers))}")
        if self.heads:
            words.append(f"heads={','.join(map(str, self.heads))}/{self.of}")
        return " ".join(words)

    def places(self, checkpoint: Checkpoint) -> dict[str, Place]:
        """The tensors that are meant, by name; BadInput when there are none."""
        chosen = {name: place for name, place in checkpoint.places.items() if self._means(place)}
        if not chosen:
            raise BadInput(f"where {str(self)!r}: checkpoint {checkpoint.source!r} has no such tensor")
        return chosen

    def _means(self, place: Place) -> bool:
        kind = NORMS if len(place.shape) < 2 else place.kind
        if kind not in self.kinds or (self.heads and kind not in GROUPS["attention"]):
            return False
        return self.layers is None or place.layer in self.layers

    def by_head(
        self,
        place: Place,
        b: torch.Tensor,
        t: torch.Tensor,
        edit: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """The tensor with the wanted heads edited, each on its own (rows of q, k, v; columns of o)."""
        along = 1 if place.kind == "o" else 0
        if t.shape[along] % self.of:
            raise BadInput(f"{place.name}: {t.shape[along]} does not divide into {self.of} heads")
        pieces = zip(b.chunk(self.of, along), t.chunk(self.of, along), strict=True)
        made = [edit(one, other) if head in self.heads else other for head, (one, other) in enumerate(pieces)]
        return torch.cat(made, along)


def _numbers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in text.split(","):
        bounds = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", piece)
        if bounds is None:
            raise BadInput(f"where: {piece!r:.40} is not a number or a range such as 0-3")
        found |= set(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    if not found:
        raise BadInput(f"where: {text!r:.40} names nothing")
    return tuple(sorted(found))


BLOCKS = Where()

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
