"""A study of one base seed as a folder that others can load and check; `folder.py` says what lies where.

Nothing is computed here. The same store gives the same bytes.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

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
from rlheals.store.runs import MANIFEST, Run, digest_of, regular_files
from rlheals.store.store import Store
from rlheals.study import peaks, record, tables
from rlheals.study.claims import FILE
from rlheals.study.plan import Plan, SeedPlan, plan
from rlheals.study.record import RecordedRun
from rlheals.study.tables import Part

Pieces = list[tuple[Part[Any], Any]]
"""What is published of a study: its parts with their plans, that of SFT first."""


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


def publish(asked: Asked, store: Store, results: Path, out: Path) -> tuple[Published, dict[str, str]]:
    """Write the folder `out` as a whole or not at all; its manifest, and what it lacks with what to do about that.

    results: the recorded study, for peaks that are known from it.

    Raises BadInput when something that is needed is not in the store, and when `out` is there already and is not an
    untouched folder of this command. One that holds the same is left as it is.
    """
    ours = refuse_foreign(out)
    reading = ReadingStore(store)
    pieces, absent = gather(asked, reading, results)
    with whole(out, replace=ours) as folder:
        made = _write(asked, pieces, tuple(absent), reading, folder)
    return made, absent


def refuse_foreign(out: Path) -> bool:
    """Whether `out` is a folder as this command left it; BadInput where it is anything else but new or empty."""
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        return False
    try:
        if out.is_symlink() or not out.is_dir():
            raise BadInput("it is not a folder")
        published.check(out)
    except StoreError:
        raise
    except BadInput as error:
        raise BadInput(
            f"--out {str(out)!r}: is there already; accepted: a new or an empty folder, or one as `rlheals publish` "
            f"left it ({error})"
        ) from None
    return True


def gather(asked: Asked, store: ReadingStore, results: Path) -> tuple[Pieces, dict[str, str]]:
    """What is in the store, and what it lacks, in sentences, each with what to do about it.

    BadInput names the command that computes what is needed and missing.
    """
    profile, seed = asked.profile, asked.seed
    if unknown := sorted(set(asked.steps or ()) - set(profile.sft.checkpoints)):
        accepted = ", ".join(map(str, profile.sft.checkpoints))
        raise BadInput(f"--steps {unknown[0]}; accepted: the checkpoints {accepted}")
    first = plan(profile, seed, store)
    _demand(asked, "sft", first, store)
    pieces: Pieces = [(tables.SFT, first)]
    absent: dict[str, str] = {}
    for key, chapter in list(CHAPTERS.items())[1:]:
        if reason := chapter.part.lacking(profile):
            if key in asked.needed:
                chapter.part.check(profile)
            absent[f"{chapter.title}: this profile has none."] = reason
            continue
        for part in (units := chapter.parts(profile)):
            planned = None
            try:
                points = (
                    {seed: _point(part.from_sft, first, profile, store, results)} if part.from_sft else {}
                )
                known = part.at(points) if part.from_sft else part
                planned = known.plan(profile, seed, store)
                _demand(asked, key, planned, store)
            except StoreError:
                raise
            except BadInput as error:
                if key in asked.needed:
                    raise BadInput(f"{chapter.option}: {error}") from None
                name = f" ({planned.name})" if planned and len(units) > 1 else ""
                absent[f"{chapter.title}{name}: not computed, or not to the end."] = asked.command(key)
            else:
                pieces.append((part, planned))
    return pieces, absent


def _demand(asked: Asked, key: str, planned: SeedPlan, store: ReadingStore) -> None:
    """BadInput when a run of a part is missing."""
    if missing := store.lacks(planned.specs()):
        raise BadInput(
            f"{missing} of {len(planned.specs())} runs of profile {asked.profile.name}, base seed {asked.seed}, are "
            f"not in {store.root} with these settings and today's code; compute them first: {asked.command(key)}"
        )


def _point(what: str, first: Plan, profile: Profile, store: Store, results: Path) -> Any:
    """Of SFT, one of `POINTS`: from the recorded study, as `rlheals study` takes it, or else from the store."""
    study, _ = record.find(profile.name, tables.SFT, results)
    if study is None or first.seed not in study.seeds:
        study = tables.collect([first], store)
    found = peaks.POINTS[what](study)
    if first.seed not in found:
        raise BadInput(f"profile {profile.name} has no full evaluation on OOD hands, so no {what}")
    return found[first.seed]


def _write(
    asked: Asked, pieces: Pieces, absent: tuple[str, ...], store: ReadingStore, folder: Path
) -> Published:
    first = pieces[0][1]
    base = store.of(first.base)
    profile = without_paths(asked.profile, base)
    later = [chosen for _, chosen in pieces if isinstance(chosen, RLPlan)]
    models = publish_models.chosen(asked.profile, first, later, asked.steps, store)
    checkpoints = publish_models.write(models, folder)
    for part, chosen in pieces:
        if isinstance(chosen, SpectraPlan):
            for name, spec in chosen.pairs.items():
                copy_files(store.of(spec), "", folder / SPECTRA / name)
        place = folder / RESULTS / f"{profile.name}{part.suffix}" / chosen.name
        record.write(chosen, profile, store, place, part)
    atomic_write(folder / SETTINGS, to_yaml(profile))
    specs = [spec for _, chosen in pieces for spec in chosen.specs()]
    runs = list({run.id: run.manifest for run in map(store.of, specs)}.values())
    made = Published(
        profile=profile.model_dump(mode="json"),
        seed=asked.seed,
        started=min(run.started for run in runs),
        claims=digest_of(FILE).sha256,
        machine=runs[-1].machine,
        versions={"rlheals": version("rlheals"), **runs[0].versions},
        runs=tuple(map(RecordedRun.of, runs)),
        files={},
        checkpoints=checkpoints,
        absent=absent,
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
        name = f"./{Path(profile.model.name).resolve().name}"
        changes["model"] = profile.model.model_copy(update={"name": name})
    if profile.sft.expert_file is not None:
        name = Path(profile.sft.expert_file).name
        changes["sft"] = profile.sft.model_copy(update={"expert_file": name})
    return profile.model_copy(update=changes)


def upload_command(name: str, folder: Path, private: bool, kind: str = "model") -> str:
    """The command that uploads a published folder to a hub account; BadInput when the name is none of a hub's. kind:
    of repository, "model" or "dataset"."""
    try:
        validate_repo_id(name if name.count("/") == 1 else "")
    except HFValidationError:
        raise BadInput(f"--hub {name!r:.120}; accepted: OWNER/NAME such as ada/lab-seed-1") from None
    more = [*(["--repo-type", kind] if kind != "model" else []), *(["--private"] if private else [])]
    return shlex.join(["hf", "upload", name, str(folder), ".", *more])
