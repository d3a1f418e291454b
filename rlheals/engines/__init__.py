"""The engines that continue token sequences, and how one is chosen.

Nothing is imported before it is needed: processes that train together start in half the time. vLLM's engine is found
by name: what it does must not make stored results of other engines stale.
"""

from __future__ import annotations

import pkgutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rlheals.errors import BadInput

if TYPE_CHECKING:
    from rlheals.engines.hf import Engine


def load_engine(folder: str | Path, backend: Literal["hf", "vllm"] = "hf") -> Engine:
    """An engine for a local folder, or a hub id ("owner/name")."""
    if backend not in ("hf", "vllm"):
        raise BadInput(f"backend {backend!r} is not known; accepted: 'hf', 'vllm'")
    if not isinstance(folder, (str, Path)):
        raise BadInput(
            "load_engine takes a folder or hub id; for a model in memory use HFEngine(model, tokenizer)"
        )
    if backend == "vllm":
        return cast("Engine", pkgutil.resolve_name("rlheals.engines.vllm:VLLMEngine")(folder))
    from rlheals.engines.hf import open_engine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_engine(folder)
