"""Pretraining: the same bits for the same seed, stopped by the ability rule, on a panel that gives nothing away."""

from __future__ import annotations

import json
import math
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY
from lab_helpers import diverging, files_of, optimizer_steps, weights_of, work_in
from small_study import SMALL
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.tasks.general_points.cards import FACES, ID_RULE, OOD_RULE
from rlheals.tasks.general_points.compact import Compact, Corpus
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import pretrain
from rlheals.training.pretrain import (
    PretrainSettings,
    ability,
    collate,
    iter_batches,
    weighted_loss,
)

FEW = SMALL.pretrain.model_copy(update={"max_steps": 4, "warmup_steps": 2})


@pytest.fixture(autouse=True)
def _small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "POOL", 64)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Abilities from a list instead of from the model."""
    script = SimpleNamespace(values=[], asked=0)

    def answer(*asked: object) -> float:
        script.asked += 1
        return script.values[min(script.asked, len(script.values)) - 1]

    monkeypatch.setattr(pretrain, "ability", answer)
    return script


def stage(folder: Path, settings: PretrainSettings, seed: int) -> dict[str, bytes]:
    pretrain.run(work_in(folder, settings, seed=seed))
    return files_of(folder / "out")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    one, again, other = (stage(tmp_path / name, FEW, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert one == again
    assert one["base/model.safetensors"] != other["base/model.safetensors"]
    history = json.loads(one["ability.json"])
    assert [record["step"] for record in history] == [2, 4]
    assert all(0 <= record["within_five"] <= 1 for record in history)
    model = models.load(tmp_path / "a" / "out" / "base")
    assert model.config.hidden_size == TINY.hidden


def test_training_moves_every_tensor_and_lowers_the_loss(dialect: Compact, scripted: SimpleNamespace) -> None:
    scripted.values = [0.0]
    model = models.create(TINY, dialect.tokenizer, 0)
    before = weights_of(model)
    settings = FEW.model_copy(update={"max_steps": 40, "check_every": 10, "learning_rate": 1e-2})
    history = pretrain.train(model, dialect, settings, seed=0)
    after = weights_of(model)
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert history[-1]["loss"] < history[0]["loss"]
    assert [record["step"] for record in history] == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("values", "ability_wanted", "min_steps", "steps"),
    [
        ([0.1, 0.4, 0.55, 0.2], 0.5, 0, [2, 4, 6]),
        ([0.5], 0.5, 0, [2]),
        ([0.9], 0.5, 5, [6]),
        ([0.9, 0.9], None, 0, [2, 4, 6, 7]),
        ([0.1], 0.5, 0, [2, 4, 6, 7]),
        ([0.9], 0.5, 100, [7]),
    ],
)
def test_training_stops_at_the_first_check_that_reaches_the_ability(
    dialect: Compact,
    tiny: PreTrainedModel,
    scripted: SimpleNamespace,
    values,
    ability_wanted,
    min_steps,
    steps,
) -> None:
    scripted.values = values
    settings = FEW.model_copy(update={"ability": ability_wanted, "min_steps": min_steps, "max_steps": 7})
    ticks: list[int] = []
    history = pretrain.train(tiny, dialect, settings, 0, lambda done, total, unit: ticks.append(done))
    assert [record["step"] for record in history] == steps
    assert ticks == list(range(1, steps[-1] + 1))
    assert scripted.asked == len(steps)


def test_the_optimizer_gets_the_settings_and_the_schedule(
    dialect: Compact, tiny: PreTrainedModel, scripted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lr_t = peak * min(1, t / warm-up) * (1 + cos(pi * tokens before t / schedule tokens)) / 2."""
    scripted.values = [0.0]
    settings = FEW.model_copy(
        update={"max_steps": 6, "warmup_steps": 3, "schedule_tokens": 4000, "max_grad_norm": 0.01}
    )
    steps = optimizer_steps(monkeypatch)
    history = pretrain.train(tiny, dialect, settings, seed=2)
    sizes = [ids.numel() for ids, _ in islice(iter_batches(dialect, 2, settings), 6)]
    seen = np.concatenate([[0], np.cumsum(sizes)])
    for number, step in enumerate(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, seen[number] / 4000)))
        rate = settings.learning_rate * min(1, (number + 1) / 3) * cosine
        assert math.isclose(step["lr"], rate, rel_tol=1e-9)
        assert (step["betas"], step["weight_decay"]) == (settings.betas, settings.weight_decay)
        assert step["norm"] <= 0.01 * 1.001
    assert len(steps) == 6
    assert history[-1]["tokens"] == seen[-1]


