"""The licence of published weights: of a base of our own, that of the code; of another, what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rlheals.profiles.profile import Profile
from rlheals.store.runs import Run
from rlheals.yaml_file import MAX_BYTES, yaml_text

OURS, UNKNOWN = "mit", "unknown"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,199}")
LINK = re.compile(r"https://[A-Za-z0-9 ._:/+-]{1,191}")  # not a file beside the base's card
FRONT_MATTER = re.compile(r"\s*---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)
FIELDS = {"license": PLAIN, "license_name": PLAIN, "license_link": LINK}
"""What a card says of a licence, and which values are taken over."""


def front_matter(card: Any) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is no such card, or none that can be read."""
    try:
        with open(card, encoding="utf-8-sig") as file:
            head = FRONT_MATTER.match(file.read(MAX_BYTES))
        data = yaml_text(head[1], str(card)) if head else None
    except (OSError, ValueError, TypeError):  # BadInput is a ValueError; a hub's cache may hold no card
        data = None
    return data if isinstance(data, dict) else {}


def licence(profile: Profile, base: Run) -> tuple[dict[str, str], str]:
    """What a card's metadata says of the licence, and the same in sentences. Reads files of this machine only.

    base: the run `pretrain`, `adopt` or `fetch` of the profile's base.
    """
    if profile.model is None:
        return {"license": OURS}, "Code and weights: MIT. No weights of others went into these."
    name, local = profile.model.name, base.manifest.settings.get("sha256") is not None
    card: Any = Path(name) / "README.md"
    if not local:
        commit = json.loads(base.file("source.json").read_text(encoding="utf-8"))["commit"]
        card = try_to_load_from_cache(name, "README.md", revision=commit)
    data = front_matter(card)
    stated = {
        field: data[field]
        for field, plain in FIELDS.items()
        if isinstance(data.get(field), str) and plain.fullmatch(data[field])
    }
    front = {} if local else {"base_model": name}
    said = (
        f"Code: MIT. The weights are derived from the base, {'a local folder' if local else name}, and its own licence "
        "applies to them. "
    )
    if "license" in stated:
        words = ", ".join(f"{field} `{value}`" for field, value in stated.items())
        return {**stated, **front}, f"{said}The base's card says: {words}."
    return {"license": UNKNOWN, **front}, (
        f"{said}Which one that is was not known where this folder was written: no card of the base with a licence was "
        "found. Find out before you use or redistribute these weights."
    )
