"""A small algebra of edits: what a weight matrix t becomes when parts of another, b, are put back into it.

Edits are values: they compose, compare and print as the text that `edit_parser.parse` reads. b and t are the same
matrix of two checkpoints of one model, (m, n); everything is computed in float64 and given back in t's type. With
b = U_b S_b V_b^T and t = U_t S_t V_t^T, the triples of b are matched with those of t once (`alignment.matched`), so
that "the first three" means the same singular vectors in both. Nothing is special at full rank: directions(all) keeps
t's singular values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rlheals.errors import BadInput
from rlheals.weights.alignment import Pair, nearest_frame, outside, planes, rotated
from rlheals.weights.arrays import torch
from rlheals.weights.linalg import SIDES, Side
from rlheals.weights.nulls import haar, null
from rlheals.weights.selection import ALL, Part, number_text

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=10**9)]


class Edit(ABC):
    """What becomes of one matrix. The limits on its arguments are those of its text."""

    name: ClassVar[str] = ""
    """Of the call in its text."""

    @abstractmethod
    def on(self, pair: Pair) -> torch.Tensor:
        """The edited matrix in float64."""

    def then(self, other: Edit) -> Then:
        """This edit, then another of what it gave."""
        return Then(self, other)

    def like(self, other: Edit) -> Like:
        """This edit, its change scaled to the size of another's."""
        return Like(self, other)

    def __str__(self) -> str:
        """The text that is read back; arguments at their default are left out."""
        said = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Part):
                said.append(str(value))
            elif value != field.default:
                key = "" if field.name == "alpha" else f"{field.name}="
                said.append(key + (number_text(value) if isinstance(value, float) else str(value)))
        return f"{self.name}({', '.join(said)})"


@dataclass(frozen=True, repr=False)
class Values(Edit):
    """t's singular vectors with b's singular values."""

    name = "values"
    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        b, t = pair.triples(self.part)
        return pair.t + (t.u * (b.s - t.s)) @ t.v.mT


@dataclass(frozen=True, repr=False)
class Left(Edit):
    """b's left singular vectors, the rest t's. In part only, they are not orthogonal to the others."""

    name = "left"
    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        b, t = pair.triples(self.part)
        return pair.t + ((b.u - t.u) * t.s) @ t.v.mT


@dataclass(frozen=True, repr=False)
class Right(Edit):
    """b's right singular vectors, the rest t's. In part only, they are not orthogonal to the others."""

    name = "right"
    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        b, t = pair.triples(self.part)
        return pair.t + t.u @ ((b.v - t.v) * t.s).mT


@dataclass(frozen=True, repr=False)
class Directions(Edit):
    """b's singular vectors on both sides with t's singular values; of all of them, those are exactly t's."""

    name = "directions"
    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        b, t = pair.triples(self.part)
        return pair.t + (b.u * t.s) @ b.v.mT - (t.u * t.s) @ t.v.mT


@dataclass(frozen=True, repr=False)
class Triples(Edit):
    """b's singular vectors and values: a part of t of that rank is replaced by b's. Of all of them it is b."""

    name = "triples"
    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        b, t = pair.triples(self.part)
        return pair.t + (b.u * b.s) @ b.v.mT - (t.u * t.s) @ t.v.mT


@dataclass(frozen=True, repr=False)
class Subspace(Edit):
    """t as a whole turned so that the span of its singular vectors falls on that of b's, by the shortest rotation.

    A product with orthogonal matrices on both sides, so that singular values are exactly t's. share: of every angle.
    """

    name = "subspace"
    part: Part = ALL
    share: Share = 1.0

    def on(self, pair: Pair) -> torch.Tensor:
        return _turned(pair, self.part, self.share, lambda own, g, angles, side: g)


@dataclass(frozen=True, repr=False)
class RandomSubspace(Edit):
    """As `Subspace`, by the same angles, but towards vectors drawn at random (Haar): its control."""

    name = "random"
    part: Part
    seed: Count = 0

    def on(self, pair: Pair) -> torch.Tensor:
        def drawn(own: torch.Tensor, g: torch.Tensor, angles: torch.Tensor, side: Side) -> torch.Tensor:
            turning, goals = angles > 0, torch.zeros_like(g)
            goals[:, turning] = outside(own, int(turning.sum()), f"random directions {self.seed} {side}")
            return goals

        return _turned(pair, self.part, 1.0, drawn)


def _turned(
    pair: Pair,
    part: Part,
    share: float,
    goals: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Side], torch.Tensor],
) -> torch.Tensor:
    """t rotated on both sides; goals (of own vectors, those of the way to b's, angles, side): what to turn towards."""
    turned, (b, t) = pair.t, pair.triples(part)
    for side in SIDES:
        own = t.side(side)
        a, g, angles = planes(own, b.side(side))
        w = turned if side == "left" else turned.mT
        w = rotated(w, a, goals(own, g, angles, side), share * angles)
        turned = w if side == "left" else w.mT
    return turned


@dataclass(frozen=True, repr=False)
class Rollback(Edit):
    """b."""

    name = "rollback"

    def on(self, pair: Pair) -> torch.Tensor:
        return pair.b.clone()


