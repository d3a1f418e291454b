"""Figures of chapter 07, one function each: a row or column of panels for every study, the lab's beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from rlheals.chapters.beyond.figures import arm_look
from rlheals.chapters.beyond.measures import of
from rlheals.chapters.drawing import Sheet
from rlheals.chapters.edits.figures import look as edit_look
from rlheals.chapters.edits.measures import effects
from rlheals.chapters.healing.estimates import BEFORE, HEALED, accuracy, finish, over_seeds
from rlheals.chapters.language.runs import LAB, LanguageChapter
from rlheals.chapters.rows import only
from rlheals.chapters.sft.measures import accuracy as sft_accuracy
from rlheals.chapters.spectra.measures import BLOCKS, angles, points
from rlheals.display import looks
from rlheals.display.panels import level, step_axis
from rlheals.display.style import Drawn, with_intervals
from rlheals.study.peaks import PEAK
from rlheals.weights.edit_parser import read_entry
from rlheals.weights.selection import Where
from rlheals.weights.spectra import CHANGE

MEASURES = {
    "pass@1": "pass@1",
    "pass@4": "pass@4",
    "success@5": "success@5 with feedback",
    "rule: read right, if readable": "states the rule right,\nif readable",
}
OUTCOMES = {"pass4": "OOD pass@4, either format", "rule": "OOD answers that\nstate the rule right"}
PAIRS = ("base-peak", "peak-end", "end-rl")
BINS = 16
TRAJECTORIES = ("sft", "lora-16")
ALONG = {
    "ood": "OOD success@5",
    "excess": "angle less that of a\nGaussian change (degrees)",
    "kl": "forward KL from the base\n(nats per answer)",
}
COLUMNS = ["seed", "step", "value"]
LABS = looks.Look("the lab's", looks.GREY, "|")
PLACES = (looks.BLACK, looks.BLUE, looks.ORANGE, looks.GREEN)


def curves(chapter: LanguageChapter) -> Drawn:
    """The rise and the fall: first answers, one of four, with feedback, and whether the stated rule is read."""
    names = _models(studies := chapter.studies)
    sheet = Sheet(chapter, len(MEASURES), len(names), 2.3)
    for number, name in enumerate(names):
        for axis, (measure, title) in zip(sheet.row(number), MEASURES.items(), strict=True):
            asked = {
                f"{name}, {split}, {measure}": (
                    partial(of, task=name, part="sft", measure=partial(sft_accuracy, split=split, measure=measure)),
                    look,
                )
                for split, look in looks.SPLITS.items()
            }  # fmt: skip
            sheet.curves(axis, asked, title)
            step_axis(axis, studies[name].sft.checkpoints)
        sheet.row(number)[0].set_ylabel(f"{name}:\nshare of questions")
    sheet.legend(below=3)
    note = "The three splits of questions; first answers in the format asked for. Chapter 1 has the lab's."
    return finish(sheet, "language-curves", "Accuracy during SFT", note)


def healed(chapter: LanguageChapter) -> Drawn:
    """What RL on the ID rule and with other rules makes of a mild and a severe start, beside the lab's."""
    names = list(studies := chapter.studies)
    sheet = Sheet(chapter, len(names), len(OUTCOMES), 2.4)
    for number, (measure, title) in enumerate(OUTCOMES.items()):
        for axis, name in zip(sheet.row(number), names, strict=True):
            states = (PEAK, *studies[name].healing.states)
            for tables, study in _of(chapter, name, "healing"):
                for shift, arm in zip((-0.12, 0, 0.12), (BEFORE, "rl", HEALED), strict=True):
                    for place, state in enumerate(states):
                        found = over_seeds(tables, partial(accuracy, arm=arm, state=state, measure=measure))
                        at = [place + shift * (state != PEAK)] * len(found)
                        series = f"{name}, {measure}, {arm}"
                        sheet.mark(axis, at, found, arm_look(arm), study, series=series, state=state)
            axis.set_xticks(range(len(states)), [str(state) if state else "peak" for state in states])
            axis.set_xlim(-0.5, len(states) - 0.5)
            sheet.label(axis, "" if number else name, "% lost" if number else "", share=True)
        sheet.row(number)[0].set_ylabel(title)
    sheet.legend(below=3)
    note = (
        "Starts: SFT checkpoints after so much of the peak's OOD ability is lost; of a language model the mild and "
        "the severe start that its pilot fixed. No second stage sees the OOD rule."
    )
    return finish(sheet, "language-healed", "What RL brings back", note)


