"""A whole study of chapter 05 made by hand: five base seeds, three abilities, every second stage, at known levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rlheals.chapters.healing.runs import BEFORE, HEALED, UNHEALED, HealingTables, edit_arm
from rlheals.study.claims import half_of
from rlheals.study.peaks import PEAK, STATES

HANDS = [f"ood/{number}" for number in range(60)]
MAP = ("rl", "rl-varied", "rl-familiar", "imitate-varied", "imitate-familiar", "expert-varied")
ARMS = ("imitate", "expert", "kl-base", "slow", "fused", "replay", "small-rate", "dft", "lora", "protected")
EDITS = (
    "values(all) @ blocks", "directions(all) @ blocks", "rollback() @ blocks",
    "rollback() like directions(all) @ blocks", "noise() like directions(all) @ blocks",
    "directions(all) @ matrices",
)  # fmt: skip
TOP = {1.0: 0.8, 0.9: 0.8, 0.75: 0.6, 0.5: 0.4}
"""The peak by ability of the base."""
BACK = {"rl": 0.1, UNHEALED: 0.2}
"""Share of the loss that a second stage brings back; of all others 0.9."""
SPLITS = ("ood", "control", "held_out")


def cell(
    seed: int, arm: str, state: int, run: int, level: float, ability: float, noise: np.random.Generator
) -> pd.DataFrame:
    """So many hands of either half solved at once, by every sampling seed."""
    frames = []
    for split in SPLITS:
        level_here = min(1.0, max(0.0, level + noise.normal(0, 0.03)))
        number = [sum(half_of(one) == half for one in HANDS) for half in (0, 1)]
        left = [round(level_here * count) for count in number]
        solved = []
        for hand in HANDS:
            half = half_of(hand)
            solved.append(int(left[half] > 0))
            left[half] -= 1
        frames.append(pd.DataFrame({"item": HANDS, "split": split, "solved_at": solved}))
    rows = pd.concat(frames)
    rows = rows.assign(solved_at_either=rows["solved_at"], first_values_right=True)
    decodes = [rows.assign(decode=decode) for decode in range(4)]
    return pd.concat(decodes).assign(seed=seed, control=arm, start=state, run=run, ability=ability)


def path(seed: int, arm: str, state: int) -> pd.DataFrame:
    """Of a run: how far from its start and at what angle to the peak; the one that heals turns back."""
    turn = -4.0 if arm == HEALED else 1.0
    rows = [
        {"folder": f"update-{number:05d}", "change_norm": number + seed / 100, "angle": 30 + turn * number,
         "seen_from": seen_from, "part": 4}
        for number in range(4) for seen_from in (PEAK, -1)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(seed=seed, control=arm, start=state, run=0)


def study(
    seeds: Sequence[int] = (11, 12, 13, 14, 15),
    states: Iterable[int] = STATES,
    abilities: Sequence[float] = (0.9, 0.75, 0.5),
    runs: int = 3,
) -> HealingTables:
    """With every unit of the lab; states: that SFT reaches."""
    episodes, steps, log, paths = [], [], [], []
    for seed in seeds:
        noise = np.random.default_rng(seed)
        for ability in abilities:
            top = TOP[ability]
            episodes.append(cell(seed, BEFORE, PEAK, -1, top, ability, noise))
            for state in (PEAK, *states):
                steps.append(
                    {"state": state, "step": 80 + 10 * state, "unit": "map", "seed": seed, "ability": ability}
                )
            for state in states:
                start = top * (1 - state / 100)
                episodes.append(cell(seed, BEFORE, state, -1, start, ability, noise))
                more = ARMS if ability == max(abilities) and state == STATES[1] else ()
                for arm in (*MAP, *more):
                    for run in range(runs if ability == max(abilities) and arm in ("rl", "rl-varied") else 1):
                        after = start + BACK.get(arm, 0.9) * (top - start)
                        episodes.append(cell(seed, arm, state, run, after, ability, noise))
                        if arm.startswith(("rl", "expert-varied")):
                            of = {
                                "seed": seed,
                                "control": arm,
                                "start": state,
                                "run": run,
                                "ability": ability,
                            }
                            log += [
                                {"update": update, "zero_variance": state / 120, "entropy": 0.5 - state / 300, **of}
                                for update in (1, 2)
                            ]  # fmt: skip
                if ability == max(abilities) and state in STATES[1:]:
                    paths += [
                        path(seed, arm, state).assign(ability=ability) for arm in ("rl", UNHEALED, HEALED)
                    ]
                    for entry in EDITS:
                        for target in (UNHEALED, HEALED):
                            level = start + (0.6 if "directions" in entry else 0.3) * (top - start)
                            episodes.append(
                                cell(seed, edit_arm(target, entry), state, 0, level, ability, noise)
                            )
    none = pd.DataFrame({"seed": [], "control": []})
    joined = [pd.concat(frames, ignore_index=True) if frames else none for frames in (episodes, paths)]
    return HealingTables(
        episodes=joined[0], categories=none, log=pd.DataFrame(log) if log else none, advantages=none, losses=none,
        steps=pd.DataFrame(steps), path=joined[1], sizes=none,
    )  # fmt: skip
