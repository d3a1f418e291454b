"""A small algebra of edits: what a weight matrix t becomes when parts of another, b, are put back into it.

Edits are values: they compose, compare and print as the text that `edit_text.parse` reads. b and t are the same matrix
of two checkpoints of one model, (m, n); everything is computed in float64 and given back in t's type. With b = U_b S_b
V_b^T and t = U_t S_t V_t^T, the triples of b are matched with those of t once (`turning.matched`), so that "the first
three" means the same directions in both. Nothing is special at full rank: directions(all) keeps t's values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch

from rlheals.errors import BadInput
from rlheals.weights.alignment import Pair, nearest_frame, outside, planes, rotated
from rlheals.weights.checkpoint import Checkpoint, require_same_tensors
from rlheals.weights.linalg import decompose
from rlheals.weights.nulls import haar, null
from rlheals.weights.selection import ALL, BLOCKS, Part, Where

Along = Literal["straight", "rotation"]
Of = Literal["target", "base", "random"]


class Edit(ABC):
    """What becomes of one matrix."""

    needs_matrix = True
    """False for edits that make sense of vectors (norms) too."""

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

        return text(self)


@dataclass(frozen=True, repr=False)
class Values(Edit):
    """t's directions with b's singular values."""

    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        change = pair.base.s[at] - pair.target.s[at]
        return pair.t + (pair.target.u[:, at] * change) @ pair.target.v[:, at].mT


@dataclass(frozen=True, repr=False)
class Left(Edit):
    """b's left directions; values and right directions stay t's. In part only, they are not orthogonal to the rest."""

    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        turned = (pair.base.u[:, at] - pair.target.u[:, at]) * pair.target.s[at]
        return pair.t + turned @ pair.target.v[:, at].mT


@dataclass(frozen=True, repr=False)
class Right(Edit):
    """b's right directions; values and left directions stay t's. In part only, they are not orthogonal to the rest."""

    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        turned = (pair.base.v[:, at] - pair.target.v[:, at]) * pair.target.s[at]
        return pair.t + pair.target.u[:, at] @ turned.mT


@dataclass(frozen=True, repr=False)
class Directions(Edit):
    """b's directions on both sides with t's values; of all of them, singular values are exactly t's."""

    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        s = pair.target.s[at]
        new = (pair.base.u[:, at] * s) @ pair.base.v[:, at].mT
        return pair.t + new - (pair.target.u[:, at] * s) @ pair.target.v[:, at].mT


@dataclass(frozen=True, repr=False)
class Triples(Edit):
    """Directions and values of b: a part of t of that rank is replaced by b's. Of all of them it is b."""

    part: Part = ALL

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        new = (pair.base.u[:, at] * pair.base.s[at]) @ pair.base.v[:, at].mT
        return pair.t + new - (pair.target.u[:, at] * pair.target.s[at]) @ pair.target.v[:, at].mT


@dataclass(frozen=True, repr=False)
class Subspace(Edit):
    """t as a whole turned so that the span of its directions falls on that of b's, by the shortest rotation.

    A product with orthogonal matrices on both sides, so that singular values are exactly t's. share: of every angle.
    """

    part: Part = ALL
    share: float = 1.0

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        turned = pair.t
        for side in ("left", "right"):
            own, other = pair.target.side(side)[:, at], pair.base.side(side)[:, at]
            a, g, angles = planes(own, other)
            w = turned if side == "left" else turned.mT
            w = rotated(w, a, g, self.share * angles)
            turned = w if side == "left" else w.mT
        return turned


@dataclass(frozen=True, repr=False)
class Rollback(Edit):
    """b."""

    needs_matrix = False

    def on(self, pair: Pair) -> torch.Tensor:
        return pair.b.clone()


@dataclass(frozen=True, repr=False)
class PartialRollback(Edit):
    """The change undone inside a subspace only: t + P (b - t) Q, P and Q the projectors onto some left and right ones.

    of: whose directions span the subspaces, t's, b's, or random ones (Haar) of the same dimension.
    """

    part: Part = ALL
    of: Of = "target"
    seed: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        if self.of == "random":
            m, n = pair.t.shape
            left, right = (haar(size, len(at), 1, f"subspace {self.seed} {size} {name}")[0].to(pair.t.device)
                           for size, name in ((m, "left"), (n, "right")))  # fmt: skip
        else:
            whose = pair.target if self.of == "target" else pair.base
            left, right = whose.u[:, at], whose.v[:, at]
        return pair.t + left @ (left.mT @ (pair.b - pair.t) @ right) @ right.mT


@dataclass(frozen=True, repr=False)
class Interpolate(Edit):
    """Between t (0) and b (1): entry by entry, or along the rotation (directions and values each)."""

    alpha: float
    along: Along = "straight"

    @property
    def needs_matrix(self) -> bool:  # type: ignore[override]
        return self.along == "rotation"

    def on(self, pair: Pair) -> torch.Tensor:
        if self.along == "straight":
            return torch.lerp(pair.t, pair.b, self.alpha)
        if self.alpha in (0, 1):
            return (pair.b if self.alpha else pair.t).clone()
        u, v = (
            nearest_frame(torch.lerp(pair.target.side(side), pair.base.side(side), self.alpha))
            for side in ("left", "right")
        )
        return (u * torch.lerp(pair.target.s, pair.base.s, self.alpha)) @ v.mT


@dataclass(frozen=True, repr=False)
class Then(Edit):
    """One edit after another: the second sees what the first gave as its t."""

    first: Edit
    second: Edit

    @property
    def needs_matrix(self) -> bool:  # type: ignore[override]
        return self.first.needs_matrix or self.second.needs_matrix

    def on(self, pair: Pair) -> torch.Tensor:
        return self.second.on(Pair(pair.b, self.first.on(pair)))


