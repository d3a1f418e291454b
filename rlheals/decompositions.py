"""Decompositions that many comparisons need, kept in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from rlheals.errors import BadInput
from rlheals.linalg import Decomposition, decompose
from rlheals.store.files import atomic_write, make_folder, told


class Bases:
    """Decompositions of matrices that many others are compared with, kept in a folder by the hash of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told("make the cache of decompositions", folder.absolute().parent):
            make_folder(folder.absolute())

    def of(self, matrix: torch.Tensor) -> Decomposition:
        """The decomposition of (m, n), read if it is there; BadInput when its file is damaged."""
        numbers = matrix.detach().to("cpu", torch.float64).contiguous()
        name = hashlib.sha256(f"{tuple(numbers.shape)} ".encode() + numbers.numpy().tobytes()).hexdigest()
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            made = decompose(matrix)
            parts = {"u": made.u, "s": made.s, "v": made.v}
            atomic_write(file, to_bytes({part: t.cpu().contiguous() for part, t in parts.items()}))
            return made
        try:
            kept = load_file(file, device=str(matrix.device))
            return Decomposition(kept["u"], kept["s"], kept["v"])
        except (OSError, SafetensorError, KeyError):
            raise BadInput(f"cache of decompositions: {file.name} is damaged; delete it") from None
