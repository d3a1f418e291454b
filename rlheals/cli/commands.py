"""What the commands do, as functions that return plain data: the command line only parses and prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.chapters.rl import runs as recovery
from rlheals.display.markup import Table
from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.publish.base_card import model_card
from rlheals.store.files import refuse_used, whole
from rlheals.store.runs import Run, RunSpec, digest_of
from rlheals.store.store import Store, default_store
from rlheals.study import plan as study
from rlheals.study.compute import compute
from rlheals.study.evaluate_folder import _census_settings
from rlheals.study.jobs import settings_file
from rlheals.training import sft
from rlheals.training.adopt import WEIGHTS, weights_hash
from rlheals.training.rl.settings import checkpoint_name


def the_store() -> Store:
    """The store that all commands share: that of the project around the current folder."""
    return default_store(project_root())


def pretrain(profile: Profile, seed: int, out: Path | None) -> dict[str, Any]:
    """Train a base from scratch (seed 0 too); with `out` its files and its model card are written there."""
    store = the_store()
    spec = RunSpec(stage="pretrain", settings=profile.pretrain.model_dump(mode="json"), seed=seed)
    if out is not None:
        refuse_used(out)
    (run,) = compute([spec], store)
    history = json.loads(run.file("ability.json").read_text(encoding="utf-8"))
    digest = digest_of(run.path / "base" / WEIGHTS).sha256
    if out is not None:
        with whole(out) as folder:
            shutil.copytree(run.path / "base", folder, dirs_exist_ok=True)
            shutil.copy(run.file("ability.json"), folder)
            (folder / "README.md").write_text(model_card(folder, profile.pretrain, seed), encoding="utf-8")
    return {
        **_described(run),
        "steps": history[-1]["step"],
        "ability": history[-1]["within_five"],
        "sha256": digest,
        "is_the_shipped_base": digest == weights_hash(),
        "out": None if out is None else str(out),
    }


def fine_tune(profile: Profile, seed: int) -> dict[str, Any]:
    """SFT of one base seed; the base is made first when it is not there."""
    store = the_store()
    chosen = study.plan(profile, seed, store)
    _, run = compute([chosen.base, chosen.sft], store)
    losses = json.loads(run.file("losses.json").read_text(encoding="utf-8"))
    return {**_described(run), "checkpoints": list(profile.sft.checkpoints), "losses": losses["sets"]}


def reinforce(profile: Profile, seed: int, start: int, number: int) -> dict[str, Any]:
    """RL from one SFT checkpoint of a base seed; what it needs is made first."""
    _refuse_unknown_step("--start", start, profile)
    store = the_store()
    before = study.plan(profile, seed, store)
    spec = recovery.rl_spec(profile, before, store, start, number, {})
    *_, run = compute([before.base, before.sft, spec], store)
    log = pd.read_parquet(run.file("log.parquet"))
    kl = ("kl_start",) if profile.ladder.rl.log_kl else ()
    shown = ("return", "solved", "first_try", "attempts", "zero_variance", *kl)
    ends = {"first": log.iloc[0], "last": log.iloc[-1]}
    return {
        **_described(run),
        "folder": str(run.path / checkpoint_name(profile.ladder.updates)),
        "updates": len(log),
        **{
            f"{end}_update": {name: round(float(row[name]), 4) for name in shown} for end, row in ends.items()
        },
    }


def evaluate_step(
    profile: Profile, seed: int, step: int, changes: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The census of one checkpoint of a base seed's SFT; what it needs is made first."""
    if out is not None:
        refuse_used(out)
    _refuse_unknown_step("--step", step, profile)
    store = the_store()
    chosen = study.plan(profile, seed, store)
    settings = _census_settings(profile, sft.checkpoint_name(step), changes)
    census = RunSpec(
        stage=profile.stage("evaluate"),
        settings=settings.model_dump(mode="json"),
        inputs={"model": store.key(chosen.sft)},
        seed=100 * seed,
    )
    *_, run = compute([chosen.base, chosen.sft, census], store)
    if out is not None:
        with whole(out) as folder:
            for name in run.manifest.files:
                shutil.copy(run.file(name), folder)
    return {**_described(run), "summary": json.loads(run.file("summary.json").read_text(encoding="utf-8"))}


def run_unit(stage: str, file: Path) -> dict[str, Any]:
    """One unit of work from a settings file, as a scheduler calls it."""
    spec = settings_file(file)
    if spec.stage != stage:
        raise BadInput(f"settings file {file.name}: its stage is {spec.stage!r}, not {stage!r}")
    (run,) = compute([spec], the_store())
    return _described(run)


def find_notebook(name: str) -> Path:
    """The notebook of that path, or of that name in the project's `notebooks/`."""
    folder = project_root() / "notebooks"
    for path in (Path(name), Path(f"{name}.ipynb"), folder / f"{name}.ipynb"):
        if path.is_file():
            return path
    there = (
        ", ".join(sorted(path.stem for path in folder.glob("*.ipynb")))
        or "a path; no notebooks/ folder is here"
    )
    raise BadInput(f"notebook {name!r:.80}: no such file; accepted: {there}")


def claims_page(profile: Profile, results: Path, out: Path) -> None:
    """Write the table of the book's claims page; loads the fresh runs of all chapters, or computes them."""
    from rlheals.book import claims as claims_page

    claims_page.write(profile, project_root() / results, out)


def _refuse_unknown_step(option: str, step: int, profile: Profile) -> None:
    if step not in profile.sft.checkpoints:
        accepted = ", ".join(map(str, profile.sft.checkpoints))
        raise BadInput(f"{option} {step}: accepted are the checkpoints {accepted}")


def _described(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "stage": manifest.stage,
        "id": run.id,
        "seed": manifest.seed,
        "path": str(run.path),
        "seconds": manifest.seconds,
    }


def speed(profile: Profile) -> tuple[list[dict[str, Any]], Table]:
    """How fast the runs of a profile that are in the store were computed, as plain values and as a table."""
    from rlheals.planning import dry_run
    from rlheals.planning import speed as measured

    store = the_store()
    there = [store.load(run) for run in dry_run.planned(profile, store) if store.has(run)]
    found = measured.speeds(there, store)
    if not found:
        raise BadInput(
            f"no run of profile {profile.name} is in the store; rlheals study --profile {profile.name} computes them"
        )
    return measured.as_json(found), measured.table(found)
