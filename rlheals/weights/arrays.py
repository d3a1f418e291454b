"""The arrays that weights are: torch's where it is installed, else numpy's behind the names of torch used here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

if TYPE_CHECKING:
    import torch
    from safetensors.torch import load_file, save_file

    _FRAMEWORK: str
else:
    try:
        import torch
        from safetensors.torch import load_file, save_file

        _FRAMEWORK = "pt"
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from rlheals.weights import numpy_arrays as torch
        from rlheals.weights.numpy_arrays import load_file, save_file

        _FRAMEWORK = "numpy"


def read(file: Path, name: str) -> torch.Tensor:
    """One tensor of a safetensors file."""
    with safe_open(file, framework=_FRAMEWORK) as handle:
        return torch.as_tensor(handle.get_tensor(name))


__all__ = ["load_file", "read", "save_file", "torch"]
