"""Figures of chapter 02 about RL itself: what it finds at its start, how it learns, what the losses do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from rlheals.chapters.captions import PLAIN
from rlheals.chapters.drawing import LOSSES, both, finish, paper_points
from rlheals.chapters.rl import measures as measured
from rlheals.chapters.rl.runs import MAIN, RecoveryChapter
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Drawn
from rlheals.training.rl.episodes import advantage_statistics

FIRST = "first five updates"
START_COLORS = (SKY, BLUE, GREEN, ORANGE, RED, PURPLE, "#000000", GREY)


def why_late(chapter: RecoveryChapter) -> Drawn:
    """What RL finds at its start: hands on which all episodes earn the same, entropy, attempts, advantages."""
    figure, axes = drawing.canvas(columns=3, rows=2, height=2.3)
    frames = []
    panels: dict[str, tuple[Callable[..., pd.DataFrame], str, bool]] = {
        "zero_variance": (_early("zero_variance"), "groups without a gradient", True),
        "first_try": (_early("first_try"), "solved at the first try", True),
        "revision": (measured.early_revision, "failed tries corrected", True),
        "entropy": (_early("entropy"), "entropy (nats per token)", False),
        "advantage_entropy": (_early("advantage_entropy"), "entropy of advantages (bits)", False),
        "advantage_positive": (_early("advantage_positive"), "advantages above 0", True),
    }
    for axis, (column, (measure, title, is_share)) in zip(axes, panels.items(), strict=True):
        frames += both(axis, chapter, measure, (FIRST, BLUE), column, (0, 1) if is_share else None)
        axis.set_title(title, fontsize=8)
        axis.set_ylim(0, 1.02 if is_share else 1.15 * axis.get_ylim()[1])
        drawing.step_axis(axis, chapter.starts, "start of RL (SFT step)")
    note = (
        "Means of the first five updates, on training hands. A group is eight episodes of one hand; where all have the "
        "same return, its gradient is zero. Corrected: solved after feedback, among the failed first tries."
    )
    return finish(figure, chapter, "rl-why", "What RL finds at its start", frames, note)


def _early(column: str) -> Callable[..., pd.DataFrame]:
    return partial(measured.early_log, column=column)


def advantages(chapter: RecoveryChapter) -> Drawn:
    """Histograms of episode advantages at the first update, per start (the paper's Fig. 3)."""
    starts = chapter.starts
    figure, axes = drawing.canvas(columns=min(4, len(starts)), rows=-(-len(starts) // 4), height=1.9)
    frames = []
    tables = chapter.tables
    rows = tables.advantages[(tables.advantages["control"] == MAIN) & (tables.advantages["update"] == 1)]
    for axis, start in zip(axes, starts, strict=False):
        values = rows.loc[rows["start"] == start, "advantage"].to_numpy()
        axis.set_title(f"start {start:,}", fontsize=8)
        if not len(values):
            continue
        counts, edges = np.histogram(values.clip(-10, 10), bins=41, range=(-10, 10))
        axis.stairs(counts / counts.sum(), edges, fill=True, color=BLUE, alpha=0.6)
        said = advantage_statistics(values)
        text = f"entropy {said['advantage_entropy']:.2f} bits\npositive {said['advantage_positive']:.2f}"
        axis.text(0.03, 0.95, text, fontsize=6, va="top", transform=axis.transAxes)
        axis.set_yscale("symlog", linthresh=0.01)
        frames.append(pd.DataFrame({"start": start, "advantage": edges[:-1], "share": counts / counts.sum()}))
    note = "Episode return minus the mean of its group, update 1; the axis of shares is linear up to 0.01."
    frame = pd.concat(frames).assign(study=chapter.study) if frames else pd.DataFrame()
    return drawing.finish(
        figure, "rl-advantages", "Advantages at the first update", frame, *chapter.caption(note, frame)
    )


def learning(chapter: RecoveryChapter) -> Drawn:
    """Return and success on training hands against updates: has RL levelled off?"""
    figure, axes = drawing.canvas(columns=2)
    frames = []
    tables = chapter.tables
    for axis, (column, title) in zip(
        axes, {"return": "discounted return", "solved": "solved within the episode"}.items(), strict=True
    ):
        for color, start in zip(START_COLORS, tables.starts, strict=False):
            frame = drawing.with_intervals(measured.learning_curve(tables, column, start))
            drawing.band(axis, frame, color, f"{start:,}", None)
            frames.append(frame.assign(series=column, start=start, study=chapter.study))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("RL update")
    axes[1].legend(fontsize=6, title="start", title_fontsize=7, ncols=2)
    note = (
        "ID hands of the SFT and RL-only splits, running mean of five updates (each plays other hands). Bands: 95 % t "
        "intervals over base seeds, where there are several."
    )
    return finish(figure, chapter, "rl-learning", "Learning curves", frames, note, PLAIN)


def losses(chapter: RecoveryChapter) -> Drawn:
    """Cross-entropy of expert answers during RL (the paper's Fig. on RL losses)."""
    starts = [start for start in chapter.tables.starts if start in (10, 160, 1280)] or chapter.tables.starts[
        :3
    ]
    figure, axes = drawing.canvas(columns=len(starts))
    frames = []
    for axis, start in zip(axes, starts, strict=True):
        for name, look in LOSSES.items():
            measure = partial(measured.loss, name=name, start=start)
            frames += both(axis, chapter, measure, look, f"{name}, start {start}", None)
        axis.set_title(f"RL from step {start:,}", fontsize=9)
        axis.set_xlabel("RL update")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("nats per token")
    axes[0].legend(fontsize=7)
    paper = paper_points()["rl_losses_llama"]["points"]
    note = (
        "Expert answers as in chapter 01. In the paper's files (Llama, start 900) both losses rise during RL: "
        f"ID {paper['id_first']} to {paper['id_last']}, OOD {paper['ood_first']} to {paper['ood_last']} nats."
    )
    return finish(figure, chapter, "rl-losses", "Losses during RL", frames, note)
