"""What a model answers to the task's questions, and how likely others find that: forward KL from it, in nats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlheals import divergence
from rlheals.dialects import dialect_for
from rlheals.engines import models
from rlheals.tasks.general_points import GeneralPoints


class Behaviour:
    """Answers of one model to some questions of the SFT split, sampled once: all that are compared share them."""

    def __init__(self, source: Path, questions: int, answer_tokens: int, seed: int) -> None:
        task, tokenizer = GeneralPoints(), models.load_tokenizer(source)
        dialect, items = dialect_for(tokenizer, task), task.items("sft")
        self.model = models.load(source, models.device())
        picks = np.random.default_rng([seed, 7]).permutation(len(items))[:questions]
        prompts = [dialect.prompt(items[pick]) for pick in picks]
        end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        self.answers = divergence.sample(self.model, prompts, end, pad, seed, answer_tokens)

    def of(self, folder: Path) -> dict[str, float]:
        """Forward KL from the model to that in a folder: its mean per answer, and the standard error."""
        values = divergence.forward_kl(self.model, models.load(folder, models.device()), self.answers)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return {"kl": float(values.mean()), "kl_error": float(error)}
