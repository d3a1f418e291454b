"""The licence of published weights: of a base of our own, that of the code; of another, what its card says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlheals.profiles.profile import Profile
from rlheals.store.runs import Run

OURS = "mit"
UNKNOWN = "unknown"
MAX_CARD = 1_000_000
FIELDS = ("license", "license_name", "license_link")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,199}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True)
class Licence:
    """front: what a card's metadata says; words: the same in sentences."""

    front: dict[str, str]
    words: str


def licence(profile: Profile, base: Run) -> Licence:
    """That of the weights which a profile's base became. Reads files of this machine only and guesses nothing.

    base: the run `pretrain`, `adopt` or `fetch`.
    """
    if profile.model is None:
        return Licence({"license": OURS}, "Code and weights: MIT. No weights of others went into these.")
    name = profile.model.name
    local = base.manifest.settings.get("sha256") is not None
    of_base = f"the base, {'a local folder' if local else name},"
    card = Path(name) / "README.md" if local else _cached(name, base)
    stated = _metadata(card) if card is not None else {}
    front = {} if local or not HUB_ID.fullmatch(name) else {"base_model": name}
    start = f"Code: MIT. The weights are derived from {of_base[:-1]}, and its own licence applies to them. "
    if "license" not in stated:
        return Licence(
            {"license": UNKNOWN, **front},
            start
            + "Which one that is was not known where this folder was written: no card of the base with a "
            "licence was at hand. Find it out before you use these weights or hand them on.",
        )
    told = ", ".join(f"{field} `{value}`" for field, value in stated.items())
    return Licence({**stated, **front}, start + f"The base's card says: {told}.")


def _cached(name: str, base: Run) -> Path | None:
    """The card of a hub's model where the hub's client has kept it on this machine."""
    from huggingface_hub import try_to_load_from_cache

    commit = json.loads(base.file("source.json").read_text(encoding="utf-8"))["commit"]
    found = try_to_load_from_cache(name, "README.md", revision=commit)
    return Path(found) if isinstance(found, str) else None


def _metadata(card: Path) -> dict[str, str]:
    """What a card's front matter says of the licence; nothing where it has none or cannot be read."""
    try:
        if card.stat().st_size > MAX_CARD:
            return {}
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = re.match(r"---\r?\n(.*?)\r?\n---\s", text, flags=re.DOTALL)
    try:
        data: Any = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    stated = {field: data[field] for field in FIELDS if _plain(data.get(field))}
    if not stated.get("license_link", "https://").startswith("https://"):
        del stated["license_link"]  # a file beside the base's card, which is not beside ours
    return stated


def _plain(value: Any) -> bool:
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None
