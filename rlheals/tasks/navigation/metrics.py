"""What an evaluation's tables say of navigation: nodes by kind, whole routes, and the reference's per-step rate."""

from __future__ import annotations

import pandas as pd

from rlheals.errors import BadInput
from rlheals.tasks.navigation.frames import WAY

COLUMNS = ("split", "route", "node", "kind", "turn")
ATTEMPTS = 2
KINDS = ("first turn", "later turns", "turn", "forward", "stop", "all")


def node_accuracy(episodes: pd.DataFrame, either: bool = False) -> pd.DataFrame:
    """One row per split and kind of node: how many, shares solved at the first try and at all, share of wrong rules.

    kind: first turn and later turns, together turn; forward; stop; all. wrong_rule: the first reply is the right turn
    under another rule, and its observation is not wrong. either: in either layout.
    """
    episodes = _whole(episodes)
    at = episodes["solved_at_either" if either else "solved_at"]
    nodes = episodes.assign(first_try=at == 1, solved=at > 0, wrong_rule=episodes["first"] == "wrong_rule")
    turns = nodes[nodes["kind"] == "turn"]
    first = (turns["turn"] == 1).map({True: "first turn", False: "later turns"})
    named = pd.concat([nodes, nodes.assign(kind="all"), turns.assign(kind=first)])
    named["kind"] = pd.Categorical(named["kind"], KINDS, ordered=True)
    groups = named.groupby(["split", "kind"], observed=True)
    rates = groups[["first_try", "solved", "wrong_rule"]].mean()
    return rates.assign(nodes=groups.size()).reset_index()


def route_success(episodes: pd.DataFrame, either: bool = False) -> pd.DataFrame:
    """One row per split: its routes, and the share of which every node was solved."""
    episodes = _whole(episodes)
    at = episodes["solved_at_either" if either else "solved_at"]
    whole = (at > 0).groupby([episodes["split"], episodes["route"]], observed=True).all()
    return whole.groupby("split").agg(routes="size", success="mean").reset_index()


def per_step(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per split: right answers / judged attempts as the reference counts, which leaves a route at its first
    failed node, after two attempts.
    """
    nodes = _whole(episodes).assign(right=lambda table: table["solved_at"] > 0)
    failed = nodes["node"].where(~nodes["right"])
    failed = failed.groupby([nodes["split"], nodes["route"]], observed=True).transform("min")
    asked = nodes[~(nodes["node"] > failed)]
    steps = asked["solved_at"].astype(int).where(asked["right"], ATTEMPTS)
    counts = asked.assign(steps=steps).groupby("split", observed=True)[["right", "steps"]].sum()
    return counts.assign(per_step=counts["right"] / counts["steps"]).reset_index()


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """The table with turns and other nodes of a route in one split."""
    if missing := [name for name in COLUMNS if name not in table]:
        raise BadInput(f"the table has no column {missing[0]!r}; tables of the task navigation are accepted")
    return table.assign(split=table["split"].astype(str).str.removesuffix(WAY))
