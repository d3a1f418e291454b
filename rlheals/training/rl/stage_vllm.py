"""RL whose episodes vLLM plays. A stage of its own: the same settings, but other noise and other code behind it.

Several processes have an engine each, on the GPU where they also train; or all of them ask a server (`vllm_server`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch

from rlheals.engines.hf import Opens
from rlheals.engines.vllm_server import Closing, open_vllm
from rlheals.stage import Work
from rlheals.training.rl import stage as rl

CACHE_GB = 8.0  # for keys and values; the rest of the GPU's memory is the model's in training


def run(work: Work) -> None:
    """The stage, as `rl`."""
    with _opens() as opens:
        rl.run(work, opens, "rlheals.training.rl.stage_vllm")


def part(work: Work) -> None:
    """What one of several processes does of it."""
    with _opens() as opens:
        rl.part(work, opens)


@contextmanager
def _opens() -> Iterator[Opens]:
    """Opens engines that are closed at the end."""
    cache_gb = CACHE_GB if torch.cuda.is_available() else None
    with ExitStack() as engines:

        def opens(start: Path, rows: int) -> Closing:
            return engines.enter_context(closing(open_vllm(start, rows, cache_gb)))

        yield opens
