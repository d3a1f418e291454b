"""Supervised fine-tuning on single-turn expert answers under the ID rule, through TRL's SFTTrainer.

The loss is that of the answer's tokens only. Checkpoints are spaced logarithmically; at each of them the loss on fixed
expert answers is measured for the SFT hands, the held-out hands and the OOD hands, all in the same format.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from datasets import Dataset
from pydantic import Field, ValidationInfo, field_validator, model_validator
from transformers import PreTrainedModel, PrinterCallback
from trl import SFTConfig

from rlheals.engines import fsdp, models
from rlheals.engines.models import Precision
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import Chat, Prompts, dialect_for
from rlheals.settings import Checkpoints, Decay, Float, Int, Rate, Settings, TaskName
from rlheals.stage import Tick, Work, no_tick
from rlheals.store.files import atomic_write
from rlheals.tasks import checked_splits, load_task
from rlheals.tasks.base import Dialect
from rlheals.training import resume
from rlheals.training.expert import (
    IGNORED,
    Example,
    example,
    expert_loss,
    from_file,
    loss_set,
    loss_sets,
    own_samples,
)
from rlheals.training.sft_trainer import AtSteps, ResumableTrainer, refuse_diverged

LOSSES = "losses.json"
SHARED: dict[str, Any] = {
    "fsdp": True,
    "fsdp_config": {"version": 2, "reshard_after_forward": True},
    # the gradients of a slice are added up where they belong, not kept whole in every process until the step
    "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
}


class SFTSettings(Settings):
    """How a base is fine-tuned."""

    task: TaskName = Field("general_points", description="the task's name")
    folder: str = Field("base", description="where it begins: a model folder of the input run")
    splits: tuple[str, ...] = Field(
        ("sft",), description="the task's splits whose expert answers it imitates"
    )
    checkpoints: Checkpoints = Field(
        (0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280),
        description="steps at which the weights are kept; the last one ends the training",
    )
    batch: Int = Field(64, ge=1, description="examples per step")
    learning_rate: Rate = Field(3e-4, description="AdamW, constant after the warm-up")
    warmup_steps: Int = Field(20, ge=0)
    weight_decay: Float = Field(0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    max_grad_norm: Float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    loss_examples: Int = Field(256, ge=1, description="expert answers in each loss set")
    prompts: Prompts = Field("fixed", description="forms of the questions: always the same, or many")
    loss: Literal["nll", "dft"] = Field(
        "nll", description="cross-entropy, or that of dynamic fine-tuning (arXiv 2508.05629)"
    )
    lora_rank: Int | None = Field(
        None, ge=1, description="train low-rank factors of all linear layers; checkpoints are merged"
    )
    replay: Float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of examples that the model at the start wrote itself, from nothing",
    )
    expert_file: str | None = Field(None, description="JSON with answers to imitate instead, see `expert.py`")
    expert_sha256: str | None = Field(None, description="of that file")
    micro_batch_size: Int | None = Field(
        None, ge=1, description="examples per forward pass; unset: as many as half a gigabyte of logits holds"
    )
    processes: Int = Field(1, ge=1, description="GPUs that share weights (FSDP) and batches")
    precision: Precision = Field(
        "own", description="of products: the weights' own format, or a shorter one beside float32 weights"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, a third more time")
    save_every: Int | None = Field(
        None, ge=1, description="steps between states that a killed run goes on from; unset: checkpoints only"
    )

    @property
    def rows(self) -> int:
        """Examples per forward pass."""
        return self.micro_batch_size or self.per_process

    @property
    def per_process(self) -> int:
        """Examples of a batch that one process learns from."""
        return self.batch // self.processes

    @field_validator("splits")
    @classmethod
    def _known_and_different(cls, splits: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return checked_splits(splits, info.data.get("task"))

    @model_validator(mode="after")
    def _divides(self) -> SFTSettings:
        if self.processes > 1 and (self.lora_rank or self.replay):
            raise ValueError(f"processes={self.processes}: lora_rank and replay are for one process")
        if self.batch % self.processes:
            raise ValueError(f"processes={self.processes} does not divide batch={self.batch}")
        if self.per_process % self.rows:
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} does not divide batch={self.batch}/{self.processes}"
            )
        return self


Asked = TypeVar("Asked", bound=SFTSettings)


def checkpoint_name(step: int) -> str:
    """Folder of a checkpoint inside an SFT run.

    >>> checkpoint_name(40)
    'step-00040'
    """
    return f"step-{step:05d}"


def run(work: Work) -> None:
    """The stage: `step-*/` model folders, `losses.json` (loss sets at checkpoints, train loss along the way).

    A killed run goes on from its last kept checkpoint, or from the state of `save_every`.
    """
    settings = SFTSettings.model_validate(work.settings)

    def trained(rows: int) -> None:
        folders = {step: checkpoint_name(step) for step in settings.checkpoints}
        resume.Files(work.scratch / resume.STATE, settings.processes).check(folders, "sft")
        fewer = {} if rows == settings.rows else {"micro_batch_size": rows}
        asked = dataclasses.replace(work, settings={**work.settings, **fewer})
        if settings.processes > 1:
            fsdp.together("rlheals.training.sft", asked, settings.processes)
        else:
            part(asked)

    models.retry_on_out_of_memory(trained, settings.rows, settings.per_process, "sft.micro_batch_size")
    for step in settings.checkpoints:
        resume.same_files(work.scratch / checkpoint_name(step), work.out / checkpoint_name(step))
    shutil.copy2(work.scratch / LOSSES, work.out / LOSSES)


def part(work: Work) -> None:
    """What one process does of the stage, in the scratch folder; the first one writes what the others have too."""
    settings = SFTSettings.model_validate(work.settings)
    base = work.inputs["base"] / settings.folder
    dialect = dialect_for(models.load_tokenizer(base), load_task(settings.task), settings.prompts)
    model = models.load(base)
    settings = fitting(settings, model, dialect)
    if settings.lora_rank:
        model = with_adapter(model, settings.lora_rank, work.seed)

    def keep(step: int) -> None:
        weights = fsdp.whole(model) if settings.processes > 1 else None
        whole = merged(model) if settings.lora_rank else model
        if fsdp.rank() == 0:
            with resume.kept(work.scratch / checkpoint_name(step)) as folder:
                models.save(folder, whole, dialect.tokenizer, weights)

    files = resume.Files(work.scratch / resume.STATE)
    losses = train(model, dialect, settings, work.seed, keep, work.tick, files)
    if fsdp.rank() == 0:
        atomic_write(work.scratch / LOSSES, json.dumps(losses, indent=1) + "\n")


def fitting(settings: Asked, model: PreTrainedModel, dialect: Dialect) -> Asked:
    """The settings with a micro-batch that leaves room for what a large vocabulary makes of it, unless one is set."""
    if settings.micro_batch_size is not None:
        return settings
    answers = loss_set(dialect, load_task(settings.task), settings.splits[0], settings.loss_examples)
    most = models.rows_at_once(model, max(len(tokens) for tokens, _ in answers))
    rows = next(size for size in range(min(most, settings.rows), 0, -1) if settings.per_process % size == 0)
    return settings.model_copy(update={"micro_batch_size": rows})


def with_adapter(model: PreTrainedModel, rank: int, seed: int) -> PreTrainedModel:
    """The model with low-rank factors beside every linear layer, which alone are trained (arXiv 2106.09685)."""
    import peft

    torch.manual_seed(seed)
    wanted = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    made: Any = peft.get_peft_model(model, wanted)
    return made


def merged(model: Any) -> PreTrainedModel:
    """A copy with the factors added to the weights that they stand beside."""
    made: PreTrainedModel = copy.deepcopy(model).merge_and_unload()
    return made


def train(
    model: PreTrainedModel,
    dialect: Dialect,
    settings: SFTSettings,
    seed: int,
    keep: Callable[[int], object],
    tick: Tick = no_tick,
    files: resume.Files | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Train in place; `keep(step)` is called at every checkpoint. Returns {"sets": [...], "train": [...]}.

    files: what the training goes on from if it is there, and what is written at checkpoints.
    """
    models.refuse_short_weights(model, settings.precision, "sft")
    if settings.gradient_checkpointing:
        models.checkpoint_gradients(model)
    sets = loss_sets(dialect, load_task(settings.task), settings.loss_examples)
    own = own_samples(model, dialect.tokenizer, seed) if settings.replay else []
    losses: list[dict[str, float]] = []

    def at_checkpoint(step: int) -> None:
        keep(step)
        measured = {name: expert_loss(model, rows) for name, rows in sets.items()}
        refuse_diverged(step, *measured.values())
        losses.append({"step": step, **measured})

    with tempfile.TemporaryDirectory() as scratch:
        with warnings.catch_warnings():  # TRL's own default trips over a renamed setting of transformers
            warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
            arguments = trainer_settings(settings, seed, Path(scratch))
        trainer = ResumableTrainer(
            model=model,
            args=arguments,
            train_dataset=examples(dialect, settings, seed, own),
            processing_class=dialect.tokenizer,
        )
        trainer.losses = losses
        trainer.remove_callback(PrinterCallback)
        wanted = settings.checkpoints, at_checkpoint, tick, files, settings.save_every
        trainer.add_callback(AtSteps(trainer, *wanted))
        trainer.go_on(files)
        log = [
            {"step": one["step"], "loss": one["loss"]} for one in trainer.state.log_history if "loss" in one
        ]
    return {"sets": losses, "train": log}


