"""One dial: a profile sets the model, the sizes and the steps of every stage. Profiles are read and written as YAML."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from rlheals.branches import Rotation
from rlheals.errors import BadInput
from rlheals.evaluate import EvaluateSettings
from rlheals.ladder import Ladder
from rlheals.models import ModelSettings
from rlheals.pretrain import PretrainSettings
from rlheals.protection_ways import Protection
from rlheals.rl import RLSettings
from rlheals.settings import Int, Settings
from rlheals.sft import SFTSettings
from rlheals.swap_grid import LEND, OTHER, RESTORE, SWAP, SwapGrid

Model = TypeVar("Model", bound=BaseModel)


PROMPT_TOKENS, FEEDBACK_TOKENS = 13, 3  # of the compact dialect


class Profile(Settings):
    """The settings of a whole study.

    >>> load_profile("lab").sft.checkpoints[-1]
    1280
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    about: str = Field("", description="one sentence on what the profile is for")
    seeds: tuple[Int, ...] = Field((0,), description="base seeds of the fresh run; 0 is the shipped base")
    shipped_base: bool = Field(
        True, description="seed 0 is the base shipped with the package, not pretrained"
    )
    decodes: Int = Field(1, ge=1, description="censuses per checkpoint, with different sampling noise")
    evaluated: tuple[Int, ...] | None = Field(
        None, description="SFT steps that get a census; None: all checkpoints"
    )
    rule_steps: tuple[Int, ...] = Field((), description="SFT steps at which other J, Q, K rules are tried")
    rule_hands: Int = Field(40, ge=1, description="hands per rule in that trial")
    reader_steps: tuple[Int, ...] | None = Field(
        None,
        description="SFT steps that get a census in a reader's fresh run, unless `evaluated` names its own",
    )
    pretrain: PretrainSettings = PretrainSettings()
    sft: SFTSettings = SFTSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    ladder: Ladder = Ladder()
    rotation: Rotation = Rotation()
    swaps: SwapGrid = SwapGrid()
    protection: Protection = Protection()
    engine: Literal["hf", "vllm"] = Field(
        "hf",
        description="what plays episodes in censuses and in RL: transformers, or vLLM where it is installed",
    )

    def stage(self, name: str) -> str:
        """A stage, or that which does the same with this profile's engine."""
        return name if self.engine == "hf" or name not in PLAYING else f"{name}_{self.engine}"

    @property
    def census_steps(self) -> tuple[int, ...]:
        """SFT steps that get a census."""
        return self.sft.checkpoints if self.evaluated is None else self.evaluated

    def for_reader(self, recorded: bool) -> Profile:
        """What a reader computes: the censuses of `reader_steps`; no trial of other rules where one is recorded."""
        changes: dict[str, Any] = {"rule_steps": ()} if recorded else {}
        if self.reader_steps is not None and self.evaluated is None:
            changes["evaluated"] = self.reader_steps
        if self.ladder.reader_starts:
            mine = {"starts": self.ladder.reader_starts, "runs": 1, "decodes": 1, "control_start": None}
            changes["ladder"] = self.ladder.model_copy(update=mine)
        alone = {"branches": (), "controls": (), "decodes": 1}
        changes["rotation"] = self.rotation.model_copy(update=alone)
        few = {
            "restore": self.swaps.reader_restore,
            "swap": self.swaps.reader_swap,
            "other": (),
            "lend": (),
            "decodes": 1,
        }
        changes["swaps"] = self.swaps.model_copy(update=few)
        ways = {"ways": self.protection.reader_ways, "decodes": 1}
        changes["protection"] = self.protection.model_copy(update=ways)
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _fits_together(self) -> Profile:
        different = len(set(self.seeds)) == len(self.seeds) > 0
        if not different or min(self.seeds) < 0 or max(self.seeds) > 999_999:
            raise ValueError(f"seeds={list(self.seeds)}: different numbers from 0 to 999,999 are accepted")
        groups = {
            "evaluated": self.census_steps,
            "rule_steps": self.rule_steps,
            "reader_steps": self.reader_steps or (),
            "ladder.starts": self.ladder.starts,
            "ladder.reader_starts": self.ladder.reader_starts,
            "ladder.late_starts": self.ladder.late_starts,
            "rotation.steps": self.rotation.steps,
            "rotation.branch_steps": self.rotation.branch_steps,
            "protection.steps": self.protection.steps,
            "swaps.late": () if self.swaps.late is None else (self.swaps.late,),
            "swaps.start": () if self.swaps.start is None else (self.swaps.start,),
            "ladder.control_start": (
                () if self.ladder.control_start is None else (self.ladder.control_start,)
            ),
        }
        for field, steps in groups.items():
            if unknown := sorted(set(steps) - set(self.sft.checkpoints)):
                raise ValueError(f"{field} has {unknown[0]}, which is not one of sft.checkpoints")
        if self.shipped_base and self.pretrain.model != ModelSettings():
            raise ValueError(
                "shipped_base: pretrain.model has another shape than the shipped base; set it to false"
            )
        needed = PROMPT_TOKENS + self.evaluate.attempts * (
            self.evaluate.sampling.max_new_tokens + FEEDBACK_TOKENS
        )
        if needed > self.pretrain.model.max_tokens:
            raise ValueError(
                f"evaluate.attempts and evaluate.sampling.max_new_tokens make episodes of up to {needed} tokens, more "
                f"than pretrain.model.max_tokens={self.pretrain.model.max_tokens}"
            )
        return self


