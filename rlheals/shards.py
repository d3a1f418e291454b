"""Writing a checkpoint as it comes, tensor by tensor: one safetensors file, or several with an index if it is large."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from rlheals.tensors import INDEX

SHARD_BYTES = 2_000_000_000
BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
"""What belongs to a model besides its weights: configuration and tokenizer."""


def write(
    tensors: Iterator[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write them below `folder`, never more than a shard (or one tensor) in memory; the names of the files."""
    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(held, folder / f"part-{len(shards)}.safetensors", {"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if held and size + bytes_ > shard_bytes:
            flush()
            size = 0
        held[name] = tensor.contiguous().clone()
        size, total = size + bytes_, total + bytes_
    flush()
    if len(shards) == 1:
        (folder / "part-0.safetensors").rename(folder / "model.safetensors")
        return ["model.safetensors"]
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for number, file in enumerate(files):
        (folder / f"part-{number}.safetensors").rename(folder / file)
    places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    return [*files, INDEX]


def copy_beside(source: Path, folder: Path) -> None:
    """Copy what belongs to the model in `source` besides its weights; nothing if `source` is a file or a hub id."""
    for pattern in BESIDE if source.is_dir() else ():
        for file in sorted(source.glob(pattern)):
            if file.name != INDEX:
                shutil.copy(file, folder)
