"""Out of memory: once more with less at once, then one line; the results do not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab_helpers import files_of, refused, work_in
from safetensors.torch import load
from small_study import RL, SMALL

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.engines.models import retry_on_out_of_memory
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import sft
from rlheals.training.rl import session
from rlheals.training.rl import stage as rl


@pytest.mark.parametrize(
    ("rows", "whole", "fits", "tried"),
    [
        (8, 8, 8, [8]), (8, 8, 4, [8, 4]), (8, 8, 2, [8, 4]), (1, 8, 0, [1]), (5, 5, 2, [5, 1]), (6, 12, 3, [6, 3]),
        (10, 20, 5, [10, 5]), (9, 9, 4, [9, 3]),
    ],
)  # fmt: skip
def test_what_is_tried_divides_the_whole_and_is_at_most_half(
    rows: int, whole: int, fits: int, tried: list[int]
) -> None:
    seen: list[int] = []

    def do(size: int) -> str:
        seen.append(size)
        if size > fits:
            raise torch.OutOfMemoryError
        return "done"

    if tried[-1] <= fits:
        assert retry_on_out_of_memory(do, rows, whole, "x") == "done"
    else:
        with pytest.raises(BadInput, match=f"out of GPU memory with x={tried[-1]}; make it smaller"):
            retry_on_out_of_memory(do, rows, whole, "x")
    assert seen == tried
    with pytest.raises(ZeroDivisionError):
        retry_on_out_of_memory(lambda rows: 1 // 0, rows, whole, "x")


class Full:
    """A GPU that has room for so many rows: a forward pass that learns from more fails, from some pass on."""

    def __init__(self, room: int, after: int = 0) -> None:
        self.room, self.left = room, after

    def __call__(self, module, args, kwargs) -> None:
        if torch.is_grad_enabled() and len(kwargs["input_ids"]) > self.room:
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError


def with_room(monkeypatch: pytest.MonkeyPatch, full: Full, where) -> None:
    load = models.load

    def loaded(*args, **kwargs):
        model = load(*args, **kwargs)
        model.register_forward_pre_hook(full, with_kwargs=True)
        return model

    monkeypatch.setattr(where.models, "load", loaded)


@pytest.mark.parametrize("after", [0, 4])
def test_sft_goes_on_with_fewer_examples_at_once(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    def trained(name: str, **changes: object) -> dict[str, bytes]:
        sft.run(work_in(tmp_path / name, SMALL.sft.model_copy(update=changes), inputs))
        return files_of(tmp_path / name / "out")

    fits = trained("fits", micro_batch_size=2)
    with_room(monkeypatch, Full(2, after), sft)
    full = trained("full")
    assert full.keys() == fits.keys()
    if not after:  # from the first step on, it is the run with half as many
        assert full == fits
    for name in (name for name in fits if name.endswith(".safetensors")):
        theirs = load(fits[name])
        for weight, mine in load(full[name]).items():
            assert torch.allclose(mine, theirs[weight], rtol=0, atol=1e-6), f"{name}: {weight}"
    with_room(monkeypatch, Full(1), sft)
    with refused("sft.micro_batch_size=2"):
        trained("none")


def test_rl_goes_on_with_fewer_episodes_at_once(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RL.model_copy(update={"folder": "step-00003", "algorithm": "ppo"})
    with_room(monkeypatch, full := Full(2), session)
    rl.run(work_in(tmp_path, settings, inputs))
    assert (tmp_path / "out/update-00001/model.safetensors").exists()
    assert full.left == -1  # refused once


def test_an_engine_goes_on_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    dialect, model = Compact(), models.load(models.SHIPPED_BASE)
    prompts = [dialect.prompt(item) for item in GeneralPoints().items("sft")[:20]]
    keys = [f"key {n}" for n in range(20)]
    alone = HFEngine(model, dialect.tokenizer, rows=8).generate(prompts, keys, Sampling())

    def full(module, args, kwargs) -> None:
        if len(kwargs["input_ids"]) > 8:
            raise torch.OutOfMemoryError

    hook = model.register_forward_pre_hook(full, with_kwargs=True)
    engine = HFEngine(model, dialect.tokenizer, rows=16)
    made = engine.generate(prompts, keys, Sampling())
    hook.remove()
    assert engine.rows == 8
    assert [one.tokens for one in made] == [one.tokens for one in alone]
