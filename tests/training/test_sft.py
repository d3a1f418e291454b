"""SFT: the same bits for the same seed, checkpoints at the wanted steps, and a loss of the answer's tokens only."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from lab_helpers import (
    HARMS,
    Killed,
    dies_at,
    diverging,
    files_of,
    optimizer_steps,
    same_weights,
    weights_of,
    work_in,
)
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.errors import BadInput
from rlheals.stage import Tick, no_tick
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import sft
from rlheals.training.expert import IGNORED, LOSS_SETS, expert_loss, loss_set, own_samples
from rlheals.training.sft import SFTSettings, checkpoint_name, examples
from rlheals.training.sft_trainer import ResumableTrainer

FEW = SFTSettings(checkpoints=(0, 2, 5), batch=8, loss_examples=16, warmup_steps=2, learning_rate=1e-2)


def stage(
    base: Path, folder: Path, settings: SFTSettings = FEW, seed: int = 3, tick: Tick = no_tick
) -> dict[str, bytes]:
    sft.run(work_in(folder, settings, {"base": base.parent}, seed, tick))
    return files_of(folder / "out")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dialect: Compact) -> SimpleNamespace:
    """One SFT run of a tiny base."""
    folder = tmp_path_factory.mktemp("sft")
    base = folder / "base"
    models.save(base, models.create(TINY, dialect.tokenizer, 1), dialect.tokenizer)
    return SimpleNamespace(base=base, folder=folder / "run", files=stage(base, folder / "run"))


def watched(
    model: PreTrainedModel,
    dialect: Compact,
    settings: SFTSettings,
    monkeypatch: pytest.MonkeyPatch,
    seed: int = 3,
) -> SimpleNamespace:
    """Train, and note every training batch and step of the optimizer."""
    seen = SimpleNamespace(batches=[], weights=[], steps=optimizer_steps(monkeypatch))

    class Watching(ResumableTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.batches.append({name: tensor.clone() for name, tensor in inputs.items()})
            seen.weights.append(weights_of(model))
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(sft, "ResumableTrainer", Watching)
    seen.losses = sft.train(model, dialect, settings, seed, lambda at: None)
    return seen


def answer_loss(model: PreTrainedModel, rows: list[tuple[list[int], int]]) -> float:
    """Mean of -log p over the answers' tokens, one unpadded sequence at a time."""
    total, count = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for tokens, start in rows:
            logp = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
            for at in range(start, len(tokens)):
                total -= float(logp[at - 1, tokens[at]])
                count += 1
    return total / count


# Kills and memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "moments"), [(None, (2, 8)), (3, (4, 6)), (1, (9,))])
def test_a_training_that_is_killed_goes_on_to_the_same_bytes(
    trained: SimpleNamespace, tmp_path: Path, every: int | None, moments: tuple[int, ...]
) -> None:
    settings = FEW.model_copy(update={"checkpoints": (0, 2, 7, 12), "save_every": every})
    calm = stage(trained.base, tmp_path / "calm", settings)
    saved = sorted({2, 7, *range(every or 12, 12, every or 12)})
    for moment in moments:
        folder, steps = tmp_path / f"killed-{moment}", []
        with pytest.raises(Killed):
            stage(trained.base, folder, settings, tick=dies_at(moment))
        made = stage(trained.base, folder, settings, tick=lambda done, *_, steps=steps: steps.append(done))
        assert made == calm, moment
        begun_at = max((step for step in saved if step < moment), default=0)
        assert steps == list(range(begun_at + 1, 13)), moment


