"""What dead processes leave in a store, and how to be rid of it without hurting those that live.

A temporary folder carries its owner in its name: run, place (host, boot, process namespace), process id,
start of the process, random. Only for the own place can a process be known to be dead; everything else goes
by age.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlheals.errors import BadInput
from rlheals.store.files import fsync_folder, make_folder, reason, told
from rlheals.store.machine import is_alive, place, process_start
from rlheals.store.runs import Run, open_run

WEEK_SECONDS = 7 * 24 * 3600.0
RUN_ID = re.compile(r"[0-9a-f]{64}")
DAMAGE = (BadInput, FileNotFoundError, NotADirectoryError)
"""How a damaged run fails to open; any other error is the disk's."""
_OWNER = re.compile(
    r"(?P<run>[0-9a-f]{16})\.(?P<place>[0-9a-f]{12})\.(?P<pid>\d{1,10})\.(?P<start>\d{1,19})\.[0-9a-f]{8}"
)


@dataclass(frozen=True)
class StoreReport:
    """State of a store: runs that are intact, and one line for each thing that is not as it should be.

    unreadable: what the disk would not give, as other users' files that are for them alone; nobody knows its state.
    """

    intact: tuple[Run, ...]
    damaged: tuple[str, ...]
    leftovers: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.damaged or self.leftovers or self.unreadable)


def entries(root: Path, part: str) -> list[str]:
    """Names in ``runs``, ``tmp``, ``scratch`` or ``damaged``, sorted; none if the folder is missing."""
    with told(f"list {part}", root), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(root / part))
    return []


def owner_name(run_id: str) -> str:
    """A fresh name for a temporary folder of this process.

    >>> bool(_OWNER.fullmatch(owner_name("0" * 64)))
    True
    """
    pid = os.getpid()
    return f"{run_id[:16]}.{place()}.{pid}.{process_start(pid)}.{secrets.token_hex(4)}"


def _owner_lives(name: str) -> bool | None:
    """Whether the owner of a temporary folder runs; ``None`` when that cannot be known from here."""
    owner = _OWNER.fullmatch(name)
    if owner is None or owner["place"] != place():
        return None
    return is_alive(int(owner["pid"]), int(owner["start"]))


def _removable(root: Path, names: Iterable[str]) -> list[str]:
    """Those of relative names that do not lie behind a link: what is there may be anybody's. Sorted."""
    return sorted(name for name in names if not (root / name).parent.is_symlink())


def sweep(root: Path) -> list[str]:
    """Remove the temporary folders of processes that are known to be dead; returns their relative names."""
    dead = (f"tmp/{name}" for name in entries(root, "tmp") if _owner_lives(name) is False)
    gone = _removable(root, dead)
    for name in gone:
        shutil.rmtree(root / name, ignore_errors=True)
    return gone


def _now(root: Path) -> float:
    """The time by the clock that stamps the files of the store, which other machines share and this one may not set.

    This machine's own where nothing can be written.
    """
    probe = root / f".{secrets.token_hex(8)}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _idle_seconds(now: float, *folders: Path) -> float:
    """Seconds since anything in the folders was last touched."""
    newest = 0.0
    for folder in folders:
        for here, _, names in os.walk(folder):
            for path in (here, *(os.path.join(here, name) for name in names)):
                with contextlib.suppress(OSError):
                    newest = max(newest, os.lstat(path).st_mtime)
    return max(0.0, now - newest)


def _leftovers(root: Path) -> Iterator[tuple[str, float, str]]:
    """What no living process of this machine owns: relative name, seconds without use, and why it is there."""
    tmp, scratch = entries(root, "tmp"), entries(root, "scratch")
    now = _now(root) if tmp or scratch else 0.0
    for name in tmp:
        lives = _owner_lives(name)
        if lives is False:
            yield f"tmp/{name}", math.inf, "its process is dead"
        elif lives is None:  # somebody is at work as long as the parts of the same run are being written
            parts = [
                root / "scratch" / run_id for run_id in scratch if run_id.startswith(name.partition(".")[0])
            ]
            yield (
                f"tmp/{name}",
                _idle_seconds(now, root / "tmp" / name, *parts),
                "from another machine or boot",
            )
    for name in scratch:
        if (root / "runs" / name).is_dir():
            yield f"scratch/{name}", math.inf, "its run is finished"
        else:
            yield f"scratch/{name}", _idle_seconds(now, root / "scratch" / name), "parts of an unfinished run"


