"""RL: the gradient by hand and TRL's, runs that go on after a kill, controls that control, errors on one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from datasets import Dataset
from lab_helpers import (
    HARMS,
    TIMED,
    Killed,
    dies_at,
    diverging,
    files_of,
    one_line,
    optimizer_steps,
    refused,
    result_of,
    work_in,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaMLP
from trl import GRPOConfig, GRPOTrainer

from rlheals.engines import models
from rlheals.engines.hf import open_engine
from rlheals.errors import BadInput
from rlheals.stage import Tick, no_tick
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS
from rlheals.training import resume
from rlheals.training.rl import session
from rlheals.training.rl import stage as rl
from rlheals.training.rl.episodes import discounted, rewards, weights
from rlheals.training.rl.session import Batch, Session
from rlheals.training.rl.settings import RLSettings, checkpoint_name

FEW: dict[str, Any] = {
    "folder": "step-00016",
    "checkpoints": (0, 1, 3),
    "episodes": 16,
    "group": 4,
    "micro_batch_size": 8,
    "attempts": 2,
    "loss_every": 2,
    "loss_examples": 8,
}
ONE: dict[str, Any] = {**FEW, "checkpoints": (1,), "episodes": 32, "attempts": 3}

Inputs = dict[str, Path]


def play(inputs: Inputs, folder: Path, settings: dict[str, Any], seed: int = 1, tick: Tick = no_tick) -> Path:
    """Run the stage; the folder of the result."""
    rl.run(work_in(folder, RLSettings(**settings), inputs, seed, tick))
    return folder / "out"


@dataclass
class Seen:
    """What was there right before every optimiser step."""

    batches: list[Batch] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)


def watched(patch: pytest.MonkeyPatch) -> Seen:
    noted, clip = Seen(), Session.clip_gradient

    def watching(self: Session, batch: Batch) -> float:
        noted.batches.append(batch)
        noted.gradients.append({name: p.grad.clone() for name, p in self.model.named_parameters()})
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


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """|one - other| / |other| over all weights."""
    assert one.keys() == other.keys()
    away = sum(float((one[n].double() - other[n].double()).square().sum()) for n in one)
    return (away / sum(float(other[n].double().square().sum()) for n in other)) ** 0.5


# The gradient ---------------------------------------------------------------------------------------------------------


def by_hand(
    inputs: Inputs, settings: dict[str, Any], batch: Batch, weights: list[list[float]]
) -> dict[str, torch.Tensor]:
    """The gradient in float64, an unpadded episode at a time: -sum weight * d(log p) / (episodes * tokens)."""
    chosen = RLSettings(**settings)
    model = models.load(inputs["model"] / chosen.folder).double()
    for episode, whole in zip(batch.episodes, weights, strict=True):
        for attempt, weight in zip(episode.attempts, whole, strict=True):
            tokens, start = list(attempt.generation.tokens), len(attempt.prompt)
            logits = model(torch.tensor([[*attempt.prompt, *tokens]])).logits[0, start - 1 : -1]
            logp = torch.log_softmax(logits / chosen.sampling.temperature, -1)[range(len(tokens)), tokens]
            (-logp.sum() * weight / (chosen.episodes * chosen.sampling.max_new_tokens)).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def returns_less_mean(batch: Batch, group: int = 4, gamma: float = 0.9) -> list[list[float]]:
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


def imitated(batch: Batch) -> list[list[float]]:
    return [[float(attempt.verdict.solved) for attempt in episode.attempts] for episode in batch.episodes]


def per_attempt(batch: Batch) -> list[np.ndarray]:
    paid = [rewards(episode) for episode in batch.episodes]
    return weights(paid, ONE["group"], 0.9, "attempt", "leave_one_out")


@pytest.mark.parametrize(
    ("options", "weigh"),
    [
        ({}, returns_less_mean),
        ({"micro_batch_size": 32}, returns_less_mean),
        ({"sampling": {"temperature": 0.7}}, returns_less_mean),
        ({"gamma": 0.5, "group": 8}, partial(returns_less_mean, group=8, gamma=0.5)),
        ({"advantage_estimator": "attempt", "algorithm": "rloo"}, per_attempt),
        ({"algorithm": "expert_iteration"}, imitated),
    ],
    ids=["slices", "whole", "cooler", "gamma", "attempts", "expert iteration"],
)
def test_the_gradient_is_that_of_a_plain_sum_over_episodes(
    inputs: Inputs, tmp_path: Path, seen: Seen, options: dict[str, Any], weigh: Callable[[Batch], Any]
) -> None:
    settings = {**ONE, **options}
    play(inputs, tmp_path, settings)
    (batch,) = seen.batches
    assert {len(episode.attempts) for episode in batch.episodes} == {1, 2, 3}
    wanted = by_hand(inputs, settings, batch, weigh(batch))
    assert distance(seen.gradients[0], wanted) < 2e-5
    norm = sum(float(g.square().sum()) for g in wanted.values()) ** 0.5
    logged = pd.read_parquet(tmp_path / "out" / "log.parquet")["gradient_norm"]
    assert logged.tolist() == pytest.approx([norm], rel=1e-5)  # the norm before clipping


@pytest.mark.parametrize("weigh", [0, 1, 31])
def test_episodes_that_weigh_nothing_change_nothing(
    inputs: Inputs, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, weigh: int
) -> None:
    settings = {**ONE, "attempts": 1, "micro_batch_size": 4}
    given = [[i % 5 - 2.5 if i < weigh else 0.0] for i in range(settings["episodes"])]
    monkeypatch.setattr(session, "weights", lambda *_: [np.array(one) for one in given])
    play(inputs, tmp_path, settings)
    if weigh:
        assert distance(seen.gradients[0], by_hand(inputs, settings, seen.batches[0], given)) < 1e-5
    else:
        assert all(not gradient.any() for gradient in seen.gradients[0].values())


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_iteration_is_that_of_trls_trainer(inputs: Inputs, tmp_path: Path, epochs: int) -> None:
    """The same episodes, and the same steps up to rounding; TRL takes the mean off the groups' returns itself."""
    settings = {**ONE, "epochs": epochs, "learning_rate": 1e-3, "clip_range": 0.1}
    mine = models.load(play(inputs, tmp_path, settings) / checkpoint_name(1)).state_dict()
    chosen = RLSettings(**settings)
    work = work_in(tmp_path / "trl", chosen, inputs)
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
    steps = optimizer_steps(monkeypatch)
    out = play(inputs, tmp_path, {**ONE, "max_grad_norm": 0.25})
    assert [step["norm"] for step in steps] == pytest.approx([0.25], rel=1e-3)
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
    "in the backward pass": (torch.Tensor, "backward", SLICES + 1, 1),
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
    shutil.rmtree(tmp_path / "out")  # the next attempt at a run begins with an empty folder
    told: list[int] = []
    out = play(inputs, tmp_path, FEW, tick=lambda at, total, unit: told.append(at))
    assert told == list(range(done + 1, 4))
    assert result_of(out) == result_of(undisturbed)


