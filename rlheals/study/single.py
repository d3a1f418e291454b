"""Single runs of a profile's study, computed with what they need, and the evaluation of any model; as plain data."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.evaluation.evaluate import EvaluateSettings, Sampling
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.stage import Work
from rlheals.store.files import read_json, refuse_used, whole
from rlheals.store.runs import MAX_MANIFEST_BYTES, Run, RunSpec, digest_of
from rlheals.store.stages import STAGES
from rlheals.store.store import Store
from rlheals.study.compute import bar, compute
from rlheals.study.plan import census_spec, plan, pretrain_spec
from rlheals.training.adopt import WEIGHTS, weights_hash
from rlheals.training.sft import checkpoint_name


def described(run: Run) -> dict[str, Any]:
    """Which run it is, and where."""
    one = run.manifest
    return {
        "stage": one.stage, "id": run.id, "seed": one.seed, "path": str(run.path), "seconds": one.seconds,
    }  # fmt: skip


def refuse_unknown_step(option: str, step: int, profile: Profile) -> None:
    """BadInput unless SFT of the profile writes a checkpoint at that step."""
    if step not in profile.sft.checkpoints:
        accepted = ", ".join(map(str, profile.sft.checkpoints))
        raise BadInput(f"{option} {step}; accepted: the checkpoints {accepted}")


def pretrained(profile: Profile, seed: int, store: Store) -> tuple[Run, dict[str, Any]]:
    """A base trained from scratch (seed 0 too), and its facts."""
    (run,) = compute([pretrain_spec(profile, seed)], store)
    history = json.loads(run.file("ability.json").read_text(encoding="utf-8"))
    digest = digest_of(run.path / "base" / WEIGHTS).sha256
    return run, {
        **described(run),
        "steps": history[-1]["step"],
        "ability": history[-1]["within_five"],
        "sha256": digest,
        "is_the_shipped_base": digest == weights_hash(),
    }


def fine_tuned(profile: Profile, seed: int, store: Store) -> dict[str, Any]:
    """SFT of one base seed."""
    chosen = plan(profile, seed, store)
    _, run = compute([chosen.base, chosen.sft], store)
    losses = json.loads(run.file("losses.json").read_text(encoding="utf-8"))
    return {**described(run), "checkpoints": list(profile.sft.checkpoints), "losses": losses["sets"]}


def evaluated(
    profile: Profile, seed: int, step: int, changes: dict[str, Any], store: Store, out: Path | None
) -> dict[str, Any]:
    """The full evaluation of one checkpoint of a base seed's SFT; with `out` its tables are kept there, too."""
    if out is not None:
        refuse_used(out)
    refuse_unknown_step("--step", step, profile)
    chosen = plan(profile, seed, store)
    census = census_spec(_changed(profile, changes), store.key(chosen.sft), checkpoint_name(step), seed, 0)
    *_, run = compute([chosen.base, chosen.sft, census], store)
    return {**described(run), "summary": _summary(run.path, run.manifest.files, out)}


def evaluate_folder(
    folder: Path, profile: Profile, seed: int, changes: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The same of the model in a folder from anywhere, without the store."""
    if not folder.is_dir():
        raise BadInput(f"--folder {str(folder)!r}: no such folder")
    if out is not None:
        refuse_used(out)
    place = folder.resolve()
    stage = import_module(STAGES[profile.stage("evaluate")])
    with tempfile.TemporaryDirectory() as scratch, bar("evaluate") as tick:
        made, parts = Path(scratch, "out"), Path(scratch, "parts")
        made.mkdir()
        parts.mkdir()
        settings = _changed(profile, changes).evaluate.model_copy(update={"folder": place.name})
        stage.run(Work(made, parts, settings.model_dump(mode="json"), seed, {"model": place.parent}, tick))
        summary = _summary(made, os.listdir(made), out)
    return {"folder": str(folder), "out": None if out is None else str(out), "summary": summary}


def _changed(profile: Profile, changes: dict[str, Any]) -> Profile:
    """With what is not None of the changes to its evaluation."""
    data = profile.evaluate.model_dump(mode="json")
    for name, value in changes.items():
        if value is not None:
            (data["sampling"] if name in Sampling.model_fields else data)[name] = value
    return profile.model_copy(update={"evaluate": validated(EvaluateSettings, data, "evaluate")})


def _summary(made: Path, names: Iterable[str], out: Path | None) -> Any:
    """Of an evaluation, whose files are kept in `out`."""
    if out is not None:
        with whole(out) as folder:
            for name in names:
                shutil.copy(made / name, folder)
    return json.loads((made / "summary.json").read_text(encoding="utf-8"))


def unit(stage: str, file: Path, store: Store) -> dict[str, Any]:
    """One unit of work from a JSON file, {"stage", "settings", "inputs", "seed"}, as a scheduler calls it."""
    spec = validated(RunSpec, read_json(file, MAX_MANIFEST_BYTES), f"settings file {file.name}")
    if spec.stage != stage:
        raise BadInput(f"settings file {file.name}: its stage is {spec.stage!r}, not {stage!r}")
    return described(compute([spec], store)[0])
