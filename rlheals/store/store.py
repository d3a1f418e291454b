"""Runs, content-addressed: a result is filed under the hash of all that determined it.

<root>/runs/<id>/       finished runs, renamed into place as a whole, never changed again
<root>/tmp/<owner>/     what a process is writing now
<root>/scratch/<id>/    finished parts of an unfinished run; the next attempt goes on from there
<root>/damaged/         runs whose files no longer match their hashes
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.project import STORE_FOLDER
from rlheals.store import cleanup as janitor
from rlheals.store import code_hash as sources
from rlheals.store.cleanup import StoreReport
from rlheals.store.files import StoreError, as_store_error, atomic_write, fsync_folder, make_folder, told
from rlheals.store.machine import this_machine
from rlheals.store.runs import Manifest, Run, RunSpec, key_of, library_versions, open_run, seal
from rlheals.store.stages import code_behind

__all__ = ["Run", "RunSpec", "Store", "StoreError", "Workspace", "atomic_write", "default_store"]

Echo = Callable[[str], None]
Compute = Callable[["Workspace"], None]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Workspace:
    """What a stage gets to work with.

    ``out``: an empty folder; all that is written there becomes the result (not ``manifest.json``).
    ``scratch``: a folder that outlives a kill; finished parts written there with ``atomic_write`` are found
    by the next attempt at the same run. Another process computing the same run shares it, so parts may
    appear; a run may share its bytes with a part, so no part is ever changed in place.
    """

    out: Path
    scratch: Path
    inputs: dict[str, Run]
    settings: dict[str, Any]
    seed: int


class Store:
    """A folder of runs, local or on a network filesystem: no locks, no server.

    Nothing is created before something is computed. Errors of the folder (full, read-only, forbidden) are
    ``StoreError``, one line naming it.

    >>> import tempfile
    >>> from rlheals.store.runs import RunSpec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, spec = Store(Path(folder)), RunSpec(stage="errors", seed=1)
    ...     run = store.ensure(spec, lambda work: atomic_write(work.out / "a", "24"), lambda line: None)
    ...     run.file("a").read_text(), store.find(spec) == run
    ('24', True)
    """

    def __init__(self, root: Path | str, package: str = "rlheals") -> None:
        self.root = Path(root).expanduser().absolute()
        self.package = package

    def key(self, spec: RunSpec) -> str:
        """The id of the run: sha256 over what was asked, library versions and source; 64 hex digits."""
        return self._identity(spec)[0]

    def find(self, spec: RunSpec, echo: Echo = _to_stderr) -> Run | None:
        """The run if it is there and intact; a damaged one is moved to ``damaged/``, said, and not used."""
        return self._intact(self.key(spec), echo)

    def loaded(self, spec: RunSpec, echo: Echo = _to_stderr) -> Run | None:
        """As ``find``, and says so when the run is there."""
        run = self.find(spec, echo)
        if run is not None:
            echo(
                f"{spec.stage} {run.id[:12]}: loaded (took {run.manifest.seconds:.1f} s when it was computed)"
            )
            self._drop_scratch(run.id)  # left by a kill after the run was finished
        return run

    def load(self, run_id: str, echo: Echo = _to_stderr) -> Run:
        """The run with this id; errors: ``BadInput`` if it is not there, or was damaged and moved aside."""
        if not janitor.RUN_ID.fullmatch(run_id):
            raise BadInput(f"{run_id!r:.80} is not a run's id (64 hex digits)")
        run = self._intact(run_id, echo)
        if run is None:
            raise BadInput(f"run {run_id[:12]} is not in {self.root}")
        return run

    def has(self, run_id: str) -> bool:
        """Whether the run is there, unchecked."""
        return (self.root / "runs" / run_id).is_dir()

    def ids(self) -> list[str]:
        """Ids of the runs that are there, unchecked; sorted."""
        return [name for name in janitor.entries(self.root, "runs") if janitor.RUN_ID.fullmatch(name)]

    def ensure(self, spec: RunSpec, compute: Compute, echo: Echo = _to_stderr) -> Run:
        """Load the run if it exists, else compute it; which of the two is said on one line through ``echo``.

        Whatever ends ``compute`` early (error, Ctrl-C, kill) leaves no run; its scratch stays. Of two
        processes computing the same run the first to finish wins and the other's result is dropped.

        Errors: ``BadInput`` for a missing input run; ``StoreError`` for the folder, or when source was
        edited so that the result would be filed under code that did not make it; else what ``compute``
        raises.
        """
        if (run := self.loaded(spec, echo)) is not None:
            return run
        run_id, versions, code = self._identity(spec)
        name = f"{spec.stage} {run_id[:12]}"
        if stale := code.edited_since_loaded():
            raise StoreError(
                f"{name}: {', '.join(stale)} was edited after this process loaded it; restart it"
            )
        inputs = {key: self.load(input_id, echo) for key, input_id in spec.inputs.items()}
        echo(f"{name}: computing")
        with self._temporary(run_id) as out:
            work = Workspace(out, self._scratch(run_id), inputs, copy.deepcopy(spec.settings), spec.seed)
            started = time.time()
            try:
                compute(work)
            except Exception as error:
                # whoever finished this run first has taken the common scratch away
                if (run := self._intact(run_id, echo)) is not None:
                    echo(f"{name}: finished by another process meanwhile, loaded")
                    return run
                if (trouble := as_store_error(error, self.root)) is not None:
                    raise trouble from error
                raise
            seconds = max(time.time() - started, 0.0)
            if changed := code.changed_meanwhile():
                raise StoreError(f"{name}: {', '.join(changed)} was edited while it was computed; not kept")
            facts = {
                **spec.model_dump(),
                "id": run_id,
                "versions": versions,
                "code_hash": code.hash,
                "modules": tuple(code.modules),
                "machine": this_machine(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "seconds": round(seconds, 3),
            }
            with told(f"keep the result of {name}", self.root):
                manifest = seal(out, facts)
                run = self._publish(out, manifest, name, echo)
        self._drop_scratch(run_id)
        return run

    def check(self) -> StoreReport:
        """Read everything and report what is damaged or left over; changes nothing."""
        with told("check the runs", self.root):
            return janitor.check(self.root)

    def clean(self, older_than_seconds: float = janitor.WEEK_SECONDS) -> list[str]:
        """Remove what dead processes left behind; returns the names removed, relative to the root.

        Temporary folders of processes that are known to be dead go at once; those of other machines, and
        scratch of runs that were never finished, only when nothing in them was touched for
        ``older_than_seconds``.
        """
        with told("clean up", self.root):
            return janitor.clean(self.root, older_than_seconds)

    def repair(self, older_than_seconds: float = janitor.WEEK_SECONDS) -> tuple[list[str], StoreReport]:
        """As ``clean``, and as ``check`` after it; damaged runs go too, the next study computes them again."""
        with told("repair the store", self.root):
            return janitor.repair(self.root, older_than_seconds)

    def _identity(self, spec: RunSpec) -> tuple[str, dict[str, str], sources.Code]:
        code = code_behind(spec.stage, spec.settings, self.package)
        versions = library_versions()
        return key_of(spec, versions, code.hash), versions, code

    def _intact(self, run_id: str, echo: Echo) -> Run | None:
        path = self.root / "runs" / run_id
        with told(f"read the run {run_id[:12]}", self.root):
            try:
                os.lstat(path)
                return open_run(path)
            except StoreError:
                raise
            except BadInput as error:
                reason = str(error)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not os.path.lexists(path):
                    return None
                reason = f"{error.strerror}"
        with told(f"move the damaged run {run_id[:12]} aside ({reason})", self.root):
            moved = janitor.move_aside(self.root, run_id)
        if moved is not None:
            echo(f"run {run_id[:12]}: damaged, not used ({reason}); moved to {moved}")
        return None

    @contextlib.contextmanager
    def _temporary(self, run_id: str) -> Iterator[Path]:
        folder = self.root / "tmp" / janitor.owner_name(run_id)
        try:
            with told("start a run", self.root):
                janitor.sweep(self.root)
                make_folder(folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _scratch(self, run_id: str) -> Path:
        folder = self.root / "scratch" / run_id
        with told("make room for unfinished parts", self.root):
            make_folder(folder)
        return folder

    def _drop_scratch(self, run_id: str) -> None:
        with contextlib.suppress(OSError):  # the run is safe; what is left here is reported by check()
            janitor.discard(self.root, self.root / "scratch" / run_id)

    def _publish(self, out: Path, manifest: Manifest, name: str, echo: Echo) -> Run:
        target = self.root / "runs" / manifest.id
        make_folder(target.parent)
        try:
            os.rename(out, target)
        except OSError as error:
            # a network filesystem may repeat a rename that has worked, and then miss its source
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
            if (run := self._intact(manifest.id, echo)) is not None:
                echo(f"{name}: finished by another process meanwhile, loaded")
                return run
            os.rename(out, target)  # the one in the way was damaged and is gone
        fsync_folder(target.parent)
        fsync_folder(out.parent)
        return Run(manifest.id, target, manifest)


def default_store(folder: Path | None = None) -> Store:
    """The store that the environment names in ``RLHEALS_STORE``, else ``.rlheals`` in a folder (the working one)."""
    return Store(os.environ.get("RLHEALS_STORE") or (folder or Path()) / STORE_FOLDER)
