"""What a run under `smoke` gave when the notebooks' references were made, and what a new run may differ from it by.

Floating point differs in its last bits between processors, so that a run is compared with intervals: what the shipped
weights solve may change by two hands; what training produces has to lie where `prediction_interval` puts one
more SFT seed, given those measured here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rlheals.chapters.expected import prediction_interval
from rlheals.engines import load_engine
from rlheals.engines.hf import Sampling
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.evaluation.rollout import rollout
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.stage import no_tick
from rlheals.store.files import atomic_write
from rlheals.store.machine import Machine, this_machine
from rlheals.store.runs import library_versions
from rlheals.store.store import Store
from rlheals.study.jobs import run_unit
from rlheals.study.plan import Plan, plan
from rlheals.study.tables import Tables, collect
from rlheals.tasks import load_task

FILE = Path(str(resources.files("rlheals.chapters"))) / "smoke.json"
SEEDS = (0, 1, 2, 3, 4, 5)
SHIPPED_HANDS = 128
HANDS_APART = 2
"""The shipped weights under greedy sampling may solve this many hands more or fewer."""
PASS_AT_1, SUCCESS_AT_5 = "pass@1", "success@5"
LARGEST_CHANGE = {
    PASS_AT_1: 1.0,
    SUCCESS_AT_5: 1.0,
    "reward of first attempts": 8.0,
    "reward of all attempts": 20.0,
}
"""What one hand can change: from solved (+5) to unreadable (-3), once, or in five attempts instead of one."""
LEAST = {"loss": 0.02, "hands": 2.0}
"""An interval of trained values reaches at least this far from the mean (nats; hands)."""
Interval = tuple[float, float]


class References(BaseModel):
    """All that the file holds: one value per name for the shipped weights, one per SFT seed for trained ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=5, description="SFT seeds, all from the shipped base")
    versions: dict[str, str]
    machine: Machine
    shipped: dict[str, float]
    trained: dict[str, tuple[float, ...]]


def read(file: Path = FILE) -> References:
    """The references; BadInput when the file is missing or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"references {file.name!r} cannot be read ({str(error)[:80]})") from None
    return validated(References, data, f"references {file.name}")


def shipped_interval(name: str, value: float) -> Interval:
    """Lowest and highest accepted value for the shipped weights: 2 hands, or what 2 hands can change, either way.

    >>> shipped_interval("OOD, success@5", 19)
    (17.0, 21.0)
    """
    width = HANDS_APART * LARGEST_CHANGE[name.split(", ")[-1]]
    return value - width, value + width


def trained_interval(name: str, values: Sequence[float], numbers: int = 1, seeds: int = 1) -> Interval:
    """Where the mean of `seeds` more seeds falls in 95 % of cases, `numbers` such values at once; never below `LEAST`.

    >>> [round(bound, 2) for bound in trained_interval("OOD, success@5", (3, 4, 5, 4, 4))]
    [1.85, 6.15]
    """
    found = np.asarray(values, dtype=float)
    low, high = prediction_interval(found, numbers, seeds)
    least = LEAST["loss" if "loss" in name else "hands"]
    return min(low, float(found.mean()) - least), max(high, float(found.mean()) + least)


def shipped_values() -> dict[str, float]:
    """Greedy attempts of the shipped base at the first 128 ID and 128 OOD hands, with feedback, format-agnostic."""
    task, engine = load_task("general_points"), load_engine(SHIPPED_BASE)
    items = [item for split in ("id", "ood") for item in task.items(split)[:SHIPPED_HANDS]]
    dialect, keys = dialect_for(engine.tokenizer, task), [item.id for item in items]
    played = rollout(engine, dialect, task, items, keys, Sampling(temperature=0), protocol="either")
    values: dict[str, float] = {}
    for name, episodes in (("ID", played[:SHIPPED_HANDS]), ("OOD", played[SHIPPED_HANDS:])):
        rewards = [[attempt.verdict.reward for attempt in episode.attempts] for episode in episodes]
        values[f"{name}, {PASS_AT_1}"] = sum(episode.solved_at == 1 for episode in episodes)
        values[f"{name}, {SUCCESS_AT_5}"] = sum(episode.solved_at > 0 for episode in episodes)
        values[f"{name}, reward of first attempts"] = sum(row[0] for row in rewards)
        values[f"{name}, reward of all attempts"] = sum(map(sum, rewards))
    return values


def trained_values(tables: Tables, step: int | None = None) -> dict[str, float]:
    """Losses (nats per token) and solved hands of one base seed at the last step, or the last one up to `step`."""
    losses, episodes = tables.losses, tables.episodes
    if step is not None:
        losses, episodes = losses[losses["step"] <= step], episodes[episodes["step"] <= step]
    last = losses[losses["step"] == losses["step"].max()]
    values = {f"{row.set} loss": float(row.loss) for row in last.sort_values("set").itertuples()}
    final = episodes[(episodes["step"] == episodes["step"].max()) & (episodes["decode"] == 0)]
    for split, rows in final.groupby(final["split"].astype(str)):
        name = "OOD" if split == "ood" else split.replace("_", "-")
        values[f"{name}, {PASS_AT_1}"] = int((rows["solved_at"] == 1).sum())
        values[f"{name}, {SUCCESS_AT_5}"] = int((rows["solved_at"] > 0).sum())
        values[f"{name}, {SUCCESS_AT_5}, format-agnostic"] = int((rows["solved_at_either"] > 0).sum())
    return values


def by_seed(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The values of several seeds by name."""
    return {name: tuple(row[name] for row in rows) for name in rows[0]}


def _train(profile: Profile, seed: int, store: Store) -> Plan:
    """SFT of the shipped base with another seed and its last census, computed into the store."""
    of_shipped = plan(profile, 0, store)
    last = profile.census_steps[-1]
    sft = of_shipped.sft.model_copy(update={"seed": seed})
    census = of_shipped.censuses[last, 0].model_copy(
        update={"seed": 100 * seed, "inputs": {"model": store.key(sft)}}
    )
    chosen = Plan(seed, of_shipped.base, sft, {(last, 0): census}, {})
    for spec in chosen.specs():
        run_unit(spec, store, lambda line: None, no_tick)
    return chosen


def make(file: Path = FILE, say: Callable[[str], object] = print) -> None:
    """Train the shipped base with every seed, play the shipped weights, and write what came of it."""
    profile = load_profile("smoke")
    say(f"references: {len(SEEDS)} SFT seeds and the shipped weights")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        rows = [trained_values(collect([_train(profile, seed, store)], store)) for seed in SEEDS]
    references = References(
        seeds=SEEDS,
        versions=library_versions(),
        machine=this_machine(),
        shipped=shipped_values(),
        trained=by_seed(rows),
    )
    atomic_write(file, json.dumps(references.model_dump(mode="json"), indent=1) + "\n")
    say(f"references: wrote {file.name}")
