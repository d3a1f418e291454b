"""The registration of claims: every version of `claims.yaml` that git knows, and when what it decides was computed.

A version registers a part when the tests of that part (study, estimators, options, margins) are new in it. Versions
come from git where the package lies in a checkout with its whole history, else from a data file that a project command
wrote there. Manifests say when their runs began and which version was registered when they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from rlheals.errors import BadInput
from rlheals.settings import Settings
from rlheals.store.files import atomic_write
from rlheals.store.runs import Hash, canonical_json
from rlheals.study.claims import FILE, FIRST
from rlheals.study.record import Recorded, Time
from rlheals.yaml_file import yaml_text

DATA = FILE.with_name("registration.json")
FILES = ("claims.yaml", "claims_2.yaml")
"""Names under which claims were registered: version 2 lay beside version 1 until its study was recorded."""
TESTED = ("estimator", "options", "margin", "partly")
"""What of a claim decides its verdict; with the study and the claim's id."""
TIMEOUT = 60


class Version(Settings):
    """One version of a file of claims. time: of the commit; sha256: of the file; tests: by part, a digest of what
    decides its verdicts."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    time: Time
    subject: str
    file: str
    registration: int
    sha256: Hash
    tests: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]]


@dataclass(frozen=True)
class Order:
    """Of one part: the commit at which its tests became what its manifests name, and whether its runs began later.

    registered: None where no manifest names a version, or one that is not known (then `unknown` holds it).
    """

    part: str
    registered: Version | None
    unknown: str
    runs: int
    first: str
    before: int

    @property
    def kept(self) -> bool:
        """Whether everything is known, and every run began after the registration."""
        return self.registered is not None and not self.before


def tests_of(data: Mapping[str, Any]) -> dict[str, str]:
    """By part of a file of claims, a digest of what decides its verdicts; wording does not change it."""
    parts = {
        FIRST: data,
        **{name: part for name, part in data.items() if isinstance(part, dict) and "claims" in part},
    }
    found = {}
    for name, part in parts.items():
        claims = [
            {"id": one["id"], **{key: one[key] for key in TESTED if key in one}}
            for one in part.get("claims", ())
        ]
        known = {"study": part.get("study"), "claims": claims}
        found[name] = hashlib.sha256(canonical_json(known)).hexdigest()[:12]
    return found


def from_git(folder: Path = FILE.parent) -> list[Version]:
    """Every version of the claims in the history of the checkout that a folder is part of, oldest first.

    BadInput, with the reason, where that history is not there: no git, no checkout, or a shallow clone.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", FILE.name)
        if _git(folder, "rev-parse", "--is-shallow-repository").strip() != b"false":
            raise BadInput("a shallow clone")
    except BadInput as error:
        raise BadInput(f"no git history of {FILE.name} here ({error})") from None
    log = _git(
        folder, "log", "--reverse", "--topo-order", "--format=%H%x09%ct%x09%s", "HEAD", "--", *FILES
    ).decode(errors="replace")
    commits = [line.split("\t", 2) for line in log.splitlines()]
    asked = [(*commit, name) for commit in commits for name in FILES]
    texts = _contents(folder, [f"{commit}:./{name}" for commit, _, _, name in asked])
    found, last = list[Version](), dict[str, str]()
    for (commit, seconds, subject, name), text in zip(asked, texts, strict=True):
        if text is None or last.get(name) == (digest := hashlib.sha256(text).hexdigest()):
            continue
        last[name] = digest
        data = yaml_text(text.decode(errors="replace"), f"{name} at {commit[:7]}")
        found.append(
            Version(
                commit=commit,
                time=datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                subject=subject,
                file=name,
                registration=int(data.get("version", 1)),
                sha256=digest,
                tests=tests_of(data),
            )
        )
    return found


def _contents(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """What is under names of the form COMMIT:FILE; None where nothing is."""
    left, found = _git(folder, "cat-file", "--batch", given="\n".join(names)), list[bytes | None]()
    for _ in names:
        head, _, left = left.partition(b"\n")
        if head.endswith(b" missing"):
            found.append(None)
            continue
        size = int(head.rpartition(b" ")[2])
        found.append(left[:size])
        left = left[size + 1 :]
    return found


def _git(folder: Path, *arguments: str, given: str = "") -> bytes:
    """What git says in a folder; BadInput with its reason. Only the folder decides which repository is meant."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, input=given.encode(), capture_output=True, timeout=TIMEOUT, env={**own, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"git: {type(error).__name__}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadInput((said or ["git failed"])[0][:120])
    return done.stdout


def from_data(file: Path = DATA) -> list[Version]:
    """The versions that the data file holds; BadInput when it is missing or damaged."""
    try:
        return TypeAdapter(list[Version]).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"{file.name} cannot be read ({str(error).splitlines()[0][:80]})") from None


def write_data(file: Path = DATA) -> list[Version]:
    """Write the versions that git knows into the data file."""
    found = from_git(file.parent)
    atomic_write(file, json.dumps([one.model_dump(mode="json") for one in found], indent=1) + "\n")
    return found


def versions(folder: Path = FILE.parent) -> tuple[list[Version], str]:
    """The versions and, in words, where they are from."""
    try:
        return from_git(folder), "From the git history of this checkout."
    except BadInput as error:
        said = (
            f"From `{DATA.name}`, which `rlheals claims --registration` made where the history was: {error}."
        )
        return from_data(folder / DATA.name), said


def registered(known: Iterable[Version], sha256: str, part: str) -> Version | None:
    """The version since which the tests of a part have been those of a file with that digest; None: no such file.

    Only versions of the same registration are looked at: for a while two of them lay side by side.
    """
    known = list(known)
    named = next((one for one in known if one.sha256 == sha256), None)
    if named is None or part not in named.tests:
        return None
    before = known[: known.index(named) + 1]
    mine = [one for one in before if one.registration == named.registration]
    while len(mine) > 1 and mine[-2].tests.get(part) == named.tests[part]:
        mine.pop()
    return mine[-1]


def order(known: Iterable[Version], part: str, manifests: Iterable[Recorded]) -> Order:
    """Whether the runs of a part began after its registration, as manifests and commits say."""
    known, manifests = list(known), list(manifests)
    found = [registered(known, one.claims, part) for one in manifests]
    times = [(run.started, since) for one, since in zip(manifests, found, strict=True) for run in one.runs]
    since = [one for one in found if one is not None]
    unknown = next((one.claims for one, at in zip(manifests, found, strict=True) if at is None), "")
    return Order(
        part=part,
        registered=max(since, key=lambda one: one.time) if since and not unknown else None,
        unknown=unknown,
        runs=len(times),
        first=min((started for started, _ in times), default=""),
        before=sum(at is not None and started <= at.time for started, at in times),
    )
