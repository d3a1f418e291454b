"""The recorded study: small tables with manifests under `results/`, made by the project's own commands only.

results/lab/seed-1/            episodes.parquet ... manifest.json
results/lab-75/seed-1/         the same for a variant
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field

from rlheals.errors import BadInput
from rlheals.settings import Settings, validated
from rlheals.store.files import atomic_write, read_json, whole
from rlheals.store.machine import Machine
from rlheals.store.runs import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Hash,
    Manifest,
    Stage,
    Time,
    canonical_json,
    digest_of,
)
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.claims import FILE
from rlheals.study.compute import compute
from rlheals.study.jobs import Workers
from rlheals.study.plan import SeedPlan
from rlheals.study.tables import Frames, Part, Tables

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile

FOLDER = Path("results")


class RecordedRun(Settings):
    """Where one run's numbers came from."""

    stage: Stage
    id: Hash
    seed: int
    code_hash: Hash
    started: Time
    seconds: float = Field(ge=0)

    @classmethod
    def of(cls, manifest: Manifest) -> RecordedRun:
        """What is kept of a run's own manifest."""
        return cls(**{name: getattr(manifest, name) for name in cls.model_fields})


def _has_name_and_decodes(profile: dict[str, Any]) -> dict[str, Any]:
    """What pages say of a profile that may be of another version."""
    if not isinstance(profile.get("name"), str) or not isinstance(profile.get("decodes"), int):
        raise ValueError("has no name, or no number `decodes`")
    return profile


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,59}$")]
FileName = Annotated[str, Field(min_length=1, max_length=240)]


class Recorded(Settings):
    """The manifest of one recorded base seed.

    claims: sha256 of the registered claims as they were when it was written; digest: sha256 over every other field.
    """

    profile: Annotated[dict[str, Any], AfterValidator(_has_name_and_decodes)]
    seed: int = Field(ge=0)
    started: Time
    claims: Hash
    machine: Machine
    versions: dict[Word, Word]
    runs: tuple[RecordedRun, ...]
    files: dict[FileName, Hash]
    digest: str = ""

    def sealed(self) -> Self:
        """The same with its `digest` filled in."""
        return self.model_copy(update={"digest": manifest_digest(self.model_dump(mode="json"))})

    def text(self) -> str:
        """As it is written."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @property
    def minutes(self) -> float:
        """Core-minutes of all runs."""
        return sum(run.seconds for run in self.runs) / 60

    def code(self) -> dict[str, str]:
        """Code hash of each stage."""
        return {run.stage: run.code_hash for run in self.runs}


def record(
    profile: Profile,
    seeds: Sequence[int],
    store: Store,
    folder: Path = FOLDER,
    workers: int | Workers = 1,
    say: Callable[[str], object] = print,
    part: Part[Any] = tables.SFT,
    only_missing: bool = False,
) -> None:
    """Compute a profile for several base seeds and write each seed's tables as soon as its last run is there.

    A seed recorded before from the same runs gets the same bytes again. only_missing: leave out what is recorded,
    whatever code made it; so a study goes on from its results alone, without the store that they came from.
    """
    from rlheals.training.fetch import HOW_TO_PIN, is_pinned

    part.check(profile)
    if profile.model is not None and not is_pinned(profile.model):
        raise BadInput(f"--record: model {profile.model.name!r} has no fixed commit; {HOW_TO_PIN}")
    home = folder / f"{profile.name}{part.suffix}"
    plans = {seed: part.plan(profile, seed, store) for seed in seeds}
    if only_missing:
        plans = {seed: chosen for seed, chosen in plans.items() if not _is_recorded(chosen, home)}
    missing = {seed: {store.key(spec) for spec in chosen.specs()} for seed, chosen in plans.items()}

    def finished(run_id: str) -> None:
        for seed, ids in list(missing.items()):
            ids.discard(run_id)
            if not ids:
                del missing[seed]
                place = home / plans[seed].name
                write(plans[seed], profile, store, place, part)
                say(f"recorded {place.parent.name} {place.name.replace('-', ' ')}")

    compute([spec for chosen in plans.values() for spec in chosen.specs()], store, workers, finished=finished)


def _is_recorded(chosen: SeedPlan, home: Path) -> bool:
    """Whether a plan's folder is there with as many runs of the same stages and seeds as the plan has today."""
    place = home / chosen.name
    if not (place / MANIFEST).is_file():
        return False
    runs = [(run.stage, run.seed) for run in read_manifest(place).runs]
    return runs == [(spec.stage, spec.seed) for spec in chosen.specs()]


