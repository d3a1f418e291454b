"""Where an edit is made: which singular triples of a matrix; which kinds of tensors, layers, attention heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rlheals.errors import BadInput
from rlheals.weights.architectures import HEADED, KINDS, NAMED, NORMS, Piece, family, known, meant
from rlheals.weights.arrays import torch
from rlheals.weights.checkpoint import Checkpoint

LONGEST = 10_000
"""Characters of a text that is read: more than every layer and every head named one by one."""
GROUPS: dict[str, tuple[str, ...]] = {
    "blocks": (*HEADED, "gate", "up", "down"),
    "attention": HEADED,
    "mlp": ("gate", "up", "down"),
    "paper": ("q", "k", "v", "gate", "up", "down"),
    "ends": ("embed", "head"),
    "matrices": tuple(KINDS),
    "everything": (*KINDS, NORMS),
}
"""Names for the usual choices; "paper" is what the paper's text names, "ends" embeddings and output head, "matrices"
every weight matrix of the text model, "everything" every tensor."""


def number_text(value: float) -> str:
    """The shortest text that is read back as this number.

    >>> number_text(1.0), number_text(0.1234567), number_text(1e-7)
    ('1', '0.1234567', '1e-07')
    """
    return repr(value).removesuffix(".0")


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
        if len(text) > LONGEST:
            raise BadInput(f"where: text of {len(text)} characters, at most {LONGEST} are read")
        kinds, of = GROUPS["blocks"], 0
        layers: tuple[int, ...] | None = None
        heads: tuple[int, ...] = ()
        for word in text.split():
            key, _, value = word.partition("=")
            if word in GROUPS:
                kinds = GROUPS[word]
            elif key == "kinds":
                kinds = tuple(value.split(","))
            elif key == "layers":
                layers = _numbers(value)
            elif key == "heads" and (found := re.fullmatch(r"([\d,-]+)/(\d{1,3})", value)):
                heads, of = _numbers(found[1]), int(found[2])
            else:
                accepted = f"{', '.join(GROUPS)}, kinds=q,k, layers=0-3,7, heads=0,2/8"
                raise BadInput(f"where {word!r:.60}: accepted are {accepted}")
        if unknown := [kind for kind in kinds if not known(kind) and kind != NORMS]:
            accepted = ", ".join((*NAMED, NORMS))
            raise BadInput(f"where: kind {unknown[0]!r:.40} is not one of {accepted}")
        if heads and (max(heads) >= of or not any(family(kind) in HEADED for kind in kinds)):
            raise BadInput(f"where: {text!r:.60}: no such heads")
        return cls(kinds, layers, heads, of)

    def __str__(self) -> str:
        words = [f"kinds={','.join(self.kinds)}"]
        if self.layers is not None:
            words.append(f"layers={','.join(map(str, self.layers))}")
        if self.heads:
            words.append(f"heads={','.join(map(str, self.heads))}/{self.of}")
        return " ".join(words)

    def pieces(self, checkpoint: Checkpoint) -> dict[str, Piece]:
        """What is meant, by name; BadInput when there is nothing, or a layer that the model does not have."""
        there = {piece.layer for piece in checkpoint.pieces.values()}
        if absent := [layer for layer in self.layers or () if layer not in there]:
            raise BadInput(
                f"where {str(self)!r:.60}: checkpoint {checkpoint.source!r} has no layer {absent[0]}"
            )
        chosen = {name: piece for name, piece in checkpoint.pieces.items() if self._means(piece)}
        if not chosen:
            raise BadInput(f"where {str(self)!r}: checkpoint {checkpoint.source!r} has no such tensor")
        return chosen

    def _means(self, piece: Piece) -> bool:
        if not meant(piece, self.kinds) or (self.heads and piece.family not in HEADED):
            return False
        return self.layers is None or piece.layer in self.layers

    def by_head(
        self,
        piece: Piece,
        b: torch.Tensor,
        t: torch.Tensor,
        edit: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """The matrix with the wanted heads edited, each on its own (rows of q, k, v; columns of o)."""
        pieces = zip(piece.by_head(b, self.of), piece.by_head(t, self.of), strict=True)
        made = [edit(one, other) if head in self.heads else other for head, (one, other) in enumerate(pieces)]
        return torch.cat(made, piece.head_axis)


def _numbers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in text.split(","):
        bounds = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", piece)
        if bounds is None:
            raise BadInput(f"where: {piece!r:.40} is not a number below 1,000 or a range such as 0-3")
        found |= set(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    if not found:
        raise BadInput(f"where: {text!r:.40} names nothing")
    return tuple(sorted(found))


BLOCKS = Where()

_AMOUNT = re.compile(r"(\d{1,9})|([0-9.e+-]{1,24})%")


@dataclass(frozen=True)
class Part:
    """Some of the singular triples of a matrix, the largest singular value first.

    kind "top" and "bottom": `amount` of them, or of every 100 where `share` is true; "range": from `amount` to `last`,
    counted from 1; "all". More than there are is all of them.

    >>> str(Part.parse("top=20%")), Part.parse("top=20%").indices(10).tolist()
    ('top=20%', [0, 1])
    """

    kind: Literal["top", "bottom", "range", "all"] = "all"
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
            try:
                value = float(found[2]) if share else int(found[1])
            except ValueError:
                value = -1
            if 0 <= value <= (100 if share else value):
                return cls("top" if kind == "top" else "bottom", value, 0, share)
        raise BadInput(f"part {text.strip()!r:.60}: accepted are all, top=8, top=20%, bottom=8, range=5-10")

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"
        last = f"-{self.last}" if self.kind == "range" else "%" if self.share else ""
        return f"{self.kind}={number_text(self.amount)}{last}"

    def indices(self, rank: int) -> torch.Tensor:
        """Places, from 0, of a matrix with that many singular values."""
        if self.kind == "all":
            return torch.arange(rank)
        if self.kind == "range":
            return torch.arange(min(int(self.amount) - 1, rank), min(self.last, rank))
        count = int(rank * self.amount / 100 + 0.5) if self.share else int(self.amount)
        count = min(count, rank)
        return torch.arange(count) if self.kind == "top" else torch.arange(rank - count, rank)


ALL = Part()
