"""TRL's GRPOTrainer on any task: a dataset, a reward function (one attempt), an environment (episodes).

given = ForTRL("navigation", split="rl", seed=1)
GRPOTrainer(model, reward_funcs=given.reward, train_dataset=given.dataset)
GRPOTrainer(model, environment_factory=given.environment, train_dataset=given.dataset)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlheals.adapters.questions import Episode, Questions

if TYPE_CHECKING:
    from datasets import Dataset

HOW = "\n\nGive every answer by calling the tool `answer`, until it says that the episode is over."


class ForTRL(Questions):
    """Arguments are those of `Questions`."""

    @property
    def dataset(self) -> Dataset:
        """Columns `prompt` (one user message) and `item` (the id, by which a completion is graded)."""
        from datasets import Dataset

        prompts = [[{"role": "user", "content": self.task.prompt(item)}] for item in self.items.values()]
        return Dataset.from_dict({"prompt": prompts, "item": list(self.items)})

    def reward(self, completions: list[Any], item: list[str], **others: Any) -> list[float]:
        """The verifier's reward of every completion, a text or messages of which the last counts."""
        texts = [each if isinstance(each, str) else each[-1].get("content") or "" for each in completions]
        graded = zip(item, texts, strict=True)
        return [self.task.grade(self.items[ident], text).reward for ident, text in graded]

    def environment(self) -> Environment:
        """An `environment_factory`, for models that call tools."""
        return Environment(self)


class Environment:
    """An episode that a model plays through the tool `answer`; attempts that it leaves out count as empty replies."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self.episode: Episode | None = None

    def reset(self, item: str, **others: Any) -> str:
        """Begin an episode of a row of the dataset; what is returned is appended to the prompt."""
        self.episode = self._questions.episode(item)
        return HOW

    def answer(self, reply: str) -> str:
        """Judges one attempt at the question.

        Args:
            reply: The answer, in the format that the question asks for.

        Returns:
            What is wrong with it, or that the episode is over.
        """
        if self.episode is None or self.episode.over:
            return "The episode is over."
        # questions ask for JSON, which templates may hand over read
        told = self.episode.answer(reply if isinstance(reply, str) else json.dumps(reply))
        return told or ("Correct. " if self.episode.solved_at else "") + "The episode is over."

    def get_reward(self) -> float:
        """The discounted return of the episode."""
        return 0.0 if self.episode is None else self.episode.finish()
