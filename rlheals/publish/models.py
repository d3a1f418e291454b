"""The models of a published folder: which, from which runs, and which recorded evaluations are theirs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rlheals.chapters.rl.runs import MAIN, RLPlan
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
        """How many of these runs are missing or damaged; damage is looked for once none is missing."""
        ids = {self.key(spec) for spec in specs}
        return sum(not self.has(each) for each in ids) or sum(not self._loads(each) for each in ids)

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
    later: Iterable[RLPlan],
    steps: Sequence[int] | None,
    store: ReadingStore,
    folder: Path,
) -> dict[str, Checkpoint]:
    """Copy the models: the base, steps of SFT, and what RL from them ends with.

    first, later: the runs of SFT and of RL; steps: of SFT, with the RL that starts there; None: all that are evaluated.
    """
    made: dict[str, Checkpoint] = {}
    copies: list[tuple[Run, str, str]] = []
    home = f"{RESULTS}/{profile.name}"

    def add(
        name: str,
        spec: RunSpec,
        inside: str,
        about: str,
        censuses: dict[int, RunSpec],
        table: str,
        **where: Any,
    ) -> None:
        run = store.of(spec)
        recorded = (
            RecordedCensus(
                decode=n, seed=one.seed, table=f"{home}{table}/episodes.parquet", where={**where, "decode": n}
            )
            for n, one in censuses.items()
        )
        made[name] = Checkpoint(run=run.id, about=about, censuses=tuple(recorded))
        copies.append((run, f"{inside}/", name))

    def add_sft(name: str, spec: RunSpec, inside: str, about: str, step: int | None) -> None:
        censuses = {decode: one for (at, decode), one in first.censuses.items() if at == step}
        add(name, spec, inside, about, censuses, f"{tables.SFT.suffix}/{first.name}", step=step)

    start = sft.checkpoint_name(0)
    is_base = _weights(store.of(first.base), "base/") == _weights(store.of(first.sft), f"{start}/")
    about = "the model before SFT" + (": SFT step 0" if is_base else "")
    add_sft("base", first.base, "base", about, 0 if is_base else None)
    evaluated = [step for step in profile.census_steps if step or not is_base]
    for step in evaluated if steps is None else steps:
        name = sft.checkpoint_name(step)
        add_sft(name, first.sft, name, f"after {step:,} steps of SFT", step)
    inside = checkpoint_name(profile.rl_starts.iterations)
    for plan in later:
        for cell, spec in plan.runs.items():
            if cell.control != MAIN or (steps is not None and cell.start not in steps):
                continue
            count = profile.rl_starts.iterations
            trained = f"{count:,} iteration{'s' if count > 1 else ''} of RL"
            about = f"after {trained} from SFT step {cell.start:,}, RL seed {cell.run}"
            censuses = {decode: one for (of, decode), one in plan.censuses.items() if of == cell}
            name, table = f"rl-{cell.start:05d}-run-{cell.run}", f"-recovery/{plan.name}"
            add(name, spec, inside, about, censuses, table, control=MAIN, start=cell.start, run=cell.run)
    for run, part, name in tqdm(copies, desc="copy", unit="model", disable=None, leave=False):
        copy_files(run, part, folder / CHECKPOINTS / name)
    return made


def _weights(run: Run, inside: str) -> dict[str, FileEntry]:
    """Hashes of the weights of a model of a run, by file."""
    found = {name: entry for name, entry in run.manifest.files.items() if name.endswith(".safetensors")}
    return {name.removeprefix(inside): entry for name, entry in found.items() if name.startswith(inside)}


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
