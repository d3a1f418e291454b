"""What the page "Explore" draws: recorded curves of SFT by base seed, RL from its starts, and every OOD hand by step.

One script with all numbers; shares are rounded to four digits, those of the atlas to tenths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.chapters.rl import runs as rl
from rlheals.chapters.rows import only
from rlheals.chapters.sft.measures import share
from rlheals.chapters.sft.runs import SFTChapter

DATA = "data.js"
SPLITS = {"ood": "OOD", "sft": "ID, hands of SFT", "held_out": "ID, held-out hands"}


def script(chapter: SFTChapter, results: Path) -> str:
    """The page's data, or why there are none."""
    if chapter.recorded is None:
        note = {"note": f"No results are recorded for profile {chapter.profile.name}."}
        return f"globalThis.Explored = {json.dumps(note)};\n"
    recorded = {chapter.profile.name: chapter.recorded, **chapter.variants}
    found, _ = rl.RLChapter.find(chapter.profile, results)
    about: dict[str, Any] = {"splits": SPLITS, "measures": _measures(chapter.profile.evaluate.attempts)}
    about["studies"] = {name: _curves(study.episodes, about["measures"]) for name, study in recorded.items()}
    after = None if found is None else only(found.episodes, control=rl.MAIN)
    about["rl"] = [] if after is None else _rl(after[after["run"] >= 0], about["measures"])
    about["atlas"] = atlas(chapter.recorded.episodes, after)
    return f"globalThis.Explored = {json.dumps(about, separators=(',', ':'))};\n"


def _measures(attempts: int) -> dict[str, str]:
    """By name in tables, what the page calls them."""
    within = f"success@{attempts}"
    return {
        within: f"{within} with feedback",
        "pass@1": "pass@1",
        f"{within} either": f"{within} with feedback, format-agnostic",
        "pass@1 either": "pass@1, format-agnostic",
        "unreadable": "unreadable first attempts",
    }


def _curves(episodes: pd.DataFrame, measures: Iterable[str]) -> dict[str, Any]:
    """By measure, split and base seed one value per step, null where there is none."""
    steps = sorted(map(int, episodes["step"].unique()))
    seeds = sorted(map(int, episodes["seed"].unique()))
    found: dict[str, Any] = {"steps": steps, "seeds": seeds}
    for name in measures:
        found[name] = {}
        for split in SPLITS:
            table = share(only(episodes, split=split), name).pivot_table(
                index="seed", columns="step", values="value"
            )
            table = table.reindex(index=seeds, columns=steps)
            found[name][split] = [[_number(value) for value in row] for row in table.to_numpy()]
    return found


def _rl(episodes: pd.DataFrame, measures: Iterable[str]) -> list[dict[str, Any]]:
    """One entry per base seed, start and RL seed: by measure and split its value after RL."""
    runs: dict[tuple[int, ...], dict[str, Any]] = {}
    for name in measures:
        for split in SPLITS:
            for row in share(only(episodes, split=split), name, ("seed", "start", "run")).itertuples():
                key = (int(row.seed), int(row.start), int(row.run))
                runs.setdefault(key, {}).setdefault(name, {})[split] = _number(row.value)
    return [
        {"seed": seed, "start": start, "run": run, **found}
        for (seed, start, run), found in sorted(runs.items())
    ]


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)


def atlas(sft: pd.DataFrame, after: pd.DataFrame | None) -> dict[str, Any]:
    """Every OOD hand: in how many tenths of the evaluations it is solved, by SFT step and after RL by its start.

    An answer in either format counts. Hands are ordered by the last step at which most evaluations solve them, so that
    what is lost first stands last.
    """
    columns = {"sft": _tenths(sft, "step")}
    if after is not None:
        columns["rl"] = _tenths(after[after["run"] >= 0], "start")
    of_sft = columns["sft"]
    last = (of_sft >= 5).mul(list(range(1, of_sft.shape[1] + 1)), axis=1).max(axis=1)
    order = (
        pd.DataFrame({"last": last, "sum": of_sft.sum(axis=1)})
        .sort_values(["last", "sum"], ascending=False)
        .index
    )
    return {
        "hands": [str(item).partition("/")[2].split("-") for item in order],
        **{
            name: [{"at": int(at), "tenths": "".join(map(str, table.loc[order, at]))} for at in table.columns]
            for name, table in columns.items()
        },
    }


def _tenths(episodes: pd.DataFrame, by: str) -> pd.DataFrame:
    """Rows: OOD hands; columns: values of `by`; 0 to 9, 9 where nine tenths or more solve it."""
    ood = only(episodes, split="ood")
    solved = (ood["solved_at_either"] > 0).groupby([ood["item"].astype(str), ood[by]]).mean().unstack()
    return (solved.fillna(0) * 10).clip(upper=9).astype(int)