def write(
    chosen: SeedPlan, profile: Profile, store: Store, folder: Path, part: Part[Any] = tables.SFT
) -> None:
    """Write the tables of one base seed, the manifest last."""
    runs = [store.load(store.key(spec)).manifest for spec in chosen.specs()]
    tables.write(part.collect([chosen], store), folder)
    for name, model in part.models(profile, chosen, store).items():
        with whole(folder / name, replace=True) as place:
            shutil.copytree(model, place, dirs_exist_ok=True)
    manifest = Recorded(
        profile=profile.model_dump(mode="json"),
        seed=chosen.seed,
        started=min(run.started for run in runs),
        claims=digest_of(FILE).sha256,
        machine=runs[-1].machine,
        versions=runs[-1].versions,
        runs=tuple(map(RecordedRun.of, runs)),
        files={
            str(file.relative_to(folder)): digest_of(file).sha256
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != MANIFEST
        },
    )
    atomic_write(folder / MANIFEST, manifest.sealed().text())


def read(folder: Path, kind: type[Frames] = Tables) -> tuple[Frames, list[Recorded]]:  # type: ignore[assignment]
    """All recorded seeds below a profile's folder, with their manifests; BadInput when a file is damaged or missing."""
    parts, manifests = [], []
    for seed, place in _places(folder):
        manifest, where = read_manifest(place), f"results {place.parent.name}/{place.name}"
        for field in fields(kind):
            name = f"{field.name}.parquet"
            if not (place / name).is_file() or manifest.files.get(name) != digest_of(place / name).sha256:
                raise BadInput(f"{where}: {name} is missing or has changed since")
        part: Any = tables.read(place, kind)
        if part.seeds != [manifest.seed] or seed != manifest.seed:
            raise BadInput(f"{where}: holds seeds {part.seeds}, its manifest says {manifest.seed}")
        parts.append(part)
        manifests.append(manifest)
    if not parts:
        raise BadInput(f"no recorded study in {folder}; `rlheals study --record` makes one")
    return tables.joined(parts, kind), manifests


def find(name: str, part: Part[Frames], results: Path) -> tuple[Frames | None, list[Recorded]]:
    """The recorded study of a profile, or (None, []) when nothing is recorded for it."""
    names = [name, *(f"{name}-{variant}" for variant in part.variants)]
    folders = [results / f"{one}{part.suffix}" for one in names]
    found = [read(folder, part.kind) for folder in folders if any(folder.glob("seed-*"))]
    if not found:
        return None, []
    return tables.joined([frames for frames, _ in found], part.kind), [
        one for _, all_ in found for one in all_
    ]


def _places(folder: Path) -> list[tuple[int, Path]]:
    """The folders of recorded base seeds, in order."""
    found = []
    for place in folder.glob("seed-*"):
        seed = re.fullmatch(r"seed-(\d{1,6})(-run-\d|-controls|-map|-arms|-mechanism)?", place.name)
        if seed is None:
            raise BadInput(f"results {folder.name}: {place.name!r:.60} is not a folder of the form seed-1")
        found.append((int(seed[1]), place))
    return sorted(found)


def read_manifest(folder: Path) -> Recorded:
    """The manifest of one recorded seed."""
    data, where = (
        read_json(folder / MANIFEST, MAX_MANIFEST_BYTES),
        f"results {folder.parent.name}/{folder.name}: {MANIFEST}",
    )
    found = validated(Recorded, data, where)
    if found.digest != manifest_digest(data):
        raise BadInput(f"{where} does not match its own digest")
    return found


def manifest_digest(data: dict[str, Any]) -> str:
    """sha256 over all of a manifest but its digest."""
    rest = {name: value for name, value in data.items() if name != "digest"}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def recorded_manifests(results: Path) -> dict[str, list[Recorded]]:
    """The manifests of every recorded study below a folder, by the name of its profile."""
    studies: dict[str, list[Recorded]] = {}
    for place in sorted(results.glob("*/seed-*/")):
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", place.parent.name):
            raise BadInput(f"results: {place.parent.name!r:.60} is not the name of a study")
        studies.setdefault(place.parent.name, []).append(read_manifest(place))
    return studies