def test_with_bf16_products_small_updates_stay_and_a_killed_training_goes_on(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    """The rate is so small that weights rounded to bf16 would not move at all."""
    settings = FEW.model_copy(update={"precision": "bf16", "learning_rate": 1e-6, "warmup_steps": 0})
    calm = stage(trained.base, tmp_path / "calm", settings)
    with pytest.raises(Killed):
        stage(trained.base, tmp_path / "killed", settings, tick=dies_at(3))
    assert stage(trained.base, tmp_path / "killed", settings) == calm
    start, end = (
        weights_of(models.load(tmp_path / "calm/out" / checkpoint_name(step)))
        for step in settings.checkpoints[::2]
    )
    moved = torch.cat([(end[name] - start[name]).abs().flatten() for name in start])
    size = torch.cat([start[name].abs().flatten() for name in start])
    assert {tensor.dtype for tensor in end.values()} == {torch.float32}
    assert float((moved > 0).float().mean()) > 0.9
    assert float((moved < size / 512).float().mean()) > 0.9
    assert calm != stage(trained.base, tmp_path / "own", settings.model_copy(update={"precision": "own"}))


@pytest.mark.parametrize("harm", ["a bit flipped", "gone"])
@pytest.mark.parametrize("name", ["state.safetensors", "step-00002/model.safetensors"])
def test_what_has_changed_since_it_was_kept_is_dropped_and_computed_again(
    trained: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    """With a checkpoint the state that came after it goes as well."""
    shutil.copytree(trained.folder / "scratch", tmp_path / "scratch")
    steps: list[int] = []
    assert stage(trained.base, tmp_path, tick=lambda done, *_: steps.append(done)) == trained.files
    assert steps == [3, 4, 5]
    shutil.rmtree(tmp_path / "out")
    HARMS[harm](tmp_path / "scratch" / name)
    assert stage(trained.base, tmp_path, tick=lambda done, *_: steps.append(done)) == trained.files
    assert steps == [3, 4, 5, 1, 2, 3, 4, 5]
    said = capsys.readouterr().err
    assert (f"{name}: is not as it was written" in said) == (harm != "gone")
    assert ("step-00002 cannot be used; sft begins again" in said) == (name != "state.safetensors")


def test_without_its_hashes_nothing_is_believed(
    trained: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folder / "scratch", tmp_path / "scratch")
    (tmp_path / "scratch/sha256sums").write_bytes(b"\xff" * 100)
    steps: list[int] = []
    assert stage(trained.base, tmp_path, tick=lambda done, *_: steps.append(done)) == trained.files
    assert steps == [1, 2, 3, 4, 5]
    assert "state.safetensors: is not as it was written" in capsys.readouterr().err


@pytest.mark.parametrize(("bad", "step"), [(3, 4), (5, 5)])
def test_a_training_that_diverges_stops_and_names_the_step(
    trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int, step: int
) -> None:
    """After its last step the losses on expert answers tell."""
    diverging(monkeypatch, bad)
    with pytest.raises(BadInput, match=f"^sft: step {step}: the loss is not finite"):
        stage(trained.base, tmp_path)
    assert files_of(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "memory", [{"micro_batch_size": 2}, {"micro_batch_size": 4, "gradient_checkpointing": True}]
)
def test_ways_to_save_memory_train_the_same_model(
    trained: SimpleNamespace, dialect: Compact, memory: dict
) -> None:
    model = models.load(trained.base)
    losses = sft.train(model, dialect, FEW.model_copy(update=memory), 3, lambda step: None)
    plain = models.load(trained.folder / "out" / checkpoint_name(5))
    for name, tensor in weights_of(plain).items():
        assert torch.allclose(tensor, weights_of(model)[name], atol=2e-4), name
    assert math.isclose(
        losses["train"][0]["loss"], json.loads(trained.files["losses.json"])["train"][0]["loss"], rel_tol=1e-4
    )


@pytest.mark.parametrize(
    ("given", "fit", "rows"), [(None, 100, 8), (None, 7, 4), (None, 3, 2), (None, 0, 1), (4, 3, 4)]
)
def test_unless_it_is_set_a_micro_batch_is_what_logits_leave_room_for_and_the_model_is_the_same(
    trained: SimpleNamespace,
    tmp_path: Path,
    dialect: Compact,
    monkeypatch: pytest.MonkeyPatch,
    given,
    fit,
    rows,
) -> None:
    longest = max(len(tokens) for tokens, _ in loss_set(dialect, GeneralPoints(), "sft", FEW.loss_examples))
    monkeypatch.setattr(models, "LOGITS", fit * longest * models.load(trained.base).config.vocab_size)
    seen: list[int] = []
    make = sft.trainer_settings
    monkeypatch.setattr(sft, "trainer_settings", lambda s, *more: seen.append(s.rows) or make(s, *more))
    stage(trained.base, tmp_path, FEW.model_copy(update={"micro_batch_size": given}))
    assert seen == [rows]
    made, whole = (models.load(run / "out" / checkpoint_name(5)) for run in (tmp_path, trained.folder))
    for name, tensor in weights_of(whole).items():
        assert torch.allclose(tensor, weights_of(made)[name], atol=2e-4), name


def test_the_loss_of_many_answers_does_not_depend_on_how_many_are_read_at_once(
    base: PreTrainedModel, dialect: Compact, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = loss_set(dialect, GeneralPoints(), "sft", 50)
    whole = expert_loss(base, rows)
    for logits in (1, 10_000, 33_000):
        monkeypatch.setattr(models, "LOGITS", logits)
        assert math.isclose(expert_loss(base, rows), whole, rel_tol=1e-6)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    assert stage(trained.base, tmp_path / "again") == trained.files
    other = stage(trained.base, tmp_path / "other", seed=4)
    name = f"{checkpoint_name(5)}/model.safetensors"
    assert other[name] != trained.files[name]


def test_checkpoints_are_at_exactly_the_wanted_steps_and_change_nothing(
    trained: SimpleNamespace, dialect: Compact
) -> None:
    """The first is the base; measuring the losses and saving do not move the training."""
    out = trained.folder / "out"
    assert sorted(path.name for path in out.iterdir()) == ["losses.json", *map(checkpoint_name, (0, 2, 5))]
    base = models.load(trained.base)
    kept = [models.load(out / checkpoint_name(step)) for step in (0, 2, 5)]
    assert same_weights(kept[0], base)
    assert not same_weights(kept[0], kept[1])
    assert not same_weights(kept[1], kept[2])
    for step in (0, 2, 5):
        tokenizer = models.load_tokenizer(out / checkpoint_name(step))
        assert tokenizer.get_vocab() == Compact().tokenizer.get_vocab()
    model = models.load(trained.base)
    sft.train(model, dialect, FEW.model_copy(update={"checkpoints": (5,)}), 3, lambda step: None)
    assert same_weights(model, models.load(trained.folder / "out" / checkpoint_name(5)))


def test_the_losses_of_a_run_are_those_of_its_checkpoints(trained: SimpleNamespace, dialect: Compact) -> None:
    losses = json.loads(trained.files["losses.json"])
    assert [record["step"] for record in losses["sets"]] == [0, 2, 5]
    assert [record["step"] for record in losses["train"]] == [5]
    for record in losses["sets"]:
        model = models.load(trained.folder / "out" / checkpoint_name(record["step"]))
        for name, split in LOSS_SETS.items():
            rows = loss_set(dialect, GeneralPoints(), split, FEW.loss_examples)
            assert math.isclose(record[name], answer_loss(model, rows), rel_tol=1e-5)


def test_low_rank_training_moves_linear_layers_by_that_rank_and_nothing_else(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    settings = FEW.model_copy(update={"lora_rank": 2})
    with pytest.raises(Killed):
        stage(trained.base, tmp_path / "killed", settings, tick=dies_at(3))
    files = stage(trained.base, tmp_path / "killed", settings)
    assert files == stage(trained.base, tmp_path / "whole", settings)
    before, after = (
        weights_of(models.load(tmp_path / "whole/out" / checkpoint_name(step))) for step in (0, 5)
    )
    for name, weight in before.items():
        moved = after[name] - weight
        linear = weight.ndim == 2 and "embed" not in name and "lm_head" not in name
        assert torch.linalg.matrix_rank(moved.double(), atol=1e-6) == 2 if linear else not moved.any(), name


def test_dynamic_fine_tuning_weighs_a_token_by_its_own_probability(
    trained: SimpleNamespace, dialect: Compact
) -> None:
    """Its gradient is that of the plain loss, token by token times the probability (arXiv 2508.05629, equation 9)."""
    model = models.load(trained.base)
    settings = FEW.model_copy(update={"loss": "dft", "checkpoints": (1,), "max_grad_norm": 1e9})
    (tokens, start), *_ = loss_set(dialect, GeneralPoints(), "sft", 1)
    ids = torch.tensor([tokens])
    trainer = ResumableTrainer(
        model=model,
        args=sft.trainer_settings(settings, 0, trained.folder),
        train_dataset=examples(dialect, settings, 0),
        processing_class=dialect.tokenizer,
    )
    labels = torch.tensor([[IGNORED] * start + tokens[start:]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    loss = trainer.compute_loss(model, batch)
    logp = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
    own = logp.gather(-1, ids[0, start:, None])[:, 0]
    assert math.isclose(float(loss), float(-(own.exp().detach() * own).mean()), rel_tol=1e-4)


def test_replay_mixes_in_what_the_model_wrote_at_its_start(
    tiny_folder: Path, dialect: Compact, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.load(tiny_folder)
    settings = FEW.model_copy(update={"replay": 0.25, "batch": 64, "checkpoints": (5,)})
    monkeypatch.setattr("rlheals.training.expert.REPLAYED", 32)
    own = own_samples(model, dialect.tokenizer, 3)
    assert own == own_samples(model, dialect.tokenizer, 3) != own_samples(model, dialect.tokenizer, 4)
    rows = examples(dialect, settings, 3, own)
    known = {tuple(tokens) for tokens, _ in own}
    replayed = [row for row in rows if tuple(row["input_ids"]) in known]
    assert abs(len(replayed) - 0.25 * len(rows)) < 4.5 * math.sqrt(0.25 * 0.75 * len(rows))
    assert all(row["labels"] == [IGNORED, *row["input_ids"][1:]] for row in replayed)
    watch = watched(models.load(tiny_folder), dialect, settings, monkeypatch)
    assert any((batch["labels"] != IGNORED).sum(1).max() > 20 for batch in watch.batches)


# What is trained on ---------------------------------------------------------------------------------------------------


def test_the_training_loss_is_that_of_the_answers_tokens_only(
    tiny: PreTrainedModel, dialect: Compact, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(tiny, dialect, FEW, monkeypatch)
    assert len(seen.batches) == 5
    rows: list[tuple[list[int], ...]] = []
    losses = []
    for batch, weights in zip(seen.batches, seen.weights, strict=True):
        tiny.load_state_dict(weights)
        answers = []
        columns = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
        for ids, labels, mask in zip(*columns, strict=True):
            tokens = [token for token, real in zip(ids, mask, strict=True) if real]
            start = dialect.words(tokens).index("answer") + 1
            assert labels[: len(tokens)] == [IGNORED] * start + tokens[start:]
            assert set(labels[len(tokens) :]) <= {IGNORED}
            answers.append((tokens, start))
            rows.append(tuple(tokens))
        losses.append(answer_loss(tiny, answers))
    (logged,) = seen.losses["train"]
    assert math.isclose(logged["loss"], sum(losses) / 5, rel_tol=1e-4)
    wanted = examples(dialect, FEW, 3)["input_ids"]
    assert sorted(rows) == sorted(tuple(tokens) for tokens in wanted)  # every example once


# The optimizer --------------------------------------------------------------------------------------------------------


def test_rate_warm_up_betas_decay_and_clipping_arrive(
    tiny: PreTrainedModel, dialect: Compact, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"betas": (0.8, 0.95), "weight_decay": 0.03, "max_grad_norm": 0.05}
    own |= {"learning_rate": 2e-3, "warmup_steps": 4, "checkpoints": (7,)}
    settings = FEW.model_copy(update=own)
    seen = watched(tiny, dialect, settings, monkeypatch)
    assert [step["lr"] for step in seen.steps] == pytest.approx([2e-3 * min(1, at / 4) for at in range(7)])
    assert {(step["betas"], step["weight_decay"]) for step in seen.steps} == {((0.8, 0.95), 0.03)}
    assert max(step["norm"] for step in seen.steps) <= 0.05 * 1.001
    assert [len(batch["input_ids"]) for batch in seen.batches] == [8] * 7


# Settings -------------------------------------------------------------------------------------------------------------


def test_a_training_can_begin_at_a_checkpoint_of_another_but_not_at_none(
    tmp_path: Path, trained: SimpleNamespace
) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        stage(tmp_path / "base", tmp_path)
    assert files_of(tmp_path) == {}
    settings = FEW.model_copy(update={"folder": checkpoint_name(5), "checkpoints": (0, 2)})
    sft.run(work_in(tmp_path, settings, {"base": trained.folder / "out"}, 3))
    first, last = (models.load(tmp_path / "out" / checkpoint_name(step)) for step in (0, 2))
    assert same_weights(first, models.load(trained.folder / "out" / checkpoint_name(5)))
    assert not same_weights(first, last)
