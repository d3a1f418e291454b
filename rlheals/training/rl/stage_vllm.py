"""RL whose episodes vLLM plays. A stage of its own: the same settings, but other noise and other code behind it.

Several processes have an engine each, on the GPU where they also train; or all of them ask a server (`vllm_server`).
"""

from __future__ import annotations

import torch

from rlheals.engines.vllm_server import closing_vllm
from rlheals.stage import Work
from rlheals.training.rl import stage as rl

CACHE_GB = 8.0 if torch.cuda.is_available() else None
"""For keys and values; the rest of a GPU's memory is the model's in training."""


def run(work: Work) -> None:
    """The stage, as `rl`."""
    with closing_vllm(CACHE_GB) as opens:
        rl.run(work, opens, "rlheals.training.rl.stage_vllm")


def part(work: Work) -> None:
    """What one of several processes does of it."""
    with closing_vllm(CACHE_GB) as opens:
        rl.part(work, opens)
