"""Singular values and subspaces of weight matrices, and the angles between them: float64, radians, sine-based.

Every function takes leading batch dimensions, so that many matrices of one shape (null draws, layers, heads) are one
call. Angles come from sines and cosines together (Knyazev and Argentati 2002): from cosines alone, float64 cannot tell
1e-8 from 0, and float32 cannot tell 1e-3.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from rlheals.errors import BadInput
from rlheals.store.files import believed, make_folder, note, told, whole_file
from rlheals.weights.arrays import load_file, save_file, torch

End = Literal["top", "bottom"]
Side = Literal["left", "right"]
ENDS: tuple[End, ...] = ("top", "bottom")
SIDES: tuple[Side, ...] = ("left", "right")

ILL_CONDITIONED = 1e-5
"""Below this ratio of smallest to largest singular value, Gram matrices (which square it) are not used."""
ORTHONORMAL = 1e-12
"""Products of singular vectors that "gram" leaves above 0 without a further step: about eps (s_max / s_min)^2."""
EXACT = 256
"""Up to this many vectors, angles are exact to rounding; above, to 1e-7, see `Overlap`."""
EPSILON = float(torch.finfo(torch.float64).eps)


@dataclass(frozen=True)
class Decomposition:
    """W = u diag(s) v^T, thin: u (..., m, r), s (..., r) descending, v (..., n, r), r = min(m, n); float64."""

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor

    @property
    def rank(self) -> torch.Tensor:
        """Number of singular values above what rounding the entries to float32 may leave; (...,) integers.

        Rounding moves entries by up to eps / 2 of their size, and m x n random moves of standard deviation t have a
        spectral norm of about t (sqrt m + sqrt n).
        """
        m, n = self.u.shape[-2], self.v.shape[-2]
        typical = self.s.square().sum(-1, keepdim=True).sqrt() / math.sqrt(m * n)
        noise = typical * torch.finfo(torch.float32).eps / 2 * (math.sqrt(m) + math.sqrt(n))
        return (self.s > noise).sum(-1)

    def side(self, side: Side) -> torch.Tensor:
        """Left or right singular vectors."""
        return self.u if side == "left" else self.v

    def gap(self, k: int, end: End = "top") -> torch.Tensor:
        """Relative spectral gap at the edge of the k first or last triples: (s_k - s_(k+1)) / s_k; (...,).

        A subspace whose edge lies between nearly equal singular values turns under any change: an angle there means
        nothing. 1 where there is no neighbour.
        """
        r = self.s.shape[-1]
        edge = k if end == "top" else r - k
        if not 0 < edge < r:
            return torch.ones_like(self.s[..., 0])
        above, below = self.s[..., edge - 1], self.s[..., edge]
        return torch.where(above > 0, (above - below) / above.clamp(min=1e-300), torch.zeros_like(above))

    def triples(self, at: torch.Tensor) -> Decomposition:
        """Some of the singular triples, by their places; of one matrix."""
        return Decomposition(self.u[:, at], self.s[at], self.v[:, at])


def decompose(w: torch.Tensor, method: Literal["auto", "gram", "svd"] = "auto") -> Decomposition:
    """Thin singular value decomposition of (..., m, n) in float64.

    "gram": eigenvectors of the Gram matrix on the short side, the other side by one product and an orthonormalisation
    that keeps every leading subspace; several times faster than "svd" for matrices that are not square. Squaring the
    matrix costs accuracy in the last singular vectors, so "auto" takes it only while s_min > 1e-5 s_max in the whole
    batch, else `torch.linalg.svd`. Raises BadInput for anything but finite matrices, and for "gram" of singular ones.

    >>> d = decompose(torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]]))
    >>> d.s.tolist(), d.u.shape, d.v.shape
    ([3.0, 2.0], torch.Size([3, 2]), torch.Size([2, 2]))
    """
    if w.ndim < 2 or 0 in w.shape[-2:]:
        raise BadInput(f"decompose: shape {tuple(w.shape)}, accepted are matrices (..., m, n)")
    matrix = torch.as_tensor(w).to(torch.float64)
    if not bool(torch.isfinite(matrix).all()):
        raise BadInput("decompose: the matrix holds numbers that are not finite")
    if method != "svd":
        found = _by_gram(matrix)
        if found is not None and (
            method == "gram" or bool((found.s[..., -1] > ILL_CONDITIONED * found.s[..., 0]).all())
        ):
            return found
        if method == "gram":
            raise BadInput(
                "decompose: the matrix is singular; its Gram matrix does not give all singular vectors"
            )
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return Decomposition(u, s, vh.mT)


def _by_gram(matrix: torch.Tensor) -> Decomposition | None:
    """None where the matrix is too close to singular."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    short = matrix if wide else matrix.mT  # (..., r, long)
    squares, vectors = torch.linalg.eigh(short @ short.mT)
    s, near = squares.flip(-1).clamp(min=0).sqrt(), vectors.flip(-1)
    far = short.mT @ near
    far /= s.clamp(min=1e-300)[..., None, :]
    if bool((s[..., -1] <= s[..., 0] * math.sqrt(EPSILON / ORTHONORMAL)).any()):
        # nearly orthonormal; dividing by the Cholesky factor of its Gram matrix keeps all leading subspaces
        factor, failed = torch.linalg.cholesky_ex(far.mT @ far)
        if bool(failed.any()):
            return None
        far = torch.linalg.solve_triangular(factor, far.mT, upper=False).mT
    return Decomposition(near, s, far) if wide else Decomposition(far, s, near)


