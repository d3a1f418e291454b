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
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from rlheals.errors import BadInput
from rlheals.project import project_store
from rlheals.stage import Work
from rlheals.store import cleanup
from rlheals.store.cleanup import RUN_ID, WEEK_SECONDS, StoreReport
from rlheals.store.code_hash import Code
from rlheals.store.files import StoreError, as_store_error, fsync_folder, make_folder, say, told
from rlheals.store.machine import this_machine
from rlheals.store.runs import Manifest, Run, RunSpec, key_of, library_versions, open_run, seal
from rlheals.store.stages import code_behind

Echo = Callable[[str], None]
Compute = Callable[[Work], object]
"""Computes a run. Another process that computes the same one shares its scratch, so parts may appear there; a run may
share its bytes with a part, so no part is ever changed in place."""


class Store:
    """A folder of runs, local or on a network filesystem: no locks, no server.

    Nothing is created before something is computed. Errors of the folder (full, read-only, forbidden) are
    StoreError, one line naming it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, spec = Store(folder), RunSpec(stage="adopt", seed=1)
    ...     run = store.ensure(spec, lambda work: (work.out / "a").write_text("24"), lambda line: None)
    ...     run.file("a").read_text(), store.load(run.id) == run
    ('24', True)
    """

    def __init__(self, root: Path | str, package: str = "rlheals") -> None:
        self.root = Path(root).expanduser().absolute()
        self.package = package

    def key(self, spec: RunSpec) -> str:
        """The id of the run: sha256 over what was asked, library versions and source; 64 hex digits."""
        return self._identity(spec)[0]

    def find(self, spec: RunSpec, echo: Echo = say) -> Run | None:
        """The run if it is there and intact, and says so; a damaged one is moved to `damaged/`, said, and not used."""
        run = self._intact(self.key(spec), echo)
        if run is not None:
            echo(
                f"{spec.stage} {run.id[:12]}: loaded (took {run.manifest.seconds:.1f} s when it was computed)"
            )
            self._drop_scratch(run.id)  # left by a kill after the run was finished
        return run

    def load(self, run_id: str, echo: Echo = say) -> Run:
        """The run with this id; errors: ``BadInput`` if it is not there, or was damaged and moved aside."""
        if not RUN_ID.fullmatch(run_id):
            raise BadInput(f"{run_id!r:.80} is not a run's id (64 hex digits)")
        run = self._intact(run_id, echo)
        if run is None:
            raise BadInput(f"run {run_id[:12]} is not in {self.root}")
        return run

    def has(self, run_id: str) -> bool:
        """Whether the run is there, unchecked."""
        return (self.root / "runs" / run_id).is_dir()

    def ids(self) -> list[str]:
        """Those of the runs that are there, unchecked; sorted."""
        return [name for name in cleanup.entries(self.root, "runs") if RUN_ID.fullmatch(name)]

    def ensure(self, spec: RunSpec, compute: Compute, echo: Echo = say) -> Run:
        """Load the run if it exists, else compute it; which of the two is said on one line through ``echo``.

        Whatever ends `compute` early (error, Ctrl-C, kill) leaves no run; its scratch stays. Of two processes computing
        the same run the first to finish wins and the other's result is dropped.

        Errors: BadInput for a missing input run; StoreError for the folder, or when source was edited so that the
        result would be filed under code that did not make it; else what `compute` raises.
        """
        if (run := self.find(spec, echo)) is not None:
            return run
        run_id, versions, code = self._identity(spec)
        name = f"{spec.stage} {run_id[:12]}"
        if stale := code.edited_since_loaded():
            raise StoreError(
                f"{name}: {', '.join(stale)} was edited after this process loaded it; restart it"
            )
        inputs = {key: self.load(input_id, echo).path for key, input_id in spec.inputs.items()}
        echo(f"{name}: computing")
        with self._temporary(run_id) as (out, scratch):
            work = Work(out, scratch, copy.deepcopy(spec.settings), spec.seed, inputs)
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
        return cleanup.check(self.root)

    def repair(self, older_than_seconds: float = WEEK_SECONDS) -> tuple[list[str], StoreReport]:
        """Remove what dead processes left behind, and damaged runs, which the next study computes again.

        What may belong to a process of another machine, and scratch of runs that were never finished, goes only when it
        was not touched for that long. Returns the removed names, relative to the root, and then what `check` does.
        """
        return cleanup.repair(self.root, older_than_seconds)

    def _identity(self, spec: RunSpec) -> tuple[str, dict[str, str], Code]:
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
            moved = cleanup.move_aside(self.root, run_id)
        if moved is not None:
            echo(f"run {run_id[:12]}: damaged, not used ({reason}); moved to {moved}")
        return None

    @contextlib.contextmanager
    def _temporary(self, run_id: str) -> Iterator[tuple[Path, Path]]:
        """The folder of the result, which goes with the block, and that of finished parts, which stays."""
        folder, scratch = self.root / "tmp" / cleanup.owner_name(run_id), self.root / "scratch" / run_id
        try:
            with told("start a run", self.root):
                cleanup.sweep(self.root)
                make_folder(folder)
                make_folder(scratch)
            yield folder, scratch
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _drop_scratch(self, run_id: str) -> None:
        with contextlib.suppress(OSError):  # the run is safe; what is left here is reported by check()
            cleanup.discard(self.root, self.root / "scratch" / run_id)

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


def default_store() -> Store:
    """The store that the environment names in ``RLHEALS_STORE``, else ``.rlheals`` of the project around this folder.

    Above this folder only one of the same user's is taken; which one, and which not, is said once.
    """
    if named := os.environ.get("RLHEALS_STORE"):
        return Store(named)
    folder, passed = project_store()
    _say_once(folder, passed, folder.parent != Path.cwd())
    return Store(folder)


@lru_cache
def _say_once(folder: Path, passed: Path | None, above: bool) -> None:
    if passed is not None:
        say(
            f"store {passed}: not used, since it or a folder on the way to it is another user's (RLHEALS_STORE can "
            f"name it); used: {folder}"
        )
    elif above:
        say(f"store: {folder}")
