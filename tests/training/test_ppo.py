"""PPO: its estimates and losses against their definitions, its gradient against the vanilla one, kill and resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from lab_helpers import Killed, result_of, work_in
from safetensors.torch import load_file

from rlheals.engines import models
from rlheals.tasks.base import Item, Verdict
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.rl import ppo
from rlheals.training.rl import session as session_module
from rlheals.training.rl import stage as rl
from rlheals.training.rl.episodes import rewards
from rlheals.training.rl.ppo import ValueHead, advantages, gae, policy_loss, value_loss
from rlheals.training.rl.session import Batch, Session
from rlheals.training.rl.settings import RLSettings, checkpoint_name

FEW = RLSettings(
    folder="base",
    algorithm="ppo",
    checkpoints=(1, 3),
    episodes=16,
    group=4,
    micro_batch_size=8,
    attempts=3,
    learning_rate=1e-2,
    loss_every=2,
    loss_examples=4,
    sampling={"temperature": 1.3, "max_new_tokens": 3},
)


class Toy(GeneralPoints):
    """Graded by the first word alone, so that an untrained model meets every verdict."""

    @staticmethod
    def reward(word: str) -> float:
        return 5.0 if word.isdigit() else -2.0 if word in "+-*/()=" else -1.0

    def grade(self, item: Item, reply: str) -> Verdict:
        paid = self.reward(json.loads(reply)["text"].split()[0])
        return Verdict(paid > 0, paid, "correct" if paid > 0 else "no_solution", "")


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "load_task", lambda name: Toy())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, dialect: Compact) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    models.save(folder / "base", models.create(TINY, dialect.tokenizer, 1), dialect.tokenizer)
    return folder


def run(folder: Path, lab: Path, seed: int = 3) -> dict[str, Any]:
    """All that a run leaves, but for times, and its state with value head and optimiser."""
    rl.run(work_in(folder, FEW, {"model": lab, "base": lab}, seed))
    state = load_file(folder / "scratch/state.safetensors")
    return result_of(folder / "out") | {"state": {name: one.numpy().tobytes() for name, one in state.items()}}


def begun(folder: Path, lab: Path, **changed: Any) -> tuple[Session, ValueHead]:
    """A session with its value head, before the first update."""
    few = RLSettings(**{**FEW.model_dump(), **changed})
    session = Session(work_in(folder, few, {"model": lab, "base": lab}, 3), few)
    head = ValueHead(session.model.config.hidden_size, seed=4)
    session.begin(value_head=head)
    return session, head


def by_hand(session: Session, head: ValueHead, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """log pi and V of every attempt, from the episodes alone: one attempt at a time, no padding, no rows."""
    logps, values = [], []
    for episode in batch.episodes:
        for attempt in episode.attempts:
            prompt, answer = list(attempt.prompt), list(attempt.generation.tokens)
            out = session.model(torch.tensor([prompt + answer]))
            logp = torch.log_softmax(out.logits[0] / session.settings.sampling.temperature, -1)
            logps.append(sum(logp[len(prompt) - 1 + i, token] for i, token in enumerate(answer)))
            state = session.model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
            values.append(head(state))
    return logps, values


def naive(paid: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """The definition: a double sum over TD errors, with nothing after the last attempt."""
    after = [*values, 0.0]
    errors = [r + gamma * after[t + 1] - after[t] for t, r in enumerate(paid)]
    return [sum((gamma * lam) ** (s - t) * errors[s] for s in range(t, len(paid))) for t in range(len(paid))]


# Advantages -----------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-10, 10, allow_subnormal=False)
SHARES = st.floats(0, 1, allow_subnormal=False)
EPISODE = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6)


def flat(episodes: Sequence[list[tuple[float, float]]], gamma: float, lam: float) -> list[np.ndarray]:
    """Advantages of episodes of (reward, value), found together and handed back one episode at a time."""
    values = np.array([value for episode in episodes for _, value in episode])
    found = advantages([[paid for paid, _ in episode] for episode in episodes], values, gamma, lam)
    return np.split(found, np.cumsum([len(episode) for episode in episodes])[:-1])


@given(EPISODE, SHARES, SHARES)
def test_gae_is_the_double_sum_of_its_definition(episode, gamma: float, lam: float) -> None:
    paid, values = zip(*episode, strict=True)
    assert gae(paid, values, gamma, lam) == pytest.approx(naive(paid, values, gamma, lam), abs=1e-9)


@given(st.lists(EPISODE, min_size=1, max_size=5), SHARES, SHARES, st.data())
def test_an_episode_has_its_own_advantages_in_any_company(episodes, gamma: float, lam: float, data) -> None:
    together = flat(episodes, gamma, lam)
    order = data.draw(st.permutations(range(len(episodes))))
    permuted = flat([episodes[i] for i in order], gamma, lam)
    for place, i in enumerate(order):
        assert permuted[place].tolist() == together[i].tolist()
    changed = data.draw(st.integers(0, len(episodes) - 1))
    others = [*episodes[:changed], data.draw(EPISODE), *episodes[changed + 1 :]]
    for i, found in enumerate(flat(others, gamma, lam)):
        assert i == changed or found.tolist() == together[i].tolist()


# Losses ---------------------------------------------------------------------------------------------------------------


@given(st.floats(-0.5, 0.5), st.floats(-3, 3), st.floats(0.01, 0.4))
def test_beyond_the_clip_in_the_wanted_direction_there_is_no_gradient(
    shift: float, advantage: float, clip: float
) -> None:
    logp = torch.tensor([shift - 2.0], dtype=torch.float64, requires_grad=True)
    old, wanted = torch.tensor([[-2.0], [advantage]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(policy_loss(logp, old, wanted, clip).sum(), logp)
    ratio = math.exp(shift)
    far = (advantage > 0 and ratio > 1 + clip) or (advantage < 0 and ratio < 1 - clip)
    if min(abs(ratio - 1 - clip), abs(ratio - 1 + clip)) > 1e-6:
        assert float(gradient) == pytest.approx(0.0 if far else -ratio * advantage, abs=1e-9)


@given(NUMBERS, st.floats(-1, 1), NUMBERS, st.floats(0.05, 0.5))
def test_a_value_has_no_gradient_once_it_has_moved_by_the_clip_towards_the_return(
    before: float, moved: float, wanted: float, clip: float
) -> None:
    value = torch.tensor([before + moved], dtype=torch.float64, requires_grad=True)
    old, returns = torch.tensor([[before], [wanted]], dtype=torch.float64)
    lost = value_loss(value, old, returns, clip)
    (gradient,) = torch.autograd.grad(lost.sum(), value)
    clipped = before + min(max(moved, -clip), clip)
    assert float(lost.detach()) == pytest.approx(
        max((before + moved - wanted) ** 2, (clipped - wanted) ** 2) / 2, abs=1e-9
    )
    gap = abs(before + moved - wanted) - abs(clipped - wanted)
    if abs(gap) > 1e-6:
        assert float(gradient) == pytest.approx(0.0 if gap < 0 else before + moved - wanted, abs=1e-9)
    elif abs(moved) < clip - 1e-6:
        assert float(gradient) == pytest.approx(before + moved - wanted, abs=1e-6)


# One update -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 16])
@torch.no_grad()
def test_log_pi_and_values_are_those_of_every_attempt_by_itself(tmp_path: Path, lab: Path, size: int) -> None:
    session, head = begun(tmp_path, lab, micro_batch_size=size)
    batch = session.play(1)
    assert len({len(episode.attempts) for episode in batch.episodes}) == 3  # 1, 2 and 3 attempts
    parts = ppo.slices(batch, size, session.tokenizer.pad_token_id, session.model.device)
    assert [len(part.ids) for part in parts] == [size] * (16 // size)
    logps, values = by_hand(session, head, batch)
    seen = []
    for part in parts:
        found = ppo.judged(session.model, head, part, session.settings.sampling.temperature)
        for logp, value, action in zip(*found, part.actions.tolist(), strict=True):
            assert float(logp) == pytest.approx(float(logps[action]), abs=1e-4)
            assert float(value) == pytest.approx(float(values[action]), abs=1e-5)
            seen.append(action)
    assert sorted(seen) == list(range(len(logps)))
    sampled = [float(attempt.generation.logprobs.sum()) for e in batch.episodes for attempt in e.attempts]
    assert [float(logp) for logp in logps] == pytest.approx(sampled, abs=1e-4)


@pytest.mark.parametrize("size", [2, 16])
def test_the_gradient_of_the_first_epoch_is_the_vanilla_policy_gradient(
    tmp_path: Path, lab: Path, size: int
) -> None:
    session, head = begun(tmp_path, lab, micro_batch_size=size, epochs=1, value_weight=0.7, max_grad_norm=1e9)
    batch = session.play(1)
    logps, values = by_hand(session, head, batch)
    was = [float(value.detach()) for value in values]
    found, at = [], 0
    for episode in batch.episodes:
        found += naive(rewards(episode), was[at : at + len(episode.attempts)], 0.9, 0.95)
        at += len(episode.attempts)
    normalised = (np.array(found) - np.mean(found)) / (np.std(found) + 1e-5)
    whole = sum(-a * logp for a, logp in zip(normalised, logps, strict=True))
    whole = whole + 0.7 * sum(
        (value - (a + v)) ** 2 / 2 for value, a, v in zip(values, found, was, strict=True)
    )
    parameters = [*session.model.parameters(), *head.parameters()]
    wanted = torch.autograd.grad(whole / len(found), parameters)

    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in wanted))
    assert ppo.learn(session, head, batch) == pytest.approx(norm, rel=1e-4)  # the head's part included
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    assert batch.log["ratio_clipped"] == 0.0
    assert batch.log["policy_moved"] == pytest.approx(0.0, abs=1e-9)

    assert session.advantages["1"] == pytest.approx(found, abs=1e-4)
    assert batch.log["advantage_std"] == pytest.approx(np.std(found), rel=1e-4)
    assert batch.log["value_mean"] == pytest.approx(np.mean(was), abs=1e-5)
    assert batch.log["value_loss"] == pytest.approx(np.mean(np.square(found)) / 2, rel=1e-4)
    returns = np.add(found, was)
    assert batch.log["value_explained"] == pytest.approx(1 - np.var(found) / np.var(returns), abs=1e-4)


def test_the_order_of_the_episodes_changes_nothing_and_strangers_do_not_mix(
    tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through whole updates: slices are put together by length, advantages must find their way back."""
    found: dict[str, list[float]] = {}

    def learnt(name: str, change: Callable[[Batch], Batch]) -> Batch:
        session, head = begun(tmp_path / name, lab)
        session.clip_gradient = lambda batch: 0.0  # type: ignore[method-assign]
        monkeypatch.setattr(session.optimizer, "step", lambda: None)
        batch = change(session.play(1))
        ppo.learn(session, head, batch)
        found[name] = session.advantages["1"]
        return batch

    order = np.random.default_rng(0).permutation(16)

    def permuted(batch: Batch) -> Batch:
        return Batch(
            1, [batch.episodes[i] for i in order], [batch.rows[i] for i in order], batch.weights, batch.log
        )

    def one_other(batch: Batch) -> Batch:
        attempts = batch.episodes[5].attempts
        attempts[-1] = type(attempts[-1])(
            attempts[-1].prompt, attempts[-1].generation, attempts[-1].reply, Verdict(False, -77.0, "x", "")
        )
        return batch

    batch = learnt("as played", lambda batch: batch)
    learnt("permuted", permuted)
    learnt("one other", one_other)
    ends = np.cumsum([len(episode.attempts) for episode in batch.episodes])[:-1]
    parts = np.split(np.array(found["as played"]), ends)
    assert found["permuted"] == pytest.approx(np.concatenate([parts[i] for i in order]), abs=1e-5)
    for i, (one, other) in enumerate(zip(parts, np.split(np.array(found["one other"]), ends), strict=True)):
        assert (one.tolist() == other.tolist()) == (i != 5)


