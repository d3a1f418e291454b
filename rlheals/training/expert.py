"""Expert answers as rows to learn from, the task's own or those of a file, and the loss on fixed sets of them.

A file is JSON as the reference publishes it: a list of records {"conversations": [{"from": "human", "value": question},
{"from": "gpt", "value": reply}]}; whatever else a record has is not read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import Prompts
from rlheals.tasks.base import Dialect, Item, Task

Example = tuple[list[int], int]
"""Tokens, and how many of them are the prompt."""
IGNORED = -100
LOSS_SETS = {"train": "sft", "test": "held_out", "ood": "ood"}
MOST_BYTES = 4 * 2**30
REPLAYED, REPLAYED_TOKENS = 2048, 64


def example(
    dialect: Dialect, task: Task, item: Item, random: np.random.Generator, prompts: Prompts = "fixed"
) -> Example:
    """One expert answer to an item as the task shows it this time: (tokens, length of the prompt)."""
    shown = task.shown(item, random)
    form = int(random.integers(dialect.forms)) if prompts == "diverse" else 0
    prompt = dialect.prompt(shown, form)
    return prompt + dialect.expert(shown, form), len(prompt)


def loss_sets(dialect: Dialect, task: Task, size: int) -> dict[str, list[Example]]:
    """The sets whose loss is measured, by name."""
    return {name: loss_set(dialect, task, split, size) for name, split in LOSS_SETS.items()}


def loss_set(dialect: Dialect, task: Task, split: str, size: int) -> list[Example]:
    """Fixed expert answers of a split, the same for every seed: (tokens, length of the prompt)."""
    random = np.random.default_rng(24)
    items = task.items(split)
    picks = random.permutation(len(items))[:size]
    return [example(dialect, task, items[pick], random) for pick in picks]


def own_samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> list[Example]:
    """What a model writes at temperature 1 from its first token on, as rows to learn from: (tokens, 1).

    A model without a first token of its own is BadInput: there is nothing that it would begin with.
    """
    if tokenizer.bos_token_id is None:
        raise BadInput("replay: the tokenizer has no token that a text begins with (bos_token)")
    engine, start = HFEngine(model, tokenizer, remember=False), [tokenizer.bos_token_id]
    keys = [f"replay/{seed}/{number}" for number in range(REPLAYED)]
    made = engine.generate(
        [start] * REPLAYED, keys, Sampling(temperature=1.0, max_new_tokens=REPLAYED_TOKENS)
    )
    return [(start + list(one.tokens), 1) for one in made]


@torch.no_grad()
def expert_loss(model: PreTrainedModel, rows: list[Example]) -> float:
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


# From a file ----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A question and the reply to imitate, as text."""

    question: str
    reply: str


class _Asked(BaseModel):
    speaker: Literal["human"] = Field(alias="from")
    value: str = Field(min_length=1)


class _Answered(_Asked):
    speaker: Literal["gpt"] = Field(alias="from")  # type: ignore[assignment]


class _Record(BaseModel):
    conversations: tuple[_Asked, _Answered]


RECORDS = TypeAdapter(Annotated[list[_Record], Field(min_length=1)])


def from_file(file: Path, sha256: str | None) -> list[Pair]:
    """The pairs of a file with that hash. Raises BadInput with one line for any other file."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadInput(f"expert_file {str(file)!r}: over 4 GB")
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"expert_file {str(file)!r}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        wanted = "is needed, so that the run is known by it" if sha256 is None else f"is {sha256[:12]}..."
        raise BadInput(f"expert_file {str(file)!r} has the hash {found}; expert_sha256 {wanted}")
    try:
        records = RECORDS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"expert_file {file.name!r}: {place}: {first['msg']}") from None
    return [Pair(*(turn.value for turn in record.conversations)) for record in records]
