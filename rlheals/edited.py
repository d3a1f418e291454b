"""A checkpoint with parts of another put back: the stage. The edited model is a model folder that a census can play.

`model/`, and `sizes.json`: size of the edit, distances, forward KL from the pretrained base and from the target.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, field_validator

from rlheals import divergence, edits, models, shards
from rlheals.dialects import END, PAD, Compact
from rlheals.edit_text import parse
from rlheals.settings import Int, Settings
from rlheals.stage import Work
from rlheals.tasks.general_points import GeneralPoints
from rlheals.tensors import Checkpoint
from rlheals.where import Where

MODEL = "model"


class EditedSettings(Settings):
    """What is put back into what, and where."""

    base: str = Field(description="folder of the checkpoint that is put back, inside its run")
    target: str = Field(description="folder of the checkpoint that is edited, inside its run")
    origin: str = Field("base", description="folder of the pretrained base inside its run")
    edit: str = Field(description="as `rlheals edit --edit`")
    where: str = Field("blocks", description="as `rlheals edit --where`")
    questions: Int = Field(256, ge=1, description="of the SFT split, for the divergences")
    answer_tokens: Int = Field(48, ge=1, description="longest answer that is sampled for them")

    @field_validator("edit")
    @classmethod
    def _edit(cls, text: str) -> str:
        return str(parse(text))

    @field_validator("where")
    @classmethod
    def _where(cls, text: str) -> str:
        return str(Where.parse(text))


def run(work: Work) -> None:
    """The stage: inputs "base" and "target" (runs of checkpoints), "origin" (the pretrained base)."""
    settings = EditedSettings.model_validate(work.settings)
    base, target = (
        Checkpoint(work.inputs["base"] / settings.base),
        Checkpoint(work.inputs["target"] / settings.target),
    )
    squares = dict.fromkeys(("target_norm", "edit_norm", "distance", "left"), 0.0)
    where = Where.parse(settings.where)
    meant = where.places(target)

    def measured() -> Iterator[tuple[str, torch.Tensor]]:
        for name, made in edits.apply(base, target, parse(settings.edit), where):
            b, t = base.tensor(name).double(), target.tensor(name).double()
            if name in meant:
                squares["target_norm"] += float(t.square().sum())
                squares["edit_norm"] += float((made.double() - t).square().sum())
                squares["distance"] += float((b - t).square().sum())
                squares["left"] += float((b - made.double()).square().sum())
            yield name, made

    place = work.out / MODEL
    place.mkdir()
    shards.write(measured(), place)
    for file in sorted((work.inputs["target"] / settings.target).glob("*.json")):
        shutil.copy(file, place)
    sizes = {name: math.sqrt(value) for name, value in squares.items()}
    origin, now = work.inputs["origin"] / settings.origin, work.inputs["target"] / settings.target
    for name, source in (("kl_origin", origin), ("kl_target", now)):
        sizes[name] = _forward_kl(source, place, settings, work.seed)
    (work.out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")


def _forward_kl(source: Path, edited: Path, settings: EditedSettings, seed: int) -> float:
    """Nats per answer, on answers of `source` to questions of the SFT split."""
    model, dialect = models.load(source), Compact(models.load_tokenizer(source))
    items = GeneralPoints().items("sft")
    picks = np.random.default_rng([seed, 7]).permutation(len(items))[: settings.questions]
    end, pad = dialect.encode(f"{END} {PAD}")
    prompts = [dialect.prompt(items[pick]) for pick in picks]
    answers = divergence.sample(model, prompts, end, pad, seed, settings.answer_tokens)
    known = divergence.log_probabilities(model, answers)
    found = divergence.log_probabilities(models.load(edited), answers)
    return float(divergence.forward_kl(known, found, answers).mean())
