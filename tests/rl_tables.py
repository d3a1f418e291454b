"""RL studies made by hand: so many hands solved before RL, so many after it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlheals.chapters.rl.runs import MAIN, RLTables
from rlheals.study.claims import half_of

HANDS = 200


def solved(share: float, first: float | None = None) -> np.ndarray:
    """Solved-at numbers: this share solved, `first` of all hands at the first try, the rest later; in both halves."""
    made = np.zeros(HANDS, dtype="uint8")
    for half in (0, 1):
        mine = [i for i in range(HANDS) if half_of(f"ood/{i}") == half]
        count, at_once = round(share * len(mine)), round((share if first is None else first) * len(mine))
        made[mine[:count]] = 2
        made[mine[:at_once]] = 1
    return made


def rows(numbers: np.ndarray, split: str = "ood", **place: object) -> pd.DataFrame:
    items = [f"ood/{i}" for i in range(HANDS)]
    frame = pd.DataFrame({"item": items, "split": split, "solved_at": numbers, "solved_at_either": numbers})
    return frame.assign(**{"control": MAIN, "decode": 0, "seed": 1, "run": -1, **place})


def tables(*frames: pd.DataFrame) -> RLTables:
    episodes = pd.concat(frames, ignore_index=True)
    log = episodes[episodes["run"] >= 0].drop_duplicates(["seed", "control", "start", "run"])
    empty = pd.DataFrame()
    return RLTables(episodes, empty, log[["seed", "control", "start", "run"]], empty, empty)
