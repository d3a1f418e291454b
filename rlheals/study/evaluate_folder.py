"""TODO rlheals/study/evaluate_folder.py."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rlheals.errors import BadInput
from rlheals.evaluation import evaluate
from rlheals.profiles.profile import Profile
from rlheals.settings import validated
from rlheals.stage import Work
from rlheals.store.files import refuse_used, whole
from rlheals.store.stages import module_of


def evaluate_folder(
    folder: Path, profile: Profile, seed: int, changes: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The census of any local model folder; with `out` its tables are kept there."""
    if not folder.is_dir():
        raise BadInput(f"--folder {str(folder)!r}: no such folder")
    if out is not None:
        refuse_used(out)
    place = folder.resolve()
    settings = _census_settings(profile, place.name, changes).model_dump(mode="json")
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(desc="evaluate", disable=None, leave=False, dynamic_ncols=True) as bar,
    ):

        def tick(done: int, total: int, unit: str) -> None:
            bar.total, bar.unit = total, unit
            bar.update(done - bar.n)

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


def _census_settings(profile: Profile, folder: str, changes: dict[str, Any]) -> evaluate.EvaluateSettings:
    data = profile.evaluate.model_dump(mode="json") | {"folder": folder}
    for name, value in changes.items():
        if value is None:
            continue
        if name in evaluate.Sampling.model_fields:
            data["sampling"][name] = value
        else:
            data[name] = value
    return validated(evaluate.EvaluateSettings, data, "evaluate")
