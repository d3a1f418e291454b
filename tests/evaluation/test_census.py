"""Any model in one call, and inside a trainer: the numbers of an evaluation, and training as if nobody had looked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from lab_helpers import refused
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils

from rlheals import CensusCallback, census, compare_checkpoints
from rlheals.engines import models
from rlheals.engines.hf import Sampling, open_engine
from rlheals.engines.models import ModelSettings
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.evaluate import EvaluateSettings, attempts_table
from rlheals.stats.intervals import wilson
from rlheals.tasks import load_task

BASE = models.SHIPPED_BASE


def test_a_census_is_an_evaluation_of_the_same_items_with_the_same_noise() -> None:
    options: dict[str, Any] = {"splits": ["held_out", "ood"], "hands": 12, "rows": 64, "max_new_tokens": 28}
    found = census(BASE, **options, seed=3)
    task, engine = load_task("general_points"), open_engine(BASE, 64)
    items = [item for split in ("held_out", "ood") for item in task.items(split)[:12]]
    settings = EvaluateSettings(sampling=Sampling(max_new_tokens=28))
    asked = attempts_table(engine, dialect_for(engine.tokenizer, task), task, items, settings, 3)
    assert found.attempts.equals(asked)
    assert not census(BASE, **options, seed=4).attempts.equals(asked)


def test_the_summary_counts_what_was_asked_with_wilsons_intervals() -> None:
    found = census(BASE, splits=["id"], hands=40, attempts=2)
    (row,) = found.summary().to_dict("records")
    expected = wilson(int((found.episodes["solved_at"] > 0).sum()), 40)
    assert (row["split"], row["items"]) == ("id", 40)
    ends = [row[f"success@2{end}"] for end in ("", " low", " high")]
    assert ends == [expected.estimate, expected.low, expected.high]
    assert found.metrics()["census/id/success@2"] == expected.estimate
    assert "success@2" in repr(found)


def test_another_task_is_asked_by_its_name() -> None:
    tokenizer = load_task("navigation").dialect().tokenizer
    model = models.create(ModelSettings(hidden=16, layers=1, heads=1, mlp=16), tokenizer, 0)
    found = census(model, "navigation", ["ood"], hands=20, tokenizer=tokenizer)
    assert list(found.summary()["split"]) == ["ood", "ood_way"]
    assert found.summary()["items"].sum() == 20


def test_a_model_in_memory_needs_its_tokenizer_and_answers_the_same() -> None:
    model, tokenizer = models.load(BASE), models.load_tokenizer(BASE)
    mine = census(model, splits=["ood"], hands=6, tokenizer=tokenizer)
    assert mine.attempts.equals(census(BASE, splits=["ood"], hands=6).attempts)
    with pytest.raises(BadInput, match=r"^tokenizer is NoneType[^\n]*$"):
        census(model, splits=["ood"], hands=6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"splits": ["odd"]}, "split 'odd'"),
        ({"splits": "ood"}, "splits = 'ood'"),
        ({"splits": []}, "one or more"),
        ({"splits": ["ood", "ood"]}, "different"),
        ({"splits": ["id", "sft"]}, "same items"),
        ({"hands": 0}, "hands = 0"),
        ({"attempts": 0}, "attempts"),
        ({"temperature": -1}, "temperature"),
        ({"task": "navigations"}, "navigations"),
        ({"model": "/no/such/folder"}, "no such folder"),
    ],
)
def test_what_cannot_be_asked_is_one_line(options: dict[str, Any], said: str) -> None:
    with refused(said):
        census(**{"model": BASE, "hands": 2, **options})


def trained(
    folder: Path, *callbacks: TrainerCallback, reports: Sequence[str] = (), steps: int = 3
) -> Trainer:
    """The shipped base trained for some steps on a few sequences, in an order that the seed draws."""
    model, tokenizer = models.load(BASE), models.load_tokenizer(BASE)
    task = load_task("general_points")
    dialect = dialect_for(tokenizer, task)
    rows = [dialect.prompt(item) + dialect.expert(item) for item in task.items("sft")[:24]]
    longest = max(map(len, rows))
    padded = [row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows]
    data = Dataset.from_dict({"input_ids": padded, "labels": padded})
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True,
        report_to=list(reports),
        save_strategy="no", logging_steps=1, disable_tqdm=True, seed=5,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


class Noted(TrainerCallback):
    logged: list[dict[str, float]] = []  # noqa: RUF012

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        Noted.logged.append(logs)


def test_a_trainer_with_the_callback_ends_with_the_same_weights_and_more_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained(tmp_path / "alone")
    callback = CensusCallback("general_points", ["held_out", "ood"], every=2, hands=6, attempts=2)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "noted", Noted)
    watched = trained(tmp_path / "watched", callback, reports=["noted"])
    for one, other in zip(alone.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sorted(callback.history) == [0, 2, 3]  # before, every second step, after the last one
    logged = [row for row in watched.state.log_history if any("census/" in name for name in row)]
    assert [row["step"] for row in logged] == [0, 2, 3]
    reported = [row for row in Noted.logged if any("census/" in name for name in row)]
    assert reported == [callback.history[step] for step in (0, 2, 3)]
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (alone, watched)]
    assert losses[0] == losses[1]
    assert callback.history[0] == census(BASE, splits=["held_out", "ood"], hands=6, attempts=2).metrics()
    assert callback.found is not None
    assert watched.model.training


def test_what_a_callback_cannot_do_is_one_line() -> None:
    with pytest.raises(BadInput, match="every = 0"):
        CensusCallback(every=0)
    args: Any = SimpleNamespace(fsdp=["full_shard"], deepspeed=None)
    state: Any = SimpleNamespace(is_world_process_zero=True)
    control: Any = None
    with pytest.raises(BadInput, match="this trainer shards it"):
        CensusCallback().on_train_begin(args, state, control)


def test_a_comparison_is_printed_and_reported_once(tmp_path: Path) -> None:
    found = compare_checkpoints(BASE, BASE, kinds=["q"], ks=[2], draws=1, nulls=["gaussian"])
    assert repr(found).startswith(f"{BASE} -> {BASE}\n")
    page = found.report(tmp_path / "page")
    assert page.is_file()
    with pytest.raises(BadInput):
        found.report(tmp_path / "page")
