"""Any model on any task, in one call: every item of some splits answered, graded, and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlheals.engines.hf import HFEngine, Sampling, open_engine
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.evaluate import EvaluateSettings, attempts_table, episodes_table
from rlheals.settings import validated
from rlheals.stats.intervals import wilson
from rlheals.tasks import load_task
from rlheals.tasks.base import Dialect, Item, Task

ROOM = 1.5
"""How many times the longest expert answer an answer may be long."""
TRIED = 64
"""Expert answers whose length is looked at."""


@dataclass(frozen=True)
class Census:
    """Answers of a model.

    attempts: one row per attempt, with its text and verdict; episodes: one row per item, with the attempt that solved
    it (0: none), in the task's own format (`solved_at`) and in any that it reads (`solved_at_either`).
    """

    task: str
    most: int
    attempts: pd.DataFrame
    episodes: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row per split: items, shares solved at the first attempt and within all, each with Wilson's interval."""
        rows = []
        for split, mine in self.episodes.groupby("split", sort=False, observed=True):
            row: dict[str, object] = {"split": split, "items": len(mine)}
            for name, hit in (
                ("pass@1", mine["solved_at"] == 1),
                (f"success@{self.most}", mine["solved_at"] > 0),
            ):
                found = wilson(int(hit.sum()), len(mine))
                row |= {name: found.estimate, f"{name} low": found.low, f"{name} high": found.high}
            rows.append(row)
        return pd.DataFrame(rows)

    def metrics(self, prefix: str = "census") -> dict[str, float]:
        """The shares alone, under names such as `census/ood/pass@1`."""
        return {
            f"{prefix}/{row['split']}/{name}": float(row[name])
            for row in self.summary().to_dict("records")
            for name in ("pass@1", f"success@{self.most}")
        }

    def __repr__(self) -> str:
        return f"{self.task}\n{self.summary().round(3).to_string(index=False)}"


def census(
    model: str | Path | PreTrainedModel,
    task: str | Task = "general_points",
    splits: Sequence[str] = ("held_out", "ood"),
    *,
    hands: int | None = None,
    attempts: int | None = None,
    temperature: float = 0.7,
    max_new_tokens: int | None = None,
    seed: int = 0,
    rows: int = 128,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Census:
    """Ask a model the items of a task and grade its answers, with the verifier's feedback between attempts.

    model: a folder, a GGUF file, a hub id, or a model in memory with its tokenizer; splits: the task's
    (`rlheals census --task NAME`); hands: at most this many items of each split; attempts: per item, by default the
    task's own; max_new_tokens: by default one and a half times the longest expert answer; seed: of sampling;
    rows: sequences generated at once. Raises BadInput with one line for invalid arguments.

    >>> from rlheals import census
    >>> found = census("rlheals/base", splits=["held_out"], hands=4, attempts=1, temperature=0)
    >>> len(found.episodes), list(found.summary()["items"])
    (4, [4])
    """
    of = task if isinstance(task, Task) else load_task(task)
    engine = opened(model, tokenizer, rows)
    dialect = dialect_for(engine.tokenizer, of)
    items = _items(of, splits, hands)
    asked = {
        "attempts": of.attempts if attempts is None else attempts,
        "sampling": {"temperature": temperature, "max_new_tokens": max_new_tokens or room(dialect, items)},
        "rows": rows,
    }
    settings = validated(EvaluateSettings, asked, "census")
    answered = attempts_table(engine, dialect, of, items, settings, seed)
    return Census(of.name, settings.attempts, answered, episodes_table(answered))


def opened(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, rows: int
) -> HFEngine:
    """An engine for a model by its place, or for one in memory."""
    if isinstance(model, PreTrainedModel):
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise BadInput(
                f"tokenizer is {type(tokenizer).__name__}; a model in memory needs its fast tokenizer"
            )
        return HFEngine(model, tokenizer, rows)
    return open_engine(model, rows)


def room(dialect: Dialect, items: Sequence[Item]) -> int:
    """How many tokens an answer may have."""
    step = max(1, len(items) // TRIED)
    longest = max(len(dialect.expert(item)) for item in items[::step])
    return max(Sampling().max_new_tokens, int(ROOM * longest))


def _items(task: Task, splits: Sequence[str], hands: int | None) -> list[Item]:
    """The items of the splits, each under the name that was asked for, or a part of it such as `ood_way`."""
    if isinstance(splits, str) or not splits or len(set(splits)) < len(splits):
        raise BadInput(f"splits = {splits!r:.60}: a list of one or more different splits is accepted")
    if hands is not None and hands < 1:
        raise BadInput(f"hands = {hands}: at least 1 is accepted")
    items = [(split, item) for split in splits for item in list(task.items(split))[:hands]]
    if len({item.id for _, item in items}) < len(items):
        raise BadInput(f"splits = {', '.join(splits)}: two of them have the same items; ask one of them")
    return [replace(one, split=one.split if one.split.startswith(split) else split) for split, one in items]
