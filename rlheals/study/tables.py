"""The tables that chapters, claims and figures read: the same for a reader's fresh run and for the recorded study.

episodes     one row per (seed, step, decode, hand): which attempt solved it, how the first attempt went
categories   attempts counted per (seed, step, decode, split, attempt number, category)
rules        one row per (seed, step, hand) of the trial of other J, Q, K rules
losses       one row per (seed, step, set): cross-entropy of expert answers, and of the training batches
bases        one row per seed: steps and ability of the base
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import pandas as pd

from rlheals.errors import BadInput
from rlheals.store.files import atomic_write
from rlheals.store.foreign import read_table
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study.plan import Plan, plan

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rlheals.profiles.profile import Profile


Frames = TypeVar("Frames", bound="Seeded")
Made = TypeVar("Made")

EPISODE_COLUMNS = {
    "item": "category", "split": "category", "solved_at": "uint8", "solved_at_either": "uint8",
    "first": "category", "first_layout": "category",
}  # fmt: skip
"""Types of the columns that every task has."""


@dataclass(frozen=True)
class Seeded:
    """A dataclass of tables of which every row says its base seed."""

    LISTS: ClassVar[str]
    """The table whose base seeds count."""

    @property
    def seeds(self) -> list[int]:
        return sorted(int(seed) for seed in getattr(self, self.LISTS)["seed"].unique())

    def of_seed(self, seed: int) -> Self:
        """The rows of one base seed."""
        frames = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: frame[frame["seed"] == seed] for name, frame in frames.items()})

    def once(self, make: Callable[[Self], Made]) -> Made:
        """make(tables), computed the first time and kept with them: what claims and figures ask for again and again."""
        kept: dict[Callable[[Self], Any], Any] = self.__dict__.setdefault("_kept", {})
        if make not in kept:
            kept[make] = make(self)
        return kept[make]


@dataclass(frozen=True)
class Tables(Seeded):
    """Everything chapter 01 is drawn from, for one or several base seeds."""

    LISTS = "bases"

    episodes: pd.DataFrame
    categories: pd.DataFrame
    rules: pd.DataFrame
    losses: pd.DataFrame
    bases: pd.DataFrame

    @property
    def steps(self) -> list[int]:
        """SFT steps with a census."""
        return sorted(int(step) for step in self.episodes["step"].unique())


@dataclass(frozen=True)
class Part(Generic[Frames]):
    """One study that is recorded: its folder is the profile's name and `suffix`.

    stage: whose code its captions name; lacking: why a profile has nothing of it, or ""; from_sft: which points of SFT
    `plan` needs too, by base seed (a name of `rlheals.study.peaks.POINTS`), see `at`; units: where a base seed is
    recorded in several folders, what `plan` takes as `unit`; models: model folders recorded beside the tables, by name;
    variants: of a profile, whose recorded tables are read together with its own.
    """

    suffix: str
    plan: Callable[..., Any]
    collect: Callable[[Sequence[Any], Store], Frames]
    kind: type[Frames]
    stage: str
    lacking: Callable[[Profile], str] = lambda profile: ""
    from_sft: str = ""
    units: Callable[[Profile], Sequence[Any]] | None = None
    models: Callable[[Profile, Any, Store], Mapping[str, Path]] = lambda profile, plan, store: {}
    variants: tuple[str, ...] = ()

    def in_units(self, profile: Profile) -> list[Part[Frames]]:
        """What is recorded of a profile, unit by unit, in the order in which it is computed."""
        if self.units is None:
            return [self]
        return [replace(self, plan=partial(self.plan, unit=unit)) for unit in self.units(profile)]

    def at(self, points: Mapping[int, Any]) -> Part[Frames]:
        """The same with the points of SFT known."""
        return replace(self, plan=partial(self.plan, **{self.from_sft: points}), from_sft="")

    def check(self, profile: Profile) -> None:
        """BadInput when the profile has nothing of this study."""
        if reason := self.lacking(profile):
            raise BadInput(f"profile {profile.name}: {reason}")


def collect(plans: Sequence[Plan], store: Store) -> Tables:
    """The tables of runs that are in the store."""
    return joined([_of_plan(chosen, store) for chosen in plans], Tables)


def joined(parts: Sequence[Frames], kind: type[Frames]) -> Frames:
    """Tables of the same kind, table by table, one below the other."""
    return kind(
        **{
            f.name: pd.concat([getattr(part, f.name) for part in parts], ignore_index=True)
            for f in fields(kind)
        }
    )


def write(tables: DataclassInstance, folder: Path) -> None:
    """One parquet file per table, small enough for git; `read` gives the same tables back."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(tables):
        frame = getattr(tables, field.name)
        atomic_write(
            folder / f"{field.name}.parquet",
            frame.to_parquet(index=False, compression="zstd", compression_level=19),
        )


