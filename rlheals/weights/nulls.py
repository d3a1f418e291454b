"""What the same measurement gives for a change of the same size that means nothing: null models of dW.

Each takes the base W and the change dW, both (m, n), and gives changed matrices (draws, m, n) in float64; draws are
keyed, so that a null does not depend on which others were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from rlheals.errors import BadInput
from rlheals.weights.arrays import torch
from rlheals.weights.linalg import decompose


def gaussian(w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """W plus Gaussian entries of the norm of dW."""
    noise = _normal((draws, *w.shape), key)
    return w.double() + noise * (delta.double().norm() / noise.flatten(1).norm(dim=1))[:, None, None]


def permuted(w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """W plus the entries of dW in another order: its sizes, without its pattern of rows and columns."""
    order = _uniform((draws, delta.numel()), key).argsort(dim=1)
    return w.double() + delta.double().flatten()[order].reshape(draws, *w.shape)


def turned(w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """W plus dW with its singular values kept and its singular vectors drawn at random (Haar)."""
    s = decompose(delta).s
    left = haar(w.shape[0], len(s), draws, f"{key}/left")
    right = haar(w.shape[1], len(s), draws, f"{key}/right")
    return w.double() + (left * s) @ right.mT


def ulp(w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """Every entry of W, rounded to bfloat16, moved to a neighbouring bfloat16 up or down: the finest change of all.

    Its size does not depend on dW. What this turns, storing a checkpoint in bfloat16 may have turned.
    """
    rounded = w.to(torch.bfloat16)
    up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf)).double()
    down = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf)).double()
    return torch.where(_uniform((draws, *w.shape), key) < 0.5, up, down)


def independent(w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """Gaussian matrices of the norm of W that have nothing to do with it: what a re-initialised tensor looks like."""
    noise = _normal((draws, *w.shape), key)
    return noise * (w.double().norm() / noise.flatten(1).norm(dim=1))[:, None, None]


NULLS: dict[str, Callable[[torch.Tensor, torch.Tensor, int, str], torch.Tensor]] = {
    function.__name__: function for function in (gaussian, permuted, turned, ulp, independent)
}


def null(name: str, w: torch.Tensor, delta: torch.Tensor, draws: int, key: str) -> torch.Tensor:
    """Changed matrices under one of `NULLS`."""
    if name not in NULLS:
        raise BadInput(f"null: {name!r} is not one of {', '.join(NULLS)}")
    return NULLS[name](w, delta, draws, f"{key}/{name}")


def haar(n: int, k: int, draws: int, key: str) -> torch.Tensor:
    """k orthonormal columns in n dimensions, every rotation equally likely: (draws, n, k).

    QR of Gaussian matrices with the signs of R's diagonal moved into Q (Mezzadri 2007); without that Q is not uniform.
    """
    q, r = torch.linalg.qr(_normal((draws, n, k), key))
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None, :]


def _generator(key: str) -> torch.Generator:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _normal(shape: tuple[int, ...], key: str) -> torch.Tensor:
    return torch.randn(shape, generator=_generator(key), dtype=torch.float64)


def _uniform(shape: tuple[int, ...], key: str) -> torch.Tensor:
    return torch.rand(shape, generator=_generator(key), dtype=torch.float64)