def test_a_run_killed_after_every_update_is_the_same_run(
    inputs: Inputs, undisturbed: Path, tmp_path: Path
) -> None:
    for _ in range(3):
        with pytest.raises(Killed):
            play(inputs, tmp_path, FEW, tick=dies_at(1))
    out = play(inputs, tmp_path, FEW, tick=dies_at(1))  # all updates are done
    assert result_of(out) == result_of(undisturbed)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_with_bf16_products_it_learns_is_killed_and_goes_on(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """What plays and what it is compared with are rounded alike; the weights that learn are not rounded."""
    settings = {**FEW, "algorithm": algorithm, "precision": "bf16"}
    learnt, forward = set(), LlamaMLP.forward

    def watching(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        made = forward(self, x)
        learnt.update({made.dtype} if torch.is_grad_enabled() else ())
        return made

    with monkeypatch.context() as patch:
        patch.setattr(LlamaMLP, "forward", watching)
        calm = play(inputs, tmp_path / "calm", settings)
    assert learnt == {torch.bfloat16}
    with pytest.raises(Killed):
        play(inputs, tmp_path / "killed", settings, tick=dies_at(1))
    assert result_of(play(inputs, tmp_path / "killed", settings)) == result_of(calm)
    log = result_of(calm)["log"]
    assert abs(log["kl_start"][0]) < 2e-5 < log["kl_base"][0]
    for model in (load_file(calm / checkpoint_name(at) / "model.safetensors") for at in (1, 3)):
        assert {tensor.dtype for tensor in model.values()} == {torch.float32}
        assert any(bool((tensor != tensor.bfloat16()).any()) for tensor in model.values())


def test_an_engine_with_weights_of_its_own_gets_the_new_ones_before_every_update(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = open_engine
    rl.run(work_in(tmp_path / "own", RLSettings(**FEW), inputs), opens)
    assert result_of(tmp_path / "own" / "out") == result_of(undisturbed)
    monkeypatch.setattr(session, "refresh", lambda engine, model: None)
    rl.run(work_in(tmp_path / "old", RLSettings(**FEW), inputs), opens)
    assert result_of(tmp_path / "old" / "out")["log"] != result_of(undisturbed)["log"]


def test_the_seed_decides(inputs: Inputs, undisturbed: Path, tmp_path: Path) -> None:
    other, mine = result_of(play(inputs, tmp_path, FEW, seed=2)), result_of(undisturbed)
    assert other["log"]["return"] != mine["log"]["return"]
    names = [f"{checkpoint_name(at)}/model.safetensors" for at in (0, 3)]
    assert [other["files"][name] == mine["files"][name] for name in names] == [True, False]


def test_a_gradient_that_is_no_number_ends_the_run_and_harms_nothing(
    inputs: Inputs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, hands = Session.clip_gradient, []

    def poisoned(self: Session, batch: Batch) -> float:
        if batch.iteration == 2:
            hands.append(batch.episodes[0].item.id)
            next(self.model.parameters()).grad[3, 1] = float("nan")
        return clip(self, batch)

    state, states = tmp_path / "scratch/state.safetensors", []
    with monkeypatch.context() as patch:
        patch.setattr(Session, "clip_gradient", poisoned)
        with pytest.raises(BadInput) as caught:
            play(inputs, tmp_path, FEW, tick=lambda *_: states.append(state.read_bytes()))
    said = one_line(caught.value)
    assert "iteration 2" in said
    assert hands[0] in said
    assert state.read_bytes() == states[-1]
    assert len(states) == 1
    assert files_of(tmp_path / "out") == {}
    assert result_of(play(inputs, tmp_path, FEW)) == result_of(undisturbed)


# What a run leaves behind ---------------------------------------------------------------------------------------------


def test_a_run_leaves_checkpoints_a_row_per_iteration_and_losses(inputs: Inputs, undisturbed: Path) -> None:
    names = [checkpoint_name(at) for at in (0, 1, 3)]
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        *("advantages.parquet", "log.parquet", "losses.json"),
        *names,
    ]
    kept = [(undisturbed / name / "model.safetensors").read_bytes() for name in names]
    assert kept[0] == (inputs["model"] / FEW["folder"] / "model.safetensors").read_bytes()
    assert len(set(kept)) == 3
    assert models.load_tokenizer(undisturbed / names[2]).get_vocab() == Compact().tokenizer.get_vocab()
    log = pd.read_parquet(undisturbed / "log.parquet")
    assert log["update"].tolist() == [1, 2, 3]
    assert np.isfinite(log.to_numpy(dtype=float)).all()
    assert (log[["gradient_norm", "tokens", *TIMED]] > 0).all(axis=None)
    assert abs(log["kl_start"][0]) < 1e-5  # nothing has been learnt when the first episodes are played
    assert (log["kl_start"][1:].abs() > 1e-5).all()
    assert (log["kl_base"] > 0.01).all()
    losses = json.loads((undisturbed / "losses.json").read_text())
    assert [record["update"] for record in losses] == [0, 2, 3]
    assert all(record["ood"] > record["train"] > 0 for record in losses)


def test_kl_that_is_not_logged_changes_nothing_else(
    inputs: Inputs, undisturbed: Path, tmp_path: Path
) -> None:
    mine, other = result_of(play(inputs, tmp_path, {**FEW, "log_kl": False})), result_of(undisturbed)
    for name in ("kl_start", "kl_base"):
        assert np.isnan(mine["log"].pop(name)).all()
        other["log"].pop(name)
    assert mine == other


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
        chosen = RLSettings(**{**ONE, **options})
        return Session(work_in(tmp_path_factory.mktemp("session"), chosen, inputs, seed), chosen)

    return start


def test_the_ood_rule_and_held_out_hands_are_never_played(watched_run: tuple[Path, Seen]) -> None:
    items = [episode.item for batch in watched_run[1].batches for episode in batch.episodes]
    assert len(items) == 3 * FEW["episodes"]
    assert {(item.rule, item.split) for item in items} == {("id", "sft"), ("id", "rl")}


@pytest.mark.parametrize("splits", [("rl",), ("held_out", "ood"), ("sft", "rl")])
def test_the_hands_are_those_of_the_splits_and_differ_within_an_update(started, splits) -> None:
    one, again, other = (
        started(seed, splits=splits, episodes=512, group=8, micro_batch_size=64) for seed in (1, 1, 2)
    )
    assert one.items_of(1) == again.items_of(1)
    assert one.items_of(1) not in (one.items_of(2), other.items_of(1))
    for update in (1, 2, 3):
        items = one.items_of(update)
        assert len(items) == 512
        assert {item.split for item in items} == set(splits)
        groups = [items[at : at + 8] for at in range(0, 512, 8)]
        assert all(len({item.id for item in group}) == 1 for group in groups)
        assert len({group[0].id for group in groups}) == 64


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


def test_a_short_run_raises_the_return(inputs: Inputs, tmp_path: Path) -> None:
    """From a start with much left to learn: by 1.3 when this was written, by answering in the layout asked for."""
    more = {"folder": "step-00010", "checkpoints": (12,), "episodes": 64, "group": 8, "micro_batch_size": 32}
    out = play(inputs, tmp_path, {**FEW, **more, "attempts": 1, "learning_rate": 3e-4})
    paid = pd.read_parquet(out / "log.parquet")["return"]
    assert paid[-3:].mean() > paid[:3].mean() + 0.7


# Errors ---------------------------------------------------------------------------------------------------------------


def another_shape(folder: Path, start: Path) -> None:
    words = Compact().tokenizer
    models.save(folder, models.create(TINY, words, 1), words)


def short_weights(folder: Path, start: Path) -> None:
    models.save(folder, models.load(start, dtype="bfloat16"), models.load_tokenizer(start))


def another_tokenizer(folder: Path, start: Path) -> None:
    words = {word: number for number, word in enumerate(["<pad>", "<end>", "<unk>", "card", "reply"])}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    stranger = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    models.save(folder, models.load(start), stranger)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda *_: None, "step-00099"),
        (another_shape, "another architecture"),
        (another_tokenizer, "chat template"),
        (short_weights, "rl.precision=bf16 is for float32 weights; these are bfloat16"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    inputs: Inputs, tmp_path: Path, make: Callable[[Path, Path], None], said: str
) -> None:
    make(tmp_path / "other/step-00099", inputs["model"] / FEW["folder"])
    settings = {**FEW, "folder": "step-00099", "precision": "bf16"}
    with refused(said):
        play({**inputs, "model": tmp_path / "other"}, tmp_path / "run", settings)
    assert files_of(tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("name", "harm"),
    [("state.safetensors", "a bit flipped"), (f"{checkpoint_name(1)}/model.safetensors", "cut in half")],
)
def test_what_has_changed_since_it_was_kept_is_dropped_and_computed_again(
    inputs: Inputs,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    harm: str,
) -> None:
    shutil.copytree(undisturbed.parent / "scratch", tmp_path / "scratch")
    HARMS[harm](tmp_path / "scratch" / name)
    begun: list[int] = []
    again = play(inputs, tmp_path, FEW, tick=lambda done, *_: begun.append(done))
    assert begun == [1, 2, 3]
    assert result_of(again) == result_of(undisturbed)
    assert f"{name}: is not as it was written" in capsys.readouterr().err


@pytest.mark.parametrize(("bad", "iteration"), [(1, 2), (3, 3)])
def test_a_run_that_diverges_stops_and_names_the_iteration(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int, iteration: int
) -> None:
    diverging(monkeypatch, bad)
    with pytest.raises(BadInput, match=f"^rl: iteration {iteration}: .*not finite"):
        play(inputs, tmp_path, FEW)
    assert files_of(tmp_path / "out") == {}
