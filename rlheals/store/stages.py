"""The stages by name, and the code behind each; manifests and recorded studies keep the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlheals.errors import BadInput
from rlheals.stage import task_module
from rlheals.store.code_hash import Code, snapshot

STAGES = {
    "adopt": "rlheals.training.adopt",
    "fetch": "rlheals.training.fetch",
    "warm_up": "rlheals.training.warm_up",
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

OF_A_TASK = STAGES.keys() - {"adopt", "fetch", "spectra"}
"""Stages whose settings name a task."""


def modules_behind(stage: str, settings: Mapping[str, Any], package: str = "rlheals") -> tuple[str, ...]:
    """The modules that a run of these settings begins with: that of the stage, and that of the task it names.

    Of another package every module is a stage. Raises BadInput for a stage that there is not.

    >>> modules_behind("sft", {"task": "general_points"})
    ('rlheals.training.sft', 'rlheals.tasks.general_points.task')
    """
    if package != "rlheals":
        return (f"{package}.{stage}",)
    if stage not in STAGES:
        raise BadInput(f"stage {stage!r:.80} is not known; accepted: {', '.join(STAGES)}")
    task = [task_module(settings.get("task", "general_points"))] if stage in OF_A_TASK else []
    return (STAGES[stage], *task)


def code_behind(stage: str, settings: Mapping[str, Any], package: str = "rlheals") -> Code:
    """The source that a run of these settings runs. A task of another package counts with that package's modules."""
    by_package: dict[str, list[str]] = {}
    for module in modules_behind(stage, settings, package):
        by_package.setdefault(module.partition(".")[0], []).append(module)
    parts = [snapshot(modules, of).sources for of, modules in by_package.items()]
    return Code(dict(sorted((name, source) for part in parts for name, source in part.items())))
