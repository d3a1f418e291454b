"""The census with vLLM. A stage of its own: the same settings, but other noise and other code behind the numbers."""

from __future__ import annotations

from rlheals.engines.vllm_server import closing_vllm
from rlheals.evaluation import evaluate
from rlheals.stage import Work


def run(work: Work) -> None:
    """The stage, as `evaluate`."""
    with closing_vllm() as opens:
        evaluate.run(work, opens)
