"""Reference values of what arithmetic in floating point decides, and the bands within which a new run has to lie.

`reference/bands.json` holds what was measured, for each instruction set; the bands follow from it by the two rules
below, so the file can be checked and nobody chooses a width. It is written by `rlheals.checks` on request only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rlheals.atomic import atomic_write
from rlheals.errors import BadInput
from rlheals.evaluate import EvaluateSettings
from rlheals.machine import Machine, this_machine
from rlheals.models import SHIPPED_BASE
from rlheals.profiles import Profile, load_profile, validated
from rlheals.runs import library_versions
from rlheals.sft import SFTSettings
from rlheals.stage import no_tick
from rlheals.store import Store
from rlheals.study import Plan, plan
from rlheals.tables import Tables, collect
from rlheals.units import run_unit

FILE = Path(__file__).parent / "reference" / "bands.json"
SEEDS = (0, 1, 2, 3, 4, 5)
SHIPPED_HANDS = 128
HANDS_APART = 2
"""The shipped weights, decoded greedily, may solve this many hands more or fewer."""
LARGEST_CHANGE = {
    "first try": 1.0,
    "within five": 1.0,
    "reward of first tries": 8.0,
    "reward of all attempts": 20.0,
}
"""What one hand can change: from solved (+5) to unreadable (-3), once, or in five attempts instead of one."""
SPREADS = 3.0
LEAST = {"loss": 0.02, "hands": 2.0}
"""A band of trained values reaches at least this far from the mean (nats; hands)."""
LEVELS = {
    "avx512": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
}


class BandSettings(BaseModel):
    """What decides the trained values, besides code and seed. Settings that a file does not name have their default:
    bands outlive a setting that is added and left as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sft: SFTSettings
    evaluate: EvaluateSettings
    step: int


class Measured(BaseModel):
    """What one instruction set gave: one value per name for the shipped weights, one per SFT seed for trained ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: Machine
    shipped: dict[str, float]
    trained: dict[str, tuple[float, ...]]


class References(BaseModel):
    """All that `bands.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: BandSettings = Field(description="settings of SFT and census that the trained values belong to")
    seeds: tuple[int, ...] = Field(min_length=5, description="SFT seeds, all from the shipped base")
    versions: dict[str, str]
    levels: dict[str, Measured]


def read(file: Path = FILE) -> References:
    """The references; BadInput when the file is missing or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"references {file.name!r} cannot be read ({str(error)[:80]})") from None
    return validated(References, data, f"references {file.name}")


def shipped_band(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest accepted value for the shipped weights: 2 hands, or what 2 hands can change, either way.

    >>> shipped_band("OOD, within five", [19, 20])
    (17.0, 22.0)
    """
    width = HANDS_APART * LARGEST_CHANGE[name.split(", ")[-1]]
    return min(values) - width, max(values) + width


def trained_band(name: str, levels: Sequence[tuple[float, ...]]) -> tuple[float, float]:
    """Lowest and highest accepted value after training, from the values of all seeds on each instruction set.

    The mean, 3 standard deviations between seeds either way (at least 0.02 nats or 2 hands), and every value that
    was seen. The standard deviation is that of the instruction set where it is larger.

    >>> [round(bound, 2) for bound in trained_band("OOD, within five", [(3, 4, 5, 4, 4), (4, 4, 4, 4, 4)])]
    [1.88, 6.12]
    """
    everything = [value for values in levels for value in values]
    spread = max(statistics.stdev(values) for values in levels)
    width = max(SPREADS * spread, LEAST["loss" if "loss" in name else "hands"])
    mean = statistics.fmean(everything)
    return min(mean - width, *everything), max(mean + width, *everything)


def settings_of(profile: Profile) -> BandSettings:
    """Those of a profile."""
    return BandSettings(sft=profile.sft, evaluate=profile.evaluate, step=profile.census_steps[-1])


def shipped_values() -> dict[str, float]:
    """Greedy censuses of the shipped base over the first 128 ID and 128 OOD hands, with feedback, either layout."""
    from rlheals.dialects import dialect_for
    from rlheals.engines import Sampling, load_engine
    from rlheals.rollout import rollout
    from rlheals.tasks import load_task

    task = load_task("general_points")
    engine = load_engine(SHIPPED_BASE)
    items = [item for split in ("id", "ood") for item in task.items(split)[:SHIPPED_HANDS]]
    played = rollout(
        engine,
        dialect_for(engine.tokenizer, task),
        task,
        items,
        [item.id for item in items],
        Sampling(temperature=0),
        protocol="either",
    )
    values: dict[str, float] = {}
    for name, episodes in (("ID", played[:SHIPPED_HANDS]), ("OOD", played[SHIPPED_HANDS:])):
        rewards = [[attempt.verdict.reward for attempt in episode.attempts] for episode in episodes]
        values[f"{name}, first try"] = sum(episode.solved_at == 1 for episode in episodes)
        values[f"{name}, within five"] = sum(episode.solved_at > 0 for episode in episodes)
        values[f"{name}, reward of first tries"] = sum(row[0] for row in rewards)
        values[f"{name}, reward of all attempts"] = sum(map(sum, rewards))
    return values


def trained_values(tables: Tables) -> dict[str, float]:
    """Last losses (nats per token) and solved hands at the last census of one base seed."""
    last = tables.losses[tables.losses["step"] == tables.losses["step"].max()]
    values = {f"{row.set} loss": float(row.loss) for row in last.sort_values("set").itertuples()}
    episodes = tables.episodes
    final = episodes[(episodes["step"] == episodes["step"].max()) & (episodes["decode"] == 0)]
    for split, rows in final.groupby(final["split"].astype(str)):
        name = "OOD" if split == "ood" else split.replace("_", "-")
        values[f"{name}, first try"] = int((rows["solved_at"] == 1).sum())
        values[f"{name}, within five"] = int((rows["solved_at"] > 0).sum())
        values[f"{name}, within five in either layout"] = int((rows["solved_at_either"] > 0).sum())
    return values


def measure(file: Path, level: str) -> None:
    """Measure everything in this process, which has to compute with that instruction set, and write it as JSON."""
    if (isa := this_machine().isa) != level:
        raise BadInput(f"references need a machine with {level}; here it is {isa}")
    profile = load_profile("smoke")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        rows = [trained_values(collect([_train(profile, seed, store)], store)) for seed in SEEDS]
    trained = {name: tuple(row[name] for row in rows) for name in rows[0]}
    measured = Measured(machine=this_machine(), shipped=shipped_values(), trained=trained)
    file.write_text(measured.model_dump_json())


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
    """Measure on every instruction set, each in a process of its own, and write the references.

    Raises BadInput on a machine that does not have them all: bands of one instruction set alone would be too narrow.
    """
    levels = {}
    with tempfile.TemporaryDirectory() as folder:
        for level, variables in LEVELS.items():
            say(f"references: {len(SEEDS)} SFT seeds and the shipped weights on {level}")
            out = Path(folder) / f"{level}.json"
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
            command = [sys.executable, "-m", "rlheals.checks", "--measure", level, str(out)]
            if subprocess.run(command, env=environment).returncode:
                raise BadInput(f"references: nothing was changed, because measuring on {level} failed")
            levels[level] = Measured.model_validate_json(out.read_text())
    references = References(
        profile=settings_of(load_profile("smoke")), seeds=SEEDS, versions=library_versions(), levels=levels
    )
    atomic_write(file, json.dumps(references.model_dump(mode="json"), indent=1) + "\n")
    say(f"references: wrote {file.name}")