def trainer_settings(settings: SFTSettings, seed: int, scratch: Path) -> SFTConfig:
    """TRL's settings, every one that matters named: nothing is taken from a default unread."""
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=settings.checkpoints[-1],
        per_device_train_batch_size=settings.rows,
        gradient_accumulation_steps=settings.per_process // settings.rows,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        optim="adamw_torch",
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        max_grad_norm=settings.max_grad_norm,
        loss_type=settings.loss,
        completion_only_loss=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        gradient_checkpointing=False,  # `models.checkpoint_gradients` is for every algorithm alike
        use_cpu=not cuda,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        eval_strategy="no",
        logging_steps=5,
        logging_nan_inf_filter=False,  # the trainer stops at such a loss
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        **(copy.deepcopy(SHARED) if settings.processes > 1 else {}),  # transformers writes into it
    )


def examples(dialect: Dialect, settings: SFTSettings, seed: int, own: Sequence[Example] = ()) -> Dataset:
    """The training stream: one row per example, items drawn uniformly from all splits together.

    own: what the model wrote itself, for `replay`.
    """
    random, count = np.random.default_rng([seed, 3]), settings.checkpoints[-1] * settings.batch
    if settings.expert_file is not None:
        rows = _from_file(dialect, settings, random, count)
    else:
        task = load_task(settings.task)
        items = [item for split in settings.splits for item in task.items(split)]
        picks = random.integers(len(items), size=count)
        rows = [example(dialect, task, items[pick], random, settings.prompts) for pick in picks]
    if own:
        for place in np.flatnonzero(random.random(count) < settings.replay):
            rows[place] = own[int(random.integers(len(own)))]
    return Dataset.from_dict(
        {
            "input_ids": [tokens for tokens, _ in rows],
            "labels": [[IGNORED] * start + tokens[start:] for tokens, start in rows],
        }
    )


def _from_file(
    dialect: Dialect, settings: SFTSettings, random: np.random.Generator, count: int
) -> list[tuple[list[int], int]]:
    pairs = from_file(Path(settings.expert_file or ""), settings.expert_sha256)
    if not isinstance(dialect, Chat):
        raise BadInput("expert_file has questions in words; a lab model knows only its own")
    rows = []
    for pick in random.integers(len(pairs), size=count):
        question = dialect.question(pairs[pick].question)
        rows.append((question + dialect.reply(pairs[pick].reply), len(question)))
    return rows
