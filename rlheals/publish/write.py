"""A study of one base seed as a folder that others can load and check; `folder.py` says what lies where.

Nothing is computed here. The same store gives the same bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl.runs import RLPlan
from rlheals.chapters.spectra.runs import SpectraPlan
from rlheals.errors import BadInput
from rlheals.profiles import to_yaml
from rlheals.profiles.profile import Profile
from rlheals.publish import folder as published
from rlheals.publish import models as publish_models
from rlheals.publish.card import card
from rlheals.publish.folder import CARD, RESULTS, SETTINGS, SPECTRA, Published
from rlheals.publish.licence import licence
from rlheals.publish.models import ReadingStore, copy_files
from rlheals.store.files import StoreError, atomic_write, whole
from rlheals.store.runs import Run, digest_of, regular_files
from rlheals.store.store import Store
from rlheals.study import peaks, record, tables
from rlheals.study.plan import Plan, plan
from rlheals.study.record import MANIFEST, RecordedRun
from rlheals.study.tables import Part, Planned


@dataclass(frozen=True)
class Asked:
    """What is to be published. words: how a command line names the profile, for advice; needed: parts (keys of
    `CHAPTERS`) that have to be complete, others are taken where they are; steps: of SFT, None: those evaluated."""

    profile: Profile
    seed: int
    words: str
    steps: tuple[int, ...] | None = None
    needed: tuple[str, ...] = ()

    def command(self, key: str) -> str:
        """The command that computes a part."""
        return f"rlheals study {self.words} --seeds {self.seed} {CHAPTERS[key].option}".rstrip()


@dataclass(frozen=True)
class Found:
    """What the store has of it. absent: what it lacks, in sentences, each with what to do about it."""

    sft: Plan
    pieces: list[tuple[Part[Any], Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def of(self, kind: type[Any]) -> list[Any]:
        return [chosen for _, chosen in self.pieces if isinstance(chosen, kind)]


def publish(asked: Asked, store: Store, results: Path, out: Path) -> tuple[Published, dict[str, str]]:
    """Write the folder `out` as a whole or not at all; its manifest, and what it lacks with what to do about that.

    results: the recorded study, for peaks that are known from it.

    Raises BadInput when something that is needed is not in the store, and when `out` is there already and is not an
    untouched folder of this command. One that holds the same is left as it is.
    """
    before = refuse_foreign(out)
    reading = ReadingStore(store)
    found = gather(asked, reading, results)
    with whole(out, replace=before is not None) as folder:
        made = _write(asked, found, reading, folder)
    return made, found.absent


def refuse_foreign(out: Path) -> Published | None:
    """The manifest of what is there as this command left it; BadInput where `--out` names anything else."""
    if not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir()))):
        return None
    try:
        if out.is_symlink() or not out.is_dir():
            raise BadInput("it is not a folder")
        return published.check(out)
    except StoreError:
        raise
    except BadInput as error:
        raise BadInput(
            f"--out {str(out)!r}: is there already; accepted: a new or an empty folder, or one as `rlheals publish` "
            f"left it ({error})"
        ) from None


def gather(asked: Asked, store: ReadingStore, results: Path) -> Found:
    """What is in the store; BadInput names the command that computes what is needed and missing."""
    profile, seed = asked.profile, asked.seed
    if unknown := sorted(set(asked.steps or ()) - set(profile.sft.checkpoints)):
        accepted = ", ".join(map(str, profile.sft.checkpoints))
        raise BadInput(f"--steps {unknown[0]}: accepted are the checkpoints {accepted}")
    first = plan(profile, seed, store)
    if count := store.lacks(first.specs()):
        raise BadInput(_advice(asked, "sft", count, len(first.specs()), store))
    found = Found(first)
    found.pieces.append((tables.SFT, first))
    known = list(dict.fromkeys(_peaks(profile, first, store, results)))
    for key, claimed in CHAPTERS.items():
        if key == "sft":
            continue
        if reason := claimed.part.lacking(profile):
            if key in asked.needed:
                claimed.part.check(profile)
            found.absent[f"{claimed.title}: this profile has none."] = reason
            continue
        for part in claimed.parts(profile):
            plans = list(_plans(part, profile, seed, store, known))
            complete = next((one for one in plans if not store.lacks(one.specs())), None)
            if complete is not None:
                found.pieces.append((part, complete))
            elif key in asked.needed and not plans:
                raise BadInput(f"{claimed.option}: a peak needs censuses at three SFT steps or more")
            elif key in asked.needed:
                specs = plans[0].specs()
                raise BadInput(_advice(asked, key, store.lacks(specs), len(specs), store))
            else:
                name = f" ({plans[0].name})" if plans and len(claimed.parts(profile)) > 1 else ""
                found.absent[f"{claimed.title}{name}: not computed, or not to the end."] = asked.command(key)
    return found


def _advice(asked: Asked, key: str, missing: int, count: int, store: Store) -> str:
    return (
        f"{missing} of {count} runs of profile {asked.profile.name}, base seed {asked.seed}, are not in {store.root} "
        f"with these settings and today's code; compute them first: {asked.command(key)}"
    )


def _peaks(profile: Profile, first: Plan, store: Store, results: Path) -> Iterator[int]:
    """The peak from the recorded study, as `rlheals study` takes it, and that of the censuses in the store."""
    recorded, _ = record.find(profile.name, tables.SFT, results)
    if recorded is not None and first.seed in recorded.seeds:
        yield peaks.peaks_of(recorded.of_seed(first.seed))[first.seed]
    if len(profile.census_steps) > 2 and "ood" in profile.evaluate.splits:
        yield peaks.peaks_of(tables.collect([first], store))[first.seed]


def _plans(
    part: Part[Any], profile: Profile, seed: int, store: Store, known: Sequence[int]
) -> Iterator[Planned]:
    if not part.from_peaks:
        yield part.plan(profile, seed, store)
    for peak in known if part.from_peaks else ():
        yield part.at({seed: peak}).plan(profile, seed, store)


def _write(asked: Asked, found: Found, store: ReadingStore, folder: Path) -> Published:
    base = store.of(found.sft.base)
    profile = without_paths(asked.profile, base)
    checkpoints = publish_models.write(asked.profile, found.sft, found.of(RLPlan), asked.steps, store, folder)
    for spectra in found.of(SpectraPlan):
        for name, spec in spectra.pairs.items():
            copy_files(store.of(spec), "", folder / SPECTRA / name)
    for part, chosen in found.pieces:
        place = folder / RESULTS / f"{profile.name}{part.suffix}" / chosen.name
        record.write(chosen, profile, store, place, part)
    atomic_write(folder / SETTINGS, to_yaml(profile))
    specs = [spec for _, chosen in found.pieces for spec in chosen.specs()]
    runs = list({run.id: run.manifest for run in map(store.of, specs)}.values())
    made = Published(
        profile=profile.model_dump(mode="json"),
        seed=asked.seed,
        started=min(run.started for run in runs),
        machine=runs[-1].machine.model_dump(mode="json"),
        versions={"rlheals": version("rlheals"), **runs[0].versions},
        runs=tuple(
            RecordedRun(stage=r.stage, id=r.id, seed=r.seed, code_hash=r.code_hash, seconds=r.seconds)
            for r in runs
        ),
        files={},
        checkpoints=checkpoints,
        absent=tuple(found.absent),
    )
    machines = dict.fromkeys(
        f"{m.kind}, {m.model}, {m.isa}, {m.threads} thread(s)" for m in (run.machine for run in runs)
    )
    words = card(made, profile, licence(asked.profile, base), "; ".join(machines), folder)
    atomic_write(folder / CARD, words)
    files = {name: digest_of(path).sha256 for name, path in sorted(regular_files(folder).items())}
    made = made.model_copy(update={"files": files}).sealed()
    atomic_write(folder / MANIFEST, made.text())
    return made


def without_paths(profile: Profile, base: Run) -> Profile:
    """The profile with the last names of files and folders in place of their paths on this machine."""
    changes: dict[str, Any] = {}
    if profile.model is not None and base.manifest.settings.get("sha256") is not None:
        name = Path(profile.model.name).resolve().name
        changes["model"] = profile.model.model_copy(update={"name": f"./{name}"})
    if profile.sft.expert_file is not None:
        name = Path(profile.sft.expert_file).name
        changes["sft"] = profile.sft.model_copy(update={"expert_file": name})
    return profile.model_copy(update=changes)


def upload_command(name: str, folder: Path, private: bool) -> str:
    """The command that uploads a published folder to a hub account; BadInput when the name is none of a hub's."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if name.count("/") != 1:
            raise HFValidationError("the form is OWNER/NAME")
        validate_repo_id(name)
    except HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"--hub {name!r:.120}: {reason}; accepted: OWNER/NAME such as ada/lab-seed-1"
        ) from None
    return shlex.join(["hf", "upload", name, str(folder), ".", *(["--private"] if private else [])])