def test_the_expected_return_rises(tmp_path: Path, lab: Path, dialect: Compact) -> None:
    """Answers of one word, two attempts: the objective of eight hands is known exactly, by enumeration."""
    session, head = begun(
        tmp_path,
        lab,
        checkpoints=(12,),
        episodes=64,
        micro_batch_size=64,
        attempts=2,
        sampling={"temperature": 1.0, "max_new_tokens": 1},
    )
    vocabulary = len(session.tokenizer)
    paid = torch.tensor([Toy.reward(word) for word in dialect.words(list(range(vocabulary)))])

    @torch.inference_mode()
    def objective() -> float:
        prompts = [dialect.prompt(item) for item in session.items[::120]]
        told = dialect.feedback(Verdict(False, -1.0, "no_solution", ""))
        second = torch.tensor([[*prompt, word, *told] for prompt in prompts for word in range(vocabulary)])
        first = session.model(torch.tensor(prompts)).logits[:, -1].softmax(-1)
        then = session.model(second).logits[:, -1].softmax(-1) @ paid
        after = torch.where(paid > 0, 0.0, then.view(len(prompts), vocabulary))
        return float((first * (paid + 0.9 * after)).sum(-1).mean())

    before = objective()
    learnt = [0.0]
    while session.done < 12:
        batch = session.play(session.done + 1)
        norm = ppo.learn(session, head, batch)
        session.finish(batch, norm, 0.0)
        learnt.append(batch.log["ratio_clipped"])
    assert objective() > before + 2.0
    assert max(learnt) > 0.0  # the clip was at work
    assert session.log[-1]["value_mean"] > session.log[0]["value_mean"] + 0.3  # the head follows


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "load_task", lambda name: Toy())
        return run(folder, lab)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    lab: Path, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    assert run(tmp_path / "again", lab) == uninterrupted
    assert run(tmp_path / "other", lab, seed=4)["files"] != uninterrupted["files"]
    named = {name.split("/")[0] for name in uninterrupted["state"]}
    assert named == {"model", "value_head", "optimizer"}
    out = tmp_path / "again/out"
    models.load(out / checkpoint_name(3))  # the value head is not part of a checkpoint
    log, kept = pd.read_parquet(out / "log.parquet"), pd.read_parquet(out / "advantages.parquet")
    assert np.isfinite(log.to_numpy(dtype=float)).all()
    attempts = (16 * log["attempts"]).round().astype(int).tolist()
    assert kept.groupby("update").size().tolist() == attempts[:2]
    spread = kept.groupby("update")["advantage"].std(ddof=0)
    assert spread.tolist() == pytest.approx(log["advantage_std"].tolist()[:2], abs=1e-5)


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_killed_inside_an_update_plays_it_again(
    lab: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """Killed at an optimiser step of the first update (4 epochs each), and of the second."""
    steps = iter(range(1, 99))

    def killed(session: Session, batch: Batch) -> float:
        if next(steps) == step:
            raise Killed
        return clip(session, batch)

    clip = Session.clip_gradient
    with monkeypatch.context() as patch:
        patch.setattr(Session, "clip_gradient", killed)
        with pytest.raises(Killed):
            run(tmp_path, lab)
    assert (tmp_path / "scratch/state.safetensors").exists() == (step > 4)
    assert run(tmp_path, lab) == uninterrupted
