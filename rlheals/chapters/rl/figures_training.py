"""Figures of chapter 02 about RL itself: what it finds at its start, how it learns, what the losses do meanwhile."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from rlheals.chapters.drawing import Sheet, paper_points
from rlheals.chapters.rl import measures as measured
from rlheals.chapters.rl.runs import MAIN, RLChapter
from rlheals.chapters.rows import only
from rlheals.display.looks import CATEGORICAL, ID, LOSSES
from rlheals.display.style import Drawn, with_intervals
from rlheals.training.rl.episodes import advantage_statistics


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
    """Histograms of episode advantages at the first iteration, per RL start checkpoint (the paper's Fig. 3)."""
    starts, tables = chapter.starts, chapter.tables
    sheet = Sheet(chapter, min(4, len(starts)), -(-len(starts) // 4), 1.9)
    for axis, start in zip(sheet.axes, starts, strict=False):
        values = only(tables.advantages, control=MAIN, update=1, start=start)["advantage"].to_numpy()
        sheet.label(axis, f"SFT step {start:,}")
        if not len(values):
            continue
        counts, edges = np.histogram(values.clip(-10, 10), bins=41, range=(-10, 10))
        share = counts / counts.sum()
        axis.stairs(share, edges, fill=True, color=ID.color, alpha=0.6)
        said = advantage_statistics(values)
        text = f"entropy {said['advantage_entropy']:.2f} bits\npositive {said['advantage_positive']:.2f}"
        axis.text(0.03, 0.95, text, fontsize=6, va="top", transform=axis.transAxes)
        axis.set_yscale("symlog", linthresh=0.01)
        sheet.keep(pd.DataFrame({"advantage": edges[:-1], "share": share}), start=start, study=chapter.study)
    note = "Episode return minus the mean of its group, iteration 1; the axis of shares is linear up to 0.01."
    return sheet.finish("rl-advantages", "Advantages at the first iteration", note)


def learning(chapter: RLChapter) -> Drawn:
    """Return and success on training hands against iterations: has RL levelled off?"""
    sheet = Sheet(chapter, 2)
    tables, study = chapter.tables, chapter.study
    titles = {"return": "discounted return", "solved": "solved within the episode"}
    for axis, (column, title) in zip(sheet.axes, titles.items(), strict=True):
        for look, start in zip(CATEGORICAL, tables.starts, strict=False):
            table = with_intervals(measured.learning_curve(tables, column, start))
            named = look.named(f"{start:,}")
            sheet.mark(axis, table["step"], table, named, study, "band", series=column, start=start)
        sheet.label(axis, title, "RL iteration")
    sheet.legend(sheet.axes[1], title="RL start checkpoint", title_fontsize=7, ncols=2)
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
    sheet.legend(sheet.axes[0])
    paper = paper_points()["rl_losses_llama"]["points"]
    note = (
        "Expert answers as in chapter 01. In the paper's files (Llama, start 900) both losses rise during RL: "
        f"ID {paper['id_first']} to {paper['id_last']}, OOD {paper['ood_first']} to {paper['ood_last']} nats."
    )
    return sheet.finish("rl-losses", "Losses during RL", note)
