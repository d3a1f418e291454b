"""Checkpoints as lazy streams of named tensors: safetensors in one file, sharded, or of a hub id; strict.

Headers are read when a checkpoint is opened, tensors one at a time when they are asked for, so that memory holds single
matrices however large the model is. A GGUF file is the exception: it is dequantised when it is opened, and held whole.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlheals.engines.weight_files import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    Place,
    gguf_contents,
    is_gguf,
    located,
    places,
    read_config,
)
from rlheals.errors import BadInput
from rlheals.store.files import first_line, regular
from rlheals.weights.architectures import BUFFERS, KINDS, NAMED, NORMS, Architecture, Piece, known, meant
from rlheals.weights.arrays import read, save_file, torch


class Checkpoint:
    """The tensors of a .safetensors or .gguf file, of a folder with one or several, or of a hub id ("owner/name").

    places: by name; pieces: the weight matrices and other parts that these hold, by their own names; notes: what a
    user should know about how it was read, a line each.

    >>> from rlheals.engines.models import SHIPPED_BASE
    >>> Checkpoint(SHIPPED_BASE).places["model.layers.0.self_attn.q_proj.weight"].shape
    (64, 64)
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        here = Path(located(source))
        path = here if here.exists() or here.is_symlink() else Path(_fetched(self.source))
        self._held: dict[str, torch.Tensor] = {}
        config = self._dequantised(path) if is_gguf(path) else None
        if config is None:
            self.places, self.notes = places(path)
        if not here.exists():
            self.notes.append(f"{source}: commit {path.name}")
        try:
            config = read_config(path if path.is_dir() else path.parent) if config is None else config
            self.architecture = Architecture.of(config)
        except BadInput as error:
            raise BadInput(f"checkpoint {self.source!r}: {error}") from None

    def _dequantised(self, file: Path) -> dict[str, Any]:
        """Read a GGUF file as transformers does, tensors under their names there; its configuration."""
        from rlheals.engines import models

        model = models.load(file)
        self._held = dict(model.state_dict())
        self.places = {name: Place(name, file, tuple(one.shape), "F32") for name, one in self._held.items()}
        self.notes = [f"{file}: dequantised from {', '.join(gguf_contents(file)[1])}"]
        return model.config.to_dict()

    @property
    def architecture(self) -> Architecture:
        """What config.json says; that of another checkpoint of the model where this one has none."""
        return self._architecture

    @architecture.setter
    def architecture(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self.pieces: dict[str, Piece] = {}
        for name, place in self.places.items():
            if place.is_buffer:
                self.pieces[name] = Piece(name, name, BUFFERS, place.shape)
            else:
                self.pieces |= {piece.name: piece for piece in architecture.pieces(name, place.shape)}
        self._untie()

    def _untie(self) -> None:
        """One matrix under two names counts once: the head of a tied model is its embedding."""
        if not self.architecture.tied:
            return
        kinds = {
            kind: [one for one in self.pieces.values() if one.kind == kind] for kind in ("embed", "head")
        }
        for head in kinds["head"]:
            if not kinds["embed"]:
                continue
            if not torch.equal(self.tensor(head.name), self.tensor(kinds["embed"][0].name)):
                raise BadInput(
                    f"{CONFIG} says that the output head is the embedding, but {head.name} holds other numbers than "
                    f"{kinds['embed'][0].name}; set tie_word_embeddings to false, or leave one of them out"
                )
            del self.places[head.name], self.pieces[head.name]

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, read now; BadInput when it is not there or its file is damaged."""
        if name not in self.places:
            raise BadInput(f"checkpoint {self.source!r}: no tensor {name!r}")
        if name in self._held:
            return self._held[name]
        file = self.places[name].file
        try:
            return read(file, name)
        except (OSError, SafetensorError) as error:
            raise BadInput(
                f"checkpoint {self.source!r}: {file.name} is damaged ({first_line(error)})"
            ) from None

    def matrices(self, kinds: Sequence[str] | None = None) -> list[Piece]:
        """Weight matrices of the wanted kinds (all by default), in the order of layers; BadInput if there are none."""
        if unknown := [kind for kind in kinds or () if not known(kind)]:
            raise BadInput(f"matrices: {unknown[0]!r:.40} is not one of {', '.join(NAMED)}")
        kinds = tuple(kinds or KINDS)
        wanted = [piece for piece in self.pieces.values() if len(piece.shape) == 2 and meant(piece, kinds)]
        wanted = [piece for piece in wanted if piece.kind != NORMS]
        if not wanted:
            said, some = ", ".join(kinds), ", ".join(list(self.places)[:3])
            raise BadInput(f"checkpoint {self.source!r}: no matrix of the kinds {said}; it holds {some}, ...")
        order = {kind: number for number, kind in enumerate(NAMED)}
        return sorted(
            wanted,
            key=lambda at: (at.layer is None, at.layer or 0, order.get(at.kind, len(order)), at.kind,
                            at.tensor, -1 if at.expert is None else at.expert),
        )  # fmt: skip

    def left_out(self, taken: Collection[str]) -> dict[str, int]:
        """How many tensors of each kind no piece named in `taken` is of."""
        there = {self.pieces[name].tensor for name in taken}
        left = {piece.tensor: piece.kind for piece in self.pieces.values() if piece.tensor not in there}
        return dict(sorted(Counter(left.values()).items()))


def require_same_tensors(one: Checkpoint, other: Checkpoint) -> None:
    """BadInput unless both hold the same names with the same shapes; it names what differs.

    Buffers are not compared. Where only one has a config.json, the other is read as it says.
    """
    for mine, theirs in ((one, other), (other, one)):
        if mine.architecture == Architecture():
            mine.architecture = theirs.architecture
    shapes = ({n: at.shape for n, at in source.places.items() if not at.is_buffer} for source in (one, other))
    first, second = shapes
    problems = [f"{name} is only in the first" for name in first if name not in second]
    problems += [f"{name} is only in the second" for name in second if name not in first]
    problems += [
        f"{name} is {shape} in the first and {second[name]} in the second"
        for name, shape in first.items()
        if second.get(name, shape) != shape
    ]
    pieces = [{n for n, at in source.pieces.items() if at.kind != BUFFERS} for source in (one, other)]
    if pieces[0] != pieces[1] and not problems:
        problems = [f"{CONFIG} describes {one.architecture} and {other.architecture}"]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput(
            f"{one.source!r} and {other.source!r} are not checkpoints of one model: {'; '.join(problems[:3])}{more}"
        )


def said(left: dict[str, int], verb: str) -> list[str]:
    """One line on what was left out, none if nothing was.

    >>> said({"norms": 9, "tower": 2}, "measured")
    ['not measured: 11 tensors (norms 9, tower 2)']
    """
    count = sum(left.values())
    kinds = ", ".join(f"{kind} {number}" for kind, number in left.items())
    return [f"not {verb}: {count} tensor{'s' * (count > 1)} ({kinds})"] if left else []


def _fetched(name: str) -> str:
    """The local copy of a model on the hub."""
    # a path below a folder that is here is meant as a path: nobody is asked about it
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).parent.is_dir():
        raise BadInput(
            f"checkpoint {name!r}: no such file or folder, and not a hub id of the form owner/name"
        )
    from huggingface_hub import constants, snapshot_download

    if not constants.HF_HUB_OFFLINE:
        print(f"{name}: no such folder here, so it is taken for a model on the hub", file=sys.stderr)
    try:
        return snapshot_download(name, allow_patterns=["*.safetensors", INDEX, CONFIG, ADAPTER_CONFIG])
    except (OSError, ValueError) as error:
        raise BadInput(f"checkpoint {name!r}: {first_line(error)}") from None


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
    """Copy what belongs to the model in `source` besides its weights; nothing if `source` is a file or a hub id.

    BadInput for links that are broken or lead out of the folder, and for what is no regular file.
    """
    for pattern in BESIDE if source.is_dir() else ():
        for file in sorted(source.glob(pattern)):
            if file.name != INDEX:
                shutil.copyfile(regular(file), folder / file.name)
