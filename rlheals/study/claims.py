"""Claims: sentences with a test, from the paper or our own. A verdict is a pure function of interval and margin.

An estimator takes the tables of one base seed and returns one number, so that "number > margin" is the claim. Each part
of the file has its own: `sft_claims.py`, `recovery_claims.py` and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.stats.intervals import Interval, holm, larger_p, t_interval
from rlheals.stats.verdicts import Verdict, verdict

FILE = Path(str(resources.files("rlheals"))) / "claims.yaml"
FIRST, LATER = "sft", ("recovery", "rotation", "swaps", "protection")
"""Parts of `claims.yaml`: that of chapter 1 stands at the top of the file, the others each under its name."""

Family = Literal["paper", "ours"]
FAMILIES: dict[Family, str] = {"paper": "Claims of the paper", "ours": "Our own questions and controls"}
"""Who says it, with the heading that tables give it; "paper" includes its precursor and the authors' files."""


class Claim(BaseModel):
    """One sentence with its test; the fields are explained at the head of `claims.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    sentence: str
    source: str
    family: Family
    section: str
    estimator: str
    options: dict[str, Any] = {}
    unit: str
    margin: float = Field(ge=0)

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        """What `estimator` can name."""
        return {}

    @model_validator(mode="after")
    def _estimator_exists(self) -> Claim:
        if self.estimator not in self.estimators():
            raise ValueError(f"estimator {self.estimator!r} is not one of {', '.join(self.estimators())}")
        return self


class StudyPlan(BaseModel):
    """Which runs decide: fixed before any of them was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str
    decodes: int = Field(ge=1)
    seeds: tuple[int, ...] = Field(min_length=3)
    level: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _not_development(self) -> StudyPlan:
        if min(self.seeds) < 1 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds have to be different and from 1 up (base seed 0 is for development)")
        return self


class ClaimsFile(BaseModel):
    """One part of `claims.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: StudyPlan
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> ClaimsFile:
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError("two claims have the same id")
        return self


File = TypeVar("File", bound=ClaimsFile)


@dataclass(frozen=True)
class Judged:
    """A claim with what the data say: one value per seed, the interval over seeds, the verdict.

    adjusted: p-value of "effect > margin", corrected by Holm for the other claims of its part and family; it does not
    enter the verdict.
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


def judge(claims: Any, tables: Any, of: Callable[[Any, Any], dict[int, float]]) -> list[Judged]:
    """Interval and verdict of every claim; only the seeds fixed beforehand count, and all of them.

    of(claim, tables): the claim's number for every base seed. Raises BadInput when a seed is missing.
    """
    missing = sorted(set(claims.study.seeds) - set(tables.seeds))
    if missing:
        raise BadInput(
            f"claims are judged on base seeds {list(claims.study.seeds)}; {missing[0]} is not recorded"
        )
    found: dict[str, dict[int, float]] = {}
    raw: dict[str, float] = {}
    adjusted: dict[str, float] = {}
    for claim in claims.claims:
        values = {s: v for s, v in of(claim, tables).items() if s in claims.study.seeds}
        found[claim.id], raw[claim.id] = values, larger_p(list(values.values()), claim.margin)
    for family in FAMILIES:
        ids = [claim.id for claim in claims.claims if claim.family == family]
        adjusted |= zip(ids, holm([raw[each] for each in ids]), strict=True)
    judged = []
    for claim in claims.claims:
        interval = t_interval(list(found[claim.id].values()), claims.study.level)
        said = verdict(interval, claim.margin)
        judged.append(Judged(claim, found[claim.id], interval, said, adjusted[claim.id]))
    return judged


@dataclass(frozen=True)
class Outcome:
    """The claims of a part; judged once nothing is missing (in words; None: nothing is recorded)."""

    claims: ClaimsFile
    missing: tuple[str, ...] | None
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class ChapterClaims(Generic[File]):
    """The claims of a part.

    key: its name in `claims.yaml`; file: what it is; estimates(claim, tables): a claim's number for every base seed
    that has what it needs; missing(tables, claims): what is not recorded yet of what decides, in words.
    """

    key: str
    file: type[File]
    estimates: Callable[[Any, Any], dict[int, float]]
    missing: Callable[[Any, File], list[str]]

    def read(self, file: Path = FILE) -> File:
        """The claims, validated; BadInput names the offending field."""
        first = yaml.safe_load(file.read_text(encoding="utf-8"))
        later = {key: first.pop(key, None) for key in LATER} if isinstance(first, dict) else {}
        if self.key == FIRST:
            return validated(self.file, first, file.name)
        return validated(self.file, later.get(self.key), f"{file.name}: {self.key}")

    def outcome(self, tables: Any | None) -> Outcome:
        """What the recorded study says so far; None: nothing is recorded."""
        claims = self.read()
        if tables is None:
            return Outcome(claims, None, ())
        missing = tuple(self.missing(tables, claims))
        return Outcome(claims, missing, () if missing else tuple(judge(claims, tables, self.estimates)))


def finite(seeds: Iterable[int], number: Callable[[int], float]) -> dict[int, float]:
    """A number for every base seed that has one."""
    values = {seed: number(seed) for seed in seeds}
    return {seed: value for seed, value in values.items() if np.isfinite(value)}


def unrecorded(
    claims: ClaimsFile, decoded: pd.DataFrame, known: Callable[[Claim], Iterable[int]]
) -> list[str]:
    """Base seeds, decodes, and what single claims need, as far as they are missing.

    decoded: columns seed, decode; known(claim): base seeds for which the claim has a number.
    """
    found, seeds = [], set(decoded["seed"])
    for seed in claims.study.seeds:
        decodes = decoded.loc[decoded["seed"] == seed, "decode"].nunique()
        if seed not in seeds:
            found.append(f"base seed {seed}")
        elif decodes < claims.study.decodes:
            found.append(f"base seed {seed}: {decodes} of {claims.study.decodes} decodes")
    for claim in claims.claims:
        if lacking := sorted((seeds & set(claims.study.seeds)) - set(known(claim))):
            found.append(f"base seed {lacking[0]}: what {claim.id} needs")
    return found


@lru_cache(maxsize=8192)
def half_of(item: str) -> int:
    """0 or 1: the half of the hands an item belongs to, by hash."""
    return hashlib.sha256(item.encode()).digest()[0] % 2
