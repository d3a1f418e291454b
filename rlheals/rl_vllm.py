"""RL whose episodes vLLM plays. A stage of its own: the same settings, but other noise and other code behind it."""

from __future__ import annotations

from contextlib import ExitStack, closing

import torch

from rlheals import rl
from rlheals.errors import BadInput
from rlheals.rl import RLSettings
from rlheals.stage import Work
from rlheals.vllm_engine import VLLMEngine

CACHE_GB = 8.0  # for keys and values; the rest of the GPU's memory is the model's in training


def run(work: Work) -> None:
    """The stage, as `rl`; BadInput for several processes."""
    if RLSettings.model_validate(work.settings).processes > 1:
        raise BadInput(
            "rl.processes: several processes play with Hugging Face's engine only; set engine to hf"
        )
    cache_gb = CACHE_GB if torch.cuda.is_available() else None
    with ExitStack() as engines:
        rl.run(
            work,
            lambda start, rows: engines.enter_context(closing(VLLMEngine(start, rows, cache_gb=cache_gb))),
        )
