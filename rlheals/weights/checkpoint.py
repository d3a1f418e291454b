"""Checkpoints as lazy streams of named tensors: safetensors only, one file, sharded, or a hub id; strict.

Headers are read when a checkpoint is opened, tensors one at a time when they are asked for, so that memory holds single
matrices however large the model is.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlheals.errors import BadInput

INDEX = "model.safetensors.index.json"
MAX_INDEX = 50_000_000

KINDS: dict[str, str] = {
    "q": r"(self_attn|attn|attention)\.(q_proj|query)",
    "k": r"(self_attn|attn|attention)\.(k_proj|key)",
    "v": r"(self_attn|attn|attention)\.(v_proj|value)",
    "o": r"(self_attn|attn|attention)\.(o_proj|out_proj)",
    "gate": r"mlp\.gate_proj",
    "up": r"mlp\.up_proj",
    "down": r"mlp\.down_proj",
    "embed": r"embed_tokens",
    "head": r"lm_head",
}
"""Kinds of weight matrices, by what their names contain (Llama, Qwen and their relatives)."""

HEADED = ("q", "k", "v", "o")
"""Kinds that consist of attention heads."""

_KINDS = {kind: re.compile(rf"(^|\.){pattern}\.weight$") for kind, pattern in KINDS.items()}
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class Place:
    """Where a tensor is and what its header says of it."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def kind(self) -> str | None:
        """q, k, v, o, gate, up, down, embed or head; None for everything else (norms, biases)."""
        return next((kind for kind, pattern in _KINDS.items() if pattern.search(self.name)), None)

    @property
    def layer(self) -> int | None:
        """Number of the block that the tensor belongs to."""
        found = _LAYER.search(self.name)
        return int(found[1]) if found else None

    @property
    def head_axis(self) -> int:
        """Attention heads are rows of q, k, v (0) and columns of o (1)."""
        return 1 if self.kind == "o" else 0

    def heads(self, tensor: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        """The part of every attention head; BadInput where they do not divide the tensor."""
        if tensor.shape[self.head_axis] % count:
            raise BadInput(f"{self.name}: {tensor.shape[self.head_axis]} does not divide into {count} heads")
        return tensor.chunk(count, self.head_axis)


class Checkpoint:
    """The tensors of a .safetensors file, of a folder with one or several, or of a hub id ("owner/name").

    >>> from rlheals.engines.models import SHIPPED_BASE
    >>> Checkpoint(SHIPPED_BASE).places["model.layers.0.self_attn.q_proj.weight"].shape
    (64, 64)
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.places = {place.name: place for file in _files(source) for place in _headers(file)}

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, read now; BadInput when it is not there or its file is damaged."""
        if name not in self.places:
            raise BadInput(f"checkpoint {self.source!r}: no tensor {name!r}")
        file = self.places[name].file
        try:
            with safe_open(file, framework="pt") as handle:
                return handle.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BadInput(f"checkpoint {self.source!r}: {file.name} is damaged ({_line(error)})") from None

    def matrices(self, kinds: Sequence[str] | None = None) -> list[Place]:
        """Weight matrices of the wanted kinds (all by default), in the order of layers; BadInput if there are none."""
        order = list(KINDS)
        if unknown := [kind for kind in kinds or () if kind not in KINDS]:
            raise BadInput(f"matrices: {unknown[0]!r} is not one of {', '.join(order)}")
        kinds = kinds or order
        wanted = [place for place in self.places.values() if place.kind in kinds and len(place.shape) == 2]
        if not wanted:
            said, some = ", ".join(kinds), ", ".join(list(self.places)[:3])
            raise BadInput(f"checkpoint {self.source!r}: no matrix of the kinds {said}; it holds {some}, ...")
        return sorted(
            wanted, key=lambda at: (at.layer is None, at.layer or 0, order.index(str(at.kind)), at.name)
        )


def require_same_tensors(one: Checkpoint, other: Checkpoint) -> None:
    """BadInput unless both hold the same names with the same shapes; it names what differs."""
    first, second = ({name: at.shape for name, at in source.places.items()} for source in (one, other))
    problems = [f"{name} is only in the first" for name in first if name not in second]
    problems += [f"{name} is only in the second" for name in second if name not in first]
    problems += [
        f"{name} is {shape} in the first and {second[name]} in the second"
        for name, shape in first.items()
        if second.get(name, shape) != shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput(
            f"{one.source!r} and {other.source!r} are not checkpoints of one model: {'; '.join(problems[:3])}{more}"
        )


def _files(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise BadInput(f"checkpoint {str(source)!r}: only .safetensors files are read")
        return [path]
    if not path.is_dir():
        return _files(_fetched(str(source)))
    index = path / INDEX
    if not index.is_file():
        if files := sorted(path.glob("*.safetensors")):
            return files
        raise BadInput(f"checkpoint {str(source)!r}: holds no *.safetensors file")
    return _shards(path, index)


def _shards(folder: Path, index: Path) -> list[Path]:
    """The files that an index names, all of which have to hold what it says."""
    said = f"checkpoint {str(folder)!r}"
    try:
        if index.stat().st_size > MAX_INDEX:
            raise BadInput(f"{said}: {index.name} has over {MAX_INDEX} bytes")
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = {str(name): str(file) for name, file in where.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{said}: {index.name} is no index of safetensors files") from None
    if outside := [file for file in named.values() if Path(file).name != file]:
        raise BadInput(f"{said}: {index.name} names {outside[0]!r}, outside of the folder")
    files = [folder / file for file in sorted(set(named.values()))]
    if absent := [file.name for file in files if not file.is_file()]:
        raise BadInput(f"{said}: {absent[0]} is missing")
    held = {place.name: file.name for file in files for place in _headers(file)}
    for name, file in named.items():
        if held.get(name) != file:
            raise BadInput(f"{said}: {name} is not in {file}, where the index says it is")
    return files


def _headers(file: Path) -> list[Place]:
    try:
        with safe_open(file, framework="pt") as handle:
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
            return [Place(n, file, tuple(s.get_shape()), str(s.get_dtype())) for n, s in slices.items()]
    except (OSError, SafetensorError) as error:
        raise BadInput(f"checkpoint: {file.name} cannot be read ({_line(error)})") from None


def _fetched(name: str) -> str:
    """The local copy of a model on the hub."""
    # a path below a folder that is here is meant as a path: nobody is asked about it
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).parent.is_dir():
        raise BadInput(
            f"checkpoint {name!r}: no such file or folder, and not a hub id of the form owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, allow_patterns=["*.safetensors", INDEX])
    except (OSError, ValueError) as error:
        raise BadInput(f"checkpoint {name!r}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


SHARD_BYTES = 2_000_000_000
BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
"""What belongs to a model besides its weights: configuration and tokenizer."""


def write(
    tensors: Iterator[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write them below `folder`, never more than a shard (or one tensor) in memory; the names of the files."""
    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    total = 0

    def flush() -> None:
        save_file(held, folder / f"part-{len(shards)}.safetensors", {"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > shard_bytes:
            flush()
        held[name] = tensor.contiguous().clone()
        total += tensor.nbytes
    flush()
    count = len(shards)
    files = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    if count == 1:
        files = ["model.safetensors"]
    for number, file in enumerate(files):
        (folder / f"part-{number}.safetensors").rename(folder / file)
    if count == 1:
        return files
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
