"""One RL run from one SFT checkpoint, computed with what it needs, as plain data."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rlheals.chapters.rl.runs import rl_spec
from rlheals.profiles.profile import Profile
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan
from rlheals.study.single import described, refuse_unknown_step
from rlheals.training.rl.settings import checkpoint_name


def reinforced(profile: Profile, seed: int, start: int, number: int, store: Store) -> dict[str, Any]:
    """RL from the checkpoint of SFT step `start` of a base seed, with RL seed `number`."""
    refuse_unknown_step("--start", start, profile)
    before = plan(profile, seed, store)
    *_, run = compute([before.base, before.sft, rl_spec(profile, before, store, start, number, {})], store)
    log = pd.read_parquet(run.file("log.parquet"))
    kl = ["kl_start"] if profile.rl_starts.rl.log_kl else []
    shown = log[["return", "solved", "first_try", "attempts", "zero_variance", *kl]].astype(float).round(4)
    return {
        **described(run),
        "folder": str(run.path / checkpoint_name(profile.rl_starts.iterations)),
        "updates": len(log),
        "first_update": shown.iloc[0].to_dict(),
        "last_update": shown.iloc[-1].to_dict(),
    }
