"""The census with vLLM. A stage of its own: the same settings, but other noise and other code behind the numbers."""

from __future__ import annotations

from contextlib import ExitStack, closing

from rlheals.engines.vllm_server import open_vllm
from rlheals.evaluation import evaluate
from rlheals.stage import Work


def run(work: Work) -> None:
    """The stage, as `evaluate`."""
    with ExitStack() as engines:
        evaluate.run(work, lambda folder, rows: engines.enter_context(closing(open_vllm(folder, rows))))
