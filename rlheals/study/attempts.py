"""Every attempt of one evaluation per SFT checkpoint, for a few bases, so that others can grade them anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study import plan as study
from rlheals.study import tables
from rlheals.study.plan import Plan
from rlheals.study.tables import Part, Seeded

WORDS = ("item", "split", "rule", "protocol", "text", "layout", "category", "read_as")


@dataclass(frozen=True)
class AttemptTables(Seeded):
    """attempts   one row per (seed, step, item, protocol, attempt), as an evaluation writes them."""

    LISTS = "attempts"

    attempts: pd.DataFrame


def plan(profile: Profile, seed: int, store: Store) -> Plan:
    """The evaluations of chapter 01 with the first sampling seed."""
    whole = study.plan(profile, seed, store)
    return replace(whole, censuses={at: spec for at, spec in whole.censuses.items() if at[1] == 0}, rules={})


def collect(plans: Sequence[Plan], store: Store) -> AttemptTables:
    """The tables of runs that are in the store."""
    folder = tables.folders(store)
    rows = [
        pd.read_parquet(folder(spec) / "attempts.parquet").assign(seed=one.seed, step=step)
        for one in plans
        for (step, _), spec in one.censuses.items()
    ]
    return AttemptTables(pd.concat(rows, ignore_index=True).astype(dict.fromkeys(WORDS, "category")))


ATTEMPTS = Part("-attempts", plan, collect, AttemptTables, "evaluate")