def orthonormal(basis: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of the span of the columns of (..., n, k); BadInput if they are dependent."""
    matrix = torch.as_tensor(basis).to(torch.float64)
    if matrix.ndim < 2 or not 0 < matrix.shape[-1] <= matrix.shape[-2]:
        raise BadInput(f"subspace: shape {tuple(matrix.shape)}, accepted is (..., n, k) with 1 <= k <= n")
    if not bool(torch.isfinite(matrix).all()):
        raise BadInput("subspace: a column holds numbers that are not finite")
    eye = torch.eye(matrix.shape[-1], dtype=torch.float64, device=matrix.device)
    if bool((matrix.mT @ matrix - eye).abs().max() < 1e-13):
        return matrix
    q, r = torch.linalg.qr(matrix / matrix.norm(dim=-2, keepdim=True).clamp(min=1e-300))
    if bool((torch.diagonal(r, dim1=-2, dim2=-1).abs().amin(-1) < 1e-12).any()):
        raise BadInput("subspace: its columns are linearly dependent")
    return q


def principal_angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angles between the spans of the columns of a (..., n, k) and b (..., n, l), radians, ascending, (..., min(k, l)).

    theta with cos theta = singular values of A^T B, sin theta = those of B - A A^T B, A and B orthonormal bases (made
    by QR if they are not); each angle from whichever of the two is smaller. Below about n eps (a subspace and itself)
    it is exactly 0. Raises BadInput for shapes that do not fit, dependent columns, numbers that are not finite.
    Source: Knyazev and Argentati 2002, algorithm 3.1.

    >>> e = torch.eye(3, dtype=torch.float64)
    >>> turned = torch.stack([e[0], (e[1] + e[2]) / 2**0.5], 1)
    >>> [round(x, 4) for x in torch.rad2deg(principal_angles(e[:, :2], turned)).tolist()]
    [0.0, 45.0]
    """
    if a.shape[:-1] != b.shape[:-1]:
        raise BadInput(f"principal_angles: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit")
    first, second = orthonormal(a), orthonormal(b)
    if second.shape[-1] > first.shape[-1]:
        first, second = second, first
    cross = first.mT @ second
    return _from_cosines_and_sines(cross, second - first @ cross, first.shape[-2])


def _from_cosines_and_sines(cosines: torch.Tensor, sines: torch.Tensor, size: int) -> torch.Tensor:
    """Angles (ascending) of matrices whose singular values are the cosines and the sines; size: of the space."""
    k = cosines.shape[-1]
    cos = torch.linalg.svdvals(cosines)[..., :k].clamp(max=1)
    found = torch.linalg.svdvals(sines).flip(-1).clamp(max=1)  # ascending, as the cosines descend
    sin = torch.zeros_like(cos)
    sin[..., k - found.shape[-1] :] = found
    sin = torch.where(sin < 4 * size * EPSILON, torch.zeros_like(sin), sin)
    return torch.where(sin**2 < 0.5, torch.arcsin(sin), torch.arccos(cos))


@dataclass(frozen=True)
class Overlap:
    """What is needed of two sets of orthonormal vectors a_i, b_j for the angles of all their leading subspaces.

    cross (..., r, r): a_i . b_j. rest (..., r, r): columns with the lengths and products of what of b_j lies outside of
    all a_i (zero on the side where the vectors span the whole space); None where r > EXACT. Then sines come from
    I - C^T C, several times faster, and angles below about 1e-7 (more precisely sqrt(4 k eps)) count as 0.
    """

    cross: torch.Tensor
    rest: torch.Tensor | None
    size: int

    @classmethod
    def of(cls, a: torch.Tensor, b: torch.Tensor) -> Overlap:
        """a, b: (..., n, r) with orthonormal columns."""
        cross = a.mT @ b
        n, r = a.shape[-2:]
        if r > EXACT:
            return cls(cross, None, n)
        rest = torch.zeros_like(cross) if n == r else torch.linalg.qr(b - a @ cross, mode="r")[1]
        return cls(cross, rest, n)

    def angles(self, k: int, end: End = "top") -> torch.Tensor:
        """Principal angles between the spans of the first (or last) k vectors of either, (..., k) as above."""
        r = self.cross.shape[-1]
        if not 1 <= k <= r:
            raise BadInput(f"angles: k = {k}, accepted are 1 to {r}")
        inside, outside = (slice(0, k), slice(k, r)) if end == "top" else (slice(r - k, r), slice(0, r - k))
        columns = self.cross[..., inside]
        cosines = columns[..., inside, :]
        if self.rest is None:
            eye = torch.eye(k, dtype=cosines.dtype, device=cosines.device)
            squares = torch.linalg.eigvalsh(eye - cosines.mT @ cosines)  # ascending
            squares = torch.where(squares < 4 * k * EPSILON, torch.zeros_like(squares), squares)
            return torch.arcsin(squares.clamp(max=1).sqrt())
        sines = torch.cat([columns[..., outside, :], self.rest[..., :, inside]], dim=-2)
        return _from_cosines_and_sines(cosines, sines, self.size)

    def intruders(self, rank: torch.Tensor, k: int = 10, likeness: float = 0.5) -> torch.Tensor:
        """How many of the first k of b are unlike every a_i, |a_i . b_j| < likeness: intruder dimensions; (...,).

        rank: of b's matrix, behind which vectors are arbitrary and not counted.
        Source: Shuttleworth et al. 2024 (arXiv 2410.21228), algorithm 1, on left singular vectors.
        """
        unlike = self.cross.abs().amax(-2)[..., :k] < likeness
        return (unlike & (torch.arange(unlike.shape[-1], device=unlike.device) < rank[..., None])).sum(-1)

    def alignment(self, k: int, end: End = "top") -> torch.Tensor:
        """Mean over the first (last) k vectors of b of the largest |a_i . b_j| among those of a; (...,)."""
        r = self.cross.shape[-1]
        inside = slice(0, k) if end == "top" else slice(r - k, r)
        return self.cross[..., inside, inside].abs().amax(-2).mean(-1)


def projector_distance(angles: torch.Tensor) -> torch.Tensor:
    """Frobenius distance of the two projectors onto subspaces with these angles: sqrt(2 sum sin^2); (...,)."""
    return (2 * torch.sin(angles).square().sum(-1)).sqrt()


def energies(base: Decomposition, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of |dW|^2 that stretch W and that turn its singular vectors within their span; two (...,) tensors.

    With C = U^T dW V (U, V of the base): |diag C|^2 / |dW|^2 and (|C|^2 - |diag C|^2) / |dW|^2. What is left of 1 lies
    outside of the base's singular vectors on the long side. 0 and 0 for dW = 0.
    """
    delta = delta.to(torch.float64)
    inside = base.u.mT @ delta @ base.v
    whole = delta.square().sum((-2, -1))
    stretch = torch.diagonal(inside, dim1=-2, dim2=-1).square().sum(-1)
    turned = inside.square().sum((-2, -1)) - stretch
    safe = whole.clamp(min=1e-300)
    return torch.where(whole > 0, stretch / safe, 0.0), torch.where(whole > 0, turned / safe, 0.0)


def concentration(base: Decomposition, delta: torch.Tensor, blocks: int = 32) -> torch.Tensor:
    """Where among the base's singular vectors a change lies: (..., b, b), b = min(r, blocks), 1 for white noise.

    Entry (i, j) is the mean of squares of C = U^T dW V in the i-th and j-th part of them, in units of the mean square
    of dW's entries. 0 everywhere for dW = 0.
    """
    delta = delta.to(torch.float64)
    squares = (base.u.mT @ delta @ base.v).square()
    r = squares.shape[-1]
    edges = torch.linspace(0, r, min(r, blocks) + 1).round().long().tolist()
    rows = torch.stack([squares[..., a:b, :].mean(-2) for a, b in pairwise(edges)], -2)
    cells = torch.stack([rows[..., a:b].mean(-1) for a, b in pairwise(edges)], -1)
    typical = delta.square().mean((-2, -1))[..., None, None]
    return torch.where(typical > 0, cells / typical.clamp(min=1e-300), 0.0)


def effective_rank(delta: torch.Tensor) -> torch.Tensor:
    """exp of the entropy of s_i^2 / sum s^2 of (..., m, n): r for r equal singular values, 0 for a zero matrix; (...,).

    Source: Roy and Vetterli 2007 (there of s_i, here of the energies s_i^2).

    >>> [round(float(effective_rank(torch.diag(torch.tensor(s)))), 6) for s in ([2.0, 2.0], [0.0, 0.0])]
    [2.0, 0.0]
    """
    matrix = delta.to(torch.float64)
    short = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    return _spread(torch.linalg.eigvalsh(short @ short.mT).clamp(min=0))


def _spread(energy: torch.Tensor) -> torch.Tensor:
    """exp of the entropy of non-negative numbers, each a share of their sum."""
    whole = energy.sum(-1, keepdim=True)
    p = energy / whole.clamp(min=1e-300)
    entropy = -(p * p.clamp(min=1e-300).log()).sum(-1)
    return torch.where(whole[..., 0] > 0, entropy.exp(), 0.0)


def product_effective_rank(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`effective_rank` of left @ right, (m, r) and (r, n) with small r, without making the product.

    >>> round(float(product_effective_rank(torch.eye(4)[:, :2], torch.eye(2, 3))), 6)
    2.0
    """
    return _spread(product_values(left, right).square())


def product_values(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Singular values of left @ right, (m, r) and (r, n): those of the product of both triangular factors, (<= r,)."""
    upper, lower = (torch.linalg.qr(one.to(torch.float64), mode="r")[1] for one in (left, right.mT))
    return torch.linalg.svdvals(upper @ lower.mT)


def value_changes(before: Decomposition, after: Decomposition) -> torch.Tensor:
    """(s_i after - s_i before) / s_i before, (..., r); nan for the values beyond the rank of the first."""
    known = torch.arange(before.s.shape[-1], device=before.s.device) < before.rank[..., None]
    return torch.where(known, (after.s - before.s) / before.s.clamp(min=1e-300), math.nan)


class Bases:
    """Decompositions of matrices that many others are compared with, kept in a folder by the hash of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told("make the cache of decompositions", folder.absolute().parent):
            make_folder(folder.absolute())

    def of(self, matrix: torch.Tensor) -> Decomposition:
        """The decomposition of (m, n), read if it is there as it was written."""
        numbers = matrix.detach().to("cpu", torch.float64).contiguous()
        name = hashlib.sha256(f"{tuple(numbers.shape)} ".encode() + numbers.numpy().tobytes()).hexdigest()
        file = self.folder / f"{name}.safetensors"
        if not believed(self.folder, file.name):
            made = decompose(matrix)
            tensors = {"u": made.u, "s": made.s, "v": made.v}
            with whole_file(file) as temporary:
                save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary)
                note(self.folder, {file.name: temporary})
            return made
        kept = load_file(file, device=str(matrix.device))
        return Decomposition(kept["u"], kept["s"], kept["v"])
