"""Is a broken study noticed? `python benchmarks/plant_bugs.py --out tests/planted.json [--profile lab]`.

The fresh runs of the reader are made once as they are, and again with a bug in the code that runs:

- rule swapped: answers are graded under the other of the two rules
- feedback dropped: later attempts are not told what was wrong
- reward negated: RL is paid minus its reward

For each, the numbers of `rlheals report --compare` are written, with the hash of the code they were made from. A test
compares them with the recorded study: the honest ones have to agree, all others must not. About 10 core-minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.chapters import compare
from rlheals.chapters.rl.runs import MAIN, RLChapter, RLTables
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.evaluation import evaluate
from rlheals.stage import Work
from rlheals.store.files import atomic_write
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store, default_store
from rlheals.study import tables
from rlheals.study.plan import plan
from rlheals.study.tables import Tables
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.rl import session
from rlheals.training.rl import stage as rl
from rlheals.training.rl.episodes import rewards


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--profile", default="lab")
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    store = default_store()
    first = SFTChapter.open(options.profile, workers=2, store=store)
    second = RLChapter.open(options.profile, workers=2, store=store)
    bench = Bench(store, first, second)
    found = {"honest": bench.numbers(first.fresh, second.fresh)}
    with swapped_rules():
        found["rule swapped"] = bench.numbers(bench.censuses({}), second.fresh)
    found["feedback dropped"] = bench.numbers(bench.censuses({"feedback": "none"}), second.fresh)
    with negated_rewards():
        found["reward negated"] = bench.numbers(first.fresh, bench.reinforced())
    said = {
        "profile": options.profile,
        "seed": bench.seed,
        "code": {"sft": first.code, "rl": second.code},
        "numbers": found,
        "recorded": bench.recorded(),
    }
    atomic_write(options.out, json.dumps(said, indent=1) + "\n")
    print(json.dumps(said, indent=1))
    return 0


class Bench:
    """Stages run with the code as it is now in memory, outside of the store."""

    def __init__(self, store: Store, first: SFTChapter, second: RLChapter) -> None:
        self.store, self.first, self.second = store, first, second
        (self.seed,) = first.fresh.seeds
        self.plan = plan(first.profile.for_reader(recorded=True), self.seed, store)
        assert first.recorded is not None
        assert second.recorded is not None
        self.starts = [start for start in second.fresh.starts if start in second.recorded.starts]

    def numbers(self, sft: Tables, reinforced: RLTables) -> dict[str, float]:
        return compare.numbers(sft, reinforced, self.first.fresh.steps, self.starts)[self.seed]

    def recorded(self) -> dict[int, dict[str, float]]:
        """Those of the study that is recorded beside them."""
        return compare.numbers(self.first.recorded, self.second.recorded, self.first.fresh.steps, self.starts)

    def censuses(self, changes: dict[str, Any]) -> Tables:
        """The fresh SFT tables with every census played again."""
        episodes, categories = [], []
        for (step, decode), spec in self.plan.censuses.items():
            print(f"census of step {step}", file=sys.stderr)
            model = self.store.load(spec.inputs["model"], lambda line: None).path
            found = self.played(spec, model, changes)
            place = {"seed": self.seed, "step": step, "decode": decode}
            episodes.append(found[0].assign(**place))
            categories.append(found[1].assign(**place))
        fresh = self.first.fresh
        return replace(
            fresh,
            episodes=pd.concat(episodes, ignore_index=True).astype(fresh.episodes.dtypes.to_dict()),
            categories=pd.concat(categories, ignore_index=True),
        )

    def played(
        self, spec: RunSpec, model: Path, changes: dict[str, Any]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Episodes and counted attempts of one census, with changed settings."""
        with tempfile.TemporaryDirectory() as place:
            out, scratch = Path(place, "out"), Path(place, "scratch")
            out.mkdir(), scratch.mkdir()
            evaluate.run(Work(out, scratch, {**spec.settings, **changes}, spec.seed, {"model": model}))
            return tables.census(out)

    def reinforced(self) -> RLTables:
        """The fresh RL tables with the run from the middle start made again."""
        fresh, profile = self.second.fresh, self.first.profile.for_reader(recorded=True)
        start = fresh.starts[len(fresh.starts) // 2]
        made = RLChapter.PART.plan(profile, self.seed, self.store)
        cell = next(cell for cell in made.runs if cell.start == start)
        spec, census = made.runs[cell], next(one for (of, _), one in made.censuses.items() if of == cell)
        place = {"seed": self.seed, "control": MAIN, "start": start, "run": 0}
        with tempfile.TemporaryDirectory() as folder:
            out, scratch = Path(folder, "out"), Path(folder, "scratch")
            out.mkdir(), scratch.mkdir()
            inputs = {name: self.store.load(run, lambda line: None).path for name, run in spec.inputs.items()}
            rl.run(Work(out, scratch, spec.settings, spec.seed, inputs, _told))
            episodes = self.played(census, out, {})[0].assign(**place, decode=0)
            log = pd.read_parquet(out / "log.parquet").assign(**place)
        return replace(fresh, episodes=_instead(fresh.episodes, episodes), log=_instead(fresh.log, log))


def _instead(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`new` in the place of the rows of its start and run."""
    start, run = new["start"].iloc[0], new["run"].iloc[0]
    return pd.concat([old[(old["start"] != start) | (old["run"] != run)], new], ignore_index=True)


def _told(done: int, total: int, unit: str) -> None:
    print(f"{unit} {done} of {total}", file=sys.stderr)


@contextmanager
def swapped_rules() -> Iterator[None]:
    honest = GeneralPoints.grade
    other = {ID_RULE: OOD_RULE, OOD_RULE: ID_RULE}

    def grade(self: GeneralPoints, item: Any, *more: Any, **options: Any) -> Any:
        cards = replace(item.payload, rule=other.get(item.payload.rule, item.payload.rule))
        return honest(self, replace(item, payload=cards), *more, **options)

    GeneralPoints.grade = grade  # type: ignore[method-assign]
    try:
        yield
    finally:
        GeneralPoints.grade = honest  # type: ignore[method-assign]


@contextmanager
def negated_rewards() -> Iterator[None]:
    session.rewards = lambda episode: [-one for one in rewards(episode)]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        session.rewards = rewards  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
