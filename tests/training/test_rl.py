"""RL: the gradient by hand and TRL's, runs that go on after a kill, controls that control, errors on one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from datasets import Dataset
from lab_helpers import files_of, one_line, quick_start
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaMLP
from trl import GRPOConfig, GRPOTrainer

from rlheals.engines import models
from rlheals.engines.hf import HFEngine
from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.stage import Tick, Work, no_tick
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS
from rlheals.training import resume
from rlheals.training.rl import grpo, session
from rlheals.training.rl import stage as rl
from rlheals.training.rl.episodes import discounted, rewards
from rlheals.training.rl.session import Batch, Session
from rlheals.training.rl.settings import RLSettings, checkpoint_name

FEW: dict[str, Any] = {
    "folder": "step-00040",
    "checkpoints": (0, 1, 3),
    "episodes": 16,
    "group": 4,
    "micro_batch_size": 8,
    "attempts": 2,
    "loss_every": 2,
    "loss_examples": 8,
}
ONE: dict[str, Any] = {**FEW, "checkpoints": (1,), "episodes": 32, "attempts": 3}
LEARNING: dict[str, Any] = {  # enough to learn something in seconds, from a start with much left to learn
    **FEW,
    "folder": "step-00010",
    "checkpoints": (12,),
    "episodes": 64,
    "group": 8,
    "micro_batch_size": 32,
    "attempts": 1,
    "learning_rate": 3e-4,
}
TIMED = ["seconds_rollout", "seconds_learning", "tokens_per_second", "peak_mb"]

Inputs = dict[str, Path]


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def work_of(
    inputs: Inputs, folder: Path, settings: dict[str, Any], seed: int = 1, tick: Tick = no_tick
) -> Work:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    chosen = RLSettings(**settings).model_dump(mode="json")
    return Work(folder / "out", folder / "scratch", chosen, seed, inputs, tick)


def play(inputs: Inputs, folder: Path, settings: dict[str, Any], seed: int = 1, tick: Tick = no_tick) -> Path:
    """Run the stage; the folder of the result."""
    rl.run(work_of(inputs, folder, settings, seed, tick))
    return folder / "out"


def result_of(out: Path) -> dict[str, Any]:
    """All of a result that has to be the same when computed again."""
    log = pd.read_parquet(out / "log.parquet").drop(columns=TIMED)
    return {
        "log": log.to_dict("list"),
        "advantages": pd.read_parquet(out / "advantages.parquet").to_dict("list"),
        "files": {
            name: hashlib.sha256(data).hexdigest()
            for name, data in files_of(out).items()
            if not name.endswith(".parquet")
        },
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return quick_start(tmp_path_factory.mktemp("start"))


def opened(folder: Path, rows: int) -> HFEngine:
    """An engine with weights of its own, otherwise like the one that an RL run makes."""
    return HFEngine(models.load(folder), models.load_tokenizer(folder), rows, fill=False)


@dataclass
class Seen:
    """What was there right before every optimiser step."""

    batches: list[Batch] = field(default_factory=list)
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)


def watched(patch: pytest.MonkeyPatch) -> Seen:
    noted, clip = Seen(), Session.clip_gradient

    def watching(self: Session, batch: Batch) -> float:
        noted.batches.append(batch)
        named = dict(self.model.named_parameters())
        noted.weights.append({name: p.detach().clone() for name, p in named.items()})
        noted.gradients.append({name: p.grad.clone() for name, p in named.items()})
        return clip(self, batch)

    patch.setattr(Session, "clip_gradient", watching)
    return noted


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return watched(monkeypatch)


@pytest.fixture(scope="module")
def watched_run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """A run of three updates that nothing happened to, and what was seen in it."""
    with pytest.MonkeyPatch.context() as patch:
        noted = watched(patch)
        return play(inputs, tmp_path_factory.mktemp("undisturbed"), FEW), noted


@pytest.fixture(scope="module")
def undisturbed(watched_run: tuple[Path, Seen]) -> Path:
    return watched_run[0]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], factor: float = 1.0) -> float:
    """|one - factor * other| / |other| over all weights."""
    assert one.keys() == other.keys()
    away = sum(float((one[n].double() - factor * other[n].double()).square().sum()) for n in one)
    return (away / sum(float(other[n].double().square().sum()) for n in other)) ** 0.5


# The gradient ---------------------------------------------------------------------------------------------------------


def by_hand(
    inputs: Inputs, settings: dict[str, Any], seen: Seen, weights: list[list[float]], step: int = 0
) -> dict[str, torch.Tensor]:
    """The gradient in float64, an unpadded episode at a time: -sum weight * d(clipped ratio) / (episodes * tokens)."""
    chosen = RLSettings(**settings)
    model = models.load(inputs["model"] / chosen.folder).double()
    before = models.load(inputs["model"] / chosen.folder).double()
    model.load_state_dict(seen.weights[step])
    before.load_state_dict(seen.weights[0])
    scale = 1 / (chosen.episodes * chosen.sampling.max_new_tokens)

    def logps(of: torch.nn.Module, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> torch.Tensor:
        logits = of(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        logp = torch.log_softmax(logits / chosen.sampling.temperature, -1)
        return logp[range(len(tokens)), list(tokens)]

    for episode, whole in zip(seen.batches[step].episodes, weights, strict=True):
        for attempt, weight in zip(episode.attempts, whole, strict=True):
            asked = attempt.prompt, attempt.generation.tokens
            new = logps(model, *asked)
            with torch.no_grad():
                old = logps(before, *asked) if step else new.detach()
            ratio = (new - old).exp()
            edge = chosen.clip_range or 0.2
            clipped = ratio.clamp(1 - edge, 1 + edge)
            (-torch.minimum(ratio * weight, clipped * weight).sum() * scale).backward()
    return {name: p.grad.detach() for name, p in model.named_parameters()}


def returns_less_mean(batch: Batch, group: int, gamma: float = 0.9) -> list[list[float]]:
    """Every attempt of an episode: its discounted return less its group's mean."""
    returns = [
        sum(gamma**t * attempt.verdict.reward for t, attempt in enumerate(episode.attempts))
        for episode in batch.episodes
    ]
    made = []
    for i, episode in enumerate(batch.episodes):
        first = i // group * group
        mean = sum(returns[first : first + group]) / group
        made.append([returns[i] - mean] * len(episode.attempts))
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_batch_size": 32},
        {"sampling": {"temperature": 0.7}},
        {"gamma": 0.5, "group": 8},
    ],
    ids=["slices", "whole", "cooler", "gamma"],
)
def test_the_gradient_is_that_of_a_plain_sum_over_episodes(
    inputs: Inputs, tmp_path: Path, seen: Seen, options: dict[str, Any]
) -> None:
    settings = {**ONE, **options}
    play(inputs, tmp_path, settings)
    (batch,) = seen.batches
    weights = returns_less_mean(batch, settings["group"], settings.get("gamma", 0.9))
    assert {len(episode.attempts) for episode in batch.episodes} == {1, 2, 3}
    wanted = by_hand(inputs, settings, seen, weights)
    assert distance(seen.gradients[0], wanted) < 1e-5
    norm = sum(float(g.square().sum()) for g in wanted.values()) ** 0.5
    logged = pd.read_parquet(tmp_path / "out" / "log.parquet")["gradient_norm"]
    assert logged.tolist() == pytest.approx([norm], rel=1e-5)  # the norm before clipping


