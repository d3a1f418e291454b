"""Predictors of OOD accuracy on the same checkpoints: rotation, size of the change, forward KL, age of the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from rlheals.chapters.rows import only
from rlheals.chapters.sft.claims import fall
from rlheals.chapters.sft.measures import Curves, by_seed
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.runs import SpectraChapter
from rlheals.display.looks import GREY, KL, ROTATION, SIZE, Look
from rlheals.display.markup import Block, Table
from rlheals.stats.intervals import t_interval
from rlheals.study.tables import Tables


@dataclass(frozen=True)
class Predictor:
    """given: what is held fixed besides the size of the change; taught: with RL on the OOD rule."""

    words: str
    column: str
    given: tuple[str, ...] = ()
    taught: bool = False


PREDICTORS = (
    Predictor("rotation", "angle"),
    Predictor("rotation, at equal seen ID accuracy", "angle", ("id",)),
    Predictor("rotation, at equal held-out ID accuracy", "angle", ("held_out",)),
    Predictor("rotation beyond its null", "excess"),
    Predictor("forward KL from the base", "kl"),
    Predictor("rotation, at equal forward KL", "angle", ("kl",)),
    Predictor("forward KL, at equal rotation", "kl", ("angle",)),
    Predictor("held-out ID accuracy", "held_out"),
    Predictor("rotation, with RL on the OOD rule", "angle", taught=True),
)
"""What may go with OOD accuracy at equal size."""
SCALES = {"size": SIZE, "angle": ROTATION, "kl": KL, "mean": Look("nothing (the mean of SFT)", GREY, "s")}


def _lost(curves: Curves) -> float:
    return fall(curves, "success@5")


PROMPT_MEASURES: dict[str, Callable[[Curves], float]] = {
    "OOD, highest of its checkpoints": lambda curves: float(curves.accuracy("ood").max()),
    "OOD, at the end of SFT": lambda curves: float(curves.accuracy("ood")[curves.end]),
    "OOD, lost from peak to end (cross-fitted)": _lost,
    "held-out ID, at the end of SFT": lambda curves: float(curves.accuracy("held_out")[curves.end]),
}
PROMPTS = (
    "SFT from the same bases on questions of one form, or of many forms (J, Q and K in any order, the rule before or "
    "after the cards). All models are then evaluated on the one form:"
)
ABILITIES = {"50": ".5 of the panel", "75": ".75 of the panel", "lab": ".9 of the panel"}
"""Recorded studies by the ability at which the pretraining of their bases was stopped."""


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
        mine = rows if one.taught else rows[rows["branch"] != measured.TAUGHT_OOD]
        each = [measured.correlation(group, one.column, one.given) for _, group in mine.groupby("seed")]
        values = tuple(value for value in each if np.isfinite(value))
        null = measured.permuted(mine, one.column, one.given) if values else np.full(1, np.nan)
        low, high = np.quantile(null, [0.025, 0.975])
        found.append(Association(one, values, (float(low), float(high))))
    return found


def blocks(rotation: SpectraChapter, sft: SFTChapter) -> list[Block]:
    """Correlations at equal size, errors of prediction, the age of the base and the form of the prompts, as tables."""
    return [
        "Correlation with OOD accuracy over trajectories of one base (SFT with other settings, RL, controls), each at "
        "equal size of the change:",
        _correlations(rotation),
        "Correlation with OOD accuracy over the checkpoints of plain SFT from its peak on. Any quantity that "
        "changes steadily with time correlates, so this is no evidence for any of them:",
        _along(rotation),
        "How well plain SFT's OOD accuracy at the same value of a quantity predicts that of another trajectory:",
        scales(rotation),
        "How much OOD accuracy SFT loses from its peak to its end, by the ability at which pretraining was stopped:",
        _abilities(sft),
        PROMPTS,
        prompts_table(sft.recorded, sft.variants.get("diverse")),
    ]


def _correlations(chapter: SpectraChapter) -> Table:
    nothing = pd.DataFrame(columns=["seed", "branch"])
    recorded, fresh = (
        associations(measured.matched(tables.once(measured.points)) if tables else nothing)
        for tables in (chapter.recorded, chapter.fresh)
    )
    rows = tuple(
        (one.predictor.words, _estimate(one.values), _range(one.null), _estimate(mine.values))
        for one, mine in zip(recorded, fresh, strict=True)
    )
    return Table(("predictor of OOD accuracy", "study", "permuted", "fresh run"), rows)


def _along(chapter: SpectraChapter) -> Table:
    found = [measured.along(tables) if tables else None for tables in (chapter.recorded, chapter.fresh)]
    words = {"angle": "rotation", "size": "log |dW|", "step": "log SFT step"}
    rows = tuple(
        (words[name], *(_estimate(() if one is None else one[name].dropna()) for one in found))
        for name in measured.ALONG
    )
    return Table(("along plain SFT", "study", "fresh run"), rows)


def scales(chapter: SpectraChapter) -> Table:
    """Root mean square error of each, over trajectories."""
    found = [
        measured.prediction_errors(tables.once(measured.points)).dropna() if tables else None
        for tables in (chapter.recorded, chapter.fresh)
    ]
    rows = tuple(
        (look.label, *(_estimate(() if one is None else only(one, scale=scale)["value"]) for one in found))
        for scale, look in SCALES.items()
    )
    return Table(("quantity", "error, study", "error, fresh run"), rows)


def _abilities(chapter: SFTChapter) -> Table:
    known = {"lab": chapter.recorded, **chapter.variants}
    rows = tuple(
        (words, _estimate(_measured(known.get(name), _lost).values())) for name, words in ABILITIES.items()
    )
    return Table(("ability of the base", "OOD accuracy, peak - end, study"), rows)


def prompts_table(recorded: Tables | None, diverse: Tables | None) -> Table:
    """The lab's study with one form of the questions and with many, at the seeds, steps and sampling seeds of both."""
    fixed = None if diverse is None or recorded is None else alike(recorded, diverse)
    rows = []
    for words, measure in PROMPT_MEASURES.items():
        one, many = (_measured(tables, measure) for tables in (fixed, diverse))
        pairs = [many[seed] - one[seed] for seed in one if seed in many]
        rows.append((words, *map(_estimate, (one.values(), many.values(), pairs))))
    return Table(("success@5 with feedback, study", "one form", "many forms", "difference"), tuple(rows))


def alike(tables: Tables, other: Tables) -> Tables:
    """The part of a study that has the base seeds, steps and sampling seeds of another one."""
    known = {column: set(other.episodes[column]) for column in ("seed", "step", "decode")}
    frames = {field.name: only(getattr(tables, field.name), seed=known["seed"]) for field in fields(tables)}
    return replace(tables, **{**frames, "episodes": only(tables.episodes, **known)})


def _measured(tables: Tables | None, measure: Callable[[Curves], float]) -> dict[int, float]:
    """By base seed."""
    return {seed: measure(curves) for seed, curves in tables.once(by_seed).items()} if tables else {}


def _estimate(found: Iterable[float]) -> str:
    """Mean, with its 95 % t interval over base seeds where there are several."""
    values = tuple(found)
    if len(values) > 1:
        return f"{t_interval(values):.3f} ({len(values)} base seeds)"
    return f"{values[0]:.3f}" if values else "not measured"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if np.isfinite(ends).all() else ""
