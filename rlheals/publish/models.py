"""The models of a published folder: which, from which runs, and which recorded evaluations are theirs."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rl.runs import MAIN, RLPlan
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.publish.folder import CHECKPOINTS, RESULTS, Checkpoint, RecordedCensus
from rlheals.store.files import make_folder
from rlheals.store.runs import FileEntry, Run, RunSpec, digest_of
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.plan import Plan
from rlheals.training import sft
from rlheals.training.rl.settings import checkpoint_name
from rlheals.weights.adapter import refuse_adapter


class ReadingStore(Store):
    """A store of which every run is read, and its hashes checked, once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root, store.package)
        self._intact = functools.cache(super()._intact)  # type: ignore[method-assign]

    def of(self, spec: RunSpec) -> Run:
        """The run of a spec, which has to be there."""
        return self.load(self.key(spec))

    def lacks(self, specs: Sequence[RunSpec]) -> int:
        """How many of these runs are missing or damaged; damage is looked for once none is missing."""
        absent = sum(not self.has(self.key(spec)) for spec in specs)
        return absent or sum(self.find(spec) is None for spec in specs)


class Model(NamedTuple):
    """A model that goes in: its run, its folder there, and what the manifest says of it."""

    run: Run
    inside: str
    entry: Checkpoint


def chosen(
    profile: Profile,
    first: Plan,
    later: Iterable[RLPlan],
    steps: Sequence[int] | None,
    store: ReadingStore,
) -> dict[str, Model]:
    """By name: the base, steps of SFT, and what RL from them ends with, without the controls.

    first, later: the runs of SFT and of RL; steps: of SFT, with the RL that starts there; None: all that are evaluated.
    """
    made: dict[str, Model] = {}
    start, base_run, sft_run = sft.checkpoint_name(0), store.of(first.base), store.of(first.sft)
    is_base = _weights(base_run, "base/") == _weights(sft_run, f"{start}/")

    def add(
        name: str,
        run: Run,
        inside: str,
        about: str,
        plan: Plan | RLPlan,
        of: Any,
        where: dict[str, Any],
    ) -> None:
        part = tables.SFT if isinstance(plan, Plan) else rl_runs.STUDY
        table = f"{RESULTS}/{profile.name}{part.suffix}/{plan.name}/episodes.parquet"
        censuses = tuple(
            RecordedCensus(decode=decode, seed=spec.seed, table=table, where={**where, "decode": decode})
            for (evaluated, decode), spec in plan.censuses.items()
            if evaluated == of
        )
        made[name] = Model(run, inside, Checkpoint(run=run.id, about=about, censuses=censuses))

    about = "the model before SFT" + (": SFT step 0" if is_base else "")
    add("base", base_run, "base", about, first, 0 if is_base else None, {"step": 0})
    evaluated = [step for step in profile.census_steps if step or not is_base]
    for step in evaluated if steps is None else steps:
        name = sft.checkpoint_name(step)
        add(name, sft_run, name, f"after {step:,} steps of SFT", first, step, {"step": step})
    count = profile.rl_starts.iterations
    trained = f"after {count:,} iteration{'s' if count > 1 else ''} of RL"
    for plan in later:
        for cell, spec in plan.runs.items():
            if cell.control == MAIN and (steps is None or cell.start in steps):
                name = f"rl-{cell.start:05d}-run-{cell.run}"
                about = f"{trained} from SFT step {cell.start:,}, RL seed {cell.run}"
                where = {"control": MAIN, "start": cell.start, "run": cell.run}
                add(name, store.of(spec), checkpoint_name(count), about, plan, cell, where)
    return made


def write(models: dict[str, Model], folder: Path) -> dict[str, Checkpoint]:
    """Copy the models into a folder to be published; what its manifest says of them."""
    for name, model in tqdm(models.items(), desc="copy", unit="model", disable=None, leave=False):
        copy_files(model.run, f"{model.inside}/", folder / CHECKPOINTS / name)
        refuse_adapter(folder / CHECKPOINTS / name)
    return {name: model.entry for name, model in models.items()}


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
