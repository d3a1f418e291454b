"""What several workers gain, and what the store and Dask cost: `python benchmarks/bench_study.py [--rounds N]`.

A slice of the lab: short SFT runs of several base seeds, and two censuses of each. Rounds alternate between one worker
(this process) and two Dask workers, each from an empty store. Units of the same work do not get equally long turns on a
busy machine, so the overhead is taken within a round: wall time beyond that of the units themselves, which their
manifests hold. Starting two workers and their imports takes the same seconds for a short study as for a long one, so
that is stated in seconds. How much longer the same units take when two run side by side (shared caches, memory,
hyperthreads) bounds the speedup whatever hands them out. JSON comes last; exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time

from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study import plan as study
from rlheals.study.compute import compute

LEAST_SPEEDUP = 1.8
MOST_OVERHEAD = 0.03
SEEDS = (0, 1, 2, 3)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    lab = load_profile("lab")
    profile = Profile(  # without the parts of later chapters
        name="slice",
        evaluated=(80, 160),
        rule_steps=(),
        pretrain=lab.pretrain,
        sft=lab.sft.model_copy(update={"checkpoints": (0, 80, 160), "loss_examples": 8}),
        evaluate=lab.evaluate,
    )
    rounds = []
    for _ in range(options.rounds):
        one, two = measured(profile, 1), measured(profile, 2)
        rounds.append(
            {
                "speedup": one["wall"] / two["wall"],
                "store": one["wall"] / one["units"] - 1,
                "units_slower_side_by_side": two["units"] / one["units"] - 1,
                "seconds_to_start_two": two["started"],
                "workers": (two["wall"] - two["started"]) / (two["units"] / 2) - 1,
                "seconds_one": one["wall"],
                "seconds_two": two["wall"],
            }
        )
        print(json.dumps(rounds[-1]), file=sys.stderr)
    found = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    checks = {
        f"two workers at least {LEAST_SPEEDUP} x one": found["speedup"] >= LEAST_SPEEDUP,
        f"store under {MOST_OVERHEAD:.0%}": found["store"] < MOST_OVERHEAD,
    }
    print(json.dumps({"median": found, "rounds": rounds, "checks": checks}, indent=1))
    return 0 if all(checks.values()) else 1


def measured(profile: Profile, workers: int) -> dict[str, float]:
    """Wall time of a study and of its units together; all bases are the shipped one, with SFT in another order."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        specs = [spec for seed in SEEDS for spec in plan(profile, seed, store)]
        ended: list[float] = []
        began = time.perf_counter()
        runs = compute(
            specs, store, workers, quiet=True, finished=lambda run_id: ended.append(time.perf_counter())
        )
        return {
            "wall": time.perf_counter() - began,
            "started": ended[0] - began,  # the first unit is a copy of the shipped base, so nearly nothing
            "units": sum(run.manifest.seconds for run in runs),
        }


def plan(profile: Profile, seed: int, store: Store) -> list[RunSpec]:
    base = study.base_spec(profile, 0)
    sft = RunSpec(
        stage="sft", settings=profile.sft.model_dump(mode="json"), inputs={"base": store.key(base)}, seed=seed
    )
    censuses = [
        study.census_spec(profile, store.key(sft), f"step-{step:05d}", seed, 0) for step in profile.evaluated
    ]
    return [base, sft, *censuses]


if __name__ == "__main__":
    sys.exit(main())
