"""Which weight matrices the tensors of a checkpoint hold: a small table of architectures.

Most tensors are one weight matrix, (out, in). Some hold several: queries, keys and values in one; gate and up in one;
all experts of a layer in one. Some are stored as (in, out). What the table does not know is a kind of its own, named by
its shape, so that nothing is left out without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from rlheals.errors import BadInput
from rlheals.weights.arrays import torch

HEADED = ("q", "k", "v", "o")
"""Kinds that consist of attention heads."""
KINDS = (*HEADED, "gate", "up", "down", "embed", "head")
"""Kinds of weight matrices that most decoders have. A kind stands for its relatives, too: q for cross_q, gate for
expert_gate."""
RELATIVES = (*(f"cross_{kind}" for kind in HEADED), "expert_gate", "expert_up", "expert_down")
ROUTER, NORMS, TOWER, BUFFERS = "router", "norms", "tower", "buffers"
"""Routers of mixtures of experts; norms, biases and other vectors; tensors of other towers (vision, audio) and the
projectors from them; what holds no floating-point numbers."""
NAMED = (*KINDS, *RELATIVES, ROUTER, TOWER)
_BY_SHAPE = re.compile(r"\d{1,9}(x\d{1,9}){1,5}")

_SELF, _EXPERT = r"(self_attn|attn|attention)", r"experts\.\d+"
_NAMES: dict[str, str] = {
    "q": rf"{_SELF}\.(q_proj|query)",
    "k": rf"{_SELF}\.(k_proj|key)",
    "v": rf"{_SELF}\.(v_proj|value)",
    "o": rf"{_SELF}\.(o_proj|out_proj)|attention\.dense",
    "gate": r"mlp(\.shared_experts?)?\.gate_proj",
    "up": r"mlp(\.shared_experts?)?\.up_proj|mlp\.dense_h_to_4h",
    "down": r"mlp(\.shared_experts?)?\.down_proj|mlp\.dense_4h_to_h",
    "embed": r"embed_tokens|wte|embed_in",
    "head": r"lm_head|embed_out",
    **{f"cross_{kind}": rf"cross_attn\.{kind}_proj" for kind in HEADED},
    "expert_gate": rf"{_EXPERT}\.(gate_proj|w1)",
    "expert_up": rf"{_EXPERT}\.(up_proj|w3)",
    "expert_down": rf"{_EXPERT}\.(down_proj|w2)",
    ROUTER: r"(mlp|block_sparse_moe)\.(gate|router)",
}
_KINDS = {kind: re.compile(rf"(^|\.)({pattern})\.weight$") for kind, pattern in _NAMES.items()}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_TOWER = re.compile(r"(^|\.)(vision|visual|audio|image|multi_?modal)[a-z_]*\.")


@dataclass(frozen=True)
class Stored:
    """How one architecture stores some weight matrices in one tensor.

    split: "heads" one block after the other, as many rows as heads; "halves"; "alternating" rows; "per head" q, k and v
    of one head after the other. in_out: stored as (in, out). experts: a first dimension counts experts.
    """

    pattern: str
    kinds: tuple[str, ...]
    split: Literal["", "heads", "halves", "alternating", "per head"] = ""
    in_out: bool = False
    experts: bool = False


_QKV, _GATE_UP, _EXPERT_GATE_UP = ("q", "k", "v"), ("gate", "up"), ("expert_gate", "expert_up")
_FUSED_EXPERTS = (
    Stored(r"experts\.gate_up_proj", _EXPERT_GATE_UP, "halves", experts=True),
    Stored(r"experts\.down_proj", ("expert_down",), experts=True),
)
STORED: dict[str, tuple[Stored, ...]] = {
    "phi3": (
        Stored(r"self_attn\.qkv_proj\.weight", _QKV, "heads"),
        Stored(r"mlp\.gate_up_proj\.weight", _GATE_UP, "halves"),
    ),
    "gpt2": (
        Stored(r"attn\.c_attn\.weight", _QKV, "heads", in_out=True),
        Stored(r"attn\.c_proj\.weight", ("o",), in_out=True),
        Stored(r"mlp\.c_fc\.weight", ("up",), in_out=True),
        Stored(r"mlp\.c_proj\.weight", ("down",), in_out=True),
    ),
    "gpt_neox": (Stored(r"attention\.query_key_value\.weight", _QKV, "per head"),),
    "gpt_oss": (
        Stored(r"experts\.gate_up_proj", _EXPERT_GATE_UP, "alternating", in_out=True, experts=True),
        Stored(r"experts\.down_proj", ("expert_down",), in_out=True, experts=True),
    ),
    "mixtral": _FUSED_EXPERTS,
    "qwen2_moe": _FUSED_EXPERTS,
    "qwen3_moe": _FUSED_EXPERTS,
}
"""By model_type of config.json; what is stored one by one (Llama, Qwen, Gemma, ...) needs no line here."""


@dataclass(frozen=True)
class Piece:
    """What is measured and edited by itself: a weight matrix as (out, in), or a tensor that is none as a whole.

    It is the tensor, or of it: one expert, some rows or columns (cuts along axis), transposed.
    """

    name: str
    tensor: str
    kind: str
    shape: tuple[int, ...]
    layer: int | None = None
    heads: int = 0
    expert: int | None = None
    axis: int = 0
    cuts: tuple[slice, ...] = ()
    in_out: bool = False

    @property
    def family(self) -> str:
        """`family` of its kind."""
        return family(self.kind)

    @property
    def is_matrix(self) -> bool:
        """Whether it has singular values of its own: two dimensions, and part of the text model."""
        return len(self.shape) == 2 and self.kind not in (NORMS, TOWER, BUFFERS)

    @property
    def whole(self) -> bool:
        """Whether it is the tensor as it is stored."""
        return self.expert is None and not self.cuts and not self.in_out

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The piece of its tensor; of a whole one the tensor itself."""
        part = tensor if self.expert is None else tensor[self.expert]
        if self.cuts:
            part = torch.cat([part[self._at(cut)] for cut in self.cuts], self.axis)
        return part.mT if self.in_out else part

    def put(self, tensor: torch.Tensor, piece: torch.Tensor) -> None:
        """Write the piece into its tensor, in place."""
        part = tensor if self.expert is None else tensor[self.expert]
        piece = piece.mT if self.in_out else piece
        if not self.cuts:
            part.copy_(piece)
            return
        sizes = [len(range(*cut.indices(part.shape[self.axis]))) for cut in self.cuts]
        for cut, values in zip(self.cuts, piece.split(sizes, self.axis), strict=True):
            part[self._at(cut)] = values

    def _at(self, cut: slice) -> tuple[slice, ...]:
        return (slice(None), cut) if self.axis else (cut,)

    @property
    def head_axis(self) -> int:
        """Attention heads are rows of q, k, v (0) and columns of o (1)."""
        return 1 if self.family == "o" else 0

    def by_head(self, matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        """The part of every attention head; BadInput where config.json says another number, or they do not divide."""
        if self.heads and count != self.heads:
            raise BadInput(f"{self.name}: config.json says {self.heads} heads for {self.kind}, not {count}")
        if matrix.shape[self.head_axis] % count:
            raise BadInput(f"{self.name}: {matrix.shape[self.head_axis]} does not divide into {count} heads")
        return matrix.chunk(count, self.head_axis)


@dataclass(frozen=True)
class Architecture:
    """What config.json says that is needed to read tensors; model_type "" where there is no config.json."""

    model_type: str = ""
    heads: int = 0
    key_value_heads: int = 0
    tied: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Architecture:
        """Of the text model; BadInput for numbers of heads that are none, and for quantised models."""
        if config.get("quantization_config") is not None:
            raise BadInput(
                "config.json: has quantization_config; quantised weights are not read: give the checkpoint before "
                "quantisation, or dequantise it"
            )
        text = config.get("text_config")
        text = text if isinstance(text, Mapping) else config
        heads = _count(text, "num_attention_heads", "n_head")
        tied = text.get(
            "tie_word_embeddings", config.get("tie_word_embeddings", config.get("model_type") == "gpt2")
        )
        model_type = str(text.get("model_type", config.get("model_type", "")))
        groups = 0 if model_type in ("gpt2", "gpt_neox") else _count(text, "num_key_value_heads")
        return cls(
            model_type, heads, groups or heads, tied is True
        )  # those two know no groups, whatever is said

    def pieces(self, name: str, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """What a tensor of this name and shape holds, in order; BadInput where it does not fit config.json."""
        if _TOWER.search(name):
            return (Piece(name, name, TOWER, shape),)
        found = _LAYER.search(name)
        layer = int(found[1]) if found else None
        if len(shape) < 2 or name.endswith("bias"):
            return (Piece(name, name, NORMS, shape, layer),)
        for stored in STORED.get(self.model_type, ()):
            if re.search(rf"(^|\.){stored.pattern}$", name):
                return tuple(self._stored(stored, name, shape, layer))
        for kind, pattern in _KINDS.items():
            if len(shape) == 2 and pattern.search(name):
                piece = Piece(name, name, kind, shape, layer)
                return (Piece(name, name, kind, shape, layer, self._heads(piece.family)),)
        if len(shape) == 3 and "experts" in name:
            stored = Stored("", ("x".join(map(str, shape[1:])),), experts=True)
            return tuple(self._stored(stored, name, shape, layer))
        return (Piece(name, name, "x".join(map(str, shape)), shape, layer),)

    def _heads(self, family: str) -> int:
        if family not in HEADED:
            return 0
        return self.key_value_heads if family in ("k", "v") else self.heads

    def _stored(
        self, stored: Stored, name: str, shape: tuple[int, ...], layer: int | None
    ) -> Iterator[Piece]:
        matrix = shape[1:] if stored.experts else shape
        if len(matrix) != 2:
            raise BadInput(
                f"{name}: shape {shape} is not what {self.model_type or 'this model'} stores there"
            )
        axis = int(stored.in_out)  # of the rows of (out, in) as they are stored
        cuts = self._cuts(stored, name, matrix[axis])
        for expert in range(shape[0]) if stored.experts else (None,):
            for kind, cut in zip(stored.kinds, cuts, strict=True):
                rows = sum(len(range(*one.indices(matrix[axis]))) for one in cut) if cut else matrix[axis]
                number = "" if expert is None else str(expert)
                part = kind.rpartition("_")[2] if len(stored.kinds) > 1 else ""
                label = ", ".join(filter(None, (number, part)))
                yield Piece(
                    f"{name}[{label}]" if label else name, name, kind, (rows, matrix[1 - axis]), layer,
                    self._heads(kind), expert, axis, cut, stored.in_out,
                )  # fmt: skip

    def _cuts(self, stored: Stored, name: str, size: int) -> list[tuple[slice, ...]]:
        """Where along the fused axis every kind lies."""
        if not stored.split:
            return [()]
        if stored.split == "heads":
            groups = self.heads + 2 * self.key_value_heads
            self._divides(name, size, groups)
            each = size // groups
            ends = [0, *(each * n for n in (self.heads, self.heads + self.key_value_heads, groups))]
            return [(slice(a, b),) for a, b in pairwise(ends)]
        if stored.split == "per head":
            self._divides(name, size, 3 * self.heads)
            each = size // (3 * self.heads)
            starts = [[(3 * head + part) * each for head in range(self.heads)] for part in range(3)]
            return [tuple(slice(start, start + each) for start in of_kind) for of_kind in starts]
        self._divides(name, size, 2)
        if stored.split == "halves":
            return [(slice(0, size // 2),), (slice(size // 2, size),)]
        return [(slice(0, size, 2),), (slice(1, size, 2),)]

    def _divides(self, name: str, size: int, parts: int) -> None:
        if parts < 1 or size % parts:
            raise BadInput(
                f"{name}: {size} rows do not divide into the {parts} parts that config.json says "
                f"({self.model_type}: {self.heads} heads, {self.key_value_heads} of keys and values)"
            )


def family(kind: str) -> str:
    """The kind of `KINDS` that one is a relative of, or itself.

    >>> family("cross_q"), family("expert_up"), family("router")
    ('q', 'up', 'router')
    """
    return kind.rpartition("_")[2] if kind in RELATIVES else kind


def known(kind: str) -> bool:
    """Whether a kind can be asked for: one of `NAMED`, or a shape such as 64x32."""
    return kind in NAMED or _BY_SHAPE.fullmatch(kind) is not None


def meant(piece: Piece, kinds: tuple[str, ...]) -> bool:
    """Whether a piece is of the kinds: its own is named, or that of its family; all of `KINDS` are all matrices, with
    norms every tensor; never buffers."""
    if piece.kind == BUFFERS:
        return False
    if set(KINDS) <= set(kinds):
        return piece.is_matrix or NORMS in kinds or piece.kind in kinds
    return piece.kind in kinds or piece.family in kinds


def _count(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if value is not None:
            if not isinstance(value, int) or not 0 < value < 100_000:
                raise BadInput(f"config.json: {name} is {value!r:.40}, not a number of heads")
            return value
    return 0
