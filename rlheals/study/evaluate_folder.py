"""The full evaluation of a model folder from anywhere, without the store."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.evaluation import evaluate
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.stage import Work
from rlheals.store.files import refuse_used, whole
from rlheals.store.stages import module_of
from rlheals.study.compute import bar


def evaluate_folder(
    folder: Path, profile: Profile, seed: int, changes: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """Every hand of the profile's splits answered by the model in a folder; with `out` the tables are kept there."""
    if not folder.is_dir():
        raise BadInput(f"--folder {str(folder)!r}: no such folder")
    if out is not None:
        refuse_used(out)
    place = folder.resolve()
    settings = census_settings(profile, place.name, changes).model_dump(mode="json")
    with tempfile.TemporaryDirectory() as scratch, bar("evaluate") as tick:
        made, parts = Path(scratch, "out"), Path(scratch, "parts")
        made.mkdir()
        parts.mkdir()
        stage = import_module(module_of(profile.stage("evaluate")))
        stage.run(Work(made, parts, settings, seed, {"model": place.parent}, tick))
        summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
        if out is not None:
            with whole(out) as target:
                shutil.copytree(made, target, dirs_exist_ok=True)
    return {"folder": str(folder), "out": None if out is None else str(out), "summary": summary}


def census_settings(profile: Profile, folder: str, changes: dict[str, Any]) -> evaluate.EvaluateSettings:
    data = profile.evaluate.model_dump(mode="json") | {"folder": folder}
    for name, value in changes.items():
        if value is not None:
            (data["sampling"] if name in evaluate.Sampling.model_fields else data)[name] = value
    return validated(evaluate.EvaluateSettings, data, "evaluate")
