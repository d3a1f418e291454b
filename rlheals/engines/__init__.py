"""The engines that continue token sequences, and how one is chosen.

The stages import `hf` itself: what other engines do must not make stored results stale.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from rlheals.engines.hf import (
    Engine,
    Generation,
    HFEngine,
    Past,
    Sampling,
    draw,
    open_engine,
    refresh,
    uniforms,
)
from rlheals.errors import BadInput

__all__ = [
    "Engine",
    "Generation",
    "HFEngine",
    "Past",
    "Sampling",
    "draw",
    "load_engine",
    "refresh",
    "uniforms",
]


def load_engine(
    model_or_folder: PreTrainedModel | str | Path, backend: Literal["hf", "vllm"] = "hf"
) -> Engine:
    """An engine for a local folder, or a hub id ("owner/name")."""
    if backend not in ("hf", "vllm"):
        raise BadInput(f"backend {backend!r} is not known; accepted: 'hf', 'vllm'")
    if isinstance(model_or_folder, PreTrainedModel):
        raise BadInput(
            "load_engine takes a folder or hub id; for a model in memory use HFEngine(model, tokenizer)"
        )
    if backend == "vllm":
        from rlheals.engines.vllm import VLLMEngine  # optional

        return VLLMEngine(model_or_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_engine(model_or_folder)
