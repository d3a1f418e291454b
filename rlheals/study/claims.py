"""Claims: sentences with a test, from the paper or our own. A verdict is a pure function of interval and margin.

An estimator takes what a chapter measures of one base seed and returns one number, so that "number > margin" is the
claim. A claim is an entry of `claims.yaml`, and one function under `@estimator` where its number is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from rlheals.errors import BadInput
from rlheals.settings import Settings, validated
from rlheals.stats.intervals import Interval, holm, larger_p, of_ratio, t_interval
from rlheals.stats.verdicts import Verdict, verdict
from rlheals.yaml_file import read_yaml

FILE = Path(str(resources.files("rlheals"))) / "claims.yaml"
VERSION = 2
"""Of the registration: what another one says is not judged by these estimators."""
FIRST = "sft"
"""The part at the top of `claims.yaml`; each of the others stands under its name."""

Family = Literal["paper", "ours"]
FAMILIES: dict[Family, str] = {"paper": "Claims of the paper", "ours": "Our own questions and controls"}
"""Who says it, with the heading that tables give it; "paper" includes its precursor and the authors' files."""


class Ratio(NamedTuple):
    """What an estimator returns of one base seed whose claim is about sum(over) / sum(under) over base seeds."""

    over: float
    under: float


Estimator = TypeVar("Estimator", bound=Callable[..., float | Ratio])
ESTIMATORS: dict[str, dict[str, Callable[..., float | Ratio]]] = {}
"""By part of `claims.yaml` and name."""


def estimator(part: str) -> Callable[[Estimator], Estimator]:
    """Registers a function under its name for a part of `claims.yaml`. It takes one base seed's measurements first,
    then a claim's `options`. It raises BadInput where the measurements have nothing of what the claim is about."""

    def register(function: Estimator) -> Estimator:
        ESTIMATORS.setdefault(part, {})[function.__name__] = function
        return function

    return register


