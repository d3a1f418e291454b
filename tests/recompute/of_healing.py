"""Estimators of chapter 5. Starts are chosen on half 0 of the hands, all accuracies are those of half 1.

pass4, mean over the RL seeds of an arm; a start is that of the arm if it has its own, else the checkpoint of plain SFT.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from of_edits import spelled
from tables import Tables, halved, rate

PLAIN, PEAK = "sft", 0
HEALED, UNHEALED = "rl-varied", "rl-familiar"


class Seed:
    def __init__(self, tables: Tables) -> None:
        rows = halved(tables["episodes"])
        rows = rows[rows["half"] == 1]
        self.able = rows["ability"].max()
        self.tries = rows["decode"].nunique()
        self._rows = dict(tuple(rows.groupby(["ability", "control", "start", "split", "run"])))
        self.path = (
            tables["path"][tables["path"]["part"] == 4] if "part" in tables["path"] else tables["path"]
        )
        self.of = lru_cache(maxsize=None)(self._of)

    def _of(
        self, arm: str, state: int, after: bool, split: str = "ood", ability: float | None = None
    ) -> float:
        """pass@k of k sampling seeds (4), in either format; of the ablest base unless it says otherwise."""
        ability = self.able if ability is None else ability
        here = [
            run for *place, run in self._rows if place == [ability, arm, state, split] and (run >= 0) == after
        ]
        found = [
            rate(self._rows[ability, arm, state, split, run], f"pass@{self.tries} either") for run in here
        ]
        if not found and not after and arm != PLAIN:
            return self._of(PLAIN, state, False, split, ability)
        return float(np.mean(found)) if found else float("nan")

    def loss(self, state: int, arm: str = PLAIN, **where: object) -> float:
        """acc(peak) - acc(start)."""
        return self.of(PLAIN, PEAK, False, **where) - self.of(arm, state, False, **where)

    def gain(self, arm: str, state: int, **where: object) -> float:
        """acc(after) - acc(start)."""
        return self.of(arm, state, True, **where) - self.of(arm, state, False, **where)

    def along(self, arm: str, state: int, seen_from: int) -> pd.DataFrame:
        """By checkpoint of a run: |dW| over all matrices and mean angle (degrees), from one checkpoint or another."""
        rows = self.path
        rows = rows[(rows["control"] == arm) & (rows["start"] == state) & (rows["seen_from"] == seen_from)]
        by = rows.groupby("folder")
        return pd.DataFrame({"size": by["change_norm"].apply(np.linalg.norm), "angle": by["angle"].mean()})


def measured(tables: Tables) -> Seed:
    return Seed(tables)


def loss_unlike(seed: Seed, state: int, split: str) -> float:
    """loss under the OOD rule - loss on another split."""
    return seed.loss(state) - seed.loss(state, split=split)


def regained(seed: Seed, arm: str, state: int, **where: object) -> tuple[float, float]:
    """(after - start, peak - start)."""
    return seed.gain(arm, state, **where), seed.loss(state, arm, **where)


def regained_over(seed: Seed, arm: str, other: str, state: int) -> tuple[float, float]:
    """(gain of one arm - gain of the other, peak - start)."""
    return seed.gain(arm, state) - seed.gain(other, state), seed.loss(state)


def regained_alike(seed: Seed, arm: str, other: str, state: int, share: float) -> tuple[float, float]:
    """(share (peak - start) - |gain of one arm - gain of the other|, peak - start)."""
    between, loss = regained_over(seed, arm, other, state)
    return share * loss - abs(between), loss


def regained_by_ability(seed: Seed, arm: str, state: int, able: float, other: float) -> float:
    """gain / loss of an able base - gain / loss of a less able one."""
    one, less = (seed.gain(arm, state, ability=of) / seed.loss(state, ability=of) for of in (able, other))
    return one - less


def ends_over(seed: Seed, arm: str, other: str, state: int) -> float:
    """acc(after one arm) - acc(after another)."""
    return seed.of(arm, state, True) - seed.of(other, state, True)


def turns_back(seed: Seed, state: int) -> float:
    """Angle to the peak of the run that does not heal - that of the run that does, both where |dW| from their start is
    what the shorter run reaches; interpolated between checkpoints."""
    sizes = {arm: seed.along(arm, state, -1)["size"] for arm in (HEALED, UNHEALED)}
    reach = min(size.iloc[-1] for size in sizes.values())
    angle = {
        arm: np.interp(reach, size, seed.along(arm, state, PEAK)["angle"]) for arm, size in sizes.items()
    }
    return float(angle[UNHEALED] - angle[HEALED])


def _edited(seed: Seed, state: int, entry: str) -> float:
    """acc(the run that does not heal, edited with the one that does)."""
    edit, where = entry.split(" @ ")
    return seed.of(f"edit of {UNHEALED}: {edit} @ {spelled(where)}", state, True)


def restores(seed: Seed, state: int, edit: str, than: str) -> float:
    """acc(edited one way) - acc(edited another way)."""
    return _edited(seed, state, edit) - _edited(seed, state, than)


def edit_regains(seed: Seed, state: int, edit: str) -> tuple[float, float]:
    """(acc(edited) - acc(unhealed), acc(healed) - acc(unhealed))."""
    without = seed.of(UNHEALED, state, True)
    return _edited(seed, state, edit) - without, seed.of(HEALED, state, True) - without


def edit_regains_little(seed: Seed, state: int, edit: str, share: float) -> tuple[float, float]:
    """(share (acc(healed) - acc(unhealed)) - brought, acc(healed) - acc(unhealed))."""
    brought, between = edit_regains(seed, state, edit)
    return share * between - brought, between
