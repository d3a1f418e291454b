"""What the figures of chapter 06 show, as tables: measures of other chapters asked of one task, and those of routes."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlheals.chapters.beyond.runs import BeyondTables
from rlheals.chapters.rows import only
from rlheals.tasks.navigation.metrics import node_accuracy, per_step, route_success

NAVIGATION = "navigation"
KINDS = ("first turn", "later turns", "forward", "stop")


def of(tables: BeyondTables, task: str, part: str, measure: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """A measure of one part of a task; no rows where that is not recorded (yet)."""
    mine = tables.of(task, part)
    return pd.DataFrame(columns=["seed", "step", "value", "n"]) if mine is None else measure(mine)


def nodes(tables: BeyondTables) -> pd.DataFrame:
    """Share of OOD nodes solved at the first attempt in either layout: columns seed, step, kind, value, n."""
    found = _by_evaluation(tables, lambda rows: node_accuracy(rows, either=True))
    rows = found[found["kind"].isin(KINDS)].rename(columns={"first_try": "value", "nodes": "n"})
    return _over_decodes(rows, ["seed", "step", "kind"])


def rates(tables: BeyondTables) -> pd.DataFrame:
    """Three rates of the same answers to OOD routes, in the layout asked for: columns seed, step, rate, value, n.

    nodes: of all nodes, those solved; per step: right answers of those that the reference counts; routes: of all
    routes, those with every node solved.
    """
    each = {
        "nodes": lambda rows: _named(node_accuracy(rows).query("kind == 'all'"), "solved", "nodes"),
        "per step": lambda rows: _named(per_step(rows), "per_step", "steps"),
        "routes": lambda rows: _named(route_success(rows), "success", "routes"),
    }
    found = [_by_evaluation(tables, measure).assign(rate=name) for name, measure in each.items()]
    return _over_decodes(pd.concat(found), ["seed", "step", "rate"])


def _named(table: pd.DataFrame, value: str, count: str) -> pd.DataFrame:
    return table[["split", value, count]].set_axis(["split", "value", "n"], axis=1)


def _by_evaluation(tables: BeyondTables, measure: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """measure(episodes) of every evaluation along SFT, with its seed, step and decode."""
    episodes = only(tables.by_task[NAVIGATION]["sft"].episodes, split=("ood", "ood_way"))  # type: ignore[attr-defined]
    keys = ["seed", "step", "decode"]
    return pd.concat(
        [
            measure(rows).assign(**dict(zip(keys, key, strict=True)))
            for key, rows in episodes.groupby(keys, observed=True)
        ]
    )


def _over_decodes(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return rows.groupby(by, observed=True).agg(value=("value", "mean"), n=("n", "sum")).reset_index()