@dataclass(frozen=True, repr=False)
class PartialRollback(Edit):
    """The change undone inside a subspace only: t + P (b - t) Q, P and Q the projectors onto some left and right ones.

    of: whose singular vectors span the subspaces, t's, b's, or random ones (Haar) of the same dimension.
    """

    name = "partial"
    part: Part = ALL
    of: Literal["target", "base", "random"] = "target"
    seed: Count = 0

    def on(self, pair: Pair) -> torch.Tensor:
        if self.of == "random":
            k = len(self.part.indices(pair.rank))
            left, right = (haar(size, k, 1, f"subspace {self.seed} {size} {name}")[0].to(pair.t.device)
                           for size, name in zip(pair.t.shape, SIDES, strict=True))  # fmt: skip
        else:
            b, t = pair.triples(self.part)
            whose = t if self.of == "target" else b
            left, right = whose.u, whose.v
        return pair.t + left @ (left.mT @ (pair.b - pair.t) @ right) @ right.mT


@dataclass(frozen=True, repr=False)
class Interpolate(Edit):
    """Between t (0) and b (1): entry by entry, or along the rotation (singular vectors and values each)."""

    name = "interpolate"
    alpha: Share
    along: Literal["straight", "rotation"] = "straight"

    def on(self, pair: Pair) -> torch.Tensor:
        if self.along == "straight":
            return torch.lerp(pair.t, pair.b, self.alpha)
        if self.alpha in (0, 1):
            return (pair.b if self.alpha else pair.t).clone()
        u, v = (
            nearest_frame(torch.lerp(pair.target.side(side), pair.base.side(side), self.alpha))
            for side in SIDES
        )
        return (u * torch.lerp(pair.target.s, pair.base.s, self.alpha)) @ v.mT


@dataclass(frozen=True, repr=False)
class Noise(Edit):
    """t with Gaussian noise of the norm of b - t: a control that knows nothing of b but its distance."""

    name = "noise"
    seed: Count = 0

    def on(self, pair: Pair) -> torch.Tensor:
        t, change = (one.cpu().reshape(len(one), -1) for one in (pair.t, pair.b - pair.t))
        return null("gaussian", t, change, 1, f"noise {self.seed}")[0].reshape(pair.t.shape).to(pair.t.device)


@dataclass(frozen=True, repr=False)
class Released(Edit):
    """The edit of singular vectors in the authors' scripts, to show what it does: index order, no matching.

    Where top and bottom together reach the rank, those scripts give back b itself, singular values included.
    """

    name = "released"
    top: Count
    bottom: Count = 0

    def on(self, pair: Pair) -> torch.Tensor:
        if self.top + self.bottom >= pair.rank:
            return pair.b.clone()
        last = pair.rank - self.bottom
        u, v = (
            torch.cat([b[:, : self.top], t[:, self.top : last], b[:, last:]], 1)
            for b, t in ((pair.other.side(side), pair.target.side(side)) for side in SIDES)
        )
        return (u * pair.target.s) @ v.mT


@dataclass(frozen=True, repr=False)
class Then(Edit):
    """One edit after another: the second sees what the first gave as its t."""

    first: Edit
    second: Edit

    def on(self, pair: Pair) -> torch.Tensor:
        return self.second.on(Pair(pair.b, self.first.on(pair)))

    def __str__(self) -> str:
        return f"{self.first} then {self.second}"


@dataclass(frozen=True, repr=False)
class Like(Edit):
    """One edit's change, scaled to the Frobenius norm of another's: controls of equal size. No change has no scale."""

    edit: Edit
    other: Edit

    def on(self, pair: Pair) -> torch.Tensor:
        change, size = self.edit.on(pair) - pair.t, (self.other.on(pair) - pair.t).norm()
        own = change.norm()
        if own <= 1e-12 * pair.t.norm() and size > 0:
            raise BadInput(
                f"edit: {self.edit} changes nothing here, so it cannot be scaled to the size of {self.other}"
            )
        return pair.t + change * (size / own if size > 0 else 0.0)

    def __str__(self) -> str:
        return f"{self.edit} like {self.other}"


EDITS: dict[str, type[Edit]] = {
    kind.name: kind
    for kind in (
        Values, Left, Right, Directions, Triples, Subspace, RandomSubspace, Rollback, PartialRollback, Interpolate,
        Noise, Released,
    )
}  # fmt: skip
"""By the name in their text."""


def edit_matrix(b: torch.Tensor, t: torch.Tensor, edit: Edit) -> torch.Tensor:
    """t edited with b, in t's type; BadInput where an edit of singular triples meets a vector (a norm).

    >>> b, t = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([2.0, 1.0]))
    >>> edit_matrix(b, t, Values()).tolist()
    [[3.0, 0.0], [0.0, 1.0]]
    """
    return edit_pair(Pair(b, t), edit).to(torch.as_tensor(t).dtype)


def edit_pair(pair: Pair, edit: Edit) -> torch.Tensor:
    """The edited matrix in float64; BadInput where a number is not finite."""
    if not torch.isfinite(pair.b.sum() + pair.t.sum()):
        raise BadInput("edit: a tensor holds numbers that are not finite")
    return edit.on(pair)
