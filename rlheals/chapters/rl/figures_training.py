"""Figures of chapter 02 about RL itself: what it finds at its start, how it learns, what the losses do meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from rlheals.chapters.drawing import Sheet, paper_points
from rlheals.chapters.rl import measures as measured
from rlheals.chapters.rl.runs import MAIN, RLChapter
from rlheals.chapters.rows import only
from rlheals.display.looks import ID, LOSSES
from rlheals.display.style import Drawn


def why_late(chapter: RLChapter) -> Drawn:
    """What RL finds at its start: hands on which all episodes earn the same, entropy, attempts, advantages."""
    sheet = Sheet(chapter, 3, 2, 2.3, steps=chapter.starts, x="RL start checkpoint (SFT step)")
    panels = {
        "zero_variance": ("groups without a gradient", True),
        "first_try": ("pass@1", True),
        "revision": ("failed attempts corrected", True),
        "entropy": ("entropy (nats per token)", False),
        "advantage_entropy": ("entropy of advantages (bits)", False),
        "advantage_positive": ("advantages above 0", True),
    }
    for axis, (column, (title, share)) in zip(sheet.axes, panels.items(), strict=True):
        measure = partial(measured.early_log, column=column)
        sheet.curves(axis, {column: (measure, ID.named("first five iterations"))}, title, share=share)
        axis.set_ylim(0, 1.02 if share else 1.15 * axis.get_ylim()[1])
    note = (
        "Means of the first five iterations, on training hands. A group is eight episodes of one hand; where all have "
        "the same return, its gradient is zero. Corrected: solved after feedback, among the failed first attempts."
    )
    return sheet.finish("rl-why", "What RL finds at its start", note)


def advantages(chapter: RLChapter) -> Drawn:
    """How episode advantages are spread at the first iteration, by RL start checkpoint (the paper's Fig. 3)."""
    starts, edges = chapter.tables.starts, np.linspace(-10, 10, 42)
    sheet = Sheet(chapter, height=2.9)
    (axis,) = sheet.axes
    shares = {}
    for start in starts:
        values = only(chapter.tables.advantages, control=MAIN, update=1, start=start)["advantage"].to_numpy()
        if len(values):
            shares[f"{start:,}"] = np.histogram(values.clip(-10, 10), bins=edges)[0] / len(values)
            rows = pd.DataFrame({"advantage": edges[:-1], "share": shares[f"{start:,}"]})
            sheet.keep(rows, start=start, study=chapter.study)
    grid = pd.DataFrame(shares, index=edges[:-1]).T.reindex([f"{start:,}" for start in starts]).astype(float)
    looks: dict[str, Any] = {
        "cmap": "cividis",
        "norm": LogNorm(0.001, 1),
        "extent": (-10, 10, len(starts), 0),
    }
    image = axis.imshow(grid.clip(lower=0.001), aspect="auto", **looks)
    axis.grid(visible=False)
    axis.set_yticks(np.arange(len(starts)) + 0.5, grid.index)
    sheet.label(axis, x="advantage of an episode, iteration 1", y="RL start checkpoint (SFT step)")
    sheet.figure.colorbar(image, ax=axis, label="share of episodes")
    note = "A row per start: how its episodes' advantages, return minus the mean of the group, are spread."
    return sheet.finish("rl-advantages", "Advantages at the first iteration", note)


def learning(chapter: RLChapter) -> Drawn:
    """Success on training hands against iterations, start by start: has RL levelled off?"""
    starts = chapter.tables.starts
    sheet = Sheet(chapter, min(4, len(starts)), -(-len(starts) // 4), 1.9, x="RL iteration")
    for axis, start in zip(sheet.axes, starts, strict=False):
        measure = partial(measured.learning_curve, column="solved", start=start)
        sheet.curves(axis, {"solved": (measure, ID)}, f"RL from step {start:,}", start=start)
    for row in range(len(sheet.axes) // sheet.columns):
        sheet.row(row)[0].set_ylabel("hands solved")
    sheet.hide(len(starts))
    note = "ID hands of the SFT and RL-only splits, running mean of five iterations (each plays other hands)."
    return sheet.finish("rl-learning", "Learning curves", note)


def losses(chapter: RLChapter) -> Drawn:
    """Cross-entropy of expert answers during RL (the paper's figure of RL losses)."""
    known = chapter.tables.starts
    starts = [start for start in known if start in (10, 160, 1280)] or known[:3]
    sheet = Sheet(chapter, len(starts), x="RL iteration")
    for axis, start in zip(sheet.axes, starts, strict=True):
        series = {
            f"{name}, start {start}": (partial(measured.loss, name=name, start=start), look)
            for name, look in LOSSES.items()
        }
        sheet.curves(axis, series, f"RL from step {start:,}", share=False)
        axis.set_ylim(bottom=0)
    sheet.axes[0].set_ylabel("nats per token")
    sheet.legend(sheet.axes[-1])
    paper = paper_points()["rl_losses_llama"]["points"]
    note = (
        "Expert answers as in chapter 1. In the paper's files (Llama, start 900) both losses rise during RL: "
        f"ID {paper['id_first']} to {paper['id_last']}, OOD {paper['ood_first']} to {paper['ood_last']} nats."
    )
    return sheet.finish("rl-losses", "Losses during RL", note)
