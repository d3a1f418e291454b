"""SFT with a penalty: its gradient is that of the penalty as a loss, and without strength it is plain SFT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from lab_helpers import work_in
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import protected, sft
from rlheals.training.protected import ProtectedSettings
from rlheals.training.sft import SFTSettings
from rlheals.weights.linalg import decompose

BASE = models.load(SHIPPED_BASE).eval()
DIALECT = Compact(models.load_tokenizer(SHIPPED_BASE))
FEW = {"checkpoints": [0, 2, 4], "batch": 8, "loss_examples": 4, "warmup_steps": 0}


def trained(root: Path, name: str, stage, **changes) -> tuple[dict[str, torch.Tensor], Path]:
    """Weights of the last checkpoint, and the folder."""
    kind = ProtectedSettings if stage is protected else SFTSettings
    stage.run(work_in(root / name, kind(**FEW | changes), {"base": SHIPPED_BASE.parent}, 0))
    return load_file(root / name / "out/step-00004/model.safetensors"), root / name / "out"


def perturb(model: torch.nn.Module) -> None:
    """Move every weight a little, the same way each time."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.sin(torch.arange(weight.numel()).reshape(weight.shape)))


@pytest.mark.parametrize("precision", ["own", "bf16"])
@pytest.mark.parametrize("kind", ["subspace", "random", "kl"])
def test_without_strength_it_is_plain_sft_to_the_last_bit(kind: str, precision: str, tmp_path: Path) -> None:
    plain, _ = trained(tmp_path, "plain", sft, precision=precision)
    made, _ = trained(tmp_path, kind, protected, kind=kind, strength=0, precision=precision)
    assert made.keys() == plain.keys()
    assert all(torch.equal(made[name], plain[name]) for name in plain)


@pytest.mark.parametrize("kind", ["subspace", "random"])
def test_the_gradient_is_that_of_the_penalty_as_a_loss(kind: str) -> None:
    model = models.load(SHIPPED_BASE)
    with protected.subspaces(model, strength=0.7, random=kind == "random", seed=3) as penalty:
        assert penalty() == 0
        perturb(model)
        value = penalty()
        sum((weight * 1.0).sum() for weight in model.parameters()).backward()  # of which the gradient is 1
        found = {name: weight.grad - 1 for name, weight in model.named_parameters()}
    wanted = 0.0
    for name, origin in BASE.named_parameters():
        now = dict(model.named_parameters())[name].detach().clone().requires_grad_()
        if now.ndim < 2:
            assert torch.equal(found[name], torch.zeros_like(now))
            continue
        u, v = protected._frames(origin.detach(), 0.25, kind == "random", f"3 {name}")
        one = (u.T @ (now - origin.detach()) @ v).square().sum()
        (gradient,) = torch.autograd.grad(0.7 * one, now)
        assert torch.allclose(found[name], gradient, atol=1e-5)
        wanted += float(one.detach())
    assert value == pytest.approx(wanted, rel=1e-5)
    model.zero_grad()
    sum((weight * 1.0).sum() for weight in model.parameters()).backward()
    assert all(torch.equal(weight.grad, torch.ones_like(weight)) for weight in model.parameters()), (
        "hooks left"
    )


@pytest.mark.parametrize(("kind", "precision"), [("subspace", "own"), ("subspace", "bf16"), ("kl", "bf16")])
def test_the_penalty_begins_at_zero_and_holds_the_model_back(
    kind: str, precision: str, tmp_path: Path
) -> None:
    """The KL of the first batch is the base's to itself: both multiply in the same format."""
    found = {}
    for strength in (0, 3):
        changes = {"precision": precision, "strength": strength, "checkpoints": [0, 1, 4]}
        _, out = trained(tmp_path, f"{strength}", protected, kind=kind, **changes)
        recorded = json.loads((out / "penalties.json").read_text())
        assert [one["step"] for one in recorded] == [0, 1, 4]
        found[strength] = [one["penalty"] for one in recorded]
    first = 1 if kind == "kl" else 0
    assert found[0][: first + 1] == found[3][: first + 1] == [0.0] * (first + 1)
    assert 0 < found[3][-1] < 0.8 * found[0][-1]


def test_subspaces_are_the_leading_ones_and_the_control_has_their_dimension() -> None:
    w = dict(BASE.named_parameters())["model.layers.0.mlp.gate_proj.weight"].detach()
    u, v = protected._frames(w, 0.25, False, "a")
    k = min(w.shape) // 4
    exact = decompose(w.double())
    assert torch.allclose(u @ u.T, (exact.u[:, :k] @ exact.u[:, :k].mT).float(), atol=1e-5)
    assert torch.allclose(v @ v.T, (exact.v[:, :k] @ exact.v[:, :k].mT).float(), atol=1e-5)
    for other, own in zip(protected._frames(w, 0.25, True, "a"), (u, v), strict=True):
        assert other.shape == own.shape
        assert torch.allclose(other.T @ other, torch.eye(k), atol=1e-5)
        assert float((other.T @ own).square().sum()) < 0.6 * k
    left, right = protected._frames(w, 1, False, "a")
    assert torch.equal(left, torch.eye(w.shape[0]))
    assert torch.equal(right, torch.eye(w.shape[1]))