def read(folder: Path, kind: type[Frames] = Tables) -> Frames:  # type: ignore[assignment]
    """The tables in a folder. Raises BadInput when one is missing, too large or not parquet."""
    frames = {}
    for field in fields(kind):
        file = folder / f"{field.name}.parquet"
        try:
            frames[field.name] = read_table(file)
        except BadInput as error:
            raise BadInput(f"results in {folder.name!r}: {error}") from None
    return kind(**frames)


def folders(store: Store) -> Callable[[RunSpec], Path]:
    """Where the results of a run lie that is in the store, checked."""
    return lambda spec: store.load(store.key(spec)).path


def _of_plan(chosen: Plan, store: Store) -> Tables:
    seed, folder = chosen.seed, folders(store)
    episodes, categories = [], []
    for (step, decode), spec in chosen.censuses.items():
        place = {"seed": seed, "step": step, "decode": decode}
        frame, counts = census(folder(spec))
        episodes.append(frame.assign(**place))
        categories.append(counts.assign(**place))
    empty = pd.DataFrame(columns=["item", "rule", "solved_at", "seed", "step"])
    rules = [
        pd.read_parquet(folder(spec) / "episodes.parquet")[["item", "rule", "solved_at"]].assign(
            seed=seed, step=step
        )
        for step, spec in chosen.rules.items()
    ]
    return Tables(
        episodes=pd.concat(episodes, ignore_index=True).astype(EPISODE_COLUMNS),
        categories=pd.concat(categories, ignore_index=True),
        rules=pd.concat(rules, ignore_index=True) if rules else empty,
        losses=_losses(folder(chosen.sft), seed),
        bases=_base(folder(chosen.base), seed),
    )


def census(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one evaluation: its episodes, and its attempts counted."""
    episodes = pd.read_parquet(path / "episodes.parquet").drop(columns="rule")
    attempts = pd.read_parquet(path / "attempts.parquet")
    counted = attempts.groupby(["protocol", "split", "attempt", "category", "read_as"], observed=True)
    counts = counted.agg(
        attempts=("reward", "size"),
        reward=("reward", "sum"),
        # of nothing measured it is missing, not 0
        entropy=("entropy", lambda values: float(values.sum(min_count=1))),
        tokens=("tokens", "sum"),
    )
    return episodes, counts.reset_index()


def _losses(path: Path, seed: int) -> pd.DataFrame:
    data = json.loads((path / "losses.json").read_text())
    rows = [
        {"step": record["step"], "set": name, "loss": value}
        for record in data["sets"]
        for name, value in record.items()
        if name != "step"
    ]
    rows += [{"step": record["step"], "set": "batch", "loss": record["loss"]} for record in data["train"]]
    return pd.DataFrame(rows).assign(seed=seed)


def _base(path: Path, seed: int) -> pd.DataFrame:
    """How long a base was pretrained and what it could do then; of a language model neither is known."""
    at = [file for file in (path / "ability.json", path / "base" / "ability.json") if file.is_file()]
    last = json.loads(at[0].read_text())[-1] if at else {"step": float("nan"), "within_five": float("nan")}
    return pd.DataFrame([{"seed": seed, "base_step": last["step"], "ability": last["within_five"]}])


def solved(path: Path) -> pd.DataFrame:
    """Of one evaluation, by split: hands, how many were solved within the attempts, and in the first one."""
    episodes = pd.read_parquet(path / "episodes.parquet")[["split", "solved_at"]]
    grouped = episodes["solved_at"].groupby(episodes["split"], observed=True)
    return grouped.agg(
        hands="size", solved=lambda at: int((at > 0).sum()), first=lambda at: int((at == 1).sum())
    ).reset_index()


def _kept(profile: Profile, chosen: Plan, store: Store) -> dict[str, Path]:
    """The checkpoints that a reader's RL starts from, recorded so that it need not wait for SFT."""
    if profile.model is not None or chosen.seed not in profile.seeds:
        return {}
    names = [f"step-{step:05d}" for step in profile.rl_starts.reader_starts]
    return {name: folders(store)(chosen.sft) / name for name in names}


SFT = Part("", plan, collect, Tables, "evaluate", models=_kept)
"""The study of chapter 01, recorded by base seed."""
