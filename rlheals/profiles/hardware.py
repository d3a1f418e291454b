"""What a profile needs, as facts: the size of its language model, and the GPU or processor that it is made for."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field, field_validator

from rlheals.settings import Int, Settings

CORE = "processor core"


class Gpu(NamedTuple):
    """Data sheet: memory in GB, peak of dense products in 16 bits in TFLOP/s, memory bandwidth in GB/s."""

    memory: float
    peak: float
    bandwidth: float
    bfloat16: bool


GPUS = {
    "T4": Gpu(15.0, 65, 320, False),
    "L4": Gpu(22.5, 121, 300, True),
    "A100-40GB": Gpu(40.0, 312, 1555, True),
    "A100-80GB": Gpu(80.0, 312, 2039, True),
    "H100": Gpu(80.0, 989, 3350, True),
    "H200": Gpu(141.0, 989, 4800, True),
    CORE: Gpu(16.0, 0.4, 20, True),
}
"""The last one is no GPU but a core with AVX512-BF16, whose products were measured; `dry_run` measures those of the
machine that it is on."""


class Shape(Settings):
    """Of a decoder with gated feed-forward blocks, as its configuration on the hub says.

    >>> Shape(hidden=896, layers=24, kv_width=128, mlp=4864, vocabulary=151_936, tied=True, bias=True).parameters
    494032768
    """

    hidden: Int = Field(ge=1)
    layers: Int = Field(ge=1)
    kv_width: Int = Field(ge=1, description="key-value heads times their width")
    mlp: Int = Field(ge=1)
    vocabulary: Int = Field(ge=1)
    tied: bool = Field(False, description="the output head is the embedding")
    bias: bool = Field(False, description="of the query, key and value projections")
    other: Int = Field(
        0, ge=0, description="parameters beyond those of a plain decoder, such as a vision tower"
    )

    @property
    def parameters(self) -> int:
        """Number of weights."""
        attention = 2 * self.hidden * (self.hidden + self.kv_width)
        biases = (self.hidden + 2 * self.kv_width) if self.bias else 0
        layer = attention + biases + 3 * self.hidden * self.mlp + 2 * self.hidden
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return ends + self.layers * layer + self.hidden + self.other


class Hardware(Settings):
    """The GPU that a profile is made for, or a processor core."""

    gpu: str = Field(description=", ".join(GPUS))
    hours: Int = Field(ge=1, description="expected length of a session")
    prompt_tokens: Int = Field(200, ge=1, description="of a question, to estimate memory and time")
    answer_tokens: Int = Field(60, ge=1, description="of an expert's answer")
    feedback_tokens: Int = Field(40, ge=1, description="of a feedback turn")

    @field_validator("gpu")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in GPUS:
            raise ValueError(f"accepted: {', '.join(GPUS)}")
        return name

    @property
    def card(self) -> Gpu:
        return GPUS[self.gpu]