PLAYING = ("evaluate", "rl")
"""Stages that play, with an engine."""

_LAB = Profile(
    name="lab",
    about="The whole study with a model of 0.2 M parameters, from scratch, on two CPU cores, in minutes.",
    rule_steps=(0, 20, 40, 160, 1280),
    reader_steps=(0, 10, 20, 40, 80, 160, 320, 640, 1280),
    ladder=Ladder(
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
        ways=(
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
    ladder=Ladder(
        starts=(10, 60),
        runs=1,
        decodes=1,
        rl=RLSettings(checkpoints=(2,), episodes=32, group=4, slice_rows=16, loss_every=1, loss_examples=16),
    ),
    rotation=Rotation(steps=(0, 10, 30, 60), draws=2, questions=16),
    swaps=SwapGrid(
        late=60,
        start=60,
        reader_restore=("directions(all) @ blocks", "noise() like directions(all) @ blocks"),
        reader_swap=("directions(all) @ blocks",),
    ),
    protection=Protection(ways=("subspace=0.1",), steps=(10, 30, 60), reader_ways=("subspace=0.1",)),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "age-300": {"pretrain.ability": None, "pretrain.max_steps": 300},
    "age-600": {"pretrain.ability": None, "pretrain.max_steps": 600},
    "age-1200": {"pretrain.ability": None, "pretrain.max_steps": 1200},
    "lr-1e-4": {"sft.learning_rate": 1e-4},
    "lr-1e-3": {"sft.learning_rate": 1e-3},
    "strict": {"pretrain.variant": "strict"},
}
"""Sensitivity: what changes when the lab is made in another way; each with fewer censuses than the lab itself."""

_FEWER = {"evaluated": (0, 20, 40, 80, 160, 320, 1280), "rule_steps": (), "decodes": 1}

PROFILES = {profile.name: profile for profile in (_SMOKE, _LAB)}


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def load_profile(name_or_file: str | Path, changes: dict[str, Any] | None = None) -> Profile:
    """The profile of that name, or that of a YAML file, with `changes` such as {"sft.learning_rate": 1e-3}.

    A change of `pretrain.*` means a base of its own for seed 0 too, so it also sets `shipped_base` to false.
    Raises BadInput with one line that names the field when something is unknown, of the wrong type or impossible.
    """
    if str(name_or_file) in PROFILES:
        data = PROFILES[str(name_or_file)].model_dump(mode="json")
    else:
        data = _read(Path(name_or_file))
    for path, value in (changes or {}).items():
        _set(data, path, value)
        if path.startswith("pretrain."):
            data["shipped_base"] = bool((changes or {}).get("shipped_base", False))
    return validated(Profile, data, f"profile {name_or_file}")


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


def validated(kind: type[Model], data: Any, where: str) -> Model:
    """`data` as a model; BadInput with one line that names the first offending field."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(" ".join(str(part).split())[:60] for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            known = (
                ", ".join(kind.model_fields) if len(first["loc"]) == 1 else "see `rlheals doctor --profiles`"
            )
            raise BadInput(f"{where}: {field} is not a setting; accepted: {known}") from None
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        got = "" if first["loc"] == () else f" (got {_SHORT.repr(first.get('input'))})"
        raise BadInput(f"{where}: {field}: {message}{got}") from None


def _read(file: Path) -> dict[str, Any]:
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise BadInput(f"profile {str(file)!r} is not known; accepted: {', '.join(PROFILES)} or a .yaml file")
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
