"""The models of a published folder: which, from which runs, and which recorded censuses are theirs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rlheals.chapters.rl.runs import MAIN, RecoveryPlan
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.publish.folder import CHECKPOINTS, RESULTS, Checkpoint, RecordedCensus
from rlheals.store.files import StoreError, make_folder
from rlheals.store.runs import FileEntry, Run, RunSpec, digest_of
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import Plan
from rlheals.training import sft
from rlheals.training.rl.settings import checkpoint_name


class ReadingStore(Store):
    """A store of which every run is read, and its hashes checked, once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root, store.package)
        self._known: dict[str, Run] = {}

    def load(self, run_id: str, *arguments: Any) -> Run:
        if run_id not in self._known:
            self._known[run_id] = super().load(run_id, *arguments)
        return self._known[run_id]

    def of(self, spec: RunSpec) -> Run:
        """The run of a spec, which has to be there."""
        return self.load(self.key(spec))

    def lacks(self, specs: Iterable[RunSpec]) -> int:
        """How many of these runs are missing or damaged."""
        ids = {self.key(spec) for spec in specs}
        if missing := sum(not self.has(run_id) for run_id in ids):
            return missing
        return sum(not self._loads(run_id) for run_id in ids)

    def _loads(self, run_id: str) -> bool:
        try:
            self.load(run_id)
        except StoreError:
            raise
        except BadInput:
            return False
        return True


def write(
    profile: Profile,
    first: Plan,
    later: Iterable[RecoveryPlan],
    steps: Sequence[int] | None,
    store: ReadingStore,
    folder: Path,
) -> dict[str, Checkpoint]:
    """Copy the models: the base, steps of SFT, and what RL from its start checkpoints ends with.

    first, later: the runs of SFT and of RL; steps: of SFT, with the RL that starts there; None: all with a census.
    """
    place = f"{RESULTS}/{profile.name}{tables.SFT.suffix}/{first.name}/episodes.parquet"
    made: dict[str, Checkpoint] = {}
    copies: list[Callable[[], None]] = []

    def add(name: str, spec: RunSpec, inside: str, about: str, censuses: Iterable[RecordedCensus]) -> None:
        run = store.of(spec)
        made[name] = Checkpoint(run=run.id, about=about, censuses=tuple(censuses))
        copies.append(lambda: copy_files(run, f"{inside}/", folder / CHECKPOINTS / name))

    def of_sft(step: int) -> list[RecordedCensus]:
        return [
            RecordedCensus(decode=decode, seed=spec.seed, table=place, where={"step": at, "decode": decode})
            for (at, decode), spec in first.censuses.items()
            if at == step
        ]

    first_is_base = _weights(store.of(first.base), "base/") == _weights(store.of(first.sft), "step-00000/")
    if first_is_base:
        add("base", first.base, "base", "the model before SFT: SFT step 0", of_sft(0))
    else:
        add("base", first.base, "base", "the model before SFT", ())
    evaluated = [step for step in profile.census_steps if step or not first_is_base]
    for step in evaluated if steps is None else steps:
        name = sft.checkpoint_name(step)
        add(name, first.sft, name, f"after {step:,} steps of SFT", of_sft(step))
    for plan in later:
        table = f"{RESULTS}/{profile.name}-recovery/{plan.name}/episodes.parquet"
        for cell, spec in plan.runs.items():
            if cell.control != MAIN or (steps is not None and cell.start not in steps):
                continue
            where: dict[str, int | str] = {"control": MAIN, "start": cell.start, "run": cell.run}
            censuses = (
                RecordedCensus(decode=decode, seed=one.seed, table=table, where={**where, "decode": decode})
                for (of, decode), one in plan.censuses.items()
                if of == cell
            )
            updates = profile.rl_starts.iterations
            trained = f"{updates:,} update{'s' if updates > 1 else ''}"
            about = f"after {trained} of RL from SFT step {cell.start:,}, RL seed {cell.run}"
            add(f"rl-{cell.start:05d}-run-{cell.run}", spec, checkpoint_name(updates), about, censuses)
    for copy in tqdm(copies, desc="copy", unit="model", disable=None, leave=False):
        copy()
    return made


def _weights(run: Run, inside: str) -> dict[str, FileEntry]:
    """Hashes of the weights of a model of a run, by file."""
    return {
        name.removeprefix(inside): entry
        for name, entry in run.manifest.files.items()
        if name.startswith(inside) and name.endswith(".safetensors")
    }


def copy_files(run: Run, inside: str, target: Path) -> None:
    """Copy a run's files below `inside`; BadInput when one is not what the run's manifest says."""
    for name, entry in sorted(run.manifest.files.items()):
        if not name.startswith(inside):
            continue
        file = target / name.removeprefix(inside)
        make_folder(file.parent)
        shutil.copyfile(run.path / name, file)
        if digest_of(file) != entry:
            raise BadInput(f"run {run.manifest.stage} {run.id[:12]}: {name!r} changed while it was copied")
