"""Does a fresh run belong to the recorded study? A handful of numbers against one simultaneous prediction interval.

With Bonferroni's correction all numbers of an honest run lie inside in at least 95 % of repetitions, if numbers are
about normal over seeds. What is recorded is cut down to what a fresh run has (first sampling seed, first RL seed, the
same checkpoints), so that both are the same draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlheals.chapters.expected import FEWEST_SEEDS, prediction_interval
from rlheals.chapters.rl.runs import MAIN, RLChapter, RLTables
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.tables import Tables

LAST_UPDATES = 10


@dataclass(frozen=True)
class Compared:
    """A number of the fresh run with the interval in which it is expected."""

    name: str
    about: str
    value: float
    low: float
    high: float
    recorded: tuple[float, ...]

    @property
    def agrees(self) -> bool:
        """Whether it lies inside."""
        return self.low <= self.value <= self.high


def compare(
    profile: str | Profile,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = Path("results"),
    store: Store | None = None,
    quiet: bool = False,
) -> list[Compared]:
    """The named numbers of the reader's fresh runs beside the recorded study; BadInput when too little is recorded."""
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    sft, _ = record.find(chosen.name, SFTChapter.PART, project_root() / results)
    rl, _ = record.find(chosen.name, RLChapter.PART, project_root() / results)
    counts = {kind: len(found.seeds) if found else 0 for kind, found in (("SFT", sft), ("RL", rl))}
    few = {kind: count for kind, count in counts.items() if count < FEWEST_SEEDS}
    if sft is None or rl is None or few:
        said = " and ".join(f"{kind} of {count}" for kind, count in few.items())
        raise BadInput(
            f"--compare {str(results)!r}: {said} base seeds of {chosen.name} are recorded there; "
            f"an interval needs {FEWEST_SEEDS}"
        )
    first = SFTChapter.open(chosen, seeds, workers, results, store, quiet)
    second = RLChapter.open(chosen, seeds, workers, results, store, quiet)
    steps, starts = first.fresh.steps, [start for start in second.fresh.starts if start in rl.starts]
    fresh = numbers(first.fresh, second.fresh, steps, starts).values()
    means = {name: float(np.mean([one[name] for one in fresh])) for name in ABOUT}
    return judged(numbers(sft, rl, steps, starts), means, len(fresh))


def judged(
    recorded: Mapping[int, Mapping[str, float]], fresh: Mapping[str, float], seeds: int = 1
) -> list[Compared]:
    """Every number with its interval, from the base seeds that have it recorded.

    seeds: how many fresh base seeds the value is the mean of.
    """
    found = []
    for name, about in ABOUT.items():
        values = np.array([numbers[name] for numbers in recorded.values() if name in numbers])
        low, high = prediction_interval(values, len(ABOUT), seeds)
        found.append(Compared(name, about, fresh[name], low, high, tuple(map(float, values))))
    return found


def numbers(
    sft: Tables, rl: RLTables, steps: Sequence[int], starts: Sequence[int]
) -> dict[int, dict[str, float]]:
    """The named numbers of each base seed, from these checkpoints and starts alone; those of RL where it has RL."""
    middle = sorted(starts)[len(starts) // 2]
    return {
        seed: {
            **_of_sft(sft.of_seed(seed), steps, middle),
            **(_of_rl(rl.of_seed(seed), middle) if seed in rl.seeds else {}),
        }
        for seed in sft.seeds
    }


def _of_sft(sft: Tables, steps: Sequence[int], middle: int) -> dict[str, float]:
    rows = sft.episodes[(sft.episodes["decode"] == 0) & sft.episodes["step"].isin(list(steps))]
    solved = (rows["solved_at"] > 0).groupby([rows["split"].astype(str), rows["step"]]).mean()
    return {
        "id-end": float(solved.get(("sft", max(steps)), math.nan)),
        "ood-peak": max(float(solved.get(("ood", step), math.nan)) for step in steps if step > 0),
        "ood-feedback": _surer(sft.categories, [step for step in steps if step >= middle]),
    }


def _of_rl(rl: RLTables, start: int) -> dict[str, float]:
    def chosen(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["control"] == MAIN) & (rows["start"] == start) & (rows["run"] <= 0)]

    played = chosen(rl.episodes[(rl.episodes["decode"] == 0) & (rl.episodes["split"] == "rl")])
    share = (played["solved_at"] > 0).groupby(played["run"]).mean()
    solved = chosen(rl.log).sort_values("update")["solved"]
    return {
        "rl-gain": float(share.get(0, math.nan) - share.get(-1, math.nan)),
        "rl-learns": float(solved.tail(LAST_UPDATES).mean() - solved.head(LAST_UPDATES).mean()),
    }


ABOUT = {
    "id-end": "success@5 with feedback on ID hands of the SFT split, last checkpoint",
    "ood-peak": "success@5 with feedback on OOD hands, best checkpoint",
    "ood-feedback": "log of entropy after the first feedback over entropy before, same OOD hands, later checkpoints",
    "rl-gain": "gain in success@5 by RL from the middle start checkpoint, on hands that only RL trains on",
    "rl-learns": "training episodes of RL that are solved, last ten iterations less first ten, middle start checkpoint",
}


def _surer(counts: pd.DataFrame, steps: Sequence[int]) -> float:
    """0 if second attempts are drawn as the failed first ones were, as when feedback does not arrive."""
    chosen = (counts["split"] == "ood") & (counts["protocol"] == "target") & (counts["decode"] == 0)
    rows = counts[chosen & counts["step"].isin(steps)]
    first, second = rows[(rows["attempt"] == 1) & (rows["category"] != "correct")], rows[rows["attempt"] == 2]
    each = [part["entropy"].sum() / part["attempts"].sum() for part in (second, first)]
    return float(np.log(each[0] / each[1]))