def in_a_loop(model: torch.nn.Module, rows: list[dict], folder: Path) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(6):
        for row in rows:
            (model(**{name: torch.tensor([one]) for name, one in row.items()}).loss / len(rows)).backward()
        optimizer.step()
        optimizer.zero_grad()


def by_trainer(
    model: torch.nn.Module, rows: list[dict], folder: Path, kind=Trainer, settings=TrainingArguments
) -> None:
    """transformers' own, or TRL's with the rows as they are."""
    options = (
        {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None} if kind is SFTTrainer else {}
    )
    arguments = settings(
        str(folder), max_steps=6, per_device_train_batch_size=1, gradient_accumulation_steps=len(rows),
        report_to="none", learning_rate=0.05, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0,
        use_cpu=True, save_strategy="no", disable_tqdm=True, remove_unused_columns=False, **options,
    )  # fmt: skip
    kind(model=model, args=arguments, train_dataset=rows, processing_class=DIALECT.tokenizer).train()


def by_trl(model: torch.nn.Module, rows: list[dict], folder: Path) -> None:
    by_trainer(model, Dataset.from_list(rows), folder, SFTTrainer, SFTConfig)


@pytest.mark.parametrize("train", [in_a_loop, by_trainer, by_trl])
def test_around_any_training_the_subspaces_are_kept_and_the_rest_moves(train, tmp_path: Path) -> None:
    """With gradients accumulated; without strength nothing changes, and afterwards nothing of it is left."""
    tokens = [DIALECT.prompt(item) + DIALECT.expert(item) for item in GeneralPoints().items("sft")[:20:10]]
    size = min(map(len, tokens))
    rows = [{"input_ids": one[:size], "labels": one[:size]} for one in tokens]
    ends, moved, bare = {}, {}, models.load(SHIPPED_BASE).train()
    train(bare, rows, tmp_path)
    for strength in (0.0, 2.0):
        model = models.load(SHIPPED_BASE).train()
        with protected.subspaces(model, 0.25, strength, accumulation=len(rows)) as penalty:
            train(model, rows, tmp_path)
            ends[strength] = penalty()
        origin = dict(BASE.named_parameters())
        moved[strength] = sum(
            float((weight - origin[name]).square().sum()) for name, weight in model.named_parameters()
        )
        if not strength:
            for one, other in zip(model.parameters(), bare.parameters(), strict=True):
                assert torch.equal(one, other)
        assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
    assert ends[2.0] < 0.6 * ends[0.0]
    assert moved[2.0] - ends[2.0] > 0.8 * (moved[0.0] - ends[0.0])


@pytest.mark.parametrize(
    "bad", [{"share": 0}, {"share": 1.5}, {"strength": -1}, {"strength": float("nan")}, {"accumulation": 0}]
)
def test_a_penalty_that_cannot_be_is_one_line(bad: dict) -> None:
    with (
        pytest.raises(BadInput, match="accepted: a share in"),
        protected.subspaces(torch.nn.Linear(2, 2), **bad),
    ):
        pass


def test_the_divergence_enters_the_loss_of_the_trainer(tmp_path: Path) -> None:
    """Loss and gradient of TRL's trainer are those of its own loss plus strength * KL, computed here from logits."""
    found = {}
    for strength in (0.0, 2.0):
        model = models.load(SHIPPED_BASE)
        settings = ProtectedSettings.model_validate(
            FEW | {"kind": "kl", "strength": strength, "checkpoints": [1]}
        )
        trainer = SFTTrainer(
            model=model, args=sft.trainer_settings(settings, 0, tmp_path), processing_class=DIALECT.tokenizer,
            train_dataset=sft.examples(DIALECT, settings, 0),
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        with protected.kl_from_base(model, settings, 0) as latest:
            assert latest() == 0
            perturb(model)
            model.train()
            loss = trainer.compute_loss(model, dict(batch))
            loss.backward()
            found[strength] = (float(loss), latest(), [weight.grad.clone() for weight in model.parameters()])
        assert not model._forward_hooks
    here = batch["labels"][:, 1:] != sft.IGNORED
    model.zero_grad()
    now, then = (
        one(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1][here]
        for one in (model, BASE)
    )
    kl = torch.nn.functional.kl_div(
        now.log_softmax(-1), then.detach().log_softmax(-1), log_target=True, reduction="sum"
    ) / len(now)
    kl.backward()
    assert float(kl) > 0.001
    assert found[2.0][1] == pytest.approx(float(kl), rel=1e-4)
    assert found[2.0][0] - found[0.0][0] == pytest.approx(2 * float(kl), rel=1e-3)
    for plain, with_kl, weight in zip(found[0.0][2], found[2.0][2], model.parameters(), strict=True):
        assert torch.allclose(with_kl - plain, 2 * weight.grad, atol=1e-4)
