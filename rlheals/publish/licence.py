"""The licence of published weights: of a base of our own, that of the code; of another, what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.repocard import metadata_load

from rlheals.profiles.profile import Profile
from rlheals.store.runs import Run

OURS, UNKNOWN = "mit", "unknown"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,199}")
LINK = re.compile(r"https://[A-Za-z0-9 ._:/+-]{1,191}")  # not a file beside the base's card
FIELDS = {"license": PLAIN, "license_name": PLAIN, "license_link": LINK}
"""What a card says of a licence, and which values are taken over."""


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
    try:
        data = metadata_load(card)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        data = None
    data = data if isinstance(data, dict) else {}
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
        "at hand. Find it out before you use these weights or hand them on."
    )