@pytest.mark.parametrize("weigh", [1, 5, 31])
def test_episodes_that_weigh_nothing_are_not_read_and_change_nothing(
    inputs: Inputs, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, weigh: int
) -> None:
    settings = {**ONE, "attempts": 1, "micro_batch_size": 4}
    weights = [[i % 5 - 2.5 if i < weigh else 0.0] for i in range(settings["episodes"])]
    monkeypatch.setattr(session, "weights", lambda *_: [np.array(one) for one in weights])
    read: list[int] = []
    score = grpo.logprobs

    def counting(model, ids, *rest):
        read.append(len(ids))
        return score(model, ids, *rest)

    monkeypatch.setattr(grpo, "logprobs", counting)
    play(inputs, tmp_path, settings)
    assert sum(read) == weigh
    assert max(read) <= 4
    assert distance(seen.gradients[0], by_hand(inputs, settings, seen, weights)) < 1e-5


def test_an_update_from_which_there_is_nothing_to_learn_changes_nothing(
    inputs: Inputs, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "weights", lambda paid, *_: [np.zeros(len(one)) for one in paid])
    play(inputs, tmp_path, ONE)
    assert all(not gradient.any() for gradient in seen.gradients[0].values())
    logged = pd.read_parquet(tmp_path / "out" / "log.parquet")
    assert logged["gradient_norm"].tolist() == [0.0]