def spectra(chapter: LanguageChapter) -> Drawn:
    """Singular values of trained text models and of the lab's; how they and the vectors change, beside nulls."""
    names = list(chapter.studies)
    sheet = Sheet(chapter, 3, height=0.3 * len(names) * len(PAIRS) + 1.4)
    left, middle, right = sheet.axes
    for place, name in enumerate(names):
        look = looks.Look(name, PLACES[place % len(PLACES)], "o")
        for tables, study in _of(chapter, name, "rotation"):
            table = with_intervals(_spectrum(tables), ["part"])
            sheet.mark(left, table["part"], table, look, study, "band", series=f"{name}, spectrum")
            for number, pair in enumerate(PAIRS):
                for what, of_what in ((CHANGE, looks.CHANGE), ("gaussian", looks.GAUSSIAN)):
                    found = {
                        "values": _value_change(tables, pair, what),
                        "angle": only(angles(tables), pair=pair, what=what).rename(columns={"mean": "value"}),
                    }
                    for axis, (measure, values) in zip((middle, right), found.items(), strict=True):
                        if len(table := _mean(values)):
                            at = -(place * len(PAIRS) + number)
                            said: dict[str, Any] = {
                                "series": f"{name}, {measure}",
                                "pair": pair,
                                "what": what,
                            }
                            sheet.mark(axis, [at], table, of_what, study, upright=False, **said)
    rows = [f"{name}, {looks.PAIRS[pair].label}" for name in names for pair in PAIRS]
    for axis, title in (
        (middle, "relative change of\nsingular values (median)"),
        (right, "angle of the leading\nquarter (degrees)"),
    ):
        sheet.names(axis, rows if axis is middle else [""] * len(rows), size=6)
        sheet.label(axis, title)
        if axis.dataLim.x1 > 0:
            axis.set_xscale("log")
    if left.dataLim.y1 > 0:
        left.set_yscale("log")
    sheet.label(left, "singular values at the base", "place, the largest first", "share of the largest")
    sheet.legend(below=4)
    note = (
        "Matrices of the blocks. Left: mean over matrices of singular values as shares of the largest one. Others: the "
        "change between two checkpoints beside Gaussian changes of equal norm."
    )
    return finish(sheet, "language-spectra", "Spectra beside their nulls, and the lab's", note)


def edits(chapter: LanguageChapter) -> Drawn:
    """Singular vectors put back or swapped, all, the leading share, or a quarter of the layers, beside controls."""
    names = _models(studies := chapter.studies)
    rows = [
        (kind, *read_entry(entry))
        for kind in ("restore", "swap")
        for entry in dict.fromkeys(entry for name in names for entry in getattr(studies[name].swaps, kind))
    ]
    sheet = Sheet(chapter, len(names), height=0.24 * len(rows) + 1.2)
    for axis, name in zip(sheet.axes, names, strict=True):
        for whose, shift in ((name, 0.0), (LAB, -0.3)):
            for tables, study in _of(chapter, whose, "swaps"):
                found = effects(tables)
                for place, (kind, edit, where) in enumerate(rows):
                    mine = only(found, kind=kind, edit=edit, where=where)
                    for family in mine["family"].unique():
                        look = LABS if whose == LAB else edit_look(family)
                        table = _mean(mine.assign(value=mine["effect"]))
                        said: dict[str, Any] = {"series": whose, "edit": f"{kind}: {_shown(edit, where)}"}
                        sheet.mark(axis, [shift - place], table, look, study, upright=False, **said)
        shown = [f"{kind}: {_shown(edit, where)}" for kind, edit, where in rows]
        sheet.names(axis, shown if axis is sheet.axes[0] else [""] * len(rows), size=6)
        sheet.label(axis, name, "OOD success@5, edited - not edited")
        level(axis, upright=False)
    sheet.legend(below=5)
    note = (
        "Restore: parts of the peak put into a late checkpoint of SFT; swap: parts of that checkpoint put into RL's "
        "result. Layers from 0. Controls: whole matrices, partial rollback and noise of the same size."
    )
    return finish(sheet, "language-edits", "Edits of the weights", note)


