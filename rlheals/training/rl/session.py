"""An RL run between kills: what is played at every update, what is logged, what is kept.

An update plays `episodes` episodes and takes `epochs` optimiser steps. At its end everything that the rest depends on
is in one file (weights, optimiser, log), so that a run goes on after a kill as if nothing had happened: all randomness
is keyed by seed, update, hand and episode.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlheals.engines import fsdp as sharded
from rlheals.engines import models
from rlheals.engines.hf import Engine, HFEngine, Opens, refresh
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.rollout import Episode, rollout
from rlheals.stage import Work
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training import resume
from rlheals.training.rl.advantages import discounted, weights
from rlheals.training.rl.episodes import Row, advantage_statistics, rewards, row, statistics, token_logprobs
from rlheals.training.rl.settings import RLSettings, checkpoint_name
from rlheals.training.sft import LOSS_SETS, expert_loss, loss_set

LOGGED_KL_ROWS = 32


@dataclass
class Batch:
    """The episodes of one update, ready to learn from: `weights[i]` has a weight per attempt of episode i."""

    update: int
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
        """The hands of the update, to name it in an error."""
        return ", ".join(dict.fromkeys(episode.item.id for episode in self.episodes[:24])) + ", ..."


class Session:
    """An RL run between kills: the model, what it is compared with, the hands of every update, the log so far.

    opens: makes the engine that plays, of the start's folder; it gets the new weights before every update. By
    default the model that is trained plays itself.
    """

    def __init__(self, work: Work, settings: RLSettings, opens: Opens | None = None) -> None:
        self.work, self.settings = work, settings
        start, base = work.inputs["model"] / settings.folder, work.inputs["base"] / "base"
        device = models.device()
        self.model = models.load(start, "cpu" if settings.processes > 1 else device)
        self.tokenizer = models.load_tokenizer(start)
        if settings.gradient_checkpointing:
            models.checkpoint_gradients(self.model)
        if settings.processes > 1:
            sharded.share(self.model)
            opens = opens or _another_engine
        _same_shape(start, base, settings.folder)
        compared = {"start": start, "base": base} if settings.log_kl else {}
        self.references = {name: models.load(folder, device) for name, folder in compared.items()}
        self.task = GeneralPoints()
        self.dialect = dialect_for(self.tokenizer, self.task)
        self.engine: Engine
        if opens is None:
            self.engine = HFEngine(self.model, self.tokenizer, settings.play_rows, fill=False)
        else:
            self.engine = opens(start, settings.play_rows)
        self._has_own_weights = opens is not None
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
        self._sets = {
            name: loss_set(self.dialect, split, settings.loss_examples) for name, split in LOSS_SETS.items()
        }
        self._restore()

    # --- one update

    def items_of(self, update: int) -> list[Item]:
        """The hands of an update, each `group` times: drawn without replacement within an update as far as they go."""
        random = np.random.default_rng([self.work.seed, update, 7])
        count = self.settings.episodes // self.settings.group
        rounds = [random.permutation(len(self.items)) for _ in range(-(-count // len(self.items)))]
        return [self.items[i] for i in np.repeat(np.concatenate(rounds)[:count], self.settings.group)]

    def play(self, update: int) -> Batch:
        """The episodes of an update (from 1) under the weights as they are, with their weights for the gradient."""
        settings, began = self.settings, time.perf_counter()
        items = self.items_of(update)
        # the place in the update is in the key: a hand that comes twice, when hands are few, gets other noise
        keys = [f"{self.work.seed}/{update}/{item.id}/{i}" for i, item in enumerate(items)]
        was_training = self.model.training
        self.model.eval()
        if self._has_own_weights:
            refresh(self.engine, self.model)
        mine = slice(sharded.rank(), None, sharded.processes())
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
        if settings.processes > 1:
            episodes = sharded.gathered([episode.forgotten() for episode in episodes])
        self.model.train(was_training)
        rows = [row(episode) for episode in episodes]
        log = {"update": update, **statistics(episodes, settings.group, settings.gamma)}
        log["seconds_rollout"] = time.perf_counter() - began
        weighted, penalties = self._weights(episodes, rows, update)
        batch = Batch(update, episodes, rows, weighted, log)
        baselined = np.array([weight[0] if len(weight) else 0.0 for weight in weighted])
        log |= advantage_statistics(baselined) | penalties
        if update == 1 or update % settings.loss_every == 0:
            self.advantages[str(update)] = [float(value) for value in np.round(baselined, 6)]
        return batch

    def _weights(
        self, episodes: list[Episode], rows: list[Row], update: int
    ) -> tuple[list[np.ndarray], dict[str, float]]:
        settings = self.settings
        penalties = {"start": settings.kl_start, "base": settings.kl_base}
        every = max(1, len(rows) // LOGGED_KL_ROWS)
        measured, costs = {f"kl_{name}": math.nan for name in penalties}, np.zeros(len(rows))
        for name in self.references:
            penalty = penalties[name]
            chosen = list(range(0, len(rows), 1 if penalty else every))
            nats = self._log_ratios([rows[i] for i in chosen], name)
            tokens = sum(int(rows[i].written.sum()) for i in chosen)
            measured[f"kl_{name}"] = float(sum(nats) / max(1, tokens))
            if penalty:
                costs += penalty * np.array(nats)
        if settings.algorithm == "expert_iteration":
            made = [_imitated(episode) for episode in episodes]
        else:
            paid = [rewards(episode) for episode in episodes]
            if settings.reward == "shuffled":
                paid = self._shuffled(paid, update)
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

    def _shuffled(self, paid: list[list[float]], update: int) -> list[list[float]]:
        """Every episode gets the discounted return of another one of its group, as one reward on its first attempt."""
        random, group = np.random.default_rng([self.work.seed, update, 8]), self.settings.group
        returns = np.array([discounted(one, self.settings.gamma) for one in paid]).reshape(-1, group)
        shuffled = random.permuted(returns, axis=1).ravel()
        return [[float(value)] + [0.0] * (len(one) - 1) for value, one in zip(shuffled, paid, strict=True)]

    def clip_gradient(self, batch: Batch) -> float:
        """Clip the gradient and return its norm before; BadInput, with the last good state kept, if it is none."""
        parameters = [p for module in (self.model, *self.extra.values()) for p in module.parameters()]
        norm = sharded.clip_gradients(parameters, self.settings.max_grad_norm)
        if not math.isfinite(norm):
            raise BadInput(
                f"rl: update {batch.update}: the gradient is not finite; hands {batch.hands} "
                f"The state after update {self.done} is kept in {self.work.scratch}"
            )
        return norm

    # --- between updates

    def finish(self, batch: Batch, norm: float, seconds: float) -> None:
        """The end of an update: log it, measure, keep what has to be kept, make the state durable."""
        update = batch.update
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
        self.done = update
        if update % self.settings.loss_every == 0 or update == self.settings.iterations:
            self._measure(update)
        kept = update in self.settings.checkpoints
        if kept:
            self._keep(update)
        if kept or update % self.settings.save_every == 0:
            self._save()
        self.work.tick(update, self.settings.iterations, "update")

    def _measure(self, update: int) -> None:
        losses = {name: expert_loss(self.model, rows) for name, rows in self._sets.items()}
        self.losses.append({"update": update, **losses})

    def _keep(self, update: int) -> None:
        weights = sharded.whole(self.model) if self.settings.processes > 1 else None
        if sharded.rank() == 0:
            with resume.kept(self.work.scratch / checkpoint_name(update)) as folder:
                models.save(folder, self.model, self.tokenizer, weights)

    @property
    def _files(self) -> resume.Files:
        return resume.Files(self.work.scratch / "state.safetensors")

    def _save(self) -> None:
        said = {"done": self.done, "log": self.log, "losses": self.losses, "advantages": self.advantages}
        files = self._files
        resume.save(files.at(self.done), {"model": self.model, **self.extra}, self.optimizer, said)
        files.written(self.done)

    def add(self, **modules: torch.nn.Module) -> None:
        """More to train and to keep beside the model (a value head); before the first update."""
        for name, module in modules.items():
            self.extra[name] = module
            self.optimizer.add_param_group({"params": list(module.parameters())})
        self._restore()

    def _restore(self) -> None:
        """Go on from the state file, or begin: measure the start, keep it if update 0 is wanted."""
        newest = self._files.newest()
        if newest is None:
            if not self.losses:
                self._measure(0)
            if 0 in self.settings.checkpoints:
                self._keep(0)
            return
        said, saved = resume.load(newest, {"model": self.model, **self.extra}, "rl")
        self.done, self.log, self.losses = said["done"], said["log"], said["losses"]
        self.advantages = said["advantages"]
        resume.restore_optimizer(self.optimizer, saved)


def _another_engine(folder: Path, rows: int) -> HFEngine:
    return HFEngine(models.load(folder, models.device()), models.load_tokenizer(folder), rows, fill=False)


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
