"""A checkpoint with parts of another put back: the stage. The edited model is a model folder that can be evaluated.

`model/`, and `sizes.json`: size of the edit, distances, forward KL from the pretrained base and from the target.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from pydantic import Field, field_validator

from rlheals.evaluation.kl import Behaviour, DivergenceSettings
from rlheals.stage import Work
from rlheals.weights.arrays import torch
from rlheals.weights.checkpoint import Checkpoint, copy_beside, write
from rlheals.weights.edit_parser import parse
from rlheals.weights.edited import edited
from rlheals.weights.selection import Where

MODEL = "model"


class EditedSettings(DivergenceSettings):
    """What is put back into what, and where."""

    base: str = Field(description="folder of the checkpoint that is put back, inside its run")
    target: str = Field(description="folder of the checkpoint that is edited, inside its run")
    origin: str = Field("base", description="folder of the pretrained base inside its run")
    edit: str = Field(description="as `rlheals edit --edit`")
    where: str = Field("blocks", description="as `rlheals edit --where`")

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
    now, origin = work.inputs["target"] / settings.target, work.inputs["origin"] / settings.origin
    base, target = Checkpoint(work.inputs["base"] / settings.base), Checkpoint(now)
    squares = dict.fromkeys(("target_norm", "edit_norm", "distance", "left"), 0.0)

    def measured() -> Iterator[tuple[str, torch.Tensor]]:
        for one in edited(base, target, parse(settings.edit), Where.parse(settings.where)):
            for piece in one.pieces:
                b, t, made = piece.pair.b, piece.pair.t, piece.after.double()
                squares["target_norm"] += float(t.square().sum())
                squares["edit_norm"] += float((made - t).square().sum())
                squares["distance"] += float((b - t).square().sum())
                squares["left"] += float((b - made).square().sum())
            yield one.name, one.after

    place = work.out / MODEL
    place.mkdir()
    write(measured(), place)
    copy_beside(now, place)
    sizes = {name: math.sqrt(value) for name, value in squares.items()}
    for name, source in (("kl_origin", origin), ("kl_target", now)):
        sizes[name] = Behaviour(settings, source, work.seed).of(place)["kl"]
    (work.out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
