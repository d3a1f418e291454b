"""One dial: a profile sets the model, the sizes and the steps of every stage. Profiles are read and written as YAML."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rlheals.errors import BadInput
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.profiles.edit_grid import LEND, OTHER, RESTORE, SWAP, SwapGrid
from rlheals.profiles.profile import Profile
from rlheals.profiles.sections import Protection, RLStarts, Rotation
from rlheals.settings import validated
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

__all__ = ["PROFILES", "VARIANTS", "Profile", "load_profile", "names", "to_yaml", "validated", "variant"]
FILES = Path(str(resources.files("rlheals.profiles")))
"""Profiles for language models and larger lab models, as YAML."""


_LAB = Profile(
    name="lab",
    about="The whole study with a model of 0.2 M parameters, from scratch, on two CPU cores, in minutes.",
    rule_steps=(0, 20, 40, 160, 1280),
    reader_steps=(0, 10, 20, 40, 80, 160, 320, 640, 1280),
    rl_starts=RLStarts(
        starts=(10, 20, 40, 80, 160, 320, 640, 1280),
        reader_starts=(10, 160, 1280),
        control_start=160,
        late_starts=(640, 1280),
    ),
    rotation=Rotation(
        steps=(0, 10, 20, 40, 80, 160, 320, 640, 1280),
        branches=("lr-1e-4", "lr-1e-3", "decay-0.3", "batch-16"),
        branch_steps=(20, 40, 80, 160, 320, 640, 1280),
        controls=("rejection", "ood-rule"),
        decodes=2,
    ),
    swaps=SwapGrid(
        late=640,
        start=160,
        restore=RESTORE,
        swap=SWAP,
        other=OTHER,
        lend=LEND,
        reader_restore=(
            "values(all) @ blocks",
            "directions(all) @ blocks",
            "rollback() @ blocks",
            "noise() like directions(all) @ blocks",
            "directions(top=20%) @ blocks",
            "partial(top=20%) like directions(top=20%) @ blocks",
        ),
        reader_swap=("directions(all) @ blocks", "noise() like directions(all) @ blocks"),
        decodes=2,
    ),
    protection=Protection(
        regularisers=(
            *(f"{kind}={strength}" for kind in ("subspace", "random") for strength in (0.01, 0.1, 1)),
            *(f"kl={strength}" for strength in (0.03, 0.1, 0.3)),
            "learning_rate=0.0001",
            "weight_decay=0.3",
        ),
        steps=(20, 40, 80, 160, 320, 640, 1280),
    ),
)

_SMOKE = Profile(
    name="smoke",
    about="The same code on a few hands and steps, to see that all of it runs; its numbers mean nothing.",
    evaluated=(0, 10, 30, 60),
    rule_steps=(60,),
    rule_hands=4,
    pretrain=PretrainSettings(min_steps=10, max_steps=20, check_every=10, panel_hands=16),
    sft=SFTSettings(checkpoints=(0, 10, 30, 60), batch=32, loss_examples=32),
    evaluate=EvaluateSettings(hands=32),
    rl_starts=RLStarts(
        starts=(10, 60),
        runs=1,
        decodes=1,
        rl=RLSettings(
            checkpoints=(2,), episodes=32, group=4, micro_batch_size=16, loss_every=1, loss_examples=16
        ),
    ),
    rotation=Rotation(steps=(0, 10, 30, 60), draws=2, questions=16),
    swaps=SwapGrid(
        late=60,
        start=60,
        reader_restore=("directions(all) @ blocks", "noise() like directions(all) @ blocks"),
        reader_swap=("directions(all) @ blocks",),
    ),
    protection=Protection(
        regularisers=("subspace=0.1",), steps=(10, 30, 60), reader_regularisers=("subspace=0.1",)
    ),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "age-300": {"pretrain.ability": None, "pretrain.max_steps": 300},
    "age-600": {"pretrain.ability": None, "pretrain.max_steps": 600},
    "age-1200": {"pretrain.ability": None, "pretrain.max_steps": 1200},
    "lr-1e-4": {"sft.learning_rate": 1e-4},
    "lr-1e-3": {"sft.learning_rate": 1e-3},
    "strict": {"pretrain.variant": "strict"},
    "diverse": {"sft.prompts": "diverse"},
}
"""Sensitivity: what changes when the lab is made in another way; each with fewer censuses than the lab itself."""

_FEWER = {"evaluated": (0, 20, 40, 80, 160, 320, 1280), "rule_steps": (), "decodes": 1}

PROFILES = {profile.name: profile for profile in (_SMOKE, _LAB)}


def load_profile(name_or_file: str | Path, changes: dict[str, Any] | None = None) -> Profile:
    """The profile of that name, or that of a YAML file, with `changes` such as {"sft.learning_rate": 1e-3}.

    A change of `pretrain.*` means a base of its own for seed 0 too, so it also sets `shipped_base` to false.
    Raises BadInput with one line that names the field when something is unknown, of the wrong type or impossible.
    """
    if str(name_or_file) in PROFILES:
        data = PROFILES[str(name_or_file)].model_dump(mode="json")
    elif str(name_or_file) in names():
        data = _read(FILES / f"{name_or_file}.yaml")
    else:
        data = _read(Path(name_or_file))
    for path, value in (changes or {}).items():
        _set(data, path, value)
        if path.startswith("pretrain."):
            data["shipped_base"] = bool((changes or {}).get("shipped_base", False))
    return validated(Profile, data, f"profile {name_or_file}")


def names() -> list[str]:
    """The names that `load_profile` knows."""
    return [*PROFILES, *sorted(file.stem for file in FILES.glob("*.yaml"))]


def variant(name: str) -> Profile:
    """The lab with one thing changed; BadInput for a name that is not one of `VARIANTS`.

    >>> variant("lr-1e-3").sft.learning_rate
    0.001
    """
    if name not in VARIANTS:
        raise BadInput(f"variant {name!r:.40} is not known; accepted: {', '.join(VARIANTS)}")
    return load_profile("lab", {"name": f"lab-{name}", **_FEWER, **VARIANTS[name]})


def to_yaml(profile: Profile) -> str:
    """The profile as YAML that `load_profile` reads back."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(file: Path) -> dict[str, Any]:
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise BadInput(f"profile {str(file)!r} is not known; accepted: {', '.join(names())} or a .yaml file")
    if file.stat().st_size > 100_000:
        raise BadInput(f"profile {str(file)!r} has over 100,000 bytes")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"profile {str(file)!r} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise BadInput(f"profile {str(file)!r} has to be a YAML mapping of settings")
    return data


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise BadInput(f"{path}: {parent} is not a group of settings")
        data = inner
    data[last] = value
