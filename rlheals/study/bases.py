"""Bases as a recorded study of their own: weights, how their ability grew, and the manifest of their pretraining."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rlheals.profiles.profile import Profile
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import SeedPlan, pretrain_spec
from rlheals.study.tables import Part, Seeded


@dataclass(frozen=True)
class BasePlan(SeedPlan):
    """One base."""

    base: RunSpec

    def specs(self) -> list[RunSpec]:
        return [self.base]


@dataclass(frozen=True)
class BaseTables(Seeded):
    """ability   one row per (seed, step): tokens seen, loss, success@5 with feedback on the panel, format-agnostic."""

    LISTS = "ability"

    ability: pd.DataFrame


def plan(profile: Profile, seed: int, store: Store) -> BasePlan:
    """The pretraining of a seed's base."""
    return BasePlan(seed, pretrain_spec(profile, seed))


def collect(plans: Sequence[BasePlan], store: Store) -> BaseTables:
    """The tables of runs that are in the store."""
    folder = tables.folders(store)
    rows = [
        pd.DataFrame(json.loads((folder(one.base) / "ability.json").read_text())).assign(seed=one.seed)
        for one in plans
    ]
    return BaseTables(pd.concat(rows, ignore_index=True))


def _lacking(profile: Profile) -> str:
    return "" if profile.model is None else "its base is a language model, which is not pretrained here"


BASES = Part(
    "-bases",
    plan,
    collect,
    BaseTables,
    "pretrain",
    _lacking,
    models=lambda profile, one, store: {"base": tables.folders(store)(one.base) / "base"},
)
