"""GRPO, RLOO and rejection sampling: TRL's trainer with the project's own episodes in place of its generation.

TRL's part: the loss with its clipped ratio, gradient accumulation, the optimiser's step. Ours, through `rollout_func`
and `env_mask`: which hands, the multi-turn loop, the weights of attempts. TRL's RLOO trainer takes no `rollout_func`,
so RLOO is its GRPO loss with leave-one-out weights, which at one epoch is the same gradient.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rlheals.training.rl.session import Batch, Session
from rlheals.training.rl.settings import RLSettings

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

SMALL_VOCABULARY = 4096


def train(session: Session) -> None:
    """Play and learn until the session's last update; `session.finish` is called at the end of each."""
    settings = session.settings
    left = settings.iterations - session.done
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
        arguments = trainer_settings(settings, left, Path(scratch))
        trainer = EpisodeTrainer(session, arguments, left)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def trainer_settings(settings: RLSettings, updates: int, scratch: Path) -> GRPOConfig:
    """TRL's settings, every one that matters named with its reason: nothing is taken from a default unread."""
    cuda = torch.cuda.is_available()
    slices = settings.episodes // settings.micro_batch_size
    return GRPOConfig(
        output_dir=str(scratch),
        max_steps=updates * settings.used_epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=slices,  # one optimiser step sees all episodes of the update
        steps_per_generation=slices,  # and they are played once per update
        num_generations=settings.group,
        num_iterations=settings.used_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,  # clipped, logged and checked in `Session.clip_gradient`, for every algorithm alike
        loss_type="dr_grpo",  # a constant normaliser: dividing by lengths would weigh short episodes more
        max_completion_length=settings.sampling.max_new_tokens,  # that constant; Adam does not feel its size
        scale_rewards="none",  # TRL's own advantages are replaced by those of `advantages.py`
        importance_sampling_level="token",
        epsilon=settings.used_clip_range,
        beta=0.0,  # KL penalties are part of the return, see `Session`
        temperature=settings.sampling.temperature,
        top_p=1.0,
        top_k=0,
        mask_truncated_completions=False,  # a cut answer is a wrong answer and is learnt from
        shuffle_dataset=False,  # the order is the session's
        remove_unused_columns=False,
        disable_dropout=True,
        gradient_checkpointing=False,
        use_cpu=not cuda,
        bf16=False,  # the weights' own type everywhere: autocast here and none in the engine would not agree
        seed=0,  # no random number of TRL's is used
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
    )


class EpisodeTrainer(GRPOTrainer):
    """One update of a session per generation batch, in slices of similar length, so that one long episode is not
    everybody's padding; episodes that weigh nothing are left out, which changes no gradient."""

    def __init__(self, session: Session, arguments: GRPOConfig, updates: int) -> None:
        self.session = session
        self.batch: Batch | None = None
        settings = session.settings
        rows = updates * settings.episodes // settings.group
        schedule = torch.optim.lr_scheduler.LambdaLR(session.optimizer, lambda step: 1.0)
        super().__init__(
            model=session.model,
            reward_funcs=cast(Any, _weighed),
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": [""] * rows}),  # the session knows the hands
            processing_class=session.tokenizer,
            callbacks=[_AtSteps(session, self)],
            optimizers=(session.optimizer, schedule),
            rollout_func=self._play,
        )

    def _play(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        self.batch = self.session.play(self.session.done + 1)
        rows = self.batch.rows
        return {
            "prompt_ids": [row.prompt for row in rows],
            "completion_ids": [row.completion for row in rows],
            "logprobs": [row.logprobs.tolist() for row in rows],
            "env_mask": [row.written.astype(int).tolist() for row in rows],
            "weight_sum": [float(weight.sum()) for weight in self.batch.weights],
        }

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's method, with the weights of attempts put in and the episodes chosen and sorted instead of shuffled."""
        steps = self.session.settings.episodes // self.session.settings.micro_batch_size
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            inputs = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs: Any = self._slices(inputs, steps)
        return self._buffered_inputs[self._step % steps]

    def _slices(self, inputs: dict[str, torch.Tensor], count: int) -> list[dict[str, torch.Tensor]]:
        assert self.batch is not None
        wide = torch.zeros(inputs["completion_ids"].shape, dtype=torch.float32)
        for i, row in enumerate(self.batch.rows):
            wide[i, : len(row.completion)] = torch.from_numpy(self.batch.token_weights(i))
        lengths = inputs["completion_mask"].sum(1)
        rows, columns = inputs["completion_ids"].shape
        made = []
        for chosen in torch.tensor_split(_learnt_from(wide, lengths.cpu(), count), count):
            longest = int(lengths[chosen].max())
            part = {
                name: _part(name, tensor, chosen, longest, rows, columns) if tensor.dim() else tensor
                for name, tensor in inputs.items()
            }
            # TRL's loss is a mean over the slice, and the mean over slices; every episode must count alike
            counted = wide[chosen, :longest] * (len(chosen) * count / rows)
            made.append({**part, "advantages": counted.to(lengths.device)})
        return made

    def _get_per_token_logps_and_entropies(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *arguments: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """TRL's own never holds the logits of a large vocabulary; for a small one plain logits are much faster."""
        if model.config.get_text_config().vocab_size > SMALL_VOCABULARY:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *arguments, **options
            )
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            logits_to_keep=logits_to_keep + 1,
        ).logits[:, :-1]
        logp = torch.log_softmax(logits.float() / self.temperature, dim=-1)
        entropies = -(logp.detach().exp() * logp.detach()).sum(-1)
        return logp.gather(-1, input_ids[:, -logits_to_keep:, None])[:, :, 0], entropies, None


def _learnt_from(weights: torch.Tensor, lengths: torch.Tensor, least: int) -> torch.Tensor:
    """Rows with a weight that is not 0 (others only to make up `least`), by length."""
    weigh = (weights != 0).any(1)
    if int(weigh.sum()) < least:
        weigh[torch.nonzero(~weigh)[: least - int(weigh.sum()), 0]] = True
    chosen = torch.nonzero(weigh)[:, 0]
    return chosen[torch.argsort(lengths[chosen], stable=True)]


def _part(
    name: str, tensor: torch.Tensor, chosen: torch.Tensor, longest: int, rows: int, columns: int
) -> torch.Tensor:
    """The chosen rows; of a table of completion tokens only the columns that they need."""
    part = tensor[chosen] if tensor.shape[0] == rows else tensor
    of_completions = part.dim() == 2 and part.shape[1] == columns and not name.startswith("prompt")
    return part[:, :longest] if of_completions else part


def _weighed(prompts: list[str], completions: list[str], weight_sum: list[float], **_: Any) -> list[float]:
    return weight_sum


class _AtSteps(TrainerCallback):
    """Clips before every optimiser step, and ends the session's update after the last one of its epochs."""

    def __init__(self, session: Session, trainer: EpisodeTrainer) -> None:
        self.session, self.trainer = session, trainer
        self.norm, self.began = 0.0, time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter() if self.trainer.batch is None else self.began

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        assert self.trainer.batch is not None
        self.norm = self.session.clip_gradient(self.trainer.batch)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.session.settings.used_epochs:
            return
        batch = self.trainer.batch
        assert batch is not None
        whole = time.perf_counter() - self.began
        self.session.finish(batch, self.norm, whole - batch.log["seconds_rollout"])
        self.began, self.trainer.batch = time.perf_counter(), None
