"""Products in a shorter format: nearly the same numbers, float32 weights that keep every small update, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lab_helpers import one_line, refused
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.hf import Sampling, open_engine
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.vllm_server import closing_vllm
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import sft
from rlheals.training.sft import SFTSettings

NEAR = {"bf16": 0.3, "fp16": 0.04}
"""Nats of a token's log-probability: logits reach 20, where bf16 resolves 0.125 and fp16 0.016."""


@pytest.fixture(scope="module")
def ids(dialect: Compact, task: GeneralPoints) -> torch.Tensor:
    """Questions with their expert answers, as many tokens of each."""
    rows = [dialect.prompt(item) + dialect.expert(item) for item in task.items("sft")[:32]]
    return torch.tensor([row[: min(map(len, rows))] for row in rows])


def logp(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids).logits.float().log_softmax(-1)


@pytest.mark.parametrize("precision", NEAR)
def test_an_engine_with_short_weights_answers_nearly_alike(
    precision: str, dialect: Compact, task: GeneralPoints
) -> None:
    items = task.items("id")[::40]
    asked = [dialect.prompt(item) for item in items], [item.id for item in items]
    own, short = (
        open_engine(SHIPPED_BASE, 64, one).generate(*asked, Sampling(temperature=0))
        for one in ("own", precision)
    )
    same = [(one, other) for one, other in zip(own, short, strict=True) if one.tokens == other.tokens]
    assert len(same) > 0.8 * len(items)
    for of in ("logprobs", "entropies"):
        mine, theirs = (
            np.concatenate([getattr(one, of) for one in side]) for side in zip(*same, strict=True)
        )
        assert theirs.dtype == np.float64
        apart = np.abs(mine - theirs)
        assert 0 < apart.mean() < NEAR[precision] / 10, of
        assert apart.max() < NEAR[precision], of


def test_a_model_that_learns_multiplies_in_bf16_and_keeps_float32(
    base: PreTrainedModel, ids: torch.Tensor
) -> None:
    before = logp(base, ids).detach()
    models.shorten_products(base, "bf16")
    now = logp(base, ids)
    assert 0 < float((now - before).detach().abs().max()) < 2 * NEAR["bf16"]
    (-now.gather(-1, ids[..., None]).mean()).backward()
    assert {(p.dtype, p.grad.dtype) for p in base.parameters()} == {(torch.float32, torch.float32)}  # type: ignore[union-attr]


def test_gradients_are_those_of_long_products_up_to_rounding(ids: torch.Tensor) -> None:
    found = []
    for precision in ("own", "bf16"):
        model = models.load(SHIPPED_BASE)
        models.shorten_products(model, precision)
        (-logp(model, ids[:, :-1]).gather(-1, ids[:, 1:, None]).mean()).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore[union-attr]
    own, short = found
    assert 0 < float((own - short).norm() / own.norm()) < 0.03


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_that_would_lose_small_updates_are_refused(
    tiny: PreTrainedModel, dialect: Compact, precision: str
) -> None:
    models.refuse_short_weights(tiny, precision, "sft")
    tiny.to(torch.bfloat16)
    models.refuse_short_weights(tiny, "own", "sft")
    with refused(f"sft.precision={precision} is for float32 weights; these are bfloat16"):
        sft.train(tiny, dialect, SFTSettings(precision=precision), 0, id)


def test_vllm_has_one_format(tiny_folder: Path) -> None:
    with closing_vllm() as opens, pytest.raises(BadInput) as caught:
        opens(tiny_folder, 4, "bf16")
    assert "precision=bf16" in one_line(caught.value)
