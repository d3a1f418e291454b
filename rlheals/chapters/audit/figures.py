"""One function per figure of the page on released artefacts: published numbers beside what a null gives."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlheals.chapters.audit import numbers as audit
from rlheals.chapters.audit import resolution as resolved
from rlheals.chapters.audit.spectra import (
    KEY_SHAPE,
    OVERSAMPLED,
    QUARTER,
    QUERY_SIZE,
    SPREAD,
    Nulls,
    angle_law,
    released,
    singular_law,
)
from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Drawn

THIN = 8
"""Every eighth index of a curve is drawn and kept in the data."""
POINT: dict[str, Any] = {"color": RED, "linestyle": "none", "marker": "o", "markersize": 4, "zorder": 5}
FILE_LOOKS = {"step": ("angle-step file", "o", RED), "hist": ("angle-histogram file", "s", PURPLE)}


def spectra(nulls: Nulls) -> Drawn:
    """Released singular values of two projections on the law and draws of Gaussian matrices; below, what is left."""
    figure, axes = drawing.canvas(columns=2, rows=2, height=2.2, ratios=(2, 1))
    frames = []
    for upper, lower, one in zip(axes[:2], axes[2:], released()["singular_values"], strict=True):
        law = singular_law(*one["shape"])
        index = np.arange(len(law))
        upper.plot(index[::THIN], law[::THIN], color=GREY, linewidth=1, label="law")
        lower.axhline(0, color=GREY, linewidth=1)
        tables = [pd.DataFrame({"index": index, "value": law, "series": "law"})[::THIN]]
        if tuple(one["shape"]) == KEY_SHAPE:
            low, high = nulls.values.min(0), nulls.values.max(0)
            label = f"{len(nulls.values)} draws"
            for axis, less in ((upper, 0 * law), (lower, law)):
                look: dict[str, Any] = {"color": SKY, "alpha": 0.5, "linewidth": 0, "label": label}
                axis.fill_between(index[::THIN], (low - less)[::THIN], (high - less)[::THIN], **look)
            drawn = pd.DataFrame({"index": index, "value": nulls.values.mean(0), "low": low, "high": high})
            tables.append(drawn[::THIN].assign(series="draws"))
        points = pd.DataFrame({"index": list(one["points"]), "value": list(one["points"].values())})
        tables.append(points.assign(series="released"))
        nothing = 0 * law
        for axis, null in ((upper, nothing), (lower, law)):
            left = points["value"] - null[points["index"]]
            axis.errorbar(points["index"], left, yerr=one["error"], label="released", **POINT)
        name = one["file"].rpartition("-")[2].removesuffix(".pdf")
        upper.set_title(f"{name}, {' x '.join(map(str, one['shape']))}", fontsize=9)
        upper.set_ylim(bottom=0)
        lower.set_ylim(-0.035, 0.035)
        lower.set_xlim(upper.get_xlim())
        lower.set_xlabel("index")
        frames += [table.assign(file=one["file"]) for table in tables]
    axes[0].set_ylabel("singular value")
    axes[2].set_ylabel("less the law")
    axes[1].legend(fontsize=7)
    note = (
        f"Line: law for independent Gaussian entries of standard deviation {SPREAD}; band: smallest to largest of "
        "full-size draws. Points: released values with their reading error, digitised from the PDFs' own coordinates. "
        "Computed: that they agree. Inferred: why."
    )
    return drawing.finish(figure, "audit-spectra", "Llama's singular values", pd.concat(frames), note)


def largest(nulls: Nulls) -> Drawn:
    """The released largest singular values by layer, of Llama and of Qwen, beside Gaussian matrices of their shapes."""
    (llama,), qwen = released()["largest_two"], released()["largest_qwen"]
    figure, axes = drawing.canvas(columns=4, height=2.6)
    rows = []
    for axis, kind in zip(axes, llama["matrices"], strict=True):
        low, high = nulls.largest[kind][:, 0].min(), nulls.largest[kind][:, 0].max()
        axis.axhspan(low, high, color=SKY, alpha=0.6, linewidth=0)
        edge = singular_law(*qwen["matrices"][kind]["shape"])[0]
        axis.axhline(edge, color=GREEN, linewidth=0.9, linestyle=":")
        rows += [
            {"matrix": kind, "series": "null, Llama's shape", "low": low, "high": high},
            {"matrix": kind, "series": "null, Qwen's shape, law", "low": edge, "high": edge},
        ]
        spans = {("Llama", layer): llama["matrices"][kind]["first"] for layer in (1, 20, 40)}
        spans |= {("Qwen", layer): span for layer, span in qwen["matrices"][kind]["layers"].items()}
        for (model, layer), (smallest, greatest) in spans.items():
            look = {"color": RED, "marker": "o"} if model == "Llama" else {"color": GREEN, "marker": "^"}
            middle, half = (smallest + greatest) / 2, max((greatest - smallest) / 2, llama["error"])
            label = model if layer == 1 else None
            axis.errorbar(
                layer, middle, yerr=half, markersize=4, linestyle="none", label=label, **cast(Any, look)
            )
            rows.append({"matrix": kind, "series": model, "layer": layer, "low": smallest, "high": greatest})
        axis.set_title(f"{kind}_proj", fontsize=9)
        axis.set_yscale("log")
        axis.set_ylim(1, 30)
        axis.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axis.minorticks_off()
        axis.set_xlabel("layer")
    axes[0].set_ylabel("largest singular value")
    axes[0].legend(fontsize=7, loc="upper right")
    note = (
        "Circles: Llama, smallest to largest of three checkpoints and three layers, as the file gives them. "
        f"Triangles: Qwen by layer, where given. Band: a randomised PCA ({OVERSAMPLED} directions) of Gaussian "
        "matrices of Llama's shape, full size. Dotted: the law for Qwen's shape. Inferred: that "
        "trained layers differ, as Qwen's do."
    )
    return drawing.finish(
        figure, "audit-largest", "Largest singular values by layer", pd.DataFrame(rows), note
    )


def angles(nulls: Nulls) -> Drawn:
    """Released angles of leading subspaces beside two independent matrices and two updates that share a base."""
    figure, axes = drawing.canvas(columns=2, rows=2, height=2.5)
    frames = []
    panels = [("q", 512), ("q", 768), ("q", 1024), ("k", 768)]
    for axis, (kind, k) in zip(axes, panels, strict=True):
        n, part = (QUERY_SIZE, QUARTER) if kind == "q" else (KEY_SHAPE[0], 1)
        law = np.rad2deg(angle_law(n, k))
        axis.plot(np.arange(k)[::2], law[::2], color=GREY, linewidth=1, label="independent matrices, law")
        table = pd.DataFrame({"index": np.arange(k), "value": law, "series": "independent matrices, law"})[
            ::THIN
        ]
        frames.append(table.assign(matrix=kind, k=k))
        for drawn, color, label in (
            (nulls.matrices[kind][k // part], GREY, "independent matrices, draws"),
            (nulls.updates[kind][k // part], BLUE, "updates of one base, draws"),
        ):
            degrees = np.rad2deg(drawn)
            places, low, high = np.arange(k // part) * part, degrees.min(0), degrees.max(0)
            every = slice(None, None, max(1, THIN // 2 // part))
            axis.fill_between(
                places[every], low[every], high[every], color=color, alpha=0.5, linewidth=0.6, label=label
            )
            table = pd.DataFrame({"index": places, "value": degrees.mean(0), "low": low, "high": high})
            frames.append(table[:: max(1, THIN // part)].assign(series=label, matrix=kind, k=k))
        frames += _released_angles(axis, kind, k)
        axis.set_title(f"{kind}_proj, k = {k} of {n}", fontsize=8)
        axis.set_ylim(0, 92)
        axis.set_ylabel("angle (degrees)")
    handles = {
        label: one for axis in axes for one, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), fontsize=7, ncols=3, loc="outside lower center")
    for axis in axes[2:]:
        axis.set_xlabel("number of the angle")
    note = (
        f"Bands: smallest to largest of {nulls.draws} draws, q_proj at a quarter of its size (the axis is that of the "
        "full size), k_proj at full size. Points with the reading error. Where k is more than half of the space, the "
        "first angles are 0 whatever the matrices are. Computed: which null a point lies on. Inferred: what was "
        "compared."
    )
    return drawing.finish(figure, "audit-angles", "Angles of leading subspaces", pd.concat(frames), note)


def _released_angles(axis: Axes, kind: str, k: int) -> list[pd.DataFrame]:
    frames = []
    for one in released()["angles"]:
        if (one["matrix"], one["k"]) != (kind, k):
            continue
        label, marker, color = FILE_LOOKS["hist" if "hist" in one["file"] else "step"]
        scale = 1.0 if one["unit"] == "degrees" else float(np.rad2deg(1))
        points = pd.DataFrame({"index": list(one["points"]), "value": list(one["points"].values())})
        points["value"] *= scale
        look = {**POINT, "marker": marker, "color": color}
        axis.errorbar(points["index"], points["value"], yerr=one["error"] * scale, label=label, **look)
        frames.append(points.assign(series="released", file=one["file"], matrix=kind, k=k))
    return frames


def counts() -> Drawn:
    """How far every published accuracy lies from the nearest whole count, by file."""
    frame = audit.accuracies()
    figure, (axis,) = drawing.canvas(height=3.0)
    files = list(dict.fromkeys(frame["file"]))
    for place, file in enumerate(files):
        mine = frame[frame["file"] == file]
        spread = np.linspace(-0.28, 0.28, len(mine))
        for whole, color, marker in ((True, GREY, "."), (False, RED, "x")):
            chosen = (mine["whole"] == whole).to_numpy()
            axis.plot(mine["off"][chosen], -place + spread[chosen], marker, color=color, markersize=5)
    axis.axvspan(-0.005, 0.005, color=SKY, alpha=0.6, linewidth=0)
    n = int(frame["n"].max())
    for side in (-1, 1):
        axis.axvline(side * 50 / n, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xscale("symlog", linthresh=0.01, linscale=0.5)
    axis.set_xlim(-1.6, 1.6)
    axis.set_xticks([-1, -0.1, -0.01, 0, 0.01, 0.1, 1], ["-1", "-0.1", "-0.01", "0", "0.01", "0.1", "1"])
    axis.set_yticks([-place for place in range(len(files))], files, fontsize=7)
    axis.set_xlabel("published accuracy less the nearest whole count (points)")
    note = (
        "Dots: values that a whole number of successes gives when rounded to two decimals; crosses: values that none "
        f"gives. Band: rounding. Dotted: as far off as a value can be with {n} hands. Computed from the published "
        "numbers alone; digitised ones are good to about a hundredth of a point."
    )
    return drawing.finish(figure, "audit-counts", "Accuracies and whole counts", frame, note)


def copy() -> Drawn:
    """The published ID curve against the published OOD curve, and curves that share nothing."""
    figure, axes = drawing.canvas(columns=2)
    fits = audit.copies().set_index("model")
    n = released()["restored_values"]["n"]
    frames = []
    for axis, model in zip(axes, audit.MODELS, strict=True):
        x, y = audit.restored(model)
        fit = fits.loc[model]
        generator = np.random.default_rng(1)
        apart = [100 * generator.binomial(n, curve.mean() / 100, (20, len(curve))) / n for curve in (x, y)]
        axis.plot(
            apart[0].ravel(), apart[1].ravel(), ".", color=GREY, markersize=3, alpha=0.4, label="sampled"
        )
        ends = np.array([x.min(), x.max()])
        axis.plot(
            ends, fit["slope"] * ends + fit["intercept"], color=BLUE, linewidth=1, label="least squares"
        )
        axis.plot(x, y, **POINT, label="published")
        axis.set_title(f"{model}: residual {fit['residual']:.3f} points", fontsize=8)
        axis.set_xlabel("OOD accuracy (%)")
        frames += [
            pd.DataFrame({"ood": x, "id": y, "model": model, "series": "published"}),
            pd.DataFrame(
                {"ood": apart[0].ravel(), "id": apart[1].ravel(), "model": model, "series": "sampled"}
            ),
        ]
    axes[0].set_ylabel("ID accuracy (%)")
    axes[0].legend(fontsize=7)
    note = (
        "One point per number of singular values put back. Grey: 20 pairs of curves of the same mean heights, every "
        f"point an independent count of {n} hands. Computed: the line, its residual, the sampled curves. Inferred: "
        "that the two curves are not two measurements."
    )
    return drawing.finish(figure, "audit-copy", "Two published curves on one line", pd.concat(frames), note)


def resolution() -> Drawn:
    """Published differences with their intervals; the chance of seeing a drop, by design."""
    figure, (left, right) = drawing.canvas(columns=2)
    frame = resolved.differences()
    for place, row in enumerate(frame.itertuples()):
        color = ORANGE if "SFT -" in str(row.what) else BLUE
        left.plot([row.low, row.high], [-place] * 2, color=color, linewidth=1.5)
        left.plot(row.value, -place, "o", color=color, markersize=4)
    labels = [f"{row.model}:\n{row.what}" for row in frame.itertuples()]
    left.set_yticks([-place for place in range(len(frame))], labels, fontsize=6)
    left.axvline(0, color=GREY, linewidth=0.8)
    left.set_xlabel("difference of OOD accuracy (points)")
    stages = released()["stages"]
    before, published = stages["Qwen"]["peak"] / stages["n"], abs(float(frame["value"].iloc[0]))
    drops = np.linspace(0.001, 0.12, 120)
    frames = [frame.assign(series="published")]
    for (name, design), color in zip(resolved.designs().items(), (GREY, SKY, GREEN), strict=True):
        noise = {"hands": design["hands"], "decodes": design["decodes"]}
        chance = [resolved.power(before, float(drop), **noise) for drop in drops]
        right.plot(100 * drops, chance, color=color, linewidth=1.4, label=name)
        frames.append(pd.DataFrame({"drop": 100 * drops, "chance": chance, "series": name}))
    right.axvline(published, color=RED, linewidth=1, linestyle="--", label="Qwen's published drop")
    right.set_xlabel("true drop (points)")
    right.set_ylabel("chance of seeing it")
    right.set_ylim(0, 1.02)
    right.legend(fontsize=6)
    note = (
        "Left: Newcombe's 95 % intervals, as if the hands were drawn apart. Right: two checkpoints on the same hands, "
        "two-sided test at 5 %, when all hands are equally hard (more is seen when they differ); the noise is that of "
        "decoding. Noise of training comes on top. Computed."
    )
    return drawing.finish(figure, "audit-resolution", "What can be told apart", pd.concat(frames), note)
