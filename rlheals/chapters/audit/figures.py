"""Figures of the page on released artefacts, one function each: published numbers beside what a null gives."""

from __future__ import annotations

from typing import Any

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
from rlheals.chapters.audit.takeaways import TAKEAWAYS
from rlheals.chapters.sentences import said
from rlheals.display.looks import BLUE, CATEGORICAL, GREY, LLAMA, ORANGE, PURPLE, QWEN, RED, SKY, Look
from rlheals.display.panels import Panels, estimates, level
from rlheals.display.style import Drawn

THIN = 8
"""Every eighth index of a curve is drawn and kept in the data."""
RELEASED = Look("released", RED, "o")
FILES = {"step": Look("angle-step file", RED, "o"), "hist": Look("angle-histogram file", PURPLE, "s")}


def _points(axis: Axes, at: Any, values: Any, error: float, look: Look) -> None:
    """Released numbers with their reading error."""
    table = pd.DataFrame({"value": values, "low": values - error, "high": values + error})
    estimates(axis, at, table, look, label=look.label)


def _span(axis: Axes, rows: pd.DataFrame, color: str, label: str, less: Any = 0.0) -> None:
    """From the smallest to the largest of several draws (index, low, high), less a curve."""
    ends = rows["low"] - less, rows["high"] - less
    axis.fill_between(rows["index"], *ends, color=color, alpha=0.5, linewidth=0.5, label=label)


def _of_draws(index: Any, draws: np.ndarray) -> pd.DataFrame:
    """index, and value (mean), low and high of (draws, indices)."""
    return pd.DataFrame({"index": index, "value": draws.mean(0), "low": draws.min(0), "high": draws.max(0)})


def _released(one: dict[str, Any], scale: float = 1.0) -> pd.DataFrame:
    """The points of a released curve: index, value."""
    points = one["points"]
    return pd.DataFrame({"index": list(points), "value": [scale * value for value in points.values()]})


def _finish(panels: Panels, name: str, title: str, note: str) -> Drawn:
    return panels.finish(name, title, note, said(TAKEAWAYS[name], panels.frame))


def spectra(nulls: Nulls) -> Drawn:
    """Released singular values of two projections on the law and draws of Gaussian matrices; below, what is left."""
    panels = Panels(2, 2, 2.2, ratios=(2, 1))
    for upper, lower, one in zip(panels.row(0), panels.row(1), released()["singular_values"], strict=True):
        law = singular_law(*one["shape"])
        points = _released(one)
        index = np.union1d(np.arange(len(law))[::THIN], points["index"])
        upper.plot(index, law[index], color=GREY, linewidth=1, label="law")
        level(lower)
        panels.keep(pd.DataFrame({"index": index, "value": law[index]}), series="law", file=one["file"])
        if tuple(one["shape"]) == KEY_SHAPE:
            draws, count = _of_draws(index, nulls.values[:, index]), f"{len(nulls.values)} draws"
            _span(upper, draws, SKY, count)
            _span(lower, draws, SKY, count, law[index])
            panels.keep(draws, series="draws", file=one["file"])
        _points(upper, points["index"], points["value"], one["error"], RELEASED)
        _points(lower, points["index"], points["value"] - law[points["index"]], one["error"], RELEASED)
        panels.keep(points, series="released", file=one["file"])
        name = one["file"].rpartition("-")[2].removesuffix(".pdf")
        panels.label(upper, f"{name}, {' x '.join(map(str, one['shape']))}")
        upper.set_ylim(bottom=0)
        lower.set(ylim=(-0.035, 0.035), xlim=upper.get_xlim(), xlabel="index")
    panels.row(0)[0].set_ylabel("singular value")
    panels.row(1)[0].set_ylabel("residual")
    panels.legend(panels.row(0)[1])
    note = (
        f"Line: law for independent Gaussian entries of standard deviation {SPREAD}; band: smallest to largest of "
        "full-size draws. Points: released values with their reading error, digitised from the PDFs' own coordinates. "
        "Computed: that they agree. Inferred: why."
    )
    return _finish(panels, "audit-spectra", "Llama's singular values", note)


