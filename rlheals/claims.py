"""Claims: sentences of the paper with a test. `claims.yaml` is decided before the data; a verdict is a pure function.

Every estimator takes the tables of one base seed and returns one number, so that "number > margin" is the claim.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlheals.errors import BadInput
from rlheals.intervals import Interval
from rlheals.profiles import validated
from rlheals.stats import t_interval
from rlheals.tables import Tables
from rlheals.verdicts import Verdict, verdict

FILE = Path(__file__).parent / "claims.yaml"
LAYOUTS = {"target": "solved_at", "either": "solved_at_either"}


class Claim(BaseModel):
    """One sentence with its test; the fields are explained at the head of `claims.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    sentence: str
    source: str
    estimator: str
    options: dict[str, Any] = {}
    unit: str
    margin: float = Field(ge=0)

    @classmethod
    def estimators(cls) -> dict[str, Callable[..., float]]:
        """What `estimator` can name."""
        return ESTIMATORS

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
    """The whole of `claims.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: StudyPlan
    claims: tuple[Claim, ...]
    recovery: dict[str, Any] = Field({}, description="chapter 02, read by `recovery_claims.py`")
    rotation: dict[str, Any] = Field({}, description="chapter 03, read by `rotation_claims.py`")
    swaps: dict[str, Any] = Field({}, description="chapter 04, read by `swaps_claims.py`")
    protection: dict[str, Any] = Field({}, description="chapter 04, read by `protection_claims.py`")

    @model_validator(mode="after")
    def _ids_differ(self) -> ClaimsFile:
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError("two claims have the same id")
        return self


File = TypeVar("File", bound=ClaimsFile)


@dataclass(frozen=True)
class Judged:
    """A claim with what the data say: one value per seed, the interval over seeds, the verdict."""

    claim: Claim
    values: dict[int, float]
    interval: Interval
    verdict: Verdict


def read_claims(file: Path = FILE) -> ClaimsFile:
    """`claims.yaml`, validated; BadInput names the offending field."""
    return validated(ClaimsFile, yaml.safe_load(file.read_text(encoding="utf-8")), file.name)


def estimate(claim: Claim, tables: Tables) -> dict[int, float]:
    """The claim's number for every base seed in the tables."""
    run = ESTIMATORS[claim.estimator]
    return {seed: run(Curves.of(tables.of_seed(seed)), **claim.options) for seed in tables.seeds}


def judge(claims: Any, tables: Any, of: Callable[[Any, Any], dict[int, float]] = estimate) -> list[Judged]:
    """Interval and verdict of every claim; only the seeds fixed beforehand count, and all of them.

    of(claim, tables): the claim's number for every base seed. Raises BadInput when a seed is missing.
    """
    missing = sorted(set(claims.study.seeds) - set(tables.seeds))
    if missing:
        raise BadInput(
            f"claims are judged on base seeds {list(claims.study.seeds)}; {missing[0]} is not recorded"
        )
    judged = []
    for claim in claims.claims:
        values = {s: v for s, v in of(claim, tables).items() if s in claims.study.seeds}
        interval = t_interval(list(values.values()), claims.study.level)
        judged.append(Judged(claim, values, interval, verdict(interval, claim.margin)))
    return judged


@dataclass(frozen=True)
class ChapterOutcome:
    """The claims of a later chapter; judged once nothing is missing (in words; None: nothing is recorded)."""

    claims: ClaimsFile
    missing: tuple[str, ...] | None
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class ChapterClaims(Generic[File]):
    """The claims of a later chapter.

    key: their part of `claims.yaml`; file: what that part is; estimates(claim, tables): a claim's number for every base
    seed that has what it needs; missing(tables, claims): what is not recorded yet of what decides, in words.
    """

    key: str
    file: type[File]
    estimates: Callable[[Any, Any], dict[int, float]]
    missing: Callable[[Any, File], list[str]]

    def read(self) -> File:
        """The claims, validated; BadInput names the offending field."""
        return validated(self.file, getattr(read_claims(), self.key), f"claims.yaml: {self.key}")

    def outcome(self, tables: Any | None) -> ChapterOutcome:
        """What the recorded study says so far; None: nothing is recorded."""
        claims = self.read()
        if tables is None:
            return ChapterOutcome(claims, None, ())
        missing = tuple(self.missing(tables, claims))
        return ChapterOutcome(
            claims, missing, () if missing else tuple(judge(claims, tables, self.estimates))
        )


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


