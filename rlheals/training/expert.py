"""Expert answers as rows to learn from, and the loss on fixed sets of them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.evaluation.dialects import Dialect, Prompts
from rlheals.tasks.base import Item, Task

IGNORED = -100
LOSS_SETS = {"train": "sft", "test": "held_out", "ood": "ood"}


def example(
    dialect: Dialect, task: Task, item: Item, random: np.random.Generator, prompts: Prompts = "fixed"
) -> tuple[list[int], int]:
    """One expert answer to an item as the task shows it this time: (tokens, length of the prompt)."""
    shown = task.shown(item, random)
    form = int(random.integers(dialect.forms)) if prompts == "diverse" else 0
    prompt = dialect.prompt(shown, form)
    return prompt + dialect.expert(shown, form), len(prompt)


def loss_sets(dialect: Dialect, task: Task, size: int) -> dict[str, list[tuple[list[int], int]]]:
    """The sets whose loss is measured, by name."""
    return {name: loss_set(dialect, task, split, size) for name, split in LOSS_SETS.items()}


def loss_set(dialect: Dialect, task: Task, split: str, size: int) -> list[tuple[list[int], int]]:
    """Fixed expert answers of a split, the same for every seed: (tokens, length of the prompt)."""
    random = np.random.default_rng(24)
    items = task.items(split)
    picks = random.permutation(len(items))[:size]
    return [example(dialect, task, items[pick], random) for pick in picks]


@torch.no_grad()
def expert_loss(model: PreTrainedModel, rows: list[tuple[list[int], int]]) -> float:
    """Mean cross-entropy (nats per token) of the answers' tokens."""
    was_training = model.training
    model.eval()
    length = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    at_once = models.rows_at_once(model, length)
    total = 0.0
    for part, wanted in zip(ids.split(at_once), labels[:, 1:].split(at_once), strict=True):
        logits = model(input_ids=part.to(model.device), use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten().to(model.device), ignore_index=IGNORED
        )
        total += float(loss) * int((wanted != IGNORED).sum())
    model.train(was_training)
    return total / int((labels[:, 1:] != IGNORED).sum())
