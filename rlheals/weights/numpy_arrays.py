"""What this folder uses of torch, made of numpy under the same names: the same numbers to rounding, and the same draws.

An array is a `Tensor`, which is a numpy array; its methods take and give what torch's of that name do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_dtypes import bfloat16 as bfloat16  # safetensors reads it by this type
from safetensors import numpy as files

float32, float64, inf, finfo = np.float32, np.float64, np.inf, np.finfo
cuda = SimpleNamespace(is_available=lambda: False)


def as_tensor(data: Any, dtype: Any = None, device: str = "cpu") -> Tensor:
    """An array, not copied where that is possible."""
    made: Any = np.asarray(data, dtype)
    return made.view(Tensor)


def _of(function: Any, **renamed: str) -> Callable[..., Any]:
    """A function of numpy that gives a `Tensor`; renamed: torch's names of arguments with numpy's."""

    def made(*given: Any, device: str = "cpu", **named: Any) -> Tensor:
        plain = [np.asarray(one) if isinstance(one, np.ndarray) else one for one in given]
        return as_tensor(
            function(*plain, **{renamed.get(name, name): value for name, value in named.items()})
        )

    return made


_Array: Any = np.ndarray  # whose methods have other arguments


class Tensor(_Array):
    """A numpy array with those of torch's methods that are used here."""

    square, sqrt, exp, log, abs = map(_of, (np.square, np.sqrt, np.exp, np.log, np.abs))
    flip, nonzero, clone, double, long = map(_of, (np.flip, np.argwhere, np.copy, np.float64, np.int64))
    sum, mean, amax, amin, nanmean = (
        _of(one, keepdim="keepdims") for one in (np.sum, np.mean, np.amax, np.amin, np.nanmean)
    )
    cpu = detach = as_tensor
    contiguous = _of(lambda array: np.asarray(array, order="C"))
    clamp = _of(lambda array, min=None, max=None: np.clip(array, min, max))
    nan_to_num = _of(lambda array, nan: np.nan_to_num(array, nan=nan))
    argsort = _of(np.argsort, dim="axis")

    def norm(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return np.sqrt(np.square(self).sum(dim, keepdim=keepdim))

    def nanmedian(self, dim: int) -> Any:
        """The lower of two in the middle."""
        ordered = np.sort(np.asarray(self), dim)  # nan last
        middle = ((~np.isnan(ordered)).sum(dim, keepdims=True) - 1).clip(0) // 2
        return SimpleNamespace(values=as_tensor(np.take_along_axis(ordered, middle, dim).squeeze(dim)))

    def sort(self) -> Any:
        return SimpleNamespace(values=as_tensor(np.sort(np.asarray(self))))

    def to(self, *wanted: Any) -> Tensor:
        (kind,) = [one for one in wanted if not isinstance(one, str)] or [self.dtype]
        return self.astype(kind, copy=False)

    def numpy(self) -> np.ndarray:
        return np.asarray(self)

    def copy_(self, other: Tensor) -> None:
        self[...] = other

    def numel(self) -> int:
        return self.size

    def flatten(self, first: int = 0) -> Tensor:
        return self.reshape(*self.shape[:first], -1)

    def expand(self, *shape: int) -> Tensor:
        own = (1,) * (len(shape) - self.ndim) + self.shape
        wanted = tuple(mine if size == -1 else size for mine, size in zip(own, shape, strict=True))
        return as_tensor(np.broadcast_to(self, wanted))

    def split(self, sizes: Sequence[int], dim: int) -> list[Any]:
        return np.split(self, np.cumsum(sizes)[:-1], dim)

    def chunk(self, count: int, dim: int) -> list[Any]:
        return np.split(self, count, dim)


where, zeros_like, ones_like, full_like, isfinite, minimum, nextafter = map(
    _of, (np.where, np.zeros_like, np.ones_like, np.full_like, np.isfinite, np.minimum, np.nextafter)
)
sign, sin, cos, arcsin, arccos, atan2, arange, eye, linspace = map(
    _of, (np.sign, np.sin, np.cos, np.arcsin, np.arccos, np.arctan2, np.arange, np.eye, np.linspace)
)
stack, cat = (lambda parts, dim=0, of=of: as_tensor(of(parts, axis=dim)) for of in (np.stack, np.concatenate))
equal, tensor_split = np.array_equal, np.array_split
diagonal = _of(np.diagonal, dim1="axis1", dim2="axis2")


def argsort(values: Tensor, descending: bool, stable: bool) -> Tensor:
    return as_tensor(np.argsort(-np.asarray(values) if descending else values, stable=stable))


def lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """The end itself for 1, as torch has it."""
    return start + weight * (end - start) if weight < 0.5 else end - (end - start) * (1 - weight)


def _all_of(function: Any) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *given, **named: tuple(map(as_tensor, function(*map(np.asarray, given), **named)))


def _qr(matrix: Tensor, mode: Any = "reduced") -> tuple[Tensor, Tensor]:
    found = np.linalg.qr(np.asarray(matrix), mode)
    q, r = (matrix, found) if mode == "r" else found
    return as_tensor(q), as_tensor(r)


def _cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    try:
        return as_tensor(np.linalg.cholesky(np.asarray(matrix))), as_tensor(0)
    except np.linalg.LinAlgError:
        return matrix, as_tensor(1)


linalg = SimpleNamespace(
    svd=_all_of(np.linalg.svd),
    svdvals=_of(np.linalg.svdvals),
    eigh=_all_of(np.linalg.eigh),
    eigvalsh=_of(np.linalg.eigvalsh),
    qr=_qr,
    cholesky_ex=_cholesky,
    solve_triangular=_of(lambda factor, right, upper: np.linalg.solve(factor, right)),
)


class Generator:
    """The numbers of torch's generator on a processor: a Mersenne twister, two of its words a number in [0, 1)."""

    def manual_seed(self, seed: int) -> Generator:
        self.words = np.random.RandomState(seed & 0xFFFFFFFF)
        return self

    def uniform(self, count: int) -> np.ndarray:
        high, low = self.words.randint(0, 2**32, (count, 2), dtype=np.uint32).astype(np.uint64).T
        return ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) * 2.0**-53


def rand(shape: tuple[int, ...], generator: Generator, dtype: Any) -> Tensor:
    return as_tensor(generator.uniform(math.prod(shape))).reshape(shape)


def randn(shape: tuple[int, ...], generator: Generator, dtype: Any) -> Tensor:
    """Box and Muller in blocks of 16, the last of which ends with the array; pair by pair of fewer than 16."""
    count = math.prod(shape)
    if count < 16:
        u = generator.uniform(count + count % 2).reshape(-1, 2)
        made = _box_muller(u[:, 1], u[:, 0])[:count]
        return as_tensor(np.stack(made, 1).ravel()[:count]).reshape(shape)
    u = generator.uniform(count)
    blocks = [u[: count - count % 16]] + [generator.uniform(16)] * (count % 16 > 0)
    parts = [
        np.stack(_box_muller(b[:, 0], b[:, 1]), 1).ravel() for b in (b.reshape(-1, 2, 8) for b in blocks)
    ]
    if count % 16:
        parts[0] = parts[0][: count - 16]
    return as_tensor(np.concatenate(parts)).reshape(shape)


def _box_muller(radius: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    long = np.sqrt(-2 * np.log1p(-radius))
    return long * np.cos(2 * np.pi * turn), long * np.sin(2 * np.pi * turn)


def load_file(file: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    return {name: as_tensor(one) for name, one in files.load_file(file).items()}


save_file = files.save_file