def lora(chapter: LanguageChapter) -> Drawn:
    """SFT of all weights and of low-rank factors: what is forgotten, what turns, how far the answers move."""
    names = _models(studies := chapter.studies)
    sheet = Sheet(chapter, len(ALONG), len(names), 2.4)
    for number, name in enumerate(names):
        for axis, (column, title) in zip(sheet.row(number), ALONG.items(), strict=True):
            for branch in TRAJECTORIES:
                for tables, study in _of(chapter, name, "rotation"):
                    mine = only(tables.once(points), branch=branch).rename(columns={column: "value"})
                    table = with_intervals(mine[COLUMNS].dropna(), ["step"])
                    look, series = looks.BRANCHES[branch], f"{name}, {column}, {branch}"
                    sheet.mark(axis, table["step"], table, look, study, "line", series=series)
            step_axis(axis, studies[name].sft.checkpoints)
            sheet.label(axis, title, y=name if column == "ood" else "", share=column == "ood" or None)
            if column == "excess":
                level(axis)
    sheet.legend(below=2)
    note = "The same data and order. Angles are of the leading quarter of singular vectors of the blocks' matrices."
    return finish(sheet, "language-lora", "Low-rank factors beside all weights", note)


def _models(studies: Mapping[str, object]) -> list[str]:
    return [name for name in studies if name != LAB]


def _of(chapter: LanguageChapter, name: str, part: str) -> Iterator[tuple[Any, str]]:
    """The tables of a part of a study, in every layer that has them."""
    found = ((tables.of(name, part), study) for tables, study in chapter.layers)
    return ((tables, study) for tables, study in found if tables is not None)


def _mean(values: pd.DataFrame) -> pd.DataFrame:
    """Over base seeds, as one row; none of no values."""
    return with_intervals(values.assign(row=0)[["seed", "value", "row"]], ["row"]).drop(columns="row")


def _spectrum(tables: Any) -> pd.DataFrame:
    """By seed and part of the spectrum, mean over matrices: singular values of the base, as shares of the largest."""
    rows = only(tables.values, pair=PAIRS[0], head=-1, kind=BLOCKS)
    matrix = [rows["seed"], rows["tensor"].astype(str)]
    size, largest = (rows[column].groupby(matrix).transform("max") for column in ("index", "before"))
    part = (np.ceil(rows["index"] / size * BINS) / BINS).rename("part")
    share = (rows["before"] / largest).astype(float).rename("value")
    return share.groupby([rows["seed"], part]).mean().reset_index()


def _value_change(tables: Any, pair: str, what: str) -> pd.DataFrame:
    """Median relative change of singular values by seed; none where it is not recorded."""
    rows = only(tables.changes, pair=pair, what=what, head=-1, kind=BLOCKS)
    if "value_change_median" not in rows:
        return pd.DataFrame(columns=["seed", "value"])
    return rows.groupby("seed")["value_change_median"].mean().astype(float).rename("value").reset_index()


def _shown(edit: str, where: str) -> str:
    """An edit with its layers from the first to the last; of all blocks, it alone."""
    layers = Where.parse(where).layers
    return edit if layers is None else f"{edit}, layers {min(layers)}-{max(layers)}"


LANGUAGE: tuple[Callable[[LanguageChapter], Drawn], ...] = (curves, healed, spectra, edits, lora)
