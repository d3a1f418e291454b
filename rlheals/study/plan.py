"""The graph of a profile's runs: which runs a study has, and what each is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from rlheals.engines.weight_files import WEIGHTS
from rlheals.settings import validated
from rlheals.store.files import read_json
from rlheals.store.runs import MANIFEST, MAX_MANIFEST_BYTES, Hash, RunSpec
from rlheals.store.store import Store

if TYPE_CHECKING:
    from rlheals.profiles.profile import Profile


@dataclass(frozen=True)
class SeedPlan:
    """Some runs of one base seed."""

    seed: int

    @property
    def name(self) -> str:
        """Of the folder in which they are recorded."""
        return f"seed-{self.seed}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        raise NotImplementedError


@dataclass(frozen=True)
class Plan(SeedPlan):
    """Base and SFT, and what each evaluation is for: (step, sampling seed), or the step of a trial of other rules."""

    base: RunSpec
    sft: RunSpec
    censuses: dict[tuple[int, int], RunSpec]
    rules: dict[int, RunSpec]

    def specs(self) -> list[RunSpec]:
        return [self.base, self.sft, *self.censuses.values(), *self.rules.values()]


def plan(profile: Profile, seed: int, store: Store) -> Plan:
    """The runs of a profile for one base seed: base, SFT, evaluations of (step, sampling seed), trials of other rules.

    SFT and sampling get seeds of their own that follow from the base seed, so that two base seeds share no noise.
    """
    base = base_spec(profile, seed)
    sft = RunSpec(
        stage="sft", settings=profile.sft.model_dump(mode="json"), inputs={"base": store.key(base)}, seed=seed
    )

    def census(step: int, decode: int, **changes: object) -> RunSpec:
        return census_spec(profile, store.key(sft), f"step-{step:05d}", seed, decode, changes)

    return Plan(
        seed,
        base,
        sft,
        {
            (step, decode): census(step, decode)
            for decode in range(profile.decodes)
            for step in profile.census_steps
        },
        {step: census(step, 0, splits=("rules",), hands=profile.rule_hands) for step in profile.rule_steps},
    )


def followed(runs: Mapping[Any, RunSpec], censuses: Mapping[Any, RunSpec]) -> list[RunSpec]:
    """Evaluations of what is not among the runs, then every run with its evaluations after it.

    A key of `censuses` is a tuple that begins with the key of what is evaluated.
    """
    listed = [spec for at, spec in censuses.items() if at[0] not in runs]
    for key, spec in runs.items():
        listed += [spec, *(census for at, census in censuses.items() if at[0] == key)]
    return listed


def census_spec(
    profile: Profile,
    model: str,
    folder: str,
    seed: int,
    decode: int,
    changes: Mapping[str, object] | None = None,
) -> RunSpec:
    """Evaluation of one checkpoint (run id, folder inside it); those of one base seed share their sampling noise."""
    settings = profile.evaluate.model_copy(update={"folder": folder, **(changes or {})})
    return RunSpec(
        stage=profile.stage("evaluate"),
        settings=settings.model_dump(mode="json"),
        inputs={"model": model},
        seed=100 * seed + decode,
    )


def base_spec(profile: Profile, seed: int) -> RunSpec:
    """The base of a seed: the profile's language model, the same for all seeds; else pretrained.

    Seed 0 of the lab is the base that is shipped with the package, if the profile says so. A base that is recorded with
    the same settings of pretraining is taken from there.
    """
    from rlheals.training.adopt import recorded_bases, weights_hash
    from rlheals.training.fetch import settings_of

    if profile.model is not None:
        return RunSpec(stage="fetch", settings=settings_of(profile.model).model_dump(mode="json"))
    if seed == 0 and profile.shipped_base:
        return RunSpec(stage="adopt", settings={"sha256": weights_hash()})
    asked = profile.model_dump(mode="json")
    for folder in recorded_bases(seed):
        known = validated(
            _Base, read_json(folder.parent / MANIFEST, MAX_MANIFEST_BYTES), f"base of seed {seed}: {MANIFEST}"
        )
        if all(known.profile.get(name) == asked[name] for name in ("task", "pretrain")):
            return RunSpec(stage="adopt", settings={"sha256": known.files.weights})
    return pretrain_spec(profile, seed)


class _Files(BaseModel):
    weights: Hash = Field(alias=f"base/{WEIGHTS}")


class _Base(BaseModel):
    """Of a recorded base's manifest what says whether it is the one that is meant."""

    profile: dict[str, Any]
    files: _Files


def pretrain_spec(profile: Profile, seed: int) -> RunSpec:
    """Pretraining of a seed's base."""
    return RunSpec(stage="pretrain", settings=profile.pretrain.model_dump(mode="json"), seed=seed)
