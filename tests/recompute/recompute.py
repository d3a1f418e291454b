"""Every row of the claims table once more, from the recorded tables alone and without the package.

    python tests/recompute/recompute.py [results] [rlheals/claims.yaml]

prints estimate, interval, verdict and Holm-adjusted p of every claim as CSV. Written from the formulas of
`results/README.md`: a second implementation to check the first one, and an example for readers of the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import of_beyond
import of_edits
import of_healing
import of_protection
import of_rl
import of_sft
import of_spectra
import pandas as pd
import yaml
from scipy import stats
from tables import NoData, read


class Part(NamedTuple):
    """Of `claims.yaml`: the end of its folders' names, its estimators, the table and rows that show how far it is
    recorded, and variants of the profile that are read together with it."""

    ending: str
    module: ModuleType
    table: str
    decides: str = "seed > 0"
    variants: tuple[str, ...] = ("",)


PARTS = {
    "sft": Part("", of_sft, "episodes"),
    "recovery": Part("-recovery", of_rl, "episodes", "control == 'main' and run >= 0"),
    "rotation": Part("-rotation", of_spectra, "accuracy", "branch == 'sft'"),
    "swaps": Part("-swaps", of_edits, "effects"),
    "protection": Part("-protection", of_protection, "accuracy"),
    "healing": Part("-healing", of_healing, "episodes", "control == 'rl' and run >= 0", ("", "-75", "-50")),
    "beyond": Part("", of_beyond, "episodes"),
}
COLUMNS = ["part", "id", "estimate", "low", "high", "margin", "verdict", "holm_p"]


def interval(values: Sequence[float], level: float) -> tuple[float, float, float]:
    """Mean and Student's t interval: mean +- t(1/2 + level/2, n - 1) s / sqrt(n)."""
    mean, error = np.mean(values), stats.sem(values)
    reach = stats.t.ppf(0.5 + level / 2, len(values) - 1) * error
    return float(mean), float(mean - reach), float(mean + reach)


def of_ratio(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """One value per base seed with mean H = sum(over) / sum(under): H + (over - H under) / mean(under)."""
    over, under = np.array(pairs, dtype=float).T
    if under.sum() <= 0:
        raise NoData("the denominators do not sum to more than 0")
    share = over.sum() / under.sum()
    return list(share + (over - share * under) / under.mean())


def p_larger(values: Sequence[float], margin: float) -> float:
    """One-sided t test of "the mean is larger than the margin"; equal values leave no doubt."""
    if np.ptp(values) == 0:
        return float(values[0] <= margin)
    return float(stats.ttest_1samp(values, margin, alternative="greater").pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: max over j <= i of min(1, (m - j + 1) p_(j)), p_(1) the smallest of m."""
    adjusted, largest = list(ps), 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def verdict(low: float, high: float, margin: float, partly: bool = True) -> str:
    """What an interval says of "effect > margin"."""
    if low > margin:
        return "holds"
    if partly and low > 0:
        return "holds in part"
    return "not here" if high <= margin else "open"


def values_of(claim: Mapping[str, Any], module: ModuleType, by_seed: Mapping[int, Any]) -> list[float]:
    """The claim's number for every base seed; raises NoData where there is nothing of what it is about."""
    estimator: Callable[..., Any] = getattr(module, claim["estimator"])
    found = [estimator(measured, **claim.get("options", {})) for measured in by_seed.values()]
    return of_ratio(found) if isinstance(found[0], tuple) and np.isfinite(found).all() else found


def measured(name: str, study: Mapping[str, Any], results: Path) -> dict[int, Any]:
    """What a part's estimators take, by base seed; nothing while base seeds, RL seeds or sampling seeds are missing."""
    if name == "beyond":
        return of_tasks(study, results)
    part, by_seed = PARTS[name], {}
    folders = [results / f"{study['profile']}{variant}{part.ending}" for variant in part.variants]
    for seed in study["seeds"]:
        tables = read(folders, seed)
        rows = tables[part.table].query(part.decides) if tables else pd.DataFrame(columns=["decode"])
        repeated = {"decode": study["decodes"], "run": study.get("runs", 0)}
        if any(rows[name].nunique() < count for name, count in repeated.items() if count):
            return {}
        by_seed[seed] = part.module.measured(tables)
    return by_seed


def of_tasks(study: Mapping[str, Any], results: Path) -> dict[int, of_beyond.Seed]:
    """By base seed, what each part makes of each task; nothing while the SFT of a task is not complete."""
    by_seed: dict[int, of_beyond.Seed] = {seed: {} for seed in study["seeds"]}
    for task in of_beyond.TASKS:
        own = {
            "profile": f"{study['profile']}-{task.replace('_', '-')}",
            "seeds": study["seeds"],
            "decodes": 1,
        }
        for chapter, (ending, module) in of_beyond.CHAPTERS.items():
            for seed in study["seeds"]:
                tables = read([results / f"{own['profile']}{ending}"], seed)
                if tables:
                    by_seed[seed][task, chapter] = module.measured(tables)
        if not measured("sft", own | {"decodes": study["decodes"]}, results):
            return {}
    return by_seed


def part_of(name: str, plan: Mapping[str, Any], results: Path) -> list[dict[str, Any]]:
    """The rows of one part of `claims.yaml`.

    A claim of which the study has no data, or not for all base seeds, gets the reason as its verdict. For Holm its p
    is 1.
    """
    study = plan["study"]
    if not (by_seed := measured(name, study, results)):
        return []
    rows, raw = [], {"paper": {}, "ours": {}}
    for claim in plan["claims"]:
        row = {"part": name, "id": claim["id"], "margin": claim["margin"]}
        try:
            values = values_of(claim, PARTS[name].module, by_seed)
            lacking = "" if np.isfinite(values).all() else "not all base seeds"
        except NoData as reason:
            lacking = str(reason)
        if lacking:
            rows.append(row | {"verdict": f"no data: {lacking}"})
            raw[claim["family"]][claim["id"]] = 1.0
            continue
        mean, low, high = interval(values, study["level"])
        said = verdict(low, high, claim["margin"], claim.get("partly", True))
        rows.append(row | {"estimate": mean, "low": low, "high": high, "verdict": said})
        raw[claim["family"]][claim["id"]] = p_larger(values, claim["margin"])
    adjusted = {}
    for ps in raw.values():
        adjusted |= dict(zip(ps, holm(list(ps.values())), strict=True))
    return [row | {"holm_p": adjusted[row["id"]] if "low" in row else np.nan} for row in rows]


def recompute(results: Path, claims: Path, parts: Sequence[str] = tuple(PARTS)) -> pd.DataFrame:
    """Columns `COLUMNS`; the rows of parts of `claims.yaml`, as far as they are recorded."""
    registered = yaml.safe_load(claims.read_text(encoding="utf-8"))
    registered["sft"] = {name: registered[name] for name in ("study", "claims")}  # at the top of the file
    rows = [row for name in parts for row in part_of(name, registered[name], results)]
    return pd.DataFrame(rows, columns=COLUMNS)


if __name__ == "__main__":
    places = [*sys.argv[1:], *("results", "rlheals/claims.yaml")[len(sys.argv) - 1 :]]
    recompute(*map(Path, places)).to_csv(sys.stdout, index=False, float_format="%.6f")
