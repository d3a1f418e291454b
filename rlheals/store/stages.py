"""The stages by name, and the module of each; manifests and recorded studies keep the names."""

from __future__ import annotations

STAGES = {
    "adopt": "rlheals.training.adopt",
    "fetch": "rlheals.training.fetch",
    "pretrain": "rlheals.training.pretrain",
    "sft": "rlheals.training.sft",
    "evaluate": "rlheals.evaluation.evaluate",
    "rl": "rlheals.training.rl.stage",
    "evaluate_vllm": "rlheals.evaluation.evaluate_vllm",
    "rl_vllm": "rlheals.training.rl.stage_vllm",
    "spectra": "rlheals.weights.spectra_stage",
    "trajectory": "rlheals.weights.trajectory",
    "edited": "rlheals.weights.edit_stage",
    "protected": "rlheals.training.protected",
}
"""A stage is a module with a function `run(work: Work)`. No stage imports this table: additions make nothing stale."""


def module_of(stage: str, package: str = "rlheals") -> str:
    """The module of a stage; a name that is not in the table is a module of the package itself.

    >>> module_of("no_stage")
    'rlheals.no_stage'
    """
    return STAGES.get(stage, f"{package}.{stage}")
