"""The stages by name, and the code behind each; manifests and recorded studies keep the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlheals.errors import BadInput
from rlheals.stage import task_module
from rlheals.store.code_hash import Code, snapshot

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


OF_A_TASK = {
    "pretrain",
    "sft",
    "evaluate",
    "rl",
    "evaluate_vllm",
    "rl_vllm",
    "trajectory",
    "edited",
    "protected",
}
"""Stages whose settings name a task."""


def module_of(stage: str, package: str = "rlheals") -> str:
    """The module of a stage; a name that is not in the table, or of another package, is a module of the package itself.

    >>> module_of("no_stage")
    'rlheals.no_stage'
    """
    own = f"{package}.{stage}"
    return STAGES.get(stage, own) if package == "rlheals" else own


def modules_behind(stage: str, settings: Mapping[str, Any], package: str = "rlheals") -> tuple[str, ...]:
    """The modules that a run of these settings begins with: that of the stage, and that of the task it names.

    >>> modules_behind("sft", {"task": "general_points"})
    ('rlheals.training.sft', 'rlheals.tasks.general_points.task')
    """
    module = module_of(stage, package)
    if package != "rlheals" or stage not in OF_A_TASK:
        return (module,)
    return (module, task_module(settings.get("task", "general_points")))


def code_behind(stage: str, settings: Mapping[str, Any], package: str = "rlheals") -> Code:
    """The source that a run of these settings runs. A task of another package counts with that package's modules.

    Raises BadInput for a stage that there is not.
    """
    behind = modules_behind(stage, settings, package)
    try:
        parts = [snapshot(module, module.partition(".")[0]) for module in behind]
    except BadInput:
        if package != "rlheals" or stage in STAGES:
            raise
        raise BadInput(f"stage {stage!r:.80} is not known; accepted: {', '.join(STAGES)}") from None
    found = {name: source for part in parts for name, source in part.sources.items()}
    return replace(parts[0], sources=dict(sorted(found.items())))