def test_rloo_is_grpo_scaled_up_by_the_groups_size(inputs: Inputs, tmp_path: Path, seen: Seen) -> None:
    play(inputs, tmp_path / "grpo", ONE)
    play(inputs, tmp_path / "rloo", {**ONE, "algorithm": "rloo"})
    assert distance(seen.gradients[1], seen.gradients[0], ONE["group"] / (ONE["group"] - 1)) < 1e-5


def test_credit_for_attempts_reaches_the_tokens_of_those_attempts(
    inputs: Inputs, tmp_path: Path, seen: Seen
) -> None:
    settings = {**ONE, "advantage_estimator": "attempt", "algorithm": "rloo"}
    play(inputs, tmp_path, settings)
    (batch,) = seen.batches
    weights = []
    for i, episode in enumerate(batch.episodes):
        group = batch.episodes[i // 4 * 4 : i // 4 * 4 + 4]
        made = []
        for t in range(len(episode.attempts)):
            to_go = {
                e.key: sum(0.9**s * e.attempts[s].verdict.reward for s in range(t, len(e.attempts)))
                for e in group
                if len(e.attempts) > t
            }
            own = to_go.pop(episode.key)
            made.append(own - (sum(to_go.values()) / len(to_go) if to_go else 0.0))
        weights.append(made)
    assert any(len({round(w, 6) for w in one}) > 1 for one in weights)
    assert distance(seen.gradients[0], by_hand(inputs, settings, seen, weights)) < 1e-5


def test_rejection_imitates_what_solved_and_nothing_else(inputs: Inputs, tmp_path: Path, seen: Seen) -> None:
    settings = {**ONE, "algorithm": "expert_iteration"}
    play(inputs, tmp_path, settings)
    (batch,) = seen.batches
    assert {episode.solved_at for episode in batch.episodes} >= {0, 1, 2}
    for i, (episode, row) in enumerate(zip(batch.episodes, batch.rows, strict=True)):
        solving = row.attempt == (episode.solved_at - 1 if episode.solved_at else 99)
        assert batch.token_weights(i).tolist() == solving.astype(float).tolist()
    weights = [[float(a.verdict.solved) for a in episode.attempts] for episode in batch.episodes]
    assert distance(seen.gradients[0], by_hand(inputs, settings, seen, weights)) < 1e-5


def test_a_second_epoch_learns_from_the_same_episodes_with_a_clipped_ratio(
    inputs: Inputs, tmp_path: Path, seen: Seen
) -> None:
    settings = {**ONE, "epochs": 2, "checkpoints": (2,), "learning_rate": 1e-3, "clip_range": 0.05}
    out = play(inputs, tmp_path, settings)
    assert [batch.iteration for batch in seen.batches] == [1, 1, 2, 2]
    assert seen.batches[0] is seen.batches[1]
    assert len(pd.read_parquet(out / "log.parquet")) == 2
    weights = returns_less_mean(seen.batches[0], ONE["group"])
    wanted = by_hand(inputs, settings, seen, weights, step=1)
    assert distance(seen.gradients[1], wanted) < 1e-3  # a ratio at the edge of the clip falls on either side
    assert distance(seen.gradients[1], seen.gradients[0]) > 0.1


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_iteration_is_that_of_trls_trainer(inputs: Inputs, tmp_path: Path, epochs: int) -> None:
    """The same episodes, and the same steps up to rounding; TRL takes the mean off the groups' returns itself."""
    settings = {**ONE, "epochs": epochs, "learning_rate": 1e-3, "clip_range": 0.1}
    mine = models.load(play(inputs, tmp_path, settings) / checkpoint_name(1)).state_dict()
    work = work_of(inputs, tmp_path / "trl", settings)
    chosen = RLSettings.model_validate(work.settings)
    start = inputs["model"] / chosen.folder
    batch = Session(work, chosen).play(1)
    returns = [discounted(rewards(episode), chosen.gamma) for episode in batch.episodes]

    def episodes(prompts: list[str], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        return {
            "prompt_ids": [row.prompt for row in batch.rows],
            "completion_ids": [row.completion for row in batch.rows],
            "logprobs": [row.logprobs.tolist() for row in batch.rows],
            "env_mask": [row.written.astype(int).tolist() for row in batch.rows],
            "paid": returns,
        }

    arguments = GRPOConfig(
        output_dir=str(tmp_path / "trl"), max_steps=epochs, per_device_train_batch_size=chosen.episodes,
        steps_per_generation=1, num_generations=chosen.group, num_iterations=epochs, loss_type="dr_grpo",
        learning_rate=chosen.learning_rate, lr_scheduler_type="constant", optim="adamw_torch",
        adam_beta1=chosen.betas[0], adam_beta2=chosen.betas[1], max_grad_norm=chosen.max_grad_norm,
        max_completion_length=chosen.sampling.max_new_tokens, scale_rewards="none", epsilon=chosen.used_clip_range,
        beta=0.0, temperature=chosen.sampling.temperature, gradient_checkpointing=False, use_cpu=True, bf16=False,
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=models.load(start),
        reward_funcs=lambda paid, **_: paid,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [""] * (chosen.episodes // chosen.group)}),
        processing_class=models.load_tokenizer(start),
        rollout_func=episodes,
    )
    trainer.train()
    before, theirs = models.load(start).state_dict(), trainer.model.state_dict()
    moved = {name: mine[name] - before[name] for name in mine}
    assert distance(moved, {name: theirs[name] - before[name] for name in theirs}) < 1e-3


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_gradient_checkpointing_computes_layers_again(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    passes: list[bool] = []
    forward = LlamaMLP.forward

    def counting(self, states):
        passes.append(torch.is_grad_enabled())
        return forward(self, states)

    monkeypatch.setattr(LlamaMLP, "forward", counting)
    found = {}
    for again in (False, True):
        passes.clear()
        settings = {**ONE, "algorithm": algorithm, "epochs": 1, "gradient_checkpointing": again}
        out = play(inputs, tmp_path / str(again), settings)
        found[again] = sum(passes), models.load(out / checkpoint_name(1)).state_dict()
    assert found[True][0] == 2 * found[False][0]
    assert distance(found[True][1], found[False][1]) < 1e-5


def test_the_optimiser_sees_the_clipped_gradient(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, adamw_step = [], torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        norms.append(float(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]).norm()))
        return adamw_step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    out = play(inputs, tmp_path, {**ONE, "max_grad_norm": 0.25})
    assert norms == pytest.approx([0.25], rel=1e-3)
    assert pd.read_parquet(out / "log.parquet")["gradient_norm"][0] > 1


# Kill and resume ------------------------------------------------------------------------------------------------------


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """The call-th call (from 1) of a function is the last thing that happens."""
    original, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed(f"{name}, call {call}")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


SLICES = FEW["episodes"] // FEW["micro_batch_size"]
MOMENTS = {
    "while the first update is played": (session, "row", 5, 0),
    "while the second update is played": (session, "row", FEW["episodes"] + 5, 1),
    "in the backward pass": (torch.Tensor, "backward", SLICES + 2, 1),
    "before the optimiser's step": (Session, "clip_gradient", 2, 1),
    "between the optimiser's step and a kept checkpoint": (Session, "_keep", 3, 2),
    "between a kept checkpoint and the state": (Session, "_save", 3, 2),
    "while the state is written": (resume, "save_file", 1, 0),
    "while the result is written": (resume.shutil, "copytree", 2, 3),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner, name, call, done = MOMENTS[moment]
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, call)
        with pytest.raises(Killed):
            play(inputs, tmp_path, FEW)
    for file in (tmp_path / "out").rglob("*"):  # the next attempt at a run begins with an empty folder
        if file.is_file():
            file.unlink()
    for part in (tmp_path / "out").iterdir():
        part.rmdir()
    told: list[int] = []
    out = play(inputs, tmp_path, FEW, tick=lambda at, total, unit: told.append(at))
    assert told == list(range(done + 1, 4))
    assert result_of(out) == result_of(undisturbed)


def test_a_run_killed_after_every_update_is_the_same_run(
    inputs: Inputs, undisturbed: Path, tmp_path: Path
) -> None:
    def tick(done: int, total: int, unit: str) -> None:
        assert (total, unit) == (3, "iteration")
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            play(inputs, tmp_path, FEW, tick=tick)
    out = play(inputs, tmp_path, FEW, tick=tick)  # all updates are done
    assert result_of(out) == result_of(undisturbed)


def test_epochs_survive_a_kill_between_them(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**FEW, "epochs": 2, "checkpoints": (2,)}
    whole = play(inputs, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        fail_at(
            patch, Session, "clip_gradient", 4
        )  # the last step: its update began from the state after the first
        with pytest.raises(Killed):
            play(inputs, tmp_path / "killed", settings)
    assert result_of(play(inputs, tmp_path / "killed", settings)) == result_of(whole)


def test_an_engine_with_weights_of_its_own_gets_the_new_ones_before_every_update(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rl.run(work_of(inputs, tmp_path / "own", FEW), opened)
    assert result_of(tmp_path / "own" / "out") == result_of(undisturbed)
    monkeypatch.setattr(session, "refresh", lambda engine, model: None)
    rl.run(work_of(inputs, tmp_path / "old", FEW), opened)
    assert result_of(tmp_path / "old" / "out")["log"] != result_of(undisturbed)["log"]


def test_the_seed_decides(inputs: Inputs, undisturbed: Path, tmp_path: Path) -> None:
    other = result_of(play(inputs, tmp_path, FEW, seed=2))
    mine = result_of(undisturbed)
    assert other["log"]["return"] != mine["log"]["return"]
    name = f"{checkpoint_name(3)}/model.safetensors"
    assert other["files"][name] != mine["files"][name]
    first = f"{checkpoint_name(0)}/model.safetensors"
    assert other["files"][first] == mine["files"][first]


def test_a_gradient_that_is_no_number_ends_the_run_and_harms_nothing(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, hands = Session.clip_gradient, []

    def poisoned(self: Session, batch: Batch) -> float:
        if batch.iteration == 2:
            hands.append(batch.episodes[0].item.id)
            next(self.model.parameters()).grad[3, 1] = float("nan")
        return clip(self, batch)

    states: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(Session, "clip_gradient", poisoned)
        with pytest.raises(BadInput) as caught:
            play(
                inputs,
                tmp_path,
                FEW,
                tick=lambda *_: states.append((tmp_path / "scratch" / "state.safetensors").read_bytes()),
            )
    said = one_line(caught.value)
    assert "iteration 2" in said
    assert hands[0] in said
    assert (tmp_path / "scratch" / "state.safetensors").read_bytes() == states[-1]
    assert len(states) == 1
    assert files_of(tmp_path / "out") == {}
    assert result_of(play(inputs, tmp_path, FEW)) == result_of(undisturbed)


# What a run leaves behind ---------------------------------------------------------------------------------------------


def test_the_result_has_the_wanted_checkpoints_and_the_first_is_the_start(
    inputs: Inputs, undisturbed: Path
) -> None:
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        "advantages.parquet",
        "log.parquet",
        "losses.json",
        *map(checkpoint_name, (0, 1, 3)),
    ]
    start = (inputs["model"] / FEW["folder"] / "model.safetensors").read_bytes()
    kept = [(undisturbed / checkpoint_name(at) / "model.safetensors").read_bytes() for at in (0, 1, 3)]
    assert kept[0] == start
    assert len(set(kept)) == 3
    for at in (0, 1, 3):
        tokenizer = models.load_tokenizer(undisturbed / checkpoint_name(at))
        assert tokenizer.get_vocab() == Compact().tokenizer.get_vocab()


def test_the_log_has_a_row_per_update_with_every_column(undisturbed: Path) -> None:
    log = pd.read_parquet(undisturbed / "log.parquet")
    assert log["update"].tolist() == [1, 2, 3]
    wanted = {
        *("return", "solved", "first_try", "attempts", "zero_variance", "all_solved", "none_solved"),
        *("entropy", "tokens", "advantage_entropy", "advantage_positive", "advantage_std"),
        *("kl_start", "kl_base", "gradient_norm", *TIMED),
    }
    assert wanted <= set(log.columns)
    assert np.isfinite(log.to_numpy(dtype=float)).all()
    assert (log[["gradient_norm", "tokens", *TIMED]] > 0).all(axis=None)
    assert ((log["attempts"] >= 1) & (log["attempts"] <= FEW["attempts"])).all()
    assert abs(log["kl_start"][0]) < 1e-5  # nothing has been learnt when the first episodes are played
    assert (log["kl_start"][1:].abs() > 1e-5).all()
    assert (log["kl_base"] > 0.01).all()


def test_kl_that_is_not_logged_is_not_measured_and_changes_nothing_else(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = models.load
    monkeypatch.setattr(
        session.models, "load", lambda folder, *rest: loaded.append(folder.name) or load(folder, *rest)
    )
    out = play(inputs, tmp_path, {**FEW, "log_kl": False})
    assert loaded == [FEW["folder"]], "the start is loaded once, as the policy; no model to compare with"
    mine, other = result_of(out), result_of(undisturbed)
    for name in ("kl_start", "kl_base"):
        assert np.isnan(mine["log"].pop(name)).all()
        other["log"].pop(name)
    assert mine == other


def test_losses_are_measured_at_the_start_along_the_way_and_at_the_end(undisturbed: Path) -> None:
    losses = json.loads((undisturbed / "losses.json").read_text())
    assert [record["update"] for record in losses] == [0, 2, 3]
    assert all(set(record) == {"update", "train", "test", "ood"} for record in losses)
    assert all(record["ood"] > record["train"] > 0 for record in losses)


def test_advantages_are_those_of_every_episode(watched_run: tuple[Path, Seen]) -> None:
    out, seen = watched_run
    kept = pd.read_parquet(out / "advantages.parquet")
    assert kept["update"].unique().tolist() == [1, 2]
    for update, batch in ((1, seen.batches[0]), (2, seen.batches[1])):
        wanted = [one[0] for one in returns_less_mean(batch, FEW["group"])]
        assert kept[kept["update"] == update]["advantage"].tolist() == pytest.approx(wanted, abs=2e-6)


# Which hands ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory):
    """Sessions that have not played yet, by settings and seed."""

    def start(seed: int = 1, **options: Any) -> Session:
        work = work_of(inputs, tmp_path_factory.mktemp("session"), {**ONE, **options}, seed)
        return Session(work, RLSettings.model_validate(work.settings))

    return start


def test_the_ood_rule_and_held_out_hands_are_never_played(watched_run: tuple[Path, Seen]) -> None:
    seen = watched_run[1]
    items = [episode.item for batch in seen.batches for episode in batch.episodes]
    assert len(items) == 3 * FEW["episodes"]
    assert {item.rule for item in items} == {"id"}
    assert {item.split for item in items} == {"sft", "rl"}


@pytest.mark.parametrize("splits", [("rl",), ("held_out", "ood"), ("sft", "rl")])
def test_the_hands_are_those_of_the_splits_and_differ_within_an_update(started, splits) -> None:
    one = started(splits=splits, episodes=512, group=8, micro_batch_size=64)
    for update in (1, 2, 3):
        items = one.items_of(update)
        assert len(items) == 512
        assert {item.split for item in items} == set(splits)
        groups = [items[at : at + 8] for at in range(0, 512, 8)]
        assert all(len({item.id for item in group}) == 1 for group in groups)
        assert len({group[0].id for group in groups}) == 64


def test_the_seed_and_the_update_decide_the_hands(started) -> None:
    def ids(session_: Session, update: int) -> list[str]:
        return [item.id for item in session_.items_of(update)]

    first, again, other = started(1), started(1), started(2)
    assert ids(first, 1) == ids(again, 1)
    assert ids(first, 1) != ids(first, 2)
    assert ids(first, 1) != ids(other, 1)


def test_a_hand_that_comes_again_in_an_update_is_played_with_other_noise(started) -> None:
    """263 hands and 270 groups: seven hands come twice, and an update of copies would teach nothing new."""
    one = started(splits=("rl",), episodes=540, group=2, micro_batch_size=60, attempts=1)
    items = one.items_of(1)
    count = pd.Series([item.id for item in items]).value_counts()
    assert sorted(set(count)) == [2, 4]
    assert len(count) == 263
    batch = one.play(1)
    assert len({episode.key for episode in batch.episodes}) == 540
    twice = [name for name, times in count.items() if times == 4]
    written = {
        name: [e.attempts[0].generation.tokens for e in batch.episodes if e.item.id == name] for name in twice
    }
    assert any(tokens[:2] != tokens[2:] for tokens in written.values())


# Controls and penalties -----------------------------------------------------------------------------------------------


def test_shuffled_rewards_are_the_groups_own_in_another_order(started) -> None:
    plain = started().play(1)
    made = [started(reward="shuffled").play(1) for _ in range(2)]
    wanted = np.array([one[0] for one in returns_less_mean(plain, 4)]).reshape(-1, 4)
    got = np.array([weight[0] for weight in made[0].weights]).reshape(-1, 4)
    assert np.sort(got, axis=1) == pytest.approx(np.sort(wanted, axis=1), abs=1e-9)
    assert np.abs(got - wanted).max() > 1
    again = np.array([weight[0] for weight in made[1].weights]).reshape(-1, 4)
    assert got.tolist() == again.tolist()
    assert all(len(set(weight.tolist())) == 1 for weight in made[0].weights)
    played = [[a.generation.tokens for a in e.attempts] for e in plain.episodes]
    assert played == [[a.generation.tokens for a in e.attempts] for e in made[0].episodes]


def words_told(batch: Batch, dialect: Compact) -> list[tuple[str, str]]:
    """For every failed attempt that is followed by another: the complaint told, and the verifier's."""
    told = []
    for episode in batch.episodes:
        for attempt, following in zip(episode.attempts, episode.attempts[1:], strict=False):
            said = following.prompt[len(attempt.prompt) + len(attempt.generation.tokens) :]
            wrong, word, answer = dialect.words(list(said))
            assert (wrong, answer) == ("wrong", "answer")
            told.append((word, FEEDBACK_WORDS[attempt.verdict.category]))
    return told


def test_shuffled_feedback_is_told_and_says_nothing_about_the_answer(started, dialect: Compact) -> None:
    honest = words_told(started().play(1), dialect)
    assert len(honest) > 20
    assert all(told == meant for told, meant in honest)
    made = [words_told(started(feedback="shuffled").play(1), dialect) for _ in range(2)]
    assert made[0] == made[1]
    differs = [told != meant for told, meant in made[0]]
    assert 0 < sum(differs) < len(differs)
    assert {told for told, _ in made[0]} == set(FEEDBACK_WORDS.values())


def test_a_penalty_of_next_to_nothing_changes_next_to_nothing(started) -> None:
    assert RLSettings(kl_start=0.0, kl_base=0.0) == RLSettings()
    free, bound = started().play(1), started(kl_start=1e-9, kl_base=1e-9).play(1)
    assert np.concatenate(bound.weights) == pytest.approx(np.concatenate(free.weights), abs=1e-6)


@pytest.mark.parametrize("reference", ["start", "base"])
def test_a_penalty_is_taken_off_the_return_of_the_episode(inputs: Inputs, started, reference: str) -> None:
    free, bound = started().play(1), started(**{f"kl_{reference}": 0.5}).play(1)
    folder = inputs["model"] / FEW["folder"] if reference == "start" else inputs["base"] / "base"
    model = models.load(folder)
    costs, tokens = [], 0
    for episode in bound.episodes:
        nats = 0.0
        for attempt in episode.attempts:
            written, start = attempt.generation.tokens, len(attempt.prompt)
            with torch.inference_mode():
                logits = model(torch.tensor([[*attempt.prompt, *written]])).logits[0, start - 1 : -1]
            logp = torch.log_softmax(logits.double(), -1)[range(len(written)), list(written)]
            nats += float(attempt.generation.logprobs.sum() - logp.sum())
            tokens += len(written)
        costs.append(nats)
    assert bound.log[f"kl_{reference}"] == pytest.approx(sum(costs) / tokens, abs=1e-5)
    less = np.array(costs).reshape(-1, 4)
    wanted = [one[0] for one in returns_less_mean(free, 4)] - 0.5 * (
        less - less.mean(1, keepdims=True)
    ).ravel()
    assert [weight[0] for weight in bound.weights] == pytest.approx(wanted, abs=1e-3)
    assert bound.log["return"] == free.log["return"]


@pytest.fixture(scope="module")
def learnt(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The log of a run that is next to free: with any penalty the divergence is measured on all episodes."""
    out = play(inputs, tmp_path_factory.mktemp("learnt"), {**LEARNING, "kl_start": 1e-3})
    return pd.read_parquet(out / "log.parquet")


def test_a_short_run_raises_the_return(learnt: pd.DataFrame) -> None:
    """From -1.8 to -0.5 when this was written: it learns to answer in the layout that is asked for."""
    assert learnt["return"][-3:].mean() > learnt["return"][:3].mean() + 0.7


def test_a_large_penalty_keeps_the_policy_near_its_start(
    inputs: Inputs, learnt: pd.DataFrame, tmp_path: Path
) -> None:
    """0.05 and 0.12 nats per token when this was written."""
    out = play(inputs, tmp_path, {**LEARNING, "checkpoints": (6,), "kl_start": 2.0})
    held = pd.read_parquet(out / "log.parquet")["kl_start"]
    assert held[3:6].mean() < 0.6 * learnt["kl_start"][3:6].mean()


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"algorithm": "dpo"}, "algorithm"),
        ({"episodes": 18}, "group=4 does not divide episodes=18"),
        ({"micro_batch_size": 12}, "micro_batch_size=12 does not divide episodes=16"),
        ({"sampling": {"temperature": 0}}, "temperature=0"),
        ({"sampling": {"temperature": float("nan")}}, "sampling.temperature"),
        ({"group": 1}, "group"),
        ({"attempts": 0}, "attempts"),
        ({"checkpoints": ()}, "checkpoints"),
        ({"checkpoints": (0,)}, "checkpoints"),
        ({"checkpoints": (3, 1)}, "checkpoints"),
        ({"checkpoints": (1, 1)}, "checkpoints"),
        ({"splits": ()}, "splits"),
        ({"splits": ("sft", "sft")}, "splits"),
        ({"splits": ("rule:5-7-2",)}, "splits"),
        ({"reward": "shuffled", "advantage_estimator": "attempt"}, "advantage_estimator=episode"),
        ({"gamma": 1.1}, "gamma"),
        ({"kl_start": -0.1}, "kl_start"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"max_grad_norm": 0}, "max_grad_norm"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"lr": 1e-4}, "lr"),
    ],
)
def test_impossible_settings_are_named_on_one_line(
    inputs: Inputs, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadInput) as caught:
        validated(RLSettings, {**FEW, **settings}, "rl")
    assert named in one_line(caught.value)
    with pytest.raises(ValidationError):
        rl.run(Work(tmp_path, tmp_path, {**FEW, **settings}, 1, inputs))
    assert files_of(tmp_path) == {}


def refused(inputs: Inputs, place: Path, start: str = "step-00040") -> str:
    """The complaint about a start; nothing is written."""
    with pytest.raises(BadInput) as caught:
        play(inputs, place, {**FEW, "folder": start})
    assert files_of(place) == {}
    return one_line(caught.value)


def test_a_missing_start_or_base_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    assert "step-00099" in refused(inputs, tmp_path / "start", "step-00099")
    assert "no such folder" in refused({**inputs, "base": tmp_path}, tmp_path / "run")


def test_a_start_of_another_architecture_is_refused(inputs: Inputs, tmp_path: Path, dialect: Compact) -> None:
    other = tmp_path / "other"
    models.save(other / "small", models.create(TINY, dialect.tokenizer, 1), dialect.tokenizer)
    said = refused({**inputs, "model": other}, tmp_path / "run", "small")
    assert "small" in said
    assert "another architecture" in said


def test_a_tokenizer_that_knows_no_dialect_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "<end>", "<unk>", "card", "reply"])}
    stranger = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<end>",
        unk_token="<unk>",
    )
    other = tmp_path / "other"
    models.save(other / "start", models.load(inputs["model"] / FEW["folder"]), stranger)
    said = refused({**inputs, "model": other}, tmp_path / "run", "start")
    assert "chat template" in said


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"garbage" * 9])
def test_a_damaged_state_is_refused_on_one_line_and_left_alone(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(undisturbed.parent / "scratch", tmp_path / "scratch")
    state = tmp_path / "scratch/state.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    kept = state.read_bytes()
    with pytest.raises(BadInput) as caught:
        play(inputs, tmp_path, FEW)
    assert "is damaged" in one_line(caught)
    assert state.read_bytes() == kept
