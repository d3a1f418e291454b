"""Studies with random numbers in the recorded form, with all seeds, starts, edits and arms of a registration.

Nothing in them means anything; two implementations have to agree on them all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from of_edits import PLACES, spelled
from of_healing import HEALED, UNHEALED

HANDS, ATTEMPTS = 48, 5
STEPS = (0, 10, 20, 40, 80, 160, 320, 640)
STARTS = (20, 160, 640, 1280, 1920, 2560, 3840)
KINDS = ("q", "down", "embed")
SHAPES = {"q": (64, 64), "down": (64, 160), "embed": (39, 64)}


def write(folder: Path, registered: Mapping[str, Any], number: int) -> None:
    """All parts of a registration, below a folder; `number` is of the random numbers."""
    for study, (part, make) in MAKERS.items():
        plan = registered if part == "sft" else registered[part]
        for seed in plan["study"]["seeds"]:
            made = make(np.random.default_rng([number, seed, len(study)]), plan["claims"])
            place = folder / study / f"seed-{seed}{'-map' if study.endswith('-healing') else ''}"
            place.mkdir(parents=True)
            for name, rows in made.items():
                rows.assign(seed=seed).to_parquet(place / f"{name}.parquet", index=False)


def grid(**columns: Sequence[Any]) -> pd.DataFrame:
    """A row for every combination."""
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


def options(claims: Sequence[Mapping[str, Any]], *names: str) -> list[str]:
    """The different words that options of these names have."""
    return sorted(
        {value for one in claims for name in names if isinstance(value := one["options"].get(name), str)}
    )


def played(random: np.random.Generator, checkpoints: pd.DataFrame, skill: np.ndarray, splits: Sequence[str],
           decodes: int = 4) -> pd.DataFrame:  # fmt: skip
    """Episodes of checkpoints, each of a skill: the chance that an attempt at a hand of mean difficulty solves it."""
    hands = grid(split=splits, number=range(HANDS), decode=range(decodes))
    rows = checkpoints.assign(skill=skill).merge(hands, how="cross")
    ease = random.normal(size=HANDS)[rows["number"]]
    chance = 1 / (1 + np.exp(-np.log(rows["skill"] / (1 - rows["skill"])) - ease))
    solved = random.geometric(chance)
    either = np.minimum(solved, random.geometric(chance / 2))
    rows["item"] = rows["split"] + "/" + rows["number"].astype(str)
    rows["solved_at"], rows["solved_at_either"] = (np.where(at > ATTEMPTS, 0, at) for at in (solved, either))
    rows["first"] = np.where(random.random(len(rows)) < chance, "no_solution", "illegal_formula")
    rows["first_values_right"] = random.random(len(rows)) < 0.9
    return rows.drop(columns=["skill", "number"])


def sft(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    skill = np.array([0.02, 0.1, 0.3, 0.35, 0.3, 0.2, 0.1, 0.04]) * random.uniform(0.7, 1.3, len(STEPS))
    losses = grid(step=(*STEPS, 5, 15), set=("train", "test", "ood", "batch"))
    losses["loss"] = random.uniform(0.1, 1.0, len(losses))
    episodes = played(random, pd.DataFrame({"step": STEPS}), skill, ("sft", "held_out", "ood"))
    none = pd.DataFrame({"rule": [], "category": []})
    return {"episodes": episodes, "losses": losses, "bases": pd.DataFrame({"base_step": [900]}),
            "categories": none, "rules": none}  # fmt: skip


def recovery(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    main = grid(control=("main",), start=STARTS, run=(-1, 0, 1))
    other = grid(control=options(claims, "control"), start=(1280,), run=(0,))
    cells = pd.concat([main, other], ignore_index=True)
    fall = dict(zip(STARTS, (0.25, 0.3, 0.24, 0.12, 0.08, 0.03, 0.002), strict=True))
    skill = cells["start"].map(fall) * (1 + (cells["run"] >= 0) * random.uniform(-0.2, 1.2, len(cells)))
    runs = cells[cells["run"] >= 0]
    log = runs.merge(grid(update=range(1, 9)), how="cross")
    log["advantage_entropy"] = random.uniform(2, 3, len(log))
    log["advantage_positive"] = random.uniform(0.3, 0.9, len(log))
    losses = runs.merge(grid(update=(0, 10), set=("train", "test", "ood")), how="cross")
    losses["loss"] = random.uniform(0.1, 0.12, len(losses))
    episodes = played(random, cells, skill.to_numpy(), ("sft", "held_out", "ood"))
    return {"episodes": episodes, "log": log, "losses": losses, "categories": runs, "advantages": runs}


def counted(random: np.random.Generator, checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Hands and how many of them were solved, by split and sampling seed."""
    rows = checkpoints.merge(grid(split=("sft", "held_out", "ood"), decode=(0, 1)), how="cross")
    return rows.assign(hands=200, solved=random.integers(20, 180, len(rows)), first=10)


def matrices(**columns: Sequence[Any]) -> pd.DataFrame:
    rows = grid(kind=KINDS, layer=(0, 1), **columns)
    shape = pd.DataFrame(rows["kind"].map(SHAPES).to_list(), columns=["rows", "columns"])
    return rows.join(shape).assign(tensor=rows["kind"] + rows["layer"].astype(str))