def largest(nulls: Nulls) -> Drawn:
    """The released largest singular values by layer, of Llama and of Qwen, beside Gaussian matrices of their shapes."""
    (llama,), qwen = released()["largest_two"], released()["largest_qwen"]
    panels = Panels(4, height=2.6)
    for axis, kind in zip(panels.axes, llama["matrices"], strict=True):
        low, high = nulls.largest[kind][:, 0].min(), nulls.largest[kind][:, 0].max()
        axis.axhspan(low, high, color=LLAMA.color, alpha=0.3, linewidth=0)
        edge = singular_law(*qwen["matrices"][kind]["shape"])[0]
        level(axis, edge, color=QWEN.color, line=":")
        rows: list[dict[str, Any]] = [
            {"series": "null, Llama's shape", "low": low, "high": high},
            {"series": "null, Qwen's shape, law", "low": edge, "high": edge},
        ]
        spans = [(LLAMA.named("Llama"), layer, llama["matrices"][kind]["first"]) for layer in (1, 20, 40)]
        spans += [(QWEN.named("Qwen"), *span) for span in qwen["matrices"][kind]["layers"].items()]
        for look, layer, (smallest, greatest) in spans:
            half = max((greatest - smallest) / 2, llama["error"])
            _points(axis, [layer], np.array([(smallest + greatest) / 2]), half, look)
            ends = {"low": smallest, "high": greatest, "error": llama["error"]}
            rows.append({"series": look.label, "layer": layer, **ends})
        panels.keep(pd.DataFrame(rows), matrix=kind)
        panels.label(axis, f"{kind}_proj", "layer")
        axis.set_yscale("log")
        axis.set_ylim(1, 30)
        axis.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axis.minorticks_off()
    panels.axes[0].set_ylabel("largest singular value")
    panels.legend(panels.axes[0])
    note = (
        "Circles: Llama, smallest to largest of three checkpoints and three layers, as the file gives them. "
        f"Squares: Qwen by layer, where given. Band: a randomised PCA ({OVERSAMPLED} singular vectors) of Gaussian "
        "matrices of Llama's shape, full size. Dotted: the law for Qwen's shape. Inferred: that "
        "trained layers differ, as Qwen's do."
    )
    return _finish(panels, "audit-largest", "Largest singular values by layer", note)


