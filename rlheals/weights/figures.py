"""Figures of two checkpoints compared: each shows the change beside what null models give for a change of its size.

A point is a mean over the matrices of a kind; bands are the central 95 % of such means over the null's draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlheals.display import style as drawing
from rlheals.display.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Drawn
from rlheals.weights.spectra import CHANGE, START, Spectra

NULL_LOOKS = {
    "gaussian": ("Gaussian of equal norm", GREY),
    "permuted": ("entries permuted", SKY),
    "turned": ("directions drawn anew", GREEN),
    "ulp": ("one bfloat16 step", ORANGE),
    "independent": ("unrelated matrix", PURPLE),
}
SIDE_LOOKS = {"left": ("left (output)", BLUE), "right": ("right (input)", RED)}


def over_draws(frame: pd.DataFrame, column: str, keys: Sequence[str]) -> pd.DataFrame:
    """Mean over matrices per draw, then mean and central 95 % over draws: keys, what, value, low, high."""
    per_draw = frame.groupby([*keys, "what", "draw"], sort=False, observed=True)[column].mean()
    grouped = per_draw.groupby([*keys, "what"], sort=False, observed=True)
    table = pd.DataFrame(
        {"value": grouped.mean(), "low": grouped.quantile(0.025), "high": grouped.quantile(0.975)}
    )
    return table.reset_index()


def kinds_of(found: Spectra) -> list[str]:
    """Kinds that were measured, in their usual order."""
    return list(dict.fromkeys(found.matrices["kind"]))


def values(found: Spectra) -> Drawn:
    """How much singular values change, and how large the change is: the change and every null, by kind."""
    whole = found.matrices[found.matrices["head"] == -1]
    columns = {
        "relative_change": "size of the change, |dW| / |W|",
        "value_change_mean": "mean relative change of singular values",
    }
    figure, axes = drawing.canvas(columns=2, height=0.32 * len(kinds_of(found)) + 1.4)
    frames = []
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        table = over_draws(whole, column, ["kind"])
        _strips(axis, table, kinds_of(found))
        if (table["value"] > 0).any():
            axis.set_xscale("log")
        axis.set_title(title, fontsize=8)
        frames.append(table.assign(series=column))
    _legend_below(figure, axes[0])
    note = (
        "Black: the change, mean over the matrices of a kind. Colours: null models, mean and central 95 % of draws. "
        "Small values say that the change is small; a null of the same size says how small they then are anyway."
    )
    return drawing.finish(figure, "spectra-values", "Singular values", pd.concat(frames), note)


def angles(found: Spectra) -> Drawn:
    """Mean principal angle of the leading subspaces against their size k, by kind, with the nulls."""
    kinds = kinds_of(found)
    rows = -(-len(kinds) // 3)
    figure, axes = drawing.canvas(columns=3, rows=rows, height=2.1)
    frame = found.angles[(found.angles["head"] == -1) & (found.angles["end"] == "top")]
    frames = []
    for axis, kind in zip(axes, kinds, strict=False):
        table = over_draws(frame[frame["kind"] == kind].assign(mean=_degrees), "mean", ["side", "k"])
        for side, (label, color) in SIDE_LOOKS.items():
            mine = table[table["side"] == side]
            change = mine[mine["what"] == CHANGE]
            axis.plot(
                change["k"], change["value"], "o-", color=color, markersize=3, linewidth=1.2, label=label
            )
            start = mine[mine["what"] == START]
            axis.plot(start["k"], start["value"], "o", color=color, markersize=5, markerfacecolor="none")
            for what, style in (("gaussian", "--"), ("ulp", "-."), ("independent", ":")):
                null = mine[mine["what"] == what]
                axis.plot(null["k"], null["value"], style, color=color, linewidth=0.9, alpha=0.8)
                if what == "gaussian":
                    axis.fill_between(
                        null["k"], null["low"], null["high"], color=color, alpha=0.2, linewidth=0
                    )
        axis.set_title(kind, fontsize=8)
        axis.set_xscale("log", base=2)
        if (table["value"] > 0).any():
            axis.set_yscale("log")
        frames.append(table.assign(kind=kind))
    _hide_rest(axes, len(kinds))
    axes[0].set_ylabel("mean angle (degrees)")
    axes[0].legend(fontsize=6)
    for axis in axes[max(0, len(kinds) - 3) : len(kinds)]:
        axis.set_xlabel("directions k")
    note = (
        "Solid: the change. Dashed with band: Gaussian change of equal norm. Dash-dotted: one bfloat16 step. Dotted: "
        "unrelated matrices. Circles: the first checkpoint, where a third is the reference. Rotation beyond what any "
        "change of that size makes is what lies above the dashed line."
    )
    return drawing.finish(figure, "spectra-angles", "Rotation of leading subspaces", pd.concat(frames), note)


def curves(found: Spectra) -> Drawn:
    """All principal angles of the largest k, ascending, by kind (the paper's curves), with the Gaussian null."""
    frame = found.curves[found.curves["head"] == -1]
    kinds = kinds_of(found)
    figure, axes = drawing.canvas(columns=3, rows=-(-len(kinds) // 3), height=2.1)
    grouped = frame.groupby(["kind", "side", "index"], sort=False)
    table = np.rad2deg(grouped[["angle", "null", "null_low", "null_high"]].mean()).reset_index()
    for axis, kind in zip(axes, kinds, strict=False):
        for side, (label, color) in SIDE_LOOKS.items():
            mine = table[(table["kind"] == kind) & (table["side"] == side)]
            axis.plot(mine["index"], mine["angle"], color=color, linewidth=1.2, label=label)
            axis.plot(mine["index"], mine["null"], "--", color=color, linewidth=0.8)
            axis.fill_between(
                mine["index"], mine["null_low"], mine["null_high"], color=color, alpha=0.2, linewidth=0
            )
        axis.set_title(kind, fontsize=8)
        axis.set_ylim(bottom=0)
    _hide_rest(axes, len(kinds))
    axes[0].set_ylabel("angle (degrees)")
    axes[0].legend(fontsize=6)
    for axis in axes[max(0, len(kinds) - 3) : len(kinds)]:
        axis.set_xlabel("number of the angle")
    note = (
        "Means over the matrices of a kind. Solid: the change; dashed with band: Gaussian change of equal norm (mean "
        "and central 95 % of draws, angle by angle)."
    )
    return drawing.finish(figure, "spectra-curves", "Angle curves", table, note)


def excess(found: Spectra) -> Drawn:
    """Rotation in excess of the Gaussian null, by kind and layer, at the middle k."""
    frame = found.angles[(found.angles["head"] == -1) & (found.angles["end"] == "top")]
    table = excess_table(frame)
    layers = sorted(table["layer"].unique())
    kinds = kinds_of(found)
    figure, axes = drawing.canvas(columns=2, height=0.26 * len(kinds) + 1.1)
    reach = max(float(table["excess"].abs().max()), 1e-9)
    for axis, side in zip(axes, SIDE_LOOKS, strict=True):
        grid = table[table["side"] == side].pivot_table(index="kind", columns="layer", values="excess")
        shown = grid.reindex(index=kinds, columns=layers)
        image = axis.imshow(shown, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
        axis.set_yticks(range(len(kinds)), kinds, fontsize=7)
        axis.set_xticks(range(len(layers)), ["-" if at < 0 else str(at) for at in layers], fontsize=7)
        axis.set_xlabel("layer")
        axis.set_title(SIDE_LOOKS[side][0], fontsize=8)
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, label="excess angle (degrees)")
    note = (
        "Mean angle at the second-smallest k less that of Gaussian changes of equal norm "
        f"({int(table['draws'].max())} draws). White: what any change of that size turns."
    )
    return drawing.finish(figure, "spectra-excess", "Rotation beyond chance", table, note)


def excess_table(frame: pd.DataFrame, null: str = "gaussian") -> pd.DataFrame:
    """Per (tensor, side), at the second-smallest k: degrees of the change, of the null (mean, spread), the excess."""
    keys = ["tensor", "kind", "layer", "side"]
    chosen = frame.groupby(keys)["k"].transform(lambda ks: sorted(ks.unique())[min(1, ks.nunique() - 1)])
    rows = frame[frame["k"] == chosen].assign(mean=_degrees)
    change = rows[rows["what"] == CHANGE].set_index(keys)["mean"].rename("degrees")
    drawn = rows[rows["what"] == null].groupby(keys)["mean"].agg(null="mean", spread="std", draws="size")
    table = pd.concat([change, drawn], axis=1).reset_index()
    return table.assign(excess=table["degrees"] - table["null"])


def energies(found: Spectra) -> Drawn:
    """Which share of the change stretches, which turns, and over how many directions it is spread."""
    whole = found.matrices[found.matrices["head"] == -1]
    columns = {
        "stretch_energy": "share that stretches",
        "rotation_energy": "share that turns",
        "effective_rank": "effective rank of dW",
    }
    figure, axes = drawing.canvas(columns=3, height=0.32 * len(kinds_of(found)) + 1.2)
    frames = []
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        table = over_draws(whole, column, ["kind"])
        _strips(axis, table, kinds_of(found))
        axis.set_title(title, fontsize=8)
        axis.set_xlim(left=0)
        frames.append(table.assign(series=column))
    _legend_below(figure, axes[0])
    note = (
        "In the base's own directions a change stretches where it lies on the diagonal and turns elsewhere; what is "
        "left lies outside of them. Black: the change; colours: nulls."
    )
    return drawing.finish(figure, "spectra-energies", "What the change is made of", pd.concat(frames), note)


def heat(found: Spectra) -> Drawn:
    """Where the change lies in the base's own directions (the paper's heat map of U^T dW V), by kind."""
    frame = found.heat[found.heat["head"] == -1]
    table = frame.groupby(["kind", "left", "right"], sort=False)["energy"].mean().reset_index()
    kinds = kinds_of(found)
    figure, axes = drawing.canvas(columns=3, rows=-(-len(kinds) // 3), height=2.2)
    shown = None
    for axis, kind in zip(axes, kinds, strict=False):
        grid = table[table["kind"] == kind].pivot_table(index="left", columns="right", values="energy")
        octaves = np.log2(grid.clip(lower=1e-9))
        shown = axis.imshow(octaves, cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto", interpolation="nearest")
        axis.set_title(kind, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
    _hide_rest(axes, len(kinds))
    axes[0].set_ylabel("left directions, largest first")
    axes[max(0, len(kinds) - 3)].set_xlabel("right directions, largest first")
    if shown is not None:
        figure.colorbar(shown, ax=axes, label="energy, log2(change / white noise)", shrink=0.6)
    note = (
        "Squares of U^T dW V over blocks of directions, mean over the matrices of a kind, in units of what white noise "
        "of the same norm has everywhere: 0 (white) is the null."
    )
    return drawing.finish(figure, "spectra-heat", "Where the change lies", table, note)


SPECTRA = (values, angles, curves, excess, energies, heat)


def _degrees(frame: pd.DataFrame) -> pd.Series:
    return np.rad2deg(frame["mean"])


def _strips(axis: Axes, table: pd.DataFrame, kinds: Sequence[str]) -> None:
    """Per kind a black dot for the change and a coloured bar for every null."""
    looks = {name: look for name, look in NULL_LOOKS.items() if name in set(table["what"])}
    for place, kind in enumerate(kinds):
        mine = table[table["kind"] == kind].set_index("what")
        for number, (name, (label, color)) in enumerate(looks.items()):
            at = -place - 0.12 - 0.6 * (number + 1) / (len(looks) + 1)
            shown = label if place == 0 else None
            axis.plot(mine.loc[name, ["low", "high"]].astype(float), [at, at], color=color, linewidth=1.5)
            axis.plot(mine.loc[name, "value"], at, "|", color=color, markersize=5, label=shown)
        axis.plot(mine.loc[CHANGE, "value"], -place - 0.05, "o", color="black", markersize=3.5)
        if START in mine.index:
            at = mine.loc[START, "value"]
            axis.plot(at, -place - 0.05, "o", color="black", markersize=4, markerfacecolor="none")
    axis.set_yticks([-place - 0.35 for place in range(len(kinds))], kinds, fontsize=8)
    axis.set_ylim(-len(kinds) + 0.05, 0.2)


def _legend_below(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, fontsize=7, ncols=len(handles), loc="outside lower center")


def _hide_rest(axes: Sequence[Axes], used: int) -> None:
    for axis in axes[used:]:
        axis.set_visible(False)
