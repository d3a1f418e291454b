"""The verdicts on all claims, from the recorded study alone.

To judge takes seconds, so verdicts are kept in the store of the project whose results they are about. What is kept is
checked before it is believed, and judged anew where it is damaged or where results, claims, code or libraries changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlheals.chapters.registry import CHAPTERS
from rlheals.project import project_root
from rlheals.store.files import StoreError, atomic_write, make_folder
from rlheals.store.store import default_store
from rlheals.study.claims import Outcome

FILE = "verdicts.json"
JUDGED = ("verdict", "interval", "holm_p", "holds_after_holm", "values")
KEPT: TypeAdapter[dict[str, Outcome]] = TypeAdapter(dict[str, Outcome])


def outcomes(results: Path, keys: Collection[str] = tuple(CHAPTERS)) -> dict[str, Outcome]:
    """The claims of parts, judged on the recorded study of the profile that `claims.yaml` names.

    What is recorded is read once for all of them. Raises BadInput when it is damaged.
    """
    file, behind = default_store().root / FILE, _digest(results)
    kept = _read(file, behind)
    if new := {key: judged(key, results) for key in keys if key not in kept}:
        kept |= new
        recorded = any(one.missing is not None for one in new.values())
        if recorded and results.absolute().is_relative_to(project_root()):
            _write(file, behind, kept)
    return {key: kept[key] for key in keys}


def judged(key: str, results: Path) -> Outcome:
    """The same of one part from the tables, whatever is kept."""
    one = CHAPTERS[key]  # opening its room takes seconds, which a verdict that is kept does not need
    found, _ = one.chapter.found(one.claims.read().study.profile, results)
    return one.claims.outcome(found)


def _digest(results: Path) -> str:
    """Of everything that verdicts follow from: recorded files, claims, our code, and the libraries that compute."""
    package = Path(str(resources.files("rlheals")))
    found = hashlib.sha256(" ".join(version(name) for name in ("numpy", "pandas", "scipy")).encode())
    for folder, files in ((package, ("*.py", "*.yaml")), (results, ("*.parquet", "manifest.json"))):
        for file in sorted(file for name in files for file in folder.rglob(name)):
            found.update(f"\n{file.relative_to(folder)} ".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _read(file: Path, behind: str) -> dict[str, Outcome]:
    """By part, what is kept; nothing where it is damaged or follows from something else."""
    try:
        known, check, text = file.read_text(encoding="utf-8").split("\n", 2)
        whole = check == hashlib.sha256(text.encode()).hexdigest()
        return KEPT.validate_json(text) if known == behind and whole else {}
    except (OSError, ValueError, ValidationError):
        return {}


def _write(file: Path, behind: str, kept: dict[str, Outcome]) -> None:
    """Keep it; a store that cannot be written only means that it is judged again."""
    text = KEPT.dump_json(kept).decode()
    try:
        make_folder(file.parent)
        atomic_write(file, "\n".join([behind, hashlib.sha256(text.encode()).hexdigest(), text]))
    except (StoreError, OSError):
        pass


def as_json(results: Path) -> dict[str, dict[str, Any]]:
    """By part of `claims.yaml`: every claim with its interval and verdict; null while something is missing."""
    return {key: {"title": CHAPTERS[key].title, **_as_json(one)} for key, one in outcomes(results).items()}


def _as_json(found: Outcome) -> dict[str, Any]:
    judged = {one.claim.id: one for one in found.judged}
    rows = []
    for claim in found.claims.claims:
        row = claim.model_dump(mode="json") | dict.fromkeys(JUDGED)
        if one := judged.get(claim.id):
            said = (one.verdict, asdict(one.interval), one.adjusted, one.survives and one.verdict == "holds")
            row |= zip(JUDGED, (*said, one.values), strict=True)
        row["no_data"] = found.no_data.get(claim.id)
        rows.append(row)
    return {
        "study": found.claims.study.model_dump(mode="json", exclude_none=True),
        "missing": ["nothing is recorded"] if found.missing is None else list(found.missing),
        "claims": rows,
    }