def clean(root: Path, older_than_seconds: float = WEEK_SECONDS) -> list[str]:
    """Remove what nobody needs, and what was not used for longer than that; returns relative names, sorted."""
    with told("clean up", root):
        gone = _removable(root, (name for name, idle, _ in _leftovers(root) if idle > older_than_seconds))
        for name in gone:
            discard(root, root / name)
    return gone


def repair(root: Path, older_than_seconds: float) -> tuple[list[str], StoreReport]:
    """Clean, and remove damaged runs and those moved aside; returns relative names, sorted, and what is there now.

    A file that the disk would not give is no damage, and what is not named as a run is not ours: both stay.
    """
    intact, bad = _opened(root)
    ours = [name for name, error in bad.items() if RUN_ID.fullmatch(name) and isinstance(error, DAMAGE)]
    both = [*(f"runs/{name}" for name in ours), *(f"damaged/{name}" for name in entries(root, "damaged"))]
    gone = _removable(root, both)
    with told("repair the store", root):
        for name in gone:
            discard(root, root / name)
    gone += clean(root, older_than_seconds)
    return sorted(gone), _report(
        root, intact, {name: bad[name] for name in bad if f"runs/{name}" not in gone}
    )


def check(root: Path) -> StoreReport:
    """Verify every run and list what is left over; changes nothing."""
    return _report(root, *_opened(root))


def _opened(root: Path) -> tuple[list[Run], dict[str, BadInput | OSError]]:
    """Every run that is intact, and what is wrong with the others, by name."""
    intact, bad = list[Run](), dict[str, BadInput | OSError]()
    for name in entries(root, "runs"):
        try:
            intact.append(open_run(root / "runs" / name))
        except (BadInput, OSError) as error:
            bad[name] = error
    return intact, bad


def _report(root: Path, intact: list[Run], bad: dict[str, BadInput | OSError]) -> StoreReport:
    hidden = {name: error for name, error in bad.items() if not isinstance(error, DAMAGE)}
    damaged = [f"runs/{name[:12]}: {error}" for name, error in bad.items() if name not in hidden]
    unreadable = [f"runs/{name[:12]}: {reason(error)}" for name, error in hidden.items()]
    damaged += [f"damaged/{name}: moved aside, may be deleted" for name in entries(root, "damaged")]
    leftovers = [
        f"{name}: {why}" + (f", untouched for {idle / 3600:.1f} h" if math.isfinite(idle) else "")
        for name, idle, why in _leftovers(root)
    ]
    return StoreReport(tuple(intact), tuple(damaged), tuple(leftovers), tuple(unreadable))


def discard(root: Path, folder: Path) -> None:
    """Make a folder vanish as a whole (by a rename), then delete it piece by piece."""
    doomed = root / "tmp" / owner_name("0" * 64)
    try:
        os.lstat(folder)
        make_folder(doomed.parent)
        os.rename(folder, doomed)
    except FileNotFoundError:
        return
    finally:
        shutil.rmtree(doomed, ignore_errors=True)


def move_aside(root: Path, run_id: str) -> Path | None:
    """Move a run to ``damaged/``; returns its new place, ``None`` if another process was faster."""
    target = root / "damaged" / f"{run_id}.{secrets.token_hex(4)}"
    make_folder(target.parent)
    try:
        os.rename(root / "runs" / run_id, target)
    except FileNotFoundError:
        return None
    fsync_folder(target.parent)
    fsync_folder(root / "runs")
    return target