@dataclass(frozen=True)
class Curves:
    """One base seed's measurements, ready for the estimators."""

    episodes: pd.DataFrame
    losses: pd.DataFrame

    @classmethod
    def of(cls, tables: Tables) -> Curves:
        halves = {item: half_of(str(item)) for item in tables.episodes["item"].unique()}
        return cls(
            tables.episodes.assign(half=tables.episodes["item"].map(halves).astype(int)), tables.losses
        )

    def accuracy(self, split: str, layout: str = "target", half: int | None = None) -> pd.Series:
        """Within-five accuracy by step, all decodes together; `half` restricts it to one half of the hands."""
        rows = self.episodes[self.episodes["split"] == split]
        if half is not None:
            rows = rows[rows["half"] == half]
        return (rows[LAYOUTS[layout]] > 0).groupby(rows["step"]).mean()

    def peaks(self, layout: str = "target") -> list[tuple[int, int]]:
        """(step of the OOD peak as chosen on one half of the hands, the other half), both ways; step 0 is the base."""
        return [(int(self.accuracy("ood", layout, 1 - half).drop(0).idxmax()), half) for half in (0, 1)]

    def loss(self, name: str) -> pd.Series:
        """Loss of one set by step, at the steps that have a census."""
        rows = self.losses[self.losses["set"] == name].set_index("step")["loss"]
        return rows[rows.index.isin(self.episodes["step"].unique())]

    @property
    def end(self) -> int:
        return int(self.episodes["step"].max())


def rise(curves: Curves, layout: str) -> float:
    """OOD accuracy at the peak minus that of the base, cross-fitted."""
    gains = []
    for step, half in curves.peaks(layout):
        accuracy = curves.accuracy("ood", layout, half)
        gains.append(accuracy[step] - accuracy[0])
    return float(np.mean(gains))


def fall(curves: Curves, layout: str) -> float:
    """OOD accuracy at the peak minus that of the last checkpoint, cross-fitted."""
    drops = []
    for step, half in curves.peaks(layout):
        accuracy = curves.accuracy("ood", layout, half)
        drops.append(accuracy[step] - accuracy[curves.end])
    return float(np.mean(drops))


def id_gain(curves: Curves, split: str) -> float:
    """ID accuracy of a split at the last checkpoint minus that at the OOD peak (mean over both choices of the peak)."""
    accuracy = curves.accuracy(split)
    return float(np.mean([accuracy[curves.end] - accuracy[step] for step, _ in curves.peaks()]))


def loss_drop(curves: Curves, set: str) -> float:
    """1 - loss at the last checkpoint / loss at the OOD peak (mean over both choices of the peak)."""
    loss = curves.loss(set)
    return float(np.mean([1 - loss[curves.end] / loss[step] for step, _ in curves.peaks()]))


def loss_regret(curves: Curves, set: str) -> float:
    """OOD accuracy at the peak minus that of the checkpoint (after the base) with the lowest loss, cross-fitted."""
    lowest = int(curves.loss(set).drop(0).idxmin())
    drops = []
    for step, half in curves.peaks():
        accuracy = curves.accuracy("ood", half=half)
        drops.append(accuracy[step] - accuracy[lowest])
    return float(np.mean(drops))


def format_lead(curves: Curves, share: float) -> float:
    """log2(OOD peak / first step at which the share of unreadable first tries on OOD hands is below `share`).

    Whether the share rises again later does not count. If it is never below: minus infinity would not average, so
    the last step is taken as the first one below.
    """
    rows = curves.episodes[curves.episodes["split"] == "ood"]
    errors = (rows["first"] == "illegal_formula").groupby(rows["step"]).mean().drop(0)
    below = errors[errors < share]
    first = int(below.index.min()) if len(below) else curves.end
    return float(np.mean([math.log2(step / first) for step, _ in curves.peaks()]))


ESTIMATORS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (rise, fall, id_gain, loss_drop, loss_regret, format_lead)
}
