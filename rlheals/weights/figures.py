"""Figures of two checkpoints compared: each shows the change beside what null models give for a change of its size.

A point is a mean over the matrices of a kind; bands are the central 95 % of such means over the null's draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rlheals.display import looks
from rlheals.display.looks import NULLS, SIDES
from rlheals.display.panels import Panels, estimates, heat_map
from rlheals.display.style import Drawn
from rlheals.weights.spectra import CHANGE, START, Spectra


def over_draws(frame: pd.DataFrame, column: str, keys: Sequence[str]) -> pd.DataFrame:
    """Mean over matrices per draw, then mean and central 95 % over draws: keys, what, value, low, high."""
    per_draw = frame.groupby([*keys, "what", "draw"], sort=False, observed=True)[column].mean()
    grouped = per_draw.groupby([*keys, "what"], sort=False, observed=True)
    ends = {"value": grouped.mean(), "low": grouped.quantile(0.025), "high": grouped.quantile(0.975)}
    return pd.DataFrame(ends).reset_index()


def kinds_of(found: Spectra) -> list[str]:
    """Kinds that were measured, in their usual order."""
    return list(dict.fromkeys(found.matrices["kind"]))


def values(found: Spectra) -> Drawn:
    """How much singular values change, and how large the change is: the change and every null, by kind."""
    columns = {
        "relative_change": "size of the change, |dW| / |W|",
        "value_change_mean": "mean relative change of singular values",
    }
    panels = _strips(found, columns)
    for axis, column in zip(panels.axes, columns, strict=True):
        if (found.matrices[column] > 0).any():  # equal checkpoints have no logarithm to show
            axis.set_xscale("log")
    note = (
        "Black: the change, mean over the matrices of a kind. Colours: null models, mean and central 95 % of draws. "
        "Small values say that the change is small; a null of the same size says how small they then are anyway."
    )
    return panels.finish("spectra-values", "Singular values", note)


def energies(found: Spectra) -> Drawn:
    """Which share of the change rescales singular values, which rotates singular vectors, and its effective rank."""
    columns = {
        "stretch_energy": "share that stretches",
        "rotation_energy": "share that rotates",
        "effective_rank": "effective rank of dW",
    }
    panels = _strips(found, columns)
    for axis in panels.axes:
        axis.set_xlim(left=0)
    note = (
        "Among the base's own singular vectors a change stretches where it lies on the diagonal and rotates elsewhere; "
        "what is left lies outside of them. Black: the change; colours: nulls."
    )
    return panels.finish("spectra-energies", "What the change is made of", note)


def _strips(found: Spectra, columns: Mapping[str, str]) -> Panels:
    """A panel per column with a row per kind: a black dot for the change above a coloured bar for every null."""
    whole, kinds = found.matrices[found.matrices["head"] == -1], kinds_of(found)
    panels = Panels(len(columns), height=0.32 * len(kinds) + 1.3)
    for axis, (column, title) in zip(panels.axes, columns.items(), strict=True):
        table = over_draws(whole, column, ["kind"])
        there = [name for name in NULLS if name in set(table["what"])]
        rows = {CHANGE: (0.05, looks.CHANGE), START: (0.05, looks.CHANGE.named("the first checkpoint"))}
        for number, name in enumerate(there, start=1):
            rows[name] = (0.12 + 0.6 * number / (len(there) + 1), NULLS[name])
        for name, (lower, look) in rows.items():
            mine = table[table["what"] == name]
            at = -mine["kind"].map(kinds.index).astype(float) - lower
            label = look.label if len(mine) else None
            estimates(axis, at, mine, look, hollow=name == START, upright=False, label=label)
        panels.names(axis, kinds if axis is panels.axes[0] else [""] * len(kinds), offset=0.35, size=8)
        panels.label(axis, title)
        panels.keep(table, series=column)
    panels.legend(below=3)
    return panels


def _grid(kinds: Sequence[str], height: float, x: str) -> Panels:
    """A panel per kind, three in a row."""
    panels = Panels(3, max(1, -(-len(kinds) // 3)), height)
    for axis, kind in zip(panels.axes, kinds, strict=False):
        panels.label(axis, kind)
    for axis in panels.axes[max(0, len(kinds) - 3) : len(kinds)]:
        axis.set_xlabel(x)
    panels.hide(len(kinds))
    return panels


def angles(found: Spectra) -> Drawn:
    """Mean principal angle of the leading subspaces against their size k, by kind, with the nulls."""
    frame = found.angles[(found.angles["head"] == -1) & (found.angles["end"] == "top")]
    turned = set(frame.loc[(frame["what"] == CHANGE) & frame["mean"].notna(), "kind"])
    kinds = [kind for kind in kinds_of(found) if kind in turned]  # a zero matrix has no singular vectors
    panels = _grid(kinds, 2.1, "singular vectors k")
    for axis, kind in zip(panels.axes, kinds, strict=False):
        table = over_draws(frame[frame["kind"] == kind].assign(mean=_degrees), "mean", ["side", "k"])
        for side, look in SIDES.items():
            mine = {str(what): rows for what, rows in table[table["side"] == side].groupby("what")}
            for what in ("independent", "ulp", "gaussian"):
                if what in mine:
                    null = replace(look, line=NULLS[what].line)
                    estimates(axis, mine[what]["k"], mine[what], null, "band")
            if START in mine:
                estimates(axis, mine[START]["k"], mine[START], look, hollow=True)
            estimates(
                axis, mine[CHANGE]["k"], mine[CHANGE], replace(look, line="-"), "line", label=look.label
            )
        axis.set_xscale("log", base=2)
        if (table["value"] > 0).any():
            axis.set_yscale("log")
        panels.keep(table, kind=kind)
    panels.axes[0].set_ylabel("mean angle (degrees)")
    panels.legend(panels.axes[0])
    note = (
        "Solid: the change. In bands of their draws, dashed: Gaussian change of equal norm; dash-dotted: one bfloat16 "
        "step; dotted: unrelated matrices. Open: the first checkpoint, where a third is the reference. Rotation beyond "
        "what any change of that size makes is what lies above the dashed line."
    )
    return panels.finish("spectra-angles", "Rotation of leading subspaces", note)


def curves(found: Spectra) -> Drawn:
    """All principal angles of the largest k, ascending, by kind (the paper's curves), with the Gaussian null."""
    frame, kinds = found.curves[found.curves["head"] == -1], kinds_of(found)
    panels = _grid(kinds, 2.1, "number of the angle")
    grouped = frame.groupby(["kind", "side", "index"], sort=False)
    table = np.rad2deg(grouped[["angle", "null", "null_low", "null_high"]].mean()).reset_index()
    ends = {"null": "value", "null_low": "low", "null_high": "high"}
    for axis, kind in zip(panels.axes, kinds, strict=False):
        for side, look in SIDES.items():
            mine = table[(table["kind"] == kind) & (table["side"] == side)]
            axis.plot(mine["index"], mine["angle"], color=look.color, linewidth=1.2, label=look.label)
            estimates(axis, mine["index"], mine.rename(columns=ends), replace(look, line="--"), "band")
        axis.set_ylim(bottom=0)
    panels.keep(table)
    panels.axes[0].set_ylabel("angle (degrees)")
    panels.legend(panels.axes[0])
    note = (
        "Means over the matrices of a kind. Solid: the change; dashed with band: Gaussian change of equal norm (mean "
        "and central 95 % of draws, angle by angle)."
    )
    return panels.finish("spectra-curves", "Angle curves", note)


def excess(found: Spectra) -> Drawn:
    """Rotation in excess of the Gaussian null, by kind and layer, at the second-smallest k."""
    table = excess_table(found.angles[(found.angles["head"] == -1) & (found.angles["end"] == "top")])
    layers, kinds = sorted(table["layer"].unique()), kinds_of(found)
    panels = Panels(2, height=0.26 * len(kinds) + 1.1)
    reach = max(float(table["excess"].abs().max()), 1e-9)
    for axis, (side, look) in zip(panels.axes, SIDES.items(), strict=True):
        grid = table[table["side"] == side].pivot_table(index="kind", columns="layer", values="excess")
        image = heat_map(axis, grid.reindex(index=kinds, columns=layers), reach)
        axis.set_yticks(range(len(kinds)), kinds, fontsize=7)
        axis.set_xticks(range(len(layers)), ["-" if at < 0 else str(at) for at in layers], fontsize=7)
        panels.label(axis, look.label, "layer")
        panels.figure.colorbar(image, ax=axis, label="excess angle (degrees)")
    panels.keep(table)
    note = (
        "Mean angle at the second-smallest k less that of Gaussian changes of equal norm "
        f"({int(table['draws'].max())} draws). At 0: as much rotation as any change of that size makes."
    )
    return panels.finish("spectra-excess", "Rotation beyond chance", note)


def excess_table(frame: pd.DataFrame, null: str = "gaussian") -> pd.DataFrame:
    """Per (tensor, side), at the second-smallest k: degrees of the change, of the null (mean, spread), the excess."""
    keys = ["tensor", "kind", "layer", "side"]
    chosen = frame.groupby(keys)["k"].transform(lambda ks: sorted(ks.unique())[min(1, ks.nunique() - 1)])
    rows = frame[frame["k"] == chosen].assign(mean=_degrees)
    change = rows[rows["what"] == CHANGE].set_index(keys)["mean"].rename("degrees")
    drawn = rows[rows["what"] == null].groupby(keys)["mean"].agg(null="mean", spread="std", draws="size")
    table = pd.concat([change, drawn], axis=1).reset_index()
    return table.assign(excess=table["degrees"] - table["null"])


def heat(found: Spectra) -> Drawn:
    """Where the change lies among the base's own singular vectors (the paper's heat map of U^T dW V), by kind."""
    frame, kinds = found.heat[found.heat["head"] == -1], kinds_of(found)
    table = frame.groupby(["kind", "left", "right"], sort=False)["energy"].mean().reset_index()
    panels = _grid(kinds, 2.2, "right singular vectors")
    for axis, kind in zip(panels.axes, kinds, strict=False):
        grid = table[table["kind"] == kind].pivot_table(index="left", columns="right", values="energy")
        shown = heat_map(axis, np.log2(grid.clip(lower=1e-9)), 4)
    panels.axes[0].set_ylabel("left singular vectors")
    panels.figure.colorbar(shown, ax=panels.axes, label="energy, log2(change / white noise)", shrink=0.6)
    panels.keep(table)
    note = (
        "Squares of U^T dW V over blocks of singular vectors, largest singular values first, mean over the matrices of "
        "a kind, in units of what white noise of the same norm has everywhere: 0 is the null."
    )
    return panels.finish("spectra-heat", "Where the change lies", note)


SPECTRA = (values, angles, curves, excess, energies, heat)


def _degrees(frame: pd.DataFrame) -> pd.Series:
    return np.rad2deg(frame["mean"])