# Batches and loss -----------------------------------------------------------------------------------------------------


def test_batches_hold_every_document_once_within_the_limit(dialect: Compact) -> None:
    settings = FEW.model_copy(update={"batch_tokens": 700})
    documents = sorted(tuple(d.tokens) for d in islice(iter(Corpus(dialect, 7)), 64))
    found, real, padded = [], 0, 0
    for ids, weights in iter_batches(dialect, 7, settings):
        assert ids.numel() <= 700
        for row, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            length = max(index for index, value in enumerate(weight) if value > 0) + 1
            assert set(row[length:]) <= {dialect.tokenizer.pad_token_id}
            found.append(tuple(row[:length]))
            real, padded = real + length, padded + len(row)
        if len(found) >= 64:
            break
    assert sorted(found) == documents
    assert real > 0.8 * padded  # similar lengths together


def test_the_weighted_loss_is_the_sum_by_hand_and_padding_does_not_enter(
    tiny: PreTrainedModel, dialect: Compact
) -> None:
    documents = list(islice(iter(Corpus(dialect, 1)), 5))
    ids, weights = collate(documents, dialect.tokenizer.pad_token_id)
    total = mass = 0.0
    tiny.eval()
    with torch.inference_mode():
        for document in documents:
            logp = torch.log_softmax(tiny(torch.tensor([document.tokens])).logits[0].double(), -1)
            for at in range(1, len(document.tokens)):
                total -= document.weights[at] * float(logp[at - 1, document.tokens[at]])
                mass += document.weights[at]
        loss = float(weighted_loss(tiny, ids, weights))
        other_padding = float(weighted_loss(tiny, ids.masked_fill(weights == 0, 7), weights))
    assert math.isclose(loss, total / mass, rel_tol=1e-5)
    assert math.isclose(loss, other_padding, rel_tol=1e-6)


# The ability panel ----------------------------------------------------------------------------------------------------


def test_the_panel_is_always_the_same_has_faces_and_never_the_id_or_the_ood_rule() -> None:
    panel = GeneralPoints().panel(256)
    assert panel == GeneralPoints().panel(256)
    assert panel[:100] == GeneralPoints().panel(100)
    assert not {item.payload.rule for item in panel} & {ID_RULE, OOD_RULE}
    assert all(any(label in FACES for label in item.payload.hand) for item in panel)
    assert len({item.id for item in panel}) == 256
    assert len({item.rule for item in panel}) == 32


def test_the_id_and_the_ood_rule_are_passed_over_when_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.random.default_rng

    class Scripted:
        """Draws the OOD rule, the ID rule and then others."""

        def __init__(self, seed: int) -> None:
            self.choice = real(seed).choice
            self.rules = [(11, 12, 13), (10, 10, 10), (11, 12, 13), (5, 7, 2), (2, 4, 6)]

        def integers(self, low: int, high: int, size: int) -> tuple[int, ...]:
            return self.rules.pop(0)

    monkeypatch.setattr(np.random, "default_rng", Scripted)
    assert [item.rule for item in GeneralPoints().panel(16)] == ["J5-Q7-K2"] * 8 + ["J2-Q4-K6"] * 8


def test_the_shipped_base_is_as_able_as_its_card_says(base: PreTrainedModel, dialect: Compact) -> None:
    recorded = json.loads((models.SHIPPED_BASE / "ability.json").read_text())
    wanted = load_profile("lab").pretrain
    found = ability(base, dialect, GeneralPoints(), GeneralPoints().panel(wanted.panel_hands))
    assert abs(found - recorded[-1]["within_five"]) <= 2 / wanted.panel_hands
    assert found >= wanted.ability - 2 / wanted.panel_hands
    assert all(record["within_five"] < wanted.ability for record in recorded[:-1])


@pytest.mark.parametrize("bad", [1, 2])
def test_a_training_that_diverges_stops_and_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """The loss of the next step tells, or the answers to the panel after this one."""
    diverging(monkeypatch, bad)
    with pytest.raises(BadInput, match=r"^pretrain: step 2: .* not finite"):
        stage(tmp_path, FEW, 3)
    assert files_of(tmp_path / "out") == {}
