"""LoRA adapters as checkpoints: a base with W + s B A in place of W, made one tensor at a time and never written.

Read as the library peft writes them (adapter_config.json, adapter_model.safetensors). Ranks and scales by pattern,
rank-stabilised scales, embeddings, biases and modules saved as a whole are taken; what changes more than that
(DoRA's magnitudes, other methods) is refused by name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlheals.engines.weight_files import (
    ADAPTER,
    ADAPTER_CONFIG,
    INDEX,
    MAX_CONFIG,
    WEIGHTS,
    headers,
    refuse_unreadable,
)
from rlheals.errors import BadInput
from rlheals.store.files import read_json
from rlheals.weights.architectures import Piece
from rlheals.weights.arrays import load_file, torch
from rlheals.weights.checkpoint import Checkpoint

MERGE = "merge it first, with peft: AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload()"
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<which>[AB])(\.default)?(\.weight)?$"
)
_UNREAD = ("use_dora", "use_qalora", "layer_replication", "target_parameters", "trainable_token_indices")


def is_adapter(source: str | Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    folder = Path(source)
    return (folder / ADAPTER_CONFIG).is_file() and not any(
        (folder / name).exists() for name in (WEIGHTS, INDEX)
    )


def opened(source: str | Path, base: Checkpoint) -> Checkpoint:
    """A checkpoint, or the base with the adapter that is there."""
    return Adapted(base, Path(source)) if is_adapter(source) else Checkpoint(source)


def refuse_adapter(source: str | Path) -> None:
    """BadInput where whole weights are needed."""
    if is_adapter(source):
        raise BadInput(f"checkpoint {str(source)!r}: is a LoRA adapter, whole weights are needed; {MERGE}")


class Adapted(Checkpoint):
    """A base with an adapter: names, shapes and pieces are the base's, changed tensors are float64.

    Raises BadInput where the adapter is another method's, does not fit the base, or holds what is not known.
    """

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        self.source, self.base = str(folder), base
        self.places = base.places
        self.architecture = base.architecture
        config = read_json(folder / ADAPTER_CONFIG, MAX_CONFIG)
        said = f"adapter {self.source!r}: "
        if config.get("peft_type") != "LORA":
            raise BadInput(f"{said}peft_type is {config.get('peft_type')!r:.40}, only LORA is read")
        if used := [name for name in _UNREAD if config.get(name)]:
            raise BadInput(f"{said}{used[0]} is set, which is not read; {MERGE}")
        file = folder / ADAPTER
        refuse_unreadable(self.source, {place.name: place for place in headers(file)})
        try:
            held = load_file(file)
        except (OSError, SafetensorError):
            raise BadInput(f"{said}{ADAPTER} is damaged") from None
        if bad := [name for name, tensor in held.items() if not bool(torch.isfinite(tensor).all())]:
            raise BadInput(f"{said}{bad[0]} holds numbers that are not finite")
        self.replaced: dict[str, torch.Tensor] = {}
        self._factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._read(held, config, said)
        self.notes = [
            *base.notes,
            f"{self.source}: LoRA adapter, {len(self._factors)} tensors of {base.source}",
        ]

    def _read(self, held: dict[str, torch.Tensor], config: dict[str, Any], said: str) -> None:
        factors: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}
        for key, tensor in held.items():
            name = key.removeprefix("base_model.model.")
            if (found := _FACTOR.fullmatch(name)) is not None:
                at = (found["module"], found["embedding"] is not None)
                factors.setdefault(at, {})[found["which"]] = tensor.double()
                continue
            name = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
            if name not in self.places or self.places[name].shape != tuple(tensor.shape):
                raise BadInput(f"{said}{key} {tuple(tensor.shape)} is nothing that {self.base.source!r} has")
            self.replaced[name] = tensor
        for (module, embedding), pair in factors.items():
            name = f"{module}.weight"
            if set(pair) != {"A", "B"} or name not in self.places:
                raise BadInput(f"{said}{module}: needs lora_A, lora_B and {name} in {self.base.source!r}")
            a, b = pair["A"], pair["B"]
            if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
                raise BadInput(
                    f"{said}{module}: lora_B {tuple(b.shape)} and lora_A {tuple(a.shape)} do not fit"
                )
            b = b * _scale(config, module, a.shape[0], said)
            if embedding:  # (vocabulary, width) = (B A)^T
                a, b = b.mT, a.mT
            shape = (b.shape[0], a.shape[1])
            stored = self.places[name].shape
            if stored != (shape[::-1] if config.get("fan_in_fan_out") else shape):
                raise BadInput(f"{said}{module}: its product is {shape}, {name} is {stored}")
            self._factors[name] = (a.mT, b.mT) if config.get("fan_in_fan_out") else (b, a)

    def tensor(self, name: str) -> torch.Tensor:
        """The base's, with the adapter's product on it in float64 where there is one."""
        before = self.replaced[name] if name in self.replaced else self.base.tensor(name)
        if name not in self._factors:
            return before
        left, right = self._factors[name]
        return before.double() + left @ right

    def factors(self, piece: Piece) -> tuple[torch.Tensor, torch.Tensor] | None:
        """dW = left @ right of a piece, (out, r) and (r, in); None where the adapter does not factorise it."""
        if piece.tensor not in self._factors or piece.tensor in self.replaced:
            return None
        left, right = self._factors[piece.tensor]
        if piece.in_out:
            left, right = right.mT, left.mT
        if piece.cuts:  # rows of (out, in), as stored along either axis
            left = torch.cat([left[cut] for cut in piece.cuts])
        return left, right


def _scale(config: dict[str, Any], module: str, rank: int, said: str) -> float:
    """lora_alpha / r, or / sqrt(r) where it is rank-stabilised; both by pattern of the module where there are some."""

    def of(name: str, patterns: str) -> float:
        by_module = config.get(patterns) or {}
        if not isinstance(by_module, dict):
            raise BadInput(f"{said}{patterns} is {by_module!r:.40}, not a table")
        found = [value for end, value in by_module.items() if f".{module}".endswith(f".{end}")]
        value = found[0] if found else config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"{said}{name} is {value!r:.40}, not a number")
        return float(value)

    alpha = of("lora_alpha", "alpha_pattern")
    if of("r", "rank_pattern") != rank:
        raise BadInput(
            f"{said}{module}: lora_A has {rank} rows, {ADAPTER_CONFIG} says r = {of('r', 'rank_pattern'):g}"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
