"""What `rlheals publish` does: a folder, an upload of it, or a look at one that somebody else made."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlheals.cli.commands import the_store
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.publish import folder as published
from rlheals.publish import hub
from rlheals.publish.write import Asked, publish, refuse_foreign


def asked(
    profile: Profile, name: str, changes: Sequence[str], seed: int, steps: str | None, needed: Sequence[str]
) -> Asked:
    """What is to be published, as the command line says it."""
    words = shlex.join(["--profile", name, *(word for change in changes for word in ("--set", change))])
    return Asked(profile, seed, words, None if steps is None else _steps(steps), tuple(needed))


def write(wanted: Asked, results: Path, out: Path | None, name: str | None, private: bool) -> dict[str, Any]:
    """Publish to a folder, to a hub, or to both."""
    if name is not None:
        hub.ready(name)
    if out is not None:
        refuse_foreign(out)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch, "published")
        made, absent = publish(wanted, the_store(), project_root() / results, folder)
        address = None if name is None else hub.upload(folder, name, private)
    return {
        "profile": made.profile,
        "seed": made.seed,
        "out": None if out is None else str(out),
        "hub": address,
        "checkpoints": list(made.checkpoints),
        "files": len(made.files) + 1,
        "bytes": sum(entry.bytes for entry in made.files.values()),
        "absent": absent,
    }


def written_lines(done: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{done['profile']}, base seed {done['seed']}: {done['files']} files, {done['bytes'] / 1e6:,.1f} MB"
    yield f"checkpoints: {', '.join(done['checkpoints'])}"
    for words, why in done["absent"].items():
        yield f"not in it: {words} ({why})"
    for place in (done["out"], done["hub"]):
        if place is not None:
            yield f"written: {place}"


def look(folder: Path, again: str | None) -> dict[str, Any]:
    """Check a published folder; with `again` let one of its checkpoints play its censuses anew."""
    made = published.check(folder)
    played = [] if again is None else published.play_again(folder, again)
    return {
        "folder": str(folder),
        "profile": made.profile,
        "seed": made.seed,
        "files": len(made.files) + 1,
        "checkpoints": list(made.checkpoints),
        "again": played,
        "ok": all(not one["different"] for one in played),
    }


def looked_lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{found['folder']}: {found['files']} files, each as it was written"
    for one in found["again"]:
        yield f"decode {one['decode']}: {one['different']} of {one['episodes']} episodes differ from the recorded ones"


def _steps(text: str) -> tuple[int, ...]:
    steps = [part.strip() for part in text.split(",")]
    if not all(step.isascii() and step.isdecimal() and len(step) < 10 for step in steps):
        raise BadInput(f"--steps {text!r:.60}: accepted are SFT steps such as 0,40,1280")
    return tuple(sorted({int(step) for step in steps}))
