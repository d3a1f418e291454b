"""Forward KL from a base to a model made of it: how much less likely the base's own answers have become.

KL(base || model) = E over questions, over answers of the base, of the sum over their tokens of the exact divergence
between the two next-token distributions (nats per answer). Answers are sampled once, so that all models share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.hf import NOT_FINITE
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import Prompts, dialect_for
from rlheals.settings import Int, Settings, TaskName
from rlheals.tasks import load_task

ROWS = 64


@dataclass(frozen=True)
class Answers:
    """Answers of a base: right-padded tokens (rows, length), and which of them it wrote itself (the same shape)."""

    tokens: torch.Tensor
    own: torch.Tensor


def sample(
    base: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    end: int,
    pad: int,
    seed: int,
    max_new_tokens: int = 48,
) -> Answers:
    """One answer of the base to each prompt at temperature 1, its end token included.

    Prompts of any lengths; each is continued up to `end` or `max_new_tokens`.
    """
    if not prompts or min(map(len, prompts)) < 1 or max_new_tokens < 1:
        raise BadInput("divergence: prompts of at least one token and room for an answer are needed")
    rows: list[tuple[list[int], list[int]]] = []
    was_training = base.training
    base.eval()
    generate: Any = base.generate
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        for first in range(0, len(prompts), ROWS):
            part = [torch.tensor(prompt) for prompt in prompts[first : first + ROWS]]
            ids = pad_sequence(part, True, pad, "left")
            mask = pad_sequence([torch.ones_like(one) for one in part], True, 0, "left")
            made = generate(
                input_ids=ids.to(base.device),
                attention_mask=mask.to(base.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad,
                eos_token_id=end,
                logits_processor=[_finite],
            ).cpu()
            for prompt, row in zip(part, made[:, ids.shape[1] :].tolist(), strict=True):
                rows.append((prompt.tolist(), row[: row.index(end) + 1] if end in row else row))
    base.train(was_training)
    tokens = [torch.tensor(prompt + answer) for prompt, answer in rows]
    own = [torch.tensor([False] * len(prompt) + [True] * len(answer)) for prompt, answer in rows]
    return Answers(pad_sequence(tokens, True, pad), pad_sequence(own, True, False))


def _finite(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    if not bool(logits.max() < torch.inf):  # NaN is not less either
        raise BadInput(f"divergence: {NOT_FINITE}")
    return logits


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, answers: Answers) -> torch.Tensor:
    """Log-probabilities of every token at the places where an answer's tokens stand: (answer tokens, vocabulary)."""
    was_training = model.training
    model.eval()
    ids = answers.tokens.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # causal: padding on the right is not seen
    found = logits[answers.own[:, 1:].to(model.device)].double().log_softmax(-1)
    model.train(was_training)
    return found


def forward_kl(base: PreTrainedModel, model: PreTrainedModel, answers: Answers) -> np.ndarray:
    """KL(base || model) of every answer in nats, (rows,); some answers at a time: a vocabulary may be large."""
    values = []
    at_once = min(ROWS, models.rows_at_once(base, answers.tokens.shape[1]))
    for part in map(Answers, answers.tokens.split(at_once), answers.own.split(at_once)):
        before, after = log_probabilities(base, part), log_probabilities(model, part)
        if before.shape != after.shape:
            raise BadInput(f"divergence: vocabularies of {before.shape[1]} and {after.shape[1]} words differ")
        per_token = (before.exp() * (before - after.to(before.device))).sum(-1).cpu()
        if not bool(torch.isfinite(per_token).all()):
            raise BadInput(f"divergence: {NOT_FINITE}")
        row = torch.arange(len(part.tokens))[:, None].expand_as(part.own)[part.own]
        values.append(torch.zeros(len(part.tokens), dtype=torch.float64).index_add_(0, row, per_token))
    return torch.cat(values).numpy()


class DivergenceSettings(Settings):
    """What is asked where answers of one model to some questions are what others are compared by."""

    task: TaskName = Field("general_points", description="the task whose questions are asked")
    prompts: Prompts = Field("fixed", description="forms of the questions; diverse: as fixed")
    questions: Int = Field(256, ge=1, description="of the SFT split, for divergences")
    answer_tokens: Int = Field(48, ge=1, description="longest answer that is sampled for them")


class Behaviour:
    """Answers of one model to some questions of the SFT split, sampled once: all that are compared share them."""

    def __init__(self, asked: DivergenceSettings, source: Path, seed: int) -> None:
        task, tokenizer = load_task(asked.task), models.load_tokenizer(source)
        dialect, items = dialect_for(tokenizer, task, asked.prompts), task.items("sft")
        self.model = models.load(source, models.device())
        picks = np.random.default_rng([seed, 7]).permutation(len(items))[: asked.questions]
        prompts = [dialect.prompt(items[pick]) for pick in picks]
        end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        self.answers = sample(self.model, prompts, end, pad, seed, asked.answer_tokens)

    def of(self, folder: Path) -> dict[str, float]:
        """Forward KL from the model to that in a folder: its mean per answer, and the standard error."""
        values = forward_kl(self.model, models.load(folder, models.device()), self.answers)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return {"kl": float(values.mean()), "kl_error": float(error)}