def angles(nulls: Nulls) -> Drawn:
    """Released angles of leading subspaces beside two independent matrices and two updates that share a base."""
    panels = Panels(2, 2, 2.5)
    for axis, (kind, k) in zip(panels.axes, [("q", 512), ("q", 768), ("q", 1024), ("k", 768)], strict=True):
        n, part = (QUERY_SIZE, QUARTER) if kind == "q" else (KEY_SHAPE[0], 1)
        law, at = np.rad2deg(angle_law(n, k)), {"matrix": kind, "k": k}
        name = "independent matrices, law"
        axis.plot(np.arange(k)[::2], law[::2], color=GREY, linewidth=1, label=name)
        panels.keep(pd.DataFrame({"index": np.arange(k), "value": law})[::THIN], series=name, **at)
        for drawn, color, name in (
            (nulls.matrices[kind][k // part], GREY, "independent matrices, draws"),
            (nulls.updates[kind][k // part], BLUE, "updates of one base, draws"),
        ):
            table = _of_draws(np.arange(k // part) * part, np.rad2deg(drawn))
            _span(axis, table[:: max(1, THIN // 2 // part)], color, name)
            panels.keep(table[:: max(1, THIN // part)], series=name, **at)
        for one in released()["angles"]:
            if (one["matrix"], one["k"]) == (kind, k):
                scale = 1.0 if one["unit"] == "degrees" else float(np.rad2deg(1))
                points = _released(one, scale)
                look = FILES["hist" if "hist" in one["file"] else "step"]
                _points(axis, points["index"], points["value"], one["error"] * scale, look)
                panels.keep(points, series="released", file=one["file"], **at)
        panels.label(axis, f"{kind}_proj, k = {k} of {n}", y="angle (degrees)")
        axis.set_ylim(0, 92)
    panels.legend(below=3)
    for axis in panels.row(1):
        axis.set_xlabel("number of the angle")
    note = (
        f"Bands: smallest to largest of {nulls.draws} draws, q_proj at a quarter of its size (the axis is that of the "
        "full size), k_proj at full size. Points with the reading error. Where k is more than half of the space, the "
        "first angles are 0 whatever the matrices are. Computed: which null a point lies on. Inferred: what was "
        "compared."
    )
    return _finish(panels, "audit-angles", "Angles of leading subspaces", note)


def counts() -> Drawn:
    """How far every published accuracy lies from the nearest whole count, by file."""
    frame = audit.accuracies()
    panels = Panels(height=3.0)
    (axis,) = panels.axes
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
        level(axis, side * 50 / n, upright=False, line=":")
    axis.set_xscale("symlog", linthresh=0.01, linscale=0.5)
    axis.set_xlim(-1.6, 1.6)
    axis.set_xticks([-1, -0.1, -0.01, 0, 0.01, 0.1, 1], ["-1", "-0.1", "-0.01", "0", "0.01", "0.1", "1"])
    panels.names(axis, files)
    axis.set_xlabel("published accuracy less the nearest whole count (points; linear up to 0.01)")
    note = (
        "Dots: values that a whole number of successes gives when rounded to two decimals; crosses: values that none "
        f"gives. Band: rounding. Dotted: as far off as a value can be with {n} hands. Computed from the published "
        "numbers alone; digitised ones are good to about a hundredth of a point."
    )
    panels.keep(frame)
    return _finish(panels, "audit-counts", "Accuracies and whole counts", note)


def copy() -> Drawn:
    """The published ID curve against the published OOD curve, and curves that share nothing."""
    panels = Panels(2)
    fits, n = audit.copies().set_index("model"), released()["restored_values"]["n"]
    for axis, model in zip(panels.axes, audit.MODELS, strict=True):
        x, y = audit.restored(model)
        fit = fits.loc[model]
        generator = np.random.default_rng(1)
        apart = [100 * generator.binomial(n, curve.mean() / 100, (20, len(curve))) / n for curve in (x, y)]
        ood, id_ = (one.ravel() for one in apart)
        axis.plot(ood, id_, ".", color=GREY, markersize=3, alpha=0.4, label="sampled")
        ends = np.array([x.min(), x.max()])
        fitted = fit["slope"] * ends + fit["intercept"]
        axis.plot(ends, fitted, color=BLUE, linewidth=1, label="least squares")
        axis.plot(x, y, "o", color=RED, markersize=4, label="published")
        panels.label(axis, f"{model}: residual {fit['residual']:.3f} points", "OOD accuracy (%)")
        panels.keep(pd.DataFrame({"ood": x, "id": y}), model=model, series="published")
        panels.keep(pd.DataFrame({"ood": ood, "id": id_}), model=model, series="sampled")
    panels.axes[0].set_ylabel("ID accuracy (%)")
    panels.legend(below=3)
    note = (
        "One point per number of singular values restored. Grey: 20 pairs of curves of the same mean heights, every "
        f"point an independent count of {n} hands. Computed: the line, its residual, the sampled curves. Inferred: "
        "that the two curves are not two measurements."
    )
    return _finish(panels, "audit-copy", "Two published curves on one line", note)


def resolution() -> Drawn:
    """Published differences with their intervals; the chance of seeing a drop, by design."""
    panels = Panels(2)
    left, right = panels.axes
    frame = resolved.differences()
    for name, look in {"SFT -": Look("", ORANGE, "s"), "": Look("", BLUE)}.items():
        mine = frame[frame["what"].str.contains("SFT -", regex=False) == bool(name)]
        estimates(left, -mine.index, mine, look, upright=False)
    panels.keep(frame, series="published")
    panels.names(left, [f"{row.model}:\n{row.what}" for row in frame.itertuples()])
    level(left, upright=False)
    left.set_xlabel("difference of OOD accuracy (points)")
    stages = released()["stages"]
    before, published = stages["Qwen"]["peak"] / stages["n"], abs(float(frame["value"].iloc[0]))
    drops = np.linspace(0.001, 0.12, 120)
    for (name, design), look in zip(resolved.designs().items(), CATEGORICAL, strict=False):
        noise = {"hands": design["hands"], "decodes": design["decodes"]}
        chance = [resolved.power(before, float(drop), **noise) for drop in drops]
        right.plot(100 * drops, chance, look.line, color=look.color, linewidth=1.4, label=name)
        panels.keep(pd.DataFrame({"drop": 100 * drops, "chance": chance}), series=name)
    right.axvline(published, color=RED, linewidth=1, linestyle="--", label="Qwen's published drop")
    panels.label(right, x="true drop (points)", y="chance of seeing it", share=True)
    panels.legend(below=2)
    note = (
        "Left: Newcombe's 95 % intervals, as if the hands were drawn apart. Right: two checkpoints on the same hands, "
        "two-sided test at 5 %, when all hands are equally hard (more is seen when they differ); the noise is that of "
        "sampling. Noise of training comes on top. Computed."
    )
    return _finish(panels, "audit-resolution", "What can be told apart", note)
