"""The engines that continue token sequences, and how one is chosen.

The stages import `engines.hf` itself, and vLLM's engine is found by name: what it does must not make stored results of
other engines stale.
"""

from __future__ import annotations

import pkgutil
import warnings
from pathlib import Path
from typing import Literal, cast

from transformers import PreTrainedModel

from rlheals.engines.hf import Engine, Generation, HFEngine, Past, Sampling, open_engine
from rlheals.errors import BadInput

__all__ = ["Engine", "Generation", "HFEngine", "Past", "Sampling", "load_engine"]


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
        return cast(Engine, pkgutil.resolve_name("rlheals.engines.vllm:VLLMEngine")(model_or_folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_engine(model_or_folder)
