"""Supervised fine-tuning on single-turn expert answers under the ID rule, through TRL's SFTTrainer.

The loss is that of the answer's tokens only. Checkpoints are spaced logarithmically; at each of them the loss on fixed
expert answers is measured for the SFT hands, the held-out hands and the OOD hands, all in the same format.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from pydantic import Field, field_validator
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from rlheals import models
from rlheals.corpus import sft_example
from rlheals.dialects import Compact
from rlheals.settings import Decay, Float, Int, Rate, Settings
from rlheals.stage import Tick, Work, no_tick
from rlheals.tasks.general_points import GeneralPoints

IGNORED = -100
LOSS_SETS = {"train": "sft", "test": "held_out", "ood": "ood"}


class SFTSettings(Settings):
    """How a base is fine-tuned."""

    checkpoints: tuple[Int, ...] = Field(
        (0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280),
        description="steps at which the weights are kept; the last one ends the training",
    )
    batch: Int = Field(64, ge=1, description="examples per step")
    learning_rate: Rate = Field(3e-4, description="AdamW, constant after the warm-up")
    warmup_steps: Int = Field(20, ge=0)
    weight_decay: Float = Field(0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    clip: Float = Field(1.0, gt=0, description="gradient norm")
    loss_examples: Int = Field(256, ge=1, description="expert answers in each loss set")

    @field_validator("checkpoints")
    @classmethod
    def _increasing(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0 or steps[-1] < 1:
            raise ValueError(f"{steps} is not an increasing list of steps that ends above 0")
        return steps


def checkpoint_name(step: int) -> str:
    """Folder of a checkpoint inside an SFT run.

    >>> checkpoint_name(40)
    'step-00040'
    """
    return f"step-{step:05d}"


def run(work: Work) -> None:
    """The stage: `step-*/` model folders, `losses.json` (loss sets at checkpoints, train loss along the way)."""
    settings = SFTSettings.model_validate(work.settings)
    base = work.inputs["base"] / "base"
    model = models.load(base)
    dialect = Compact(models.load_tokenizer(base))

    def keep(step: int) -> None:
        models.save(work.out / checkpoint_name(step), model, dialect.tokenizer)

    losses = train(model, dialect, settings, work.seed, keep, work.tick)
    (work.out / "losses.json").write_text(json.dumps(losses, indent=1) + "\n")


def train(
    model: PreTrainedModel,
    dialect: Compact,
    settings: SFTSettings,
    seed: int,
    keep: Callable[[int], object],
    tick: Tick = no_tick,
) -> dict[str, list[dict[str, float]]]:
    """Train in place; `keep(step)` is called at every checkpoint. Returns {"sets": [...], "train": [...]}."""
    sets = {name: loss_set(dialect, split, settings.loss_examples) for name, split in LOSS_SETS.items()}
    losses: list[dict[str, float]] = []

    def at_checkpoint(step: int) -> None:
        keep(step)
        losses.append({"step": step, **{name: expert_loss(model, rows) for name, rows in sets.items()}})

    with tempfile.TemporaryDirectory() as scratch:
        with warnings.catch_warnings():  # TRL's own default trips over a renamed setting of transformers
            warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
            arguments = trainer_settings(settings, seed, Path(scratch))
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=examples(dialect, settings, seed),
            processing_class=dialect.tokenizer,
            callbacks=[_Checkpoints(settings.checkpoints, at_checkpoint, tick)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        log = [
            {"step": record["step"], "loss": record["loss"]}
            for record in trainer.state.log_history
            if "loss" in record
        ]
    return {"sets": losses, "train": log}


def trainer_settings(settings: SFTSettings, seed: int, scratch: Path) -> SFTConfig:
    """TRL's settings, every one that matters named: nothing is taken from a default unread."""
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=settings.checkpoints[-1],
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        optim="adamw_torch",
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        max_grad_norm=settings.clip,
        loss_type="nll",
        completion_only_loss=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        gradient_checkpointing=False,
        use_cpu=not cuda,
        bf16=cuda,
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        eval_strategy="no",
        logging_steps=5,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
    )


def examples(dialect: Compact, settings: SFTSettings, seed: int) -> Dataset:
    """The training stream: one row per example, hands drawn uniformly from the SFT split, cards in random order."""
    random = np.random.default_rng([seed, 3])
    items = GeneralPoints().items("sft")
    picks = random.integers(len(items), size=settings.checkpoints[-1] * settings.batch)
    rows = [sft_example(dialect, items[pick], random) for pick in picks]
    return Dataset.from_dict(
        {
            "input_ids": [tokens for tokens, _ in rows],
            "labels": [[IGNORED] * start + tokens[start:] for tokens, start in rows],
        }
    )


def loss_set(dialect: Compact, split: str, size: int) -> list[tuple[list[int], int]]:
    """Fixed expert answers of a split, the same for every seed: (tokens, length of the prompt)."""
    random = np.random.default_rng(24)
    items = GeneralPoints().items(split)
    picks = random.permutation(len(items))[:size]
    return [sft_example(dialect, items[pick], random) for pick in picks]


@torch.inference_mode()
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
    ids, labels = ids.to(model.device), labels.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )
    model.train(was_training)
    return float(loss)


class _Checkpoints(TrainerCallback):
    """Calls `at_checkpoint(step)` at the wanted steps, step 0 included, and reports progress."""

    def __init__(self, steps: tuple[int, ...], at_checkpoint: Callable[[int], None], tick: Callable) -> None:
        self.steps, self.at_checkpoint, self.tick = set(steps), at_checkpoint, tick

    def on_train_begin(self, args, state, control, **kwargs):
        if 0 in self.steps:
            self.at_checkpoint(0)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.steps:
            self.at_checkpoint(state.global_step)
        self.tick(state.global_step, state.max_steps, "step")
