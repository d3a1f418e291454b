"""A census now and then inside anybody's trainer: a callback for `transformers.Trainer` and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from rlheals.errors import BadInput
from rlheals.evaluation.census import Census, census
from rlheals.tasks import load_task
from rlheals.tasks.base import Task


class CensusCallback(TrainerCallback):
    """Answers the items of some splits before the first step, at every `every`-th one, and after the last one.

    task, splits: as `census` takes them, and so are `options` (hands, attempts, temperature, seed, rows). The numbers
    go into the trainer's log history and to whatever `report_to` names, under names such as `census/ood/pass@1`;
    `found` keeps the last census, `history` the metrics by step. It uses none of the training's random numbers,
    so a run with this callback has the same weights as one without it. With several processes the first one answers;
    it needs the whole model: BadInput where that is sharded.

    >>> callback = CensusCallback(task="general_points", splits=["id", "ood"], every=50)
    >>> callback.every, callback.history
    (50, {})
    """

    def __init__(
        self,
        task: str | Task = "general_points",
        splits: Sequence[str] = ("held_out", "ood"),
        every: int = 50,
        **options: Any,
    ) -> None:
        if every < 1:
            raise BadInput(f"every = {every}: a number of steps of at least 1 is accepted")
        self.task = task if isinstance(task, Task) else load_task(task)
        self.splits, self.every, self.options = list(splits), every, options
        self.found: Census | None = None
        self.history: dict[int, dict[str, float]] = {}
        self._reports: list[TrainerCallback] | None = None

    def on_train_begin(self, *given: Any, **kwargs: Any) -> None:
        self._ask(*given, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *given: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            self._ask(args, state, *given, **kwargs)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *given: Any, **kwargs: Any) -> None:
        if state.global_step not in self.history:
            self._ask(args, state, *given, **kwargs)

    def _ask(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if args.fsdp or args.deepspeed:
            raise BadInput("a census needs the whole model in one process; this trainer shards it")
        model, tokenizer = kwargs["model"], kwargs.get("processing_class")
        training = model.training
        try:
            with torch.no_grad(), torch.random.fork_rng():
                self.found = census(model, self.task, self.splits, tokenizer=tokenizer, **self.options)
        finally:
            model.train(training)
        numbers = self.history[state.global_step] = self.found.metrics()
        state.log_history.append({**numbers, "step": state.global_step})
        for report in self._reporting(args):
            report.on_log(args, state, control, logs=dict(numbers), model=model)

    def _reporting(self, args: TrainingArguments) -> list[TrainerCallback]:
        """Integrations of our own, since a callback cannot reach the trainer's; they join the run that is open."""
        if self._reports is None:
            self._reports = [kind() for kind in get_reporting_integration_callbacks(args.report_to)]
        return self._reports
