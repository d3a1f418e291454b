"""The census: every item of a split answered by one checkpoint, one row per attempt and one per episode."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import Field, ValidationInfo, field_validator

from rlheals.engines.hf import Engine, Opens, Sampling, open_engine
from rlheals.engines.models import Precision
from rlheals.evaluation.dialects import Prompts, dialect_for
from rlheals.evaluation.rollout import Attempt, Episode, Feedback, rollout
from rlheals.settings import Int, Settings, TaskName
from rlheals.stage import Work
from rlheals.store.files import believed, note, whole_file
from rlheals.tasks import checked_splits, load_task
from rlheals.tasks.base import Dialect, Item, Protocol_, Task

PART = 1024


class EvaluateSettings(Settings):
    """What is asked of a checkpoint; the run's seed is the sampling seed."""

    task: TaskName = Field("general_points", description="the task's name")
    folder: str = Field("base", description="model folder inside the input run, e.g. base or step-00040")
    splits: tuple[str, ...] = Field(
        ("sft", "rl", "held_out", "ood"), description="the task's splits; rules: a trial of other rules"
    )
    hands: Int | None = Field(None, ge=1, description="only the first so many items of each split; None: all")
    attempts: Int = Field(5, ge=1, le=20, description="attempts per item, with verifier feedback in between")
    sampling: Sampling = Sampling()
    feedback: Feedback = Field(
        "verifier", description="what a failed attempt is told; none: the question again, nothing else"
    )
    prompts: Prompts = Field("fixed", description="forms of the questions: always the same, or many")
    rows: Int = Field(
        128, ge=1, le=4096, description="items that are answered at once, as far as memory goes"
    )
    precision: Precision = Field(
        "own", description="of weights and products: the model's own format, or a shorter one"
    )

    @field_validator("splits")
    @classmethod
    def _known_and_different(cls, splits: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return checked_splits(splits, info.data.get("task"), "rules")


def run(work: Work, opens: Opens = open_engine) -> None:
    """The stage: `attempts.parquet`, `episodes.parquet`, `summary.json`. Finished parts survive a kill."""
    settings = EvaluateSettings.model_validate(work.settings)
    folder = work.inputs["model"] / settings.folder
    engine, task = opens(folder, settings.rows, settings.precision), load_task(settings.task)
    dialect = dialect_for(engine.tokenizer, task, settings.prompts)
    items = census_items(task, settings)
    parts = []
    for start in range(0, len(items), PART):
        part = work.scratch / f"part-{start:06d}.parquet"
        if not believed(work.scratch, part.name):
            chunk = items[start : start + PART]
            frame = attempts_table(engine, dialect, task, chunk, settings, work.seed)
            with whole_file(part) as file:
                frame.to_parquet(file, compression="zstd", index=False)
                note(work.scratch, {part.name: file})
        parts.append(pd.read_parquet(part))
        work.tick(min(start + PART, len(items)), len(items), "item")
    attempts = pd.concat(parts, ignore_index=True)
    episodes = episodes_table(attempts)
    attempts.to_parquet(work.out / "attempts.parquet", compression="zstd", index=False)
    episodes.to_parquet(work.out / "episodes.parquet", compression="zstd", index=False)
    (work.out / "summary.json").write_text(json.dumps(summary(task, attempts, episodes), indent=1) + "\n")


def census_items(task: Task, settings: EvaluateSettings) -> list[Item]:
    """The items of the wanted splits, in order; "rules" stands for those of every rule but the ID and OOD rule."""
    items: list[Item] = []
    for split in settings.splits:
        for part in [f"rule:{rule}" for rule in task.rules[2:]] if split == "rules" else [split]:
            items += task.items(part)[: settings.hands]
    return items


def attempts_table(
    engine: Engine, dialect: Dialect, task: Task, items: list[Item], settings: EvaluateSettings, seed: int
) -> pd.DataFrame:
    """One row per attempt, for both protocols.

    Under "target" an answer counts in the wanted layout only; under "either" in the plain layout too. Up to its first
    plain answer an episode is the same under both, so only from there it is played again.
    """
    keys = [f"{seed}/{item.id}" for item in items]
    told: dict[str, Any] = {"feedback": settings.feedback, "prompts": settings.prompts}
    strict = rollout(engine, dialect, task, items, keys, settings.sampling, settings.attempts, **told)
    begun = {
        index: shared
        for index, episode in enumerate(strict)
        if (shared := _until_plain(episode, dialect, task)) is not None
    }
    lenient = rollout(
        engine,
        dialect,
        task,
        [items[index] for index in begun],
        [keys[index] for index in begun],
        settings.sampling,
        settings.attempts,
        "either",
        begun=list(begun.values()),
        **told,
    )
    rows = [row for episode in strict for row in _rows(task, episode, "target")]
    rows += [row for episode in lenient for row in _rows(task, episode, "either")]
    return pd.DataFrame(rows).astype({"attempt": "uint8", "tokens": "uint16", "reward": "float32"})


def _until_plain(episode: Episode, dialect: Dialect, task: Task) -> list[Attempt] | None:
    """The attempts up to the first in the plain layout, that one graded as "either" grades it; None without one."""
    for number, attempt in enumerate(episode.attempts):
        if attempt.reply.layout == "plain":
            reply = dialect.read(list(attempt.generation.tokens), "either")
            regraded = replace(attempt, reply=reply, verdict=task.grade(episode.item, reply.text))
            return [*episode.attempts[:number], regraded]
    return None


def _rows(task: Task, episode: Episode, protocol: Protocol_) -> Iterable[dict[str, object]]:
    item = episode.item
    for number, attempt in enumerate(episode.attempts, 1):
        generation = attempt.generation
        yield {
            "item": item.id,
            "split": item.split,
            "rule": item.rule,
            **task.item_columns(item),
            "protocol": protocol,
            "attempt": number,
            "text": attempt.reply.text,
            "layout": attempt.reply.layout,
            "category": attempt.verdict.category,
            "read_as": attempt.verdict.read_as or "",
            **task.reply_columns(item, attempt.reply),
            "reward": attempt.verdict.reward,
            "tokens": len(generation.tokens),
            "logprob": float(generation.logprobs.sum()),
            "entropy": float(generation.entropies.mean()),
        }


def episodes_table(attempts: pd.DataFrame) -> pd.DataFrame:
    """One row per item: the attempt that solved it (0: none) under both protocols, and how the first attempt went.

    The task's own columns stand between the others of the table of attempts: those of items between `rule` and
    `protocol`, those of replies between `read_as` and `reward`.
    """
    solved = attempts.assign(at=attempts["attempt"].where(attempts["category"] == "correct", 0))
    at = solved.pivot_table(index="item", columns="protocol", values="at", aggfunc="max", sort=False)
    first = attempts[(attempts["attempt"] == 1) & (attempts["protocol"] == "target")].set_index("item")
    target = at["target"].reindex(first.index).astype("uint8")
    either = at["either"].reindex(first.index) if "either" in at else target
    columns = list(first)
    of_item = columns[columns.index("rule") + 1 : columns.index("protocol")]
    of_reply = columns[columns.index("read_as") + 1 : columns.index("reward")]
    episodes = first[["split", "rule", *of_item]].assign(
        solved_at=target,
        solved_at_either=either.fillna(target).astype("uint8"),
        first=first["category"],
        first_layout=first["layout"],
        **{f"first_{name}": first[name] for name in of_reply},
    )
    return episodes.reset_index()


def summary(task: Task, attempts: pd.DataFrame, episodes: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Accuracies and error shares per split, also of the task's `paired` splits as far as they were asked."""
    target = attempts[attempts["protocol"] == "target"]
    groups = {str(name): group for name, group in episodes.groupby("split", sort=False)}
    for name in task.paired:
        common = episodes[episodes["item"].isin([item.id for item in task.items(name)])]
        groups |= {name: common} if len(common) else {}
    return {
        name: _accuracies(group, target[target["item"].isin(group["item"])]) for name, group in groups.items()
    }


def _accuracies(episodes: pd.DataFrame, attempts: pd.DataFrame) -> dict[str, object]:
    return {
        "hands": len(episodes),
        "first_try": float((episodes["solved_at"] == 1).mean()),
        "within_five": float((episodes["solved_at"] > 0).mean()),
        "first_try_either": float((episodes["solved_at_either"] == 1).mean()),
        "within_five_either": float((episodes["solved_at_either"] > 0).mean()),
        "attempts": len(attempts),
        "mean_reward": float(attempts["reward"].mean()),
        "mean_entropy": float(attempts["entropy"].mean()),
        "categories": {str(k): int(v) for k, v in attempts["category"].value_counts().items()},
    }