@dataclass(frozen=True, repr=False)
class Like(Edit):
    """One edit's change, scaled to the Frobenius norm of another's: controls of equal size. No change has no scale."""

    edit: Edit
    other: Edit

    @property
    def needs_matrix(self) -> bool:  # type: ignore[override]
        return self.edit.needs_matrix or self.other.needs_matrix

    def on(self, pair: Pair) -> torch.Tensor:
        change, size = self.edit.on(pair) - pair.t, (self.other.on(pair) - pair.t).norm()
        own = change.norm()
        if own <= 1e-12 * pair.t.norm() and size > 0:
            raise BadInput(
                f"edit: {self.edit} changes nothing here, so it cannot be scaled to the size of {self.other}"
            )
        return pair.t + change * (size / own if size > 0 else 0.0)


def edit_matrix(b: torch.Tensor, t: torch.Tensor, edit: Edit) -> torch.Tensor:
    """t edited with b, in t's type. Vectors (norms) can be rolled back and interpolated only.

    >>> b, t = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([2.0, 1.0]))
    >>> edit_matrix(b, t, Values()).tolist()
    [[3.0, 0.0], [0.0, 1.0]]
    """
    return _on(Pair(b, t), edit).to(t.dtype)


def _on(pair: Pair, edit: Edit) -> torch.Tensor:
    if pair.t.ndim != 2 and edit.needs_matrix:
        raise BadInput(
            f"edit: {edit} needs matrices; a tensor of shape {tuple(pair.t.shape)} has no singular directions"
        )
    if not torch.isfinite(pair.b.sum() + pair.t.sum()):
        raise BadInput("edit: a tensor holds numbers that are not finite")
    return edit.on(pair)


@dataclass(frozen=True)
class Edited:
    """One tensor of the target, edited; pair: what it was made of, None where nothing was wanted."""

    name: str
    after: torch.Tensor
    pair: Pair | None


def edited(base: Checkpoint, target: Checkpoint, edit: Edit, where: Where = BLOCKS) -> Iterator[Edited]:
    """Every tensor of `target`, edited where wanted, one at a time, read once.

    Raises BadInput when the checkpoints are not of one model, when nothing is chosen, or when an edit does not fit.
    """
    require_same_tensors(base, target)
    chosen = where.places(target)
    for name, place in target.places.items():
        t = target.tensor(name)
        if name not in chosen:
            yield Edited(name, t, None)
            continue
        pair = Pair(base.tensor(name), t)
        if where.heads:
            after = where.by_head(place, pair.b, pair.t, lambda b, t: edit_matrix(b, t, edit))
        else:
            after = _on(pair, edit)
        yield Edited(name, after.to(t.dtype), pair)


def apply(
    base: Checkpoint, target: Checkpoint, edit: Edit, where: Where = BLOCKS
) -> Iterator[tuple[str, torch.Tensor]]:
    """As `edited`: (name, tensor after)."""
    for one in edited(base, target, edit, where):
        yield one.name, one.after


@dataclass(frozen=True, repr=False)
class RandomSubspace(Edit):
    """As `Subspace`, by the same angles, but towards directions drawn at random (Haar): its control."""

    part: Part
    seed: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        turned = pair.t
        for side in ("left", "right"):
            own, other = pair.target.side(side)[:, at], pair.base.side(side)[:, at]
            a, g, angles = planes(own, other)
            turning = angles > 0
            drawn = torch.zeros_like(g)
            drawn[:, turning] = outside(own, int(turning.sum()), f"random directions {self.seed} {side}")
            w = turned if side == "left" else turned.mT
            w = rotated(w, a, drawn, angles)
            turned = w if side == "left" else w.mT
        return turned


@dataclass(frozen=True, repr=False)
class Noise(Edit):
    """t with Gaussian noise of the norm of b - t: a control that knows nothing of b but its distance."""

    seed: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        return null("gaussian", pair.t.cpu(), (pair.b - pair.t).cpu(), 1, f"noise {self.seed}")[0].to(
            pair.t.device
        )


@dataclass(frozen=True, repr=False)
class Released(Edit):
    """The direction edit of the authors' scripts, to show what it does: index order, no matching, and its shortcut.

    Where top and bottom together reach the rank, those scripts give back b itself, values included.
    """

    top: int
    bottom: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        if self.top + self.bottom >= pair.rank:
            return pair.b.clone()
        base, target = decompose(pair.b), pair.target
        mixed = [
            torch.cat(
                [b[:, : self.top], t[:, self.top : pair.rank - self.bottom], b[:, pair.rank - self.bottom :]],
                1,
            )
            for b, t in ((base.u, target.u), (base.v, target.v))
        ]
        return (mixed[0] * target.s) @ mixed[1].mT


NAMES: dict[str, type[Edit]] = {
    "values": Values,
    "left": Left,
    "right": Right,
    "directions": Directions,
    "triples": Triples,
    "subspace": Subspace,
    "random": RandomSubspace,
    "rollback": Rollback,
    "partial": PartialRollback,
    "interpolate": Interpolate,
    "noise": Noise,
    "released": Released,
}


def text(edit: Edit) -> str:
    """The text that `parse` reads back; arguments at their default are left out."""
    if isinstance(edit, Then):
        return f"{edit.first} then {edit.second}"
    if isinstance(edit, Like):
        return f"{edit.edit} like {edit.other}"
    name = next(name for name, kind in NAMES.items() if type(edit) is kind)
    said = []
    for field in fields(edit):  # type: ignore[arg-type]
        value = getattr(edit, field.name)
        if isinstance(value, Part):
            said.append(str(value))
        elif value != field.default:
            said.append(f"{value:g}" if field.name == "alpha" else f"{field.name}={value}")
    return f"{name}({', '.join(said)})"