class Claim(Settings):
    """One sentence with its test; the fields are explained at the head of `claims.yaml`.

    partly: whether an effect above zero but not above the margin makes the claim hold in part; where it is false, the
    margin is a limit with nothing between "holds" and "not here". power: the smallest true effect that the study would
    call "holds" with probability 0.8 (`smallest_shown`), from the variance between development runs.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    sentence: str
    source: str
    family: Family
    section: str
    estimator: str
    options: dict[str, Any] = Field({})
    unit: str
    margin: float = Field(ge=0)
    partly: bool = Field(True)
    power: float | None = Field(None, gt=0)


class StudyPlan(Settings):
    """Which runs decide, fixed before any of them was made: repetitions per base seed, as far as a chapter has them."""

    profile: str
    decodes: int = Field(ge=1, description="sampling seeds per checkpoint")
    runs: int | None = Field(default=None, ge=1, description="RL seeds per start checkpoint")
    draws: int | None = Field(default=None, ge=1, description="draws of every null")
    seeds: tuple[int, ...] = Field(min_length=3)
    level: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _not_development(self) -> StudyPlan:
        if min(self.seeds) < 1 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds have to be different and from 1 up (base seed 0 is for development)")
        return self

    @property
    def said(self) -> str:
        """The repetitions, as tables say them."""
        runs = [f"{self.runs} RL seeds per start checkpoint"] if self.runs else []
        draws = [f"{self.draws} draws of every null"] if self.draws else []
        plural = "s" if self.decodes > 1 else ""
        return ", ".join([*runs, *draws, f"{self.decodes} sampling seed{plural} per checkpoint"])


class ClaimsFile(Settings):
    """One part of `claims.yaml`."""

    study: StudyPlan
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> ClaimsFile:
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError("two claims have the same id")
        return self


@dataclass(frozen=True)
class Judged:
    """A claim with what the data say: one value per seed (of a ratio: `of_ratio`), interval over seeds, verdict.

    adjusted: p-value of "effect > margin", corrected by Holm for the other claims of its part and family, also for
    those without data (as if theirs were 1); it does not enter the verdict.
    """

    claim: Claim
    values: dict[int, float]
    interval: Interval
    verdict: Verdict
    adjusted: float

    @property
    def survives(self) -> bool:
        """Whether a claim that holds does so after the correction, too."""
        return self.adjusted <= 1 - self.interval.level

    @property
    def shown(self) -> str:
        """The verdict as tables show it."""
        after = "" if self.survives or self.verdict != "holds" else ", not after Holm"
        return f"**{self.verdict}**{after}"


def judge(claims: ClaimsFile, numbers: Mapping[str, Mapping[int, float]]) -> list[Judged]:
    """Interval and verdict of every claim that has numbers; only the seeds fixed beforehand count, and all of them.

    numbers: by claim id, one number per base seed. Raises BadInput when a seed is missing.
    """
    study, found, adjusted = claims.study, dict[str, dict[int, float]](), dict[str, float]()
    with_data = [claim for claim in claims.claims if claim.id in numbers]
    for claim in with_data:
        if missing := sorted(set(study.seeds) - set(numbers[claim.id])):
            raise BadInput(
                f"claims are judged on base seeds {list(study.seeds)}; {missing[0]} is not recorded"
            )
        found[claim.id] = {seed: value for seed, value in numbers[claim.id].items() if seed in study.seeds}
    for family in FAMILIES:
        mine = [claim for claim in claims.claims if claim.family == family]
        raw = [
            larger_p(list(found[claim.id].values()), claim.margin) if claim.id in found else 1.0
            for claim in mine
        ]
        adjusted |= {claim.id: p for claim, p in zip(mine, holm(raw), strict=True)}
    judged = []
    for claim in with_data:
        interval = t_interval(list(found[claim.id].values()), study.level)
        said = verdict(interval, claim.margin, claim.partly)
        judged.append(Judged(claim, found[claim.id], interval, said, adjusted[claim.id]))
    return judged


@dataclass(frozen=True)
class Outcome:
    """The claims of a part; judged once nothing is missing (in words; None: nothing is recorded).

    no_data: by claim, why it is not judged although the others are, in words: what is recorded has nothing of what it
    is about, or has it not for all base seeds that decide.
    """

    claims: ClaimsFile
    missing: tuple[str, ...] | None
    judged: tuple[Judged, ...]
    no_data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChapterClaims:
    """The claims of a part.

    key: its name in `claims.yaml`; by_seed(tables): what its estimators take, by base seed; repeated(tables): rows
    that say seed, decode and, of RL, run: which repetitions there are; plan: fields of `StudyPlan` that it needs
    besides the common ones.
    """

    key: str
    by_seed: Callable[[Any], Mapping[int, Any]]
    repeated: Callable[[Any], pd.DataFrame]
    plan: tuple[str, ...] = ()

    def read(self, file: Path = FILE) -> ClaimsFile:
        """The claims, validated; BadInput names the offending field."""
        data, where = dict(read_yaml(file, file.name)), file.name
        if (version := data.pop("version", None)) != VERSION:
            raise BadInput(f"{where}: version is {version!r}, accepted is {VERSION}")
        if self.key == FIRST:
            parts = {name for name, part in data.items() if isinstance(part, dict) and "claims" in part}
            data = {name: field for name, field in data.items() if name not in parts}
        else:
            data, where = data.get(self.key, {}), f"{where}: {self.key}"
        found = validated(ClaimsFile, data, where)
        for name in ("runs", "draws"):
            if (getattr(found.study, name) is None) == (name in self.plan):
                raise BadInput(f"{where}: study.{name} is {'missing' if name in self.plan else 'not for it'}")
        known = ESTIMATORS[self.key]
        for place, name in enumerate(claim.estimator for claim in found.claims):
            if name not in known:
                raise BadInput(
                    f"{where}: claims.{place}.estimator: {name!r} is not one of {', '.join(known)}"
                )
        return found

    def estimates(self, claim: Claim, tables: Any, seeds: Collection[int] | None = None) -> dict[int, float]:
        """The claim's number for every base seed that has what it needs; `seeds`: of these alone.

        Raises BadInput where what is recorded has nothing of what the claim is about.
        """
        run, found = ESTIMATORS[self.key][claim.estimator], dict[int, float | Ratio]()
        for seed, measured in tables.once(self.by_seed).items():
            if seeds is None or seed in seeds:
                try:
                    found[seed] = run(measured, **claim.options)
                except BadInput as error:
                    raise BadInput(f"base seed {seed}: {error}") from None
        known = {seed: value for seed, value in found.items() if np.isfinite(value).all()}
        pairs = [value for value in known.values() if isinstance(value, Ratio)]
        values = of_ratio(*zip(*pairs, strict=True)) if pairs else known.values()
        return {seed: float(value) for seed, value in zip(known, values, strict=True)}

    def missing(self, tables: Any, claims: ClaimsFile) -> list[str]:
        """Base seeds and repetitions that are not recorded yet of those that decide, in words."""
        found, rows, plan = [], self.repeated(tables), claims.study
        columns = (("run", plan.runs, "RL seeds"), ("decode", plan.decodes, "sampling seeds"))
        for seed in plan.seeds:
            mine = rows[rows["seed"] == seed]
            for name, wanted, words in columns:
                if wanted and (there := mine[name].nunique()) < wanted:
                    found.append(f"base seed {seed}" + (f": {there} of {wanted} {words}" if there else ""))
                    break
        return found

    def outcome(self, tables: Any | None) -> Outcome:
        """What the recorded study says so far; None: nothing is recorded."""
        claims = self.read()
        if tables is None:
            return Outcome(claims, None, ())
        if missing := self.missing(tables, claims):
            return Outcome(claims, tuple(missing), ())
        numbers, no_data = dict[str, dict[int, float]](), dict[str, str]()
        for claim in claims.claims:
            try:
                numbers[claim.id] = self.estimates(claim, tables, claims.study.seeds)
            except BadInput as error:
                no_data[claim.id] = str(error)
        for name, known in list(numbers.items()):
            if lacking := sorted(set(claims.study.seeds) - set(known)):
                no_data[name] = f"base seed {lacking[0]}: what it needs is not recorded yet"
                del numbers[name]
        return Outcome(claims, (), tuple(judge(claims, numbers)), no_data)


def by_seed(rows: pd.DataFrame, seeds: Iterable[int]) -> dict[int, pd.DataFrame]:
    """The rows of every base seed, by their column `seed`."""
    return {seed: rows[rows["seed"] == seed] for seed in seeds}


@lru_cache(maxsize=8192)
def half_of(item: str) -> int:
    """0 or 1: the half of the hands an item belongs to, by hash."""
    return hashlib.sha256(item.encode()).digest()[0] % 2
