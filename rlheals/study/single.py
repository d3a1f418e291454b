"""Single runs of a profile's study, computed with what they need, as plain data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.profiles.profile import Profile
from rlheals.store.files import refuse_used, whole
from rlheals.store.runs import Run, RunSpec, digest_of
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.evaluate_folder import census_settings
from rlheals.study.jobs import settings_file
from rlheals.study.plan import plan
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
        raise BadInput(f"{option} {step}: accepted are the checkpoints {accepted}")


def pretrained(profile: Profile, seed: int, store: Store) -> tuple[Run, dict[str, Any]]:
    """A base trained from scratch (seed 0 too), and its facts."""
    (run,) = compute(
        [RunSpec(stage="pretrain", settings=profile.pretrain.model_dump(mode="json"), seed=seed)], store
    )
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
    census = RunSpec(
        stage=profile.stage("evaluate"),
        settings=census_settings(profile, checkpoint_name(step), changes).model_dump(mode="json"),
        inputs={"model": store.key(chosen.sft)},
        seed=100 * seed,
    )
    *_, run = compute([chosen.base, chosen.sft, census], store)
    if out is not None:
        with whole(out) as folder:
            for name in run.manifest.files:
                shutil.copy(run.file(name), folder)
    return {**described(run), "summary": json.loads(run.file("summary.json").read_text(encoding="utf-8"))}


def unit(stage: str, file: Path, store: Store) -> dict[str, Any]:
    """One unit of work from a settings file, as a scheduler calls it."""
    spec = settings_file(file)
    if spec.stage != stage:
        raise BadInput(f"settings file {file.name}: its stage is {spec.stage!r}, not {stage!r}")
    return described(compute([spec], store)[0])
