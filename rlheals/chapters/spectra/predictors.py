"""Predictors of OOD accuracy on the same checkpoints: rotation, size of the change, forward KL, age of the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from rlheals.chapters.sft.claims import fall
from rlheals.chapters.sft.measures import Curves
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.runs import RotationChapter, RotationTables
from rlheals.display.looks import GREY, KL, ROTATION, SIZE, Look
from rlheals.display.markup import Block, Table
from rlheals.stats.intervals import t_interval
from rlheals.study.tables import Tables


@dataclass(frozen=True)
class Predictor:
    """given: what is held fixed besides the size of the change; whole: with RL on the OOD rule."""

    words: str
    column: str
    given: tuple[str, ...] = ()
    whole: bool = True


PREDICTORS = (
    Predictor("rotation", "angle"),
    Predictor("rotation, at equal ID accuracy", "angle", ("id",)),
    Predictor("rotation, without RL on the OOD rule", "angle", whole=False),
    Predictor("rotation beyond its null", "excess"),
    Predictor("forward KL from the base", "kl"),
    Predictor("rotation, at equal forward KL", "angle", ("kl",)),
    Predictor("forward KL, at equal rotation", "kl", ("angle",)),
)
"""What may go with OOD accuracy at equal size."""
SCALES = {"size": SIZE, "angle": ROTATION, "kl": KL, "mean": Look("nothing (the mean of SFT)", GREY, "s")}
PROMPT_MEASURES: dict[str, Callable[[Curves], float]] = {
    "OOD, highest of its checkpoints": lambda curves: float(curves.accuracy("ood").max()),
    "OOD, at the end of SFT": lambda curves: float(curves.accuracy("ood")[curves.end]),
    "OOD, lost from peak to end (cross-fitted)": lambda curves: fall(curves, "target"),
    "held-out ID, at the end of SFT": lambda curves: float(curves.accuracy("held_out")[curves.end]),
}
PROMPTS = (
    "SFT on questions that are all of one form, or of many forms (J, Q and K in any order, the rule before the "
    "cards or after them), from the same bases; all are then asked in the one form:"
)
AGES = {
    "age-300": "300 steps",
    "age-600": "600 steps",
    "lab": "until it solves half the panel",
    "age-1200": "1,200 steps",
}
"""Recorded studies by how long their bases were pretrained."""


@dataclass(frozen=True)
class Association:
    """Correlations with OOD accuracy by base seed; null: central 95 % of their mean when accuracies are permuted."""

    predictor: Predictor
    values: tuple[float, ...]
    null: tuple[float, float]


def associations(rows: pd.DataFrame) -> list[Association]:
    """Of every predictor, over trajectories at matched size (`measures.matched`)."""
    found = []
    for one in PREDICTORS:
        mine = rows if one.whole else rows[rows["branch"] != "ood-rule"]
        each = [measured.correlation(group, one.column, one.given) for _, group in mine.groupby("seed")]
        values = tuple(value for value in each if np.isfinite(value))
        chance = measured.permuted(mine, one.column, one.given) if values else np.array([np.nan])
        known = chance[np.isfinite(chance)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found.append(Association(one, values, (float(low), float(high))))
    return found


def blocks(rotation: RotationChapter, sft: SFTChapter) -> list[Block]:
    """Correlations at equal size, errors of prediction, the age of the base and the form of the prompts, as tables."""
    return [
        "Correlation with OOD accuracy over trajectories of one base (SFT with other settings, RL, controls), each at "
        "equal size of the change:",
        _correlations(rotation),
        "How well plain SFT's OOD accuracy at the same value of a quantity predicts that of another trajectory:",
        _scales(rotation),
        "How much OOD accuracy SFT loses from its peak to its end, by how long the base was pretrained:",
        _ages(sft),
        PROMPTS,
        prompts_table(sft.recorded, sft.variants.get("diverse")),
    ]


def _correlations(chapter: RotationChapter) -> Table:
    recorded, fresh = (_found(tables) for tables in (chapter.recorded, chapter.fresh))
    rows = tuple(
        (one.predictor.words, _estimate(one.values), _range(one.null), _estimate(mine.values))
        for one, mine in zip(recorded, fresh, strict=True)
    )
    return Table(("predictor of OOD accuracy", "study", "permuted", "fresh run"), rows)


def _found(tables: RotationTables | None) -> list[Association]:
    if tables is None:
        return [Association(one, (), (np.nan, np.nan)) for one in PREDICTORS]
    return associations(measured.matched(tables.once(measured.points)))


def _scales(chapter: RotationChapter) -> Table:
    recorded, fresh = (_errors(tables) for tables in (chapter.recorded, chapter.fresh))
    rows = tuple(
        (look.label, _estimate(recorded.get(scale, ())), _estimate(fresh.get(scale, ())))
        for scale, look in SCALES.items()
    )
    return Table(("quantity", "error, study", "error, fresh run"), rows)


def _errors(tables: RotationTables | None) -> Mapping[str, tuple[float, ...]]:
    if tables is None:
        return {}
    found = measured.prediction_errors(tables.once(measured.points)).dropna()
    return {str(scale): tuple(group["value"]) for scale, group in found.groupby("scale")}


def _ages(chapter: SFTChapter) -> Table:
    known = {"lab": chapter.recorded, **chapter.variants}
    rows = tuple((words, _estimate(_falls(known.get(name)))) for name, words in AGES.items())
    return Table(("pretraining of the base", "OOD accuracy, peak - end, study"), rows)


def prompts_table(recorded: Tables | None, diverse: Tables | None) -> Table:
    """The lab's study with one form of the questions and with many, at the seeds, steps and sampling seeds of both."""
    fixed = None if diverse is None or recorded is None else alike(recorded, diverse)
    rows = []
    for words, measure in PROMPT_MEASURES.items():
        one, many = (_by_seed(tables, measure) for tables in (fixed, diverse))
        pairs = [many[seed] - one[seed] for seed in one if seed in many]
        rows.append((words, *(_estimate(tuple(found)) for found in (one.values(), many.values(), pairs))))
    return Table(("success@5 with feedback, study", "one form", "many forms", "difference"), tuple(rows))


def alike(tables: Tables, other: Tables) -> Tables:
    """The part of a study that has the base seeds, steps and sampling seeds of another one."""
    known = {column: other.episodes[column].unique() for column in ("seed", "step", "decode")}
    frames = {}
    for field in fields(tables):
        frame = getattr(tables, field.name)
        asked = known if field.name == "episodes" else {"seed": known["seed"]}
        frames[field.name] = frame[np.logical_and.reduce([frame[name].isin(asked[name]) for name in asked])]
    return replace(tables, **frames)


def _by_seed(tables: Tables | None, measure: Callable[[Curves], float]) -> dict[int, float]:
    if tables is None:
        return {}
    return {seed: measure(Curves.of(tables.of_seed(seed))) for seed in tables.seeds}


def _falls(tables: Tables | None) -> tuple[float, ...]:
    return tuple(_by_seed(tables, lambda curves: fall(curves, "target")).values())


def _estimate(values: tuple[float, ...]) -> str:
    """Mean, with its 95 % t interval over base seeds where there are several."""
    if not values:
        return "not measured"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{t_interval(values):.3f} ({len(values)} base seeds)"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if np.isfinite(ends).all() else ""
