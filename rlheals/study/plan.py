"""The graph of a profile's runs: which runs a study has, and what each is computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rlheals.engines.weight_files import WEIGHTS
from rlheals.errors import BadInput
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
    """Base and SFT, and what each evaluation is for: (step, sampling seed), or the step of a trial of other rules.

    starts: SFT checkpoints that are recorded, by step: what begins with them need not wait for SFT.
    """

    base: RunSpec
    sft: RunSpec
    censuses: dict[tuple[int, int], RunSpec]
    rules: dict[int, RunSpec]
    starts: dict[int, RunSpec] = field(default_factory=dict)

    @property
    def origins(self) -> list[RunSpec]:
        """What later chapters begin with."""
        return [self.base, self.sft, *self.starts.values()]

    def checkpoint(self, step: int) -> tuple[RunSpec, str]:
        """The run that has an SFT checkpoint, and its folder there."""
        from rlheals.training.adopt import FOLDER

        return (self.starts[step], FOLDER) if step in self.starts else (self.sft, f"step-{step:05d}")

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
        dict(_recorded_starts(profile, seed)),
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
    """The base of a seed: the profile's language model, the same for all seeds, as it is or after a warm-up; else
    pretrained.

    Seed 0 of the lab is the base that is shipped with the package, if the profile says so. A base that is recorded with
    the same settings of pretraining is taken from there.
    """
    from rlheals.training import adopt
    from rlheals.training.fetch import settings_of
    from rlheals.training.sft import SFTSettings

    if profile.model is not None:
        source = settings_of(profile.model).model_dump(mode="json")
        if (before := profile.warm_up) is None:
            return RunSpec(stage="fetch", settings=source)
        asked = profile.sft.model_dump() | {"splits": before.splits, "checkpoints": (before.steps,)}
        settings = SFTSettings.model_validate(asked).model_dump(mode="json")
        return RunSpec(stage="warm_up", settings={**settings, "source": source})
    if seed == 0 and profile.shipped_base:
        return RunSpec(stage="adopt", settings={"sha256": adopt.weights_hash()})
    return next((spec for _, spec in _recorded(profile, seed, adopt.BASES)), pretrain_spec(profile, seed))


def _recorded_starts(profile: Profile, seed: int) -> Iterator[tuple[int, RunSpec]]:
    """By step, SFT checkpoints recorded with the same settings of pretraining and SFT."""
    from rlheals.training import adopt

    for folder, spec in _recorded(profile, seed, adopt.CHECKPOINTS):
        yield int(folder.name.removeprefix("step-")), spec


def recorded_sft(profile: Profile, seed: int) -> Path | None:
    """The recorded study of this profile's SFT that has checkpoints, if there is one."""
    from rlheals.training import adopt

    return next((folder.parent for folder, _ in _recorded(profile, seed, adopt.CHECKPOINTS)), None)


def _recorded(profile: Profile, seed: int, models: str) -> Iterator[tuple[Path, RunSpec]]:
    """Recorded models that were made with this profile's settings, each with the run that takes it."""
    from rlheals.training import adopt

    for folder in adopt.recorded(models, seed):
        where = f"{folder.parent.parent.name}/{folder.parent.name}: {MANIFEST}"
        known = validated(_Known, read_json(folder.parent / MANIFEST, MAX_MANIFEST_BYTES), where)
        weights = known.files.get(f"{folder.name}/{WEIGHTS}")
        if weights is None:
            raise BadInput(f"{where} does not name {folder.name}/{WEIGHTS}")
        if _made_with(known.profile, models) == _made_with(profile.model_dump(mode="json"), models):
            yield folder, RunSpec(stage="adopt", settings={"sha256": weights})


def _made_with(profile: Mapping[str, Any], models: str) -> list[Any]:
    """The settings behind recorded models; which SFT checkpoints are kept changes none of them."""
    from rlheals.training import adopt

    base = [profile.get(name) for name in ("task", "model", "pretrain")]
    if models == adopt.BASES:
        return base
    tuning = profile.get("sft")
    return [*base, {**tuning, "checkpoints": None} if isinstance(tuning, dict) else None]


class _Known(BaseModel):
    """Of a recorded model's manifest what says whether it is the one that is meant."""

    profile: dict[str, Any]
    files: dict[str, Hash]


def pretrain_spec(profile: Profile, seed: int) -> RunSpec:
    """Pretraining of a seed's base."""
    return RunSpec(stage="pretrain", settings=profile.pretrain.model_dump(mode="json"), seed=seed)
