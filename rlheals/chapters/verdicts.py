"""The verdicts on all claims, from the recorded study alone.

To judge takes seconds, so verdicts are kept in the store of the project whose results they are about. What is kept is
checked before it is believed, and judged anew where it is damaged or where results, claims, code or libraries changed.
"""

from __future__ import annotations

import hashlib
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
KEPT: TypeAdapter[dict[str, Outcome]] = TypeAdapter(dict[str, Outcome])


def outcome(key: str, results: Path) -> Outcome:
    """The claims of a part, judged on the recorded study of the profile that `claims.yaml` names.

    Raises BadInput when what is recorded is damaged.
    """
    file, behind = default_store(project_root()).root / FILE, _digest(results)
    kept = _read(file, behind)
    if key not in kept:
        kept[key] = judged(key, results)
        if kept[key].missing is not None and results.absolute().is_relative_to(project_root()):
            _write(file, behind, kept)
    return kept[key]


def judged(key: str, results: Path) -> Outcome:
    """The same from the tables, whatever is kept."""
    from rlheals.study import record  # takes seconds to import, which a verdict that is kept does not need

    one = CHAPTERS[key]
    found, _ = record.find(one.claims.read().study.profile, one.part, results)
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
    """By part of `claims.yaml`: every claim with its interval and verdict; both null while something is missing."""
    return {key: {"title": one.title, **_as_json(outcome(key, results))} for key, one in CHAPTERS.items()}


def _as_json(found: Outcome) -> dict[str, Any]:
    verdicts = {one["claim"]["id"]: one for one in KEPT.dump_python({"": found}, mode="json")[""]["judged"]}
    survives = {one.claim.id: one.survives and one.verdict == "holds" for one in found.judged}
    rows = []
    for claim in found.claims.claims:
        one = verdicts.get(claim.id, {})
        row = {name: one.get(name) for name in ("verdict", "interval")}
        more = {"holm_p": one.get("adjusted"), "holds_after_holm": survives.get(claim.id)}
        rows.append({**claim.model_dump(mode="json"), **row, **more, "values": one.get("values")})
    return {
        "study": found.claims.study.model_dump(mode="json", exclude_none=True),
        "missing": ["nothing is recorded"] if found.missing is None else list(found.missing),
        "claims": rows,
    }
