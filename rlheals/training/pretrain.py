"""Pretraining of a lab base: a Llama of about 0.2 M parameters that can do the task under many rules, half of the time.

The base is stopped by a rule that is the same for every seed: every `check_every` steps a fixed panel of items under
rules that are neither the ID nor the OOD rule is answered; training stops when its format-agnostic success rate within
the task's attempts (success@5 with feedback) has reached `ability`. Neither corpus nor panel has the OOD rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.engines.models import ModelSettings
from rlheals.errors import BadInput
from rlheals.evaluation.rollout import rollout
from rlheals.settings import Decay, Float, Int, Rate, Settings, TaskName
from rlheals.stage import Tick, Work, no_tick
from rlheals.tasks import load_task
from rlheals.tasks.base import Document, Item, Task, Variant, WordDialect

POOL = 2048


class PretrainSettings(Settings):
    """How a base is made."""

    task: TaskName = Field("general_points", description="the task's name")
    model: ModelSettings = ModelSettings()
    variant: Variant = Field("default", description="what pretraining never shows, see `rlheals.tasks.base`")
    ability: Float | None = Field(0.5, gt=0, le=1, description="stop at this panel accuracy; None: never")
    min_steps: Int = Field(300, ge=0, description="no ability check before this step")
    max_steps: Int = Field(1500, ge=1, description="stop here in any case")
    check_every: Int = Field(50, ge=1, description="steps between ability checks")
    panel_hands: Int = Field(256, ge=16, description="items in the ability panel")
    batch_tokens: Int = Field(8000, ge=256, description="padded tokens per step")
    schedule_tokens: Int = Field(9_000_000, ge=1, description="tokens over which the cosine would reach zero")
    learning_rate: Rate = Field(3e-3, description="AdamW peak learning rate")
    warmup_steps: Int = Field(100, ge=0)
    weight_decay: Float = Field(0.01, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    max_grad_norm: Float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


def run(work: Work) -> None:
    """The stage: writes `base/` (config, weights, tokenizer) and `ability.json` (panel accuracy against steps)."""
    settings = PretrainSettings.model_validate(work.settings)
    dialect = load_task(settings.task).dialect()
    model = models.create(settings.model, dialect.tokenizer, work.seed)
    history = train(model, dialect, settings, work.seed, work.tick)
    models.save(work.out / "base", model, dialect.tokenizer)
    (work.out / "ability.json").write_text(json.dumps(history, indent=1) + "\n")


def train(
    model: PreTrainedModel,
    dialect: WordDialect,
    settings: PretrainSettings,
    seed: int,
    tick: Tick = no_tick,
) -> list[dict[str, float]]:
    """Train in place; returns one record per ability check: step, tokens, loss, within_five."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    task = load_task(settings.task)
    panel = task.panel(settings.panel_hands)
    history, seen, losses = [], 0, []
    batches = iter_batches(dialect, seed, settings)
    for step in range(1, settings.max_steps + 1):
        ids, weights = next(batches)
        warm = min(1.0, step / max(1, settings.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, seen / settings.schedule_tokens)))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * warm * cosine
        model.train()
        loss = weighted_loss(model, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            raise BadInput(
                f"pretrain: step {step}: loss or gradient are not finite; a lower learning rate may help"
            )
        optimizer.step()
        seen += ids.numel()
        losses.append(float(loss.detach()))
        tick(step, settings.max_steps, "step")
        if (step >= settings.min_steps and step % settings.check_every == 0) or step == settings.max_steps:
            try:
                reached = ability(model, dialect, task, panel)
            except BadInput as error:
                raise BadInput(f"pretrain: step {step}: {error}") from error
            history.append(
                {"step": step, "tokens": seen, "loss": float(np.mean(losses[-50:])), "within_five": reached}
            )
            if settings.ability is not None and reached >= settings.ability:
                break
    return history


def weighted_loss(model: PreTrainedModel, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum_t w_t * -log p(token_t | before) / sum_t w_t. ids, weights (rows, length), right-padded with weight 0."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    target = weights[:, 1:].flatten()
    return (losses * target).sum() / target.sum()


def iter_batches(
    dialect: WordDialect, seed: int, settings: PretrainSettings
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of documents of similar length, at most `batch_tokens` padded tokens each, in random order."""
    stream = load_task(settings.task).documents(dialect, seed, settings.variant)
    random = np.random.default_rng([seed, 2])
    while True:
        pool = sorted(islice(stream, POOL), key=lambda document: len(document.tokens))
        batches: list[list[Document]] = [[]]
        for document in pool:
            if (len(batches[-1]) + 1) * len(document.tokens) > settings.batch_tokens:
                batches.append([])
            batches[-1].append(document)
        for index in random.permutation(len(batches)):
            yield collate(batches[index], dialect.tokenizer.pad_token_id)


def collate(documents: list[Document], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (rows, length) token ids and loss weights."""
    length = max(len(document.tokens) for document in documents)
    ids = torch.full((len(documents), length), pad)
    weights = torch.zeros((len(documents), length))
    for row, document in enumerate(documents):
        ids[row, : len(document.tokens)] = torch.tensor(document.tokens)
        weights[row, : len(document.tokens)] = torch.tensor(document.weights)
    return ids, weights


def ability(model: PreTrainedModel, dialect: WordDialect, task: Task, panel: list[Item]) -> float:
    """Share of the panel solved within the task's attempts, format-agnostic, temperature 0.7."""
    keys = [f"ability/{item.id}" for item in panel]
    engine = HFEngine(model, dialect.tokenizer)
    episodes = rollout(engine, dialect, task, panel, keys, Sampling(), protocol="either")
    return float(np.mean([episode.solved_at > 0 for episode in episodes]))
