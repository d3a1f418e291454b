"""What a model answers to the task's questions, and how likely others find that: forward KL from it, in nats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlheals import divergence, models
from rlheals.dialects import END, PAD, Compact
from rlheals.tasks.general_points import GeneralPoints


class Behaviour:
    """Answers of one model to some questions of the SFT split, sampled once: all that are compared share them."""

    def __init__(self, source: Path, questions: int, answer_tokens: int, seed: int) -> None:
        model, dialect = models.load(source), Compact(models.load_tokenizer(source))
        items = GeneralPoints().items("sft")
        picks = np.random.default_rng([seed, 7]).permutation(len(items))[:questions]
        prompts = [dialect.prompt(items[pick]) for pick in picks]
        end, pad = dialect.encode(f"{END} {PAD}")
        self.answers = divergence.sample(model, prompts, end, pad, seed, answer_tokens)
        self.own = divergence.log_probabilities(model, self.answers)

    def of(self, folder: Path) -> dict[str, float]:
        """Forward KL from the model to that in a folder: its mean per answer, and the standard error."""
        found = divergence.log_probabilities(models.load(folder), self.answers)
        values = divergence.forward_kl(self.own, found, self.answers)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return {"kl": float(values.mean()), "kl_error": float(error)}
