"""What the page "Play" shows without a model: how the fresh runs' checkpoints answered every OOD hand, by attempt.

From the evaluations' own tables. An answer counts in the format of pretraining too, so that a base is not wrong for its
format alone. Like weights, attempts are a script for each checkpoint: a page that was opened from a disk loads nothing
else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlheals.chapters.rl import runs as rl
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.store.store import Store
from rlheals.study.plan import plan

INDEX = "hands.js"
SPLIT = "ood"
OUTCOMES = (
    "solved at once", "solved after feedback", "values right, not 24", "read under the ID rule", "other values",
    "unreadable",
)  # fmt: skip
"""Of a hand: whether it is solved, else what its first attempt was."""


class Asked(NamedTuple):
    """A checkpoint: part of its file's name; SFT step, for RL that of its start; its table of attempts."""

    key: str
    step: int
    is_rl: bool
    attempts: pd.DataFrame


def files(chapter: SFTChapter, store: Store) -> dict[str, str]:
    """By name the scripts: the outcomes of all hands, and for every checkpoint the attempts behind them."""
    about: dict[str, Any] = {"outcomes": OUTCOMES, "hands": [], "checkpoints": []}
    made = dict[str, str]()
    for one in asked(chapter, store):
        hands = list(dict.fromkeys(one.attempts["item"]))
        about["hands"] = about["hands"] or [item.partition("/")[2].split("-") for item in hands]
        name = f"attempts-{one.key}.js"
        said = {"key": one.key, "step": one.step, "rl": one.is_rl, "file": name}
        about["checkpoints"].append({**said, "hands": "".join(map(str, outcomes(one.attempts)))})
        by_hand = [_short(rows) for _, rows in one.attempts.groupby("item", sort=False)]
        made[name] = f"Play.attempted({json.dumps(one.key)}, {json.dumps(by_hand, separators=(',', ':'))});\n"
    return made | {INDEX: f"Play.mosaic = {json.dumps(about, separators=(',', ':'))};\n"}


def asked(chapter: SFTChapter, store: Store) -> Iterator[Asked]:
    """Every checkpoint of the fresh seed's SFT and, from every start, of RL, as far as the store has its evaluation."""
    profile, seed = chapter.profile.for_reader(recorded=True), chapter.fresh.seeds[0]
    of_sft, of_rl = plan(profile, seed, store).censuses, rl.plan(profile, seed, store).censuses
    listed = [(f"sft-{step}", step, False, spec) for (step, decode), spec in of_sft.items() if decode == 0]
    listed += [
        (f"after-rl-{cell.start}", cell.start, True, of_rl[cell, 0])
        for cell in dict.fromkeys(cell for cell, _ in of_rl)
        if (cell.control, cell.run) == (rl.MAIN, 0)
    ]
    for key, step, is_rl, spec in sorted(listed, key=lambda one: (one[2], one[1])):
        if store.has(store.key(spec)) and len(found := _of(store.load(store.key(spec)).path)):
            yield Asked(key, step, is_rl, found)


def _of(path: Path) -> pd.DataFrame:
    """Attempts at OOD hands: those of the protocol "either" where it differs from "target"."""
    rows = pd.read_parquet(path / "attempts.parquet")
    rows = rows[rows["split"] == SPLIT]
    place = {item: at for at, item in enumerate(dict.fromkeys(rows["item"]))}
    again = set(rows.loc[rows["protocol"] == "either", "item"])
    chosen = rows[(rows["protocol"] == "either") | ~rows["item"].isin(again)]
    return chosen.assign(place=chosen["item"].map(place)).sort_values(["place", "attempt"], kind="stable")


def outcomes(attempts: pd.DataFrame) -> list[int]:
    """Of every hand, in order: the place in `OUTCOMES`."""
    first = attempts[attempts["attempt"] == 1].set_index("item")
    at = attempts.loc[attempts["category"] == "correct"].set_index("item")["attempt"].reindex(first.index)
    kinds = (
        at == 1,
        at > 1,
        first["values_right"],
        first["values_as_id"],
        (first["layout"] != "none") & (first["category"] != "illegal_formula"),
    )
    return [int(place) for place in np.select(list(map(np.asarray, kinds)), range(len(kinds)), len(kinds))]


def _short(attempts: pd.DataFrame) -> list[list[str | None]]:
    """Of each attempt of a lab model the formula, or null and what was written instead."""
    read = map(json.loads, attempts["text"])
    return [[one["formula"]] if "formula" in one else [None, one["text"]] for one in read]
