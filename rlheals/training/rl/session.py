"""An RL run: what is played at every iteration, what is logged, what is kept.

An iteration plays `episodes` episodes and takes `epochs` optimiser steps. At its end everything that the rest depends
on is in one file (weights, optimiser, log), so that a run goes on after a kill as if nothing had happened: all
randomness is keyed by seed, iteration, hand and episode.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlheals.engines import fsdp, models
from rlheals.engines.hf import NOT_FINITE, Engine, HFEngine, Opens, open_engine, refresh
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.rollout import Episode, rollout
from rlheals.stage import Work
from rlheals.tasks import load_task
from rlheals.tasks.base import Item
from rlheals.training import resume
from rlheals.training.expert import expert_loss, loss_sets
from rlheals.training.rl.episodes import (
    Row,
    advantage_statistics,
    discounted,
    rewards,
    row,
    statistics,
    token_logprobs,
    weights,
)
from rlheals.training.rl.settings import RLSettings, checkpoint_name

LOGGED_KL_ROWS = 32


@dataclass
class Batch:
    """The episodes of one iteration, ready to learn from: `weights[i]` has a weight per attempt of episode i."""

    iteration: int
    episodes: list[Episode]
    rows: list[Row]
    weights: list[np.ndarray]
    log: dict[str, Any] = field(default_factory=dict)

    def token_weights(self, i: int) -> np.ndarray:
        """One weight per completion token; 0 for feedback."""
        attempt = self.rows[i].attempt
        return np.where(attempt >= 0, self.weights[i][attempt], 0.0)

    @property
    def hands(self) -> str:
        """The hands of the iteration, to name it in an error."""
        return ", ".join(dict.fromkeys(episode.item.id for episode in self.episodes[:24])) + ", ..."


class Session:
    """An RL run between kills: the model, what it is compared with, the hands of every iteration, the log so far.

    opens: makes the engine that plays, of the start's folder; it gets the new weights before every iteration. By
    default the model that is trained plays itself, but with shorter products a copy of it with rounded weights. So are
    the models that it is compared with: the KL divergence is that between the distributions that are sampled from.
    """

    def __init__(self, work: Work, settings: RLSettings, opens: Opens | None = None) -> None:
        self.work, self.settings = work, settings
        start, base = work.inputs["model"] / settings.folder, work.inputs["base"] / "base"
        device = models.device()
        self.model = models.load(start, "cpu" if settings.processes > 1 else device)
        self.tokenizer = models.load_tokenizer(start)
        if settings.gradient_checkpointing:
            models.checkpoint_gradients(self.model)
        models.refuse_short_weights(self.model, settings.precision, "rl")
        models.shorten_products(self.model, settings.precision)
        if settings.processes > 1:
            fsdp.share(self.model)
        if settings.processes > 1 or settings.precision != "own":
            opens = opens or open_engine
        _same_shape(start, base, settings.folder)
        compared = {"start": start, "base": base} if settings.log_kl else {}
        self.references = {
            name: models.load(folder, device, models.DTYPES[settings.precision])
            for name, folder in compared.items()
        }
        self.task = load_task(settings.task)
        self.dialect = dialect_for(self.tokenizer, self.task, settings.prompts)
        self._has_own_weights = opens is not None
        play = opens or (lambda _, rows, __: HFEngine(self.model, self.tokenizer, rows))
        self.engine: Engine = play(start, settings.play_rows, settings.precision)
        self.items = [item for split in settings.splits for item in self.task.items(split)]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.extra: dict[str, torch.nn.Module] = {}
        self.log: list[dict[str, Any]] = []
        self.losses: list[dict[str, float]] = []
        self.advantages: dict[str, list[float]] = {}
        self.done = 0
        self._sets = loss_sets(self.dialect, self.task, settings.loss_examples)

    def begin(self, **modules: torch.nn.Module) -> None:
        """Go on from the state file, or measure the start, and keep it if iteration 0 is wanted.

        modules: what is trained and kept beside the model (a value head).
        """
        for name, module in modules.items():
            self.extra[name] = module
            self.optimizer.add_param_group({"params": list(module.parameters())})
        newest = self._files.newest()
        if newest is None:
            self._measure(0)
            if 0 in self.settings.checkpoints:
                self._keep(0)
            return
        said = resume.load(newest, {"model": self.model, **self.extra}, self.optimizer, "rl")
        self.done, self.log, self.losses = said["step"], said["log"], said["losses"]
        self.advantages = said["advantages"]

    def train(self, learn: Callable[[Batch], float]) -> None:
        """Play and learn until the last iteration; `learn` takes the steps and returns the norm of the gradient."""
        while self.done < self.settings.iterations:
            batch = self.play(self.done + 1)
            # layers are computed again in training mode only; without that there is no dropout in any mode
            self.model.train(self.settings.gradient_checkpointing)
            began = time.perf_counter()
            norm = learn(batch)
            self.finish(batch, norm, time.perf_counter() - began)

    # --- one iteration

    def items_of(self, iteration: int) -> list[Item]:
        """The hands of an iteration, each `group` times: drawn without replacement as far as they go."""
        random = np.random.default_rng([self.work.seed, iteration, 7])
        count = self.settings.episodes // self.settings.group
        rounds = [random.permutation(len(self.items)) for _ in range(-(-count // len(self.items)))]
        return [self.items[i] for i in np.repeat(np.concatenate(rounds)[:count], self.settings.group)]

    def play(self, iteration: int) -> Batch:
        """The episodes of an iteration (from 1) under the model as it is, with their weights for the gradient."""
        settings, began = self.settings, time.perf_counter()
        items = self.items_of(iteration)
        # the place in the iteration is in the key: a hand that comes twice, when hands are few, gets other noise
        keys = [f"{self.work.seed}/{iteration}/{item.id}/{i}" for i, item in enumerate(items)]
        self.model.eval()
        if self._has_own_weights:
            refresh(self.engine, self.model)
        mine = slice(fsdp.rank(), None, fsdp.processes())
        try:
            episodes = rollout(
                self.engine,
                self.dialect,
                self.task,
                items[mine],
                keys[mine],
                settings.sampling,
                settings.attempts,
                feedback=settings.feedback,
                prompts=settings.prompts,
            )
        except BadInput as error:
            raise BadInput(f"rl: iteration {iteration}: {error}") from error
        if settings.processes > 1:
            episodes = fsdp.gathered(episodes)
        rows = [row(episode) for episode in episodes]
        log = {"update": iteration, **statistics(episodes, settings.group, settings.gamma)}
        log["seconds_rollout"] = time.perf_counter() - began
        weighted, penalties = self._weights(episodes, rows, iteration)
        batch = Batch(iteration, episodes, rows, weighted, log)
        baselined = np.array([weight[0] if len(weight) else 0.0 for weight in weighted])
        log |= advantage_statistics(baselined) | penalties
        if iteration == 1 or iteration % settings.loss_every == 0:
            self.advantages[str(iteration)] = [float(value) for value in np.round(baselined, 6)]
        return batch

    def _weights(
        self, episodes: list[Episode], rows: list[Row], iteration: int
    ) -> tuple[list[np.ndarray], dict[str, float]]:
        settings = self.settings
        penalties = {"start": settings.kl_start, "base": settings.kl_base}
        every = max(1, len(rows) // LOGGED_KL_ROWS)
        measured, costs = {f"kl_{name}": math.nan for name in penalties}, np.zeros(len(rows))
        for name in self.references:
            penalty = penalties[name]
            chosen = list(range(0, len(rows), 1 if penalty else every))
            nats = self._log_ratios([rows[i] for i in chosen], name)
            if not all(map(math.isfinite, nats)):
                raise BadInput(f"rl: iteration {iteration}: KL divergence from the {name}: {NOT_FINITE}")
            tokens = sum(int(rows[i].written.sum()) for i in chosen)
            measured[f"kl_{name}"] = float(sum(nats) / max(1, tokens))
            if penalty:
                costs += penalty * np.array(nats)
        if settings.algorithm == "expert_iteration":
            made = [_imitated(episode) for episode in episodes]
        else:
            paid = [rewards(episode) for episode in episodes]
            if settings.reward == "shuffled":
                paid = self._shuffled(paid, iteration)
            # a penalty counts for the whole episode: it is the first attempt's, whatever the estimator
            paid = [[first - cost, *others] for (first, *others), cost in zip(paid, costs, strict=True)]
            made = weights(
                paid,
                settings.group,
                settings.gamma,
                settings.advantage_estimator,
                "leave_one_out" if settings.algorithm == "rloo" else "mean",
                settings.scale,
            )
        return made, measured

    def _log_ratios(self, rows: Sequence[Row], name: str) -> list[float]:
        """Per episode, sum over written tokens of log p(model) - log p(reference): its mean is the KL divergence."""
        theirs = token_logprobs(
            self.references[name], rows, self.tokenizer.pad_token_id, self.settings.sampling.temperature
        )
        return [
            float((one.logprobs[one.written] - their[one.written]).sum())
            for one, their in zip(rows, theirs, strict=True)
        ]

    def _shuffled(self, paid: list[list[float]], iteration: int) -> list[list[float]]:
        """Every episode gets the discounted return of another one of its group, as one reward on its first attempt."""
        random, group = np.random.default_rng([self.work.seed, iteration, 8]), self.settings.group
        returns = np.array([discounted(one, self.settings.gamma) for one in paid]).reshape(-1, group)
        shuffled = random.permuted(returns, axis=1).ravel()
        return [[float(value)] + [0.0] * (len(one) - 1) for value, one in zip(shuffled, paid, strict=True)]

    def clip_gradient(self, batch: Batch) -> float:
        """Clip the gradient and return its norm before; BadInput, with the last good state kept, if it is none."""
        parameters = [p for module in (self.model, *self.extra.values()) for p in module.parameters()]
        norm = fsdp.clip_gradients(parameters, self.settings.max_grad_norm)
        if not math.isfinite(norm):
            raise BadInput(
                f"rl: iteration {batch.iteration}: the gradient is not finite; hands {batch.hands} "
                f"The state after iteration {self.done} is kept in {self.work.scratch}"
            )
        return norm

    # --- between iterations

    def finish(self, batch: Batch, norm: float, seconds: float) -> None:
        """The end of an iteration: log it, measure, keep what has to be kept, make the state durable."""
        iteration = batch.iteration
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.log.append(
            {
                **batch.log,
                "gradient_norm": norm,
                "seconds_learning": seconds,
                "tokens_per_second": batch.log["tokens"] / max(1e-9, batch.log["seconds_rollout"]),
                "peak_mb": float(memory),
            }
        )
        self.done = iteration
        if iteration % self.settings.loss_every == 0 or iteration == self.settings.iterations:
            self._measure(iteration)
        kept = iteration in self.settings.checkpoints
        if kept:
            self._keep(iteration)
        if kept or iteration % self.settings.save_every == 0:
            self._save()
        self.work.tick(iteration, self.settings.iterations, "iteration")

    def _measure(self, iteration: int) -> None:
        losses = {name: expert_loss(self.model, rows) for name, rows in self._sets.items()}
        if not all(map(math.isfinite, losses.values())):
            raise BadInput(
                f"rl: iteration {iteration}: the loss on expert answers is not finite; it has diverged"
            )
        self.losses.append({"update": iteration, **losses})

    def _keep(self, iteration: int) -> None:
        weights = fsdp.whole(self.model) if self.settings.processes > 1 else None
        if fsdp.rank() == 0:
            with resume.kept(self.work.scratch / checkpoint_name(iteration)) as folder:
                models.save(folder, self.model, self.tokenizer, weights)

    @property
    def _files(self) -> resume.Files:
        return resume.Files(self.work.scratch / resume.STATE)

    def _save(self) -> None:
        said = {"step": self.done, "log": self.log, "losses": self.losses, "advantages": self.advantages}
        files = self._files
        resume.save(files.at(self.done), {"model": self.model, **self.extra}, self.optimizer, said)
        files.written(self.done)


def _imitated(episode: Episode) -> np.ndarray:
    """Weight 1 on the attempt that solved, 0 on all others."""
    made = np.zeros(len(episode.attempts))
    if episode.solved_at:
        made[-1] = 1.0
    return made


def _same_shape(start: Path, base: Path, folder: str) -> None:
    mine, theirs = models.tensor_shapes(start), models.tensor_shapes(base)
    if mine != theirs:
        name = next(n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n))
        raise BadInput(
            f"rl: start {folder!r} has another architecture than the base "
            f"({name}: {mine.get(name)} and {theirs.get(name)})"
        )
