"""Rotations between singular subspaces, and matching of two decompositions: what edits are made of."""

from __future__ import annotations

from functools import cached_property

from rlheals.errors import BadInput
from rlheals.weights.arrays import torch
from rlheals.weights.linalg import Decomposition, decompose
from rlheals.weights.nulls import haar
from rlheals.weights.selection import Part

DEGENERATE = 1e-8
"""Singular values of b closer than this, relative to the largest, have no vectors of their own, only a subspace."""


def matched(base: Decomposition, target: Decomposition) -> Decomposition:
    """The triples of `base`, each at the place of the one of `target` that it overlaps most, with its sign.

    The assignment with the largest sum of |u . u'| |v . v'|. Equal singular values have no vectors of their own: within
    such a block the basis nearest to the target's is taken (orthogonal Procrustes), which leaves the matrix as it is.
    """
    from scipy.optimize import linear_sum_assignment

    left, right = target.u.mT @ base.u, target.v.mT @ base.v
    rows, order = linear_sum_assignment((left * right).abs().cpu().numpy(), maximize=True)
    places = torch.as_tensor(order, device=base.s.device)
    u, s, v = base.u[:, places], base.s[places], base.v[:, places]
    signs = torch.where((left + right)[rows, places] < 0, -1.0, 1.0).to(u.dtype)
    blocks = [block for block in _blocks(s) if len(block) > 1]
    for block in blocks:
        signs[block] = 1.0
    u, v = u * signs, v * signs
    for block in blocks:
        likeness = u[:, block].mT @ target.u[:, block] + v[:, block].mT @ target.v[:, block]
        x, _, y = torch.linalg.svd(likeness)
        u[:, block], v[:, block] = u[:, block] @ x @ y, v[:, block] @ x @ y
    return Decomposition(u, s, v)


def _blocks(s: torch.Tensor) -> list[torch.Tensor]:
    """Indices of values that are equal, each value on its own otherwise; s in any order."""
    order = torch.argsort(s, descending=True, stable=True)
    cuts = (s[order][:-1] - s[order][1:] > DEGENERATE * s.max()).nonzero().flatten() + 1
    return [block.sort().values for block in torch.tensor_split(order, cuts.cpu())]


def planes(own: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Planes of the shortest rotation of span(own) onto span(other): (n, k) each with orthonormal columns.

    Principal vectors a_i of own, unit vectors g_i orthogonal to all of own, and angles so that cos a_i + sin g_i span
    other. Where the angle is 0, g_i is 0: there is nothing to turn.
    """
    x, cosines, yh = torch.linalg.svd(own.mT @ other)
    a, b = own @ x, other @ yh.mT
    rest = b - own @ (own.mT @ b)
    sines = rest.norm(dim=0)
    turning = sines > 1e-12
    g = torch.where(turning, rest / sines.clamp(min=1e-300), 0.0)
    return a, g, torch.where(turning, torch.atan2(sines, cosines), 0.0)


def rotated(w: torch.Tensor, a: torch.Tensor, g: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """R w: R turns by angles in the planes (a_i, g_i) and is the identity elsewhere; it is never made as a matrix."""
    along, across = a.mT @ w, g.mT @ w
    cos, sin = (torch.cos(angles) - 1)[:, None], torch.sin(angles)[:, None]
    return w + a @ (cos * along - sin * across) + g @ (sin * along + cos * across)


def outside(own: torch.Tensor, count: int, key: str) -> torch.Tensor:
    """`count` random orthonormal vectors (n, count), orthogonal to all columns of own (n, k); count <= n - k."""
    n, k = own.shape
    if count > n - k:
        raise BadInput(f"edit: {count} vectors outside of {k} in {n} dimensions do not exist")
    drawn = haar(n, count, 1, key)[0].to(own.device) if count else own[:, :0]
    return torch.linalg.qr(drawn - own @ (own.mT @ drawn))[0] if count else drawn


def nearest_frame(basis: torch.Tensor) -> torch.Tensor:
    """The orthonormal columns nearest to these (polar factor)."""
    left, s, right = torch.linalg.svd(basis, full_matrices=False)
    if s[-1] < 1e-9:
        raise BadInput(
            "edit: singular vectors of the two checkpoints are at right angles; no rotation between"
        )
    return left @ right


class Pair:
    """One matrix of both checkpoints in float64, decomposed when that is needed."""

    def __init__(self, b: torch.Tensor, t: torch.Tensor) -> None:
        if b.shape != t.shape:
            raise BadInput(f"edit: shapes {tuple(b.shape)} and {tuple(t.shape)} do not fit")
        self.b, self.t = (torch.as_tensor(one).to(torch.float64) for one in (b, t))

    @property
    def rank(self) -> int:
        if self.t.ndim != 2:
            raise BadInput(
                f"edit: it needs matrices; a tensor of shape {tuple(self.t.shape)} has no singular vectors"
            )
        return min(self.t.shape)

    def triples(self, part: Part) -> tuple[Decomposition, Decomposition]:
        """The singular triples of b and of t that are meant."""
        at = part.indices(self.rank)
        return self.base.triples(at), self.target.triples(at)

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