def rotation(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    seen = [f"{way}-{start}" for way in ("back", "on") for start in (1280, 1920)]
    pairs = [*options(claims, "pair"), *seen]
    changes = matrices(pair=pairs, what=("change", "gaussian", "permuted"), head=(-1, 0))
    for by in ("mean", "median", "energy"):
        changes[f"value_change_{by}"] = random.uniform(0.01, 0.08, len(changes)).astype("float32")
    angles = matrices(pair=pairs, what=("change", "gaussian", "start"), side=("left", "right"),
                      end=("top", "bottom"), k=(2, 4, 8, 9, 16, 19, 32), head=(-1, 0))  # fmt: skip
    angles["mean"] = random.uniform(1, 60, len(angles)).astype("float32")
    angles = angles.assign(low=0.0, high=0.0)
    heat = grid(pair=options(claims, "pair"), kind=KINDS, left=range(12), right=range(10))
    heat["energy"] = random.uniform(0.1, 3, len(heat)).astype("float32")
    branches = [("sft", -1)] + [(name, -1) for name in ("lr-1e-4", "lr-1e-3", "decay-0.3", "batch-16")]
    branches += [("rl", start) for start in STARTS] + [("rejection", 1280), ("ood-rule", 1280)]
    points = pd.DataFrame(
        [(*one, step) for one in branches for step in (STEPS if one[1] < 0 else (80,))],
        columns=["branch", "start", "step"],
    )
    path = points.merge(matrices(part=(16, 4)), how="cross")
    place = np.sqrt(path["step"] + path["start"].clip(lower=0))
    path["change_norm"] = place * random.uniform(0.9, 1.1, len(path))
    path = path.assign(norm=10.0, angle=place * random.uniform(0.5, 1.5, len(path)), gaussian=1.0)
    behaviour, none = points.assign(kl=1.0), pd.DataFrame({"index": []})
    return {"angles": angles, "changes": changes, "heat": heat, "path": path, "behaviour": behaviour,
            "accuracy": counted(random, points), "values": none, "curves": none,
            "peaks": pd.DataFrame({"peak": [40]})}  # fmt: skip


def swaps(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    where = [spelled(each) for each in options(claims, "where")]
    edits = grid(kind=("restore", "swap", "other"), edit=[*options(claims, "edit", "control"), "rollback()"],
                 where=where).drop_duplicates()  # fmt: skip
    anchors = grid(kind=("anchor",), edit=("peak", "late", "start", "rl", "other-peak"), where=("",))
    effects = counted(random, pd.concat([edits, anchors], ignore_index=True))
    known = effects["edit"].map({"peak": 150, "late": 60, "rl": 100, "other-peak": 145}).fillna(90)
    effects["solved"] = (known + random.integers(-15, 15, len(effects))).astype(int)
    sizes = edits.assign(edit_norm=random.uniform(0.1, 3, len(edits)), distance=3.0, left=1.0, kl_origin=1.0,
                         kl_target=1.0)  # fmt: skip
    return {"effects": effects, "sizes": sizes, "peaks": pd.DataFrame({"peak": [40]})}


def protection(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    ways = grid(way=["sft", *options(claims, "way", "other")], step=STEPS[1:])
    return {"accuracy": counted(random, ways), "penalties": ways}


def healing(random: np.random.Generator, claims: Any, ability: float = 0.9) -> dict[str, pd.DataFrame]:
    states = (10, 50, 90)
    arms = [*options(claims, "arm", "other"), HEALED]
    edits = [f"edit of {UNHEALED}: {entry.replace('blocks', PLACES['blocks'])}"
             for entry in options(claims, "edit", "than")]  # fmt: skip
    cells = pd.concat([
        grid(control=("sft",), start=(0, *states), run=(-1,)),
        grid(control=arms, start=states, run=(0, 1, 2)),
        grid(control=("dft", "fused"), start=(50,), run=(-1,)),  # with a start of their own
        grid(control=edits, start=(50,), run=(0,)),
    ], ignore_index=True)  # fmt: skip
    cells = cells.drop_duplicates().assign(ability=ability)
    fall = {0: 0.45, 10: 0.35, 50: 0.12, 90: 0.03}
    more = random.uniform(0, 0.1, len(cells)) + 0.15 * (cells["control"] == HEALED)
    skill = cells["start"].map(fall) + (cells["run"] >= 0) * more
    path = matrices(control=(HEALED, UNHEALED, "rl"), start=(50, 90), seen_from=(-1, 0), part=(4, 16),
                    update=(0, 5, 20, 80))  # fmt: skip
    path["folder"] = path["update"].map("update-{:05d}".format)
    path["change_norm"] = np.sqrt(path["update"]) * random.uniform(0.9, 1.1, len(path))
    path = path.assign(run=0, norm=10.0, angle=random.uniform(10, 40, len(path)), ability=ability)
    none = cells.head(0)
    return {"episodes": played(random, cells, skill.to_numpy(), ("ood", "control")), "path": path,
            "steps": pd.DataFrame({"state": [0, *states], "step": [80, 480, 1920, 5120], "ability": ability}),
            "categories": none, "log": none, "advantages": none, "losses": none, "sizes": none}  # fmt: skip


def turns(random: np.random.Generator, claims: Any) -> dict[str, pd.DataFrame]:
    """SFT of navigation, where every fourth item is the first turn of its route."""
    made = sft(random, claims)
    number = made["episodes"]["item"].str.rsplit("/").str[-1].astype(int)
    return made | {"episodes": made["episodes"].assign(turn=number % 4 + 1)}


MAKERS = {
    "lab": ("sft", sft), "lab-recovery": ("recovery", recovery), "lab-rotation": ("rotation", rotation),
    "lab-swaps": ("swaps", swaps), "lab-protection": ("protection", protection),
    "lab-healing": ("healing", healing), "lab-50-healing": ("healing", partial(healing, ability=0.5)),
    "lab-navigation": ("beyond", turns), "lab-determinant-rules": ("beyond", sft),
    **{f"lab-{task}-{part}": ("beyond", make) for task in ("navigation", "determinant-rules")
       for part, make in (("healing", healing), ("rotation", rotation), ("swaps", swaps))},
}  # fmt: skip
"""By folder, the part of the registration, and what makes it."""
