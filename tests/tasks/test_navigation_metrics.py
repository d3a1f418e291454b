"""Metrics of navigation: on tables made by hand, on the tables of a real evaluation, and where they part."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import TINY

from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.evaluate import EvaluateSettings, attempts_table, episodes_table
from rlheals.tasks import load_task
from rlheals.tasks.navigation.metrics import node_accuracy, per_step, route_success

ROUTE = (
    "turn",
    "forward",
    "forward",
    "turn",
    "forward",
    "turn",
    "forward",
    "forward",
    "turn",
    "forward",
    "stop",
)


def table(routes: dict[str, str], split: str = "ood") -> pd.DataFrame:
    """Attempts on routes of `ROUTE`; a letter a node: s solved at once, t at the second attempt, x not, w the same in
    words of another rule."""
    rows = []
    for name, letters in routes.items():
        for node, (kind, letter) in enumerate(zip(ROUTE, letters, strict=True)):
            turn = ROUTE[: node + 1].count("turn") if kind == "turn" else 0
            first = {"s": "correct", "w": "wrong_rule"}.get(letter, "wrong_action")
            told = [first] if letter == "s" else [first, "correct" if letter == "t" else "wrong_action"]
            for attempt, category in enumerate(told, 1):
                rows.append(
                    {
                        "item": f"{split}/{name}/{node:02}", "split": split, "rule": split, "route": name, "node": node,
                        "kind": kind, "turn": turn, "protocol": "target", "attempt": attempt, "layout": "target",
                        "category": category, "read_as": "", "reward": 0.0,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def values(frame: pd.DataFrame, column: str) -> dict[str, float]:
    return dict(zip(frame["kind"], frame[column], strict=True))


def test_nodes_by_kind_and_the_first_turn_apart() -> None:
    found = node_accuracy(episodes_table(table({"a": "wsssssstsss", "b": "tssxsssssxs", "c": "ssswsssssss"})))
    assert values(found, "nodes") == {
        "first turn": 3,
        "later turns": 9,
        "turn": 12,
        "forward": 18,
        "stop": 3,
        "all": 33,
    }
    assert values(found, "first_try")["first turn"] == pytest.approx(1 / 3)
    assert values(found, "solved")["first turn"] == pytest.approx(2 / 3)
    assert values(found, "wrong_rule")["first turn"] == pytest.approx(1 / 3)
    assert values(found, "wrong_rule")["later turns"] == pytest.approx(1 / 9)
    assert values(found, "first_try")["turn"] == pytest.approx(8 / 12)
    assert values(found, "solved")["forward"] == pytest.approx(17 / 18)
    assert values(found, "first_try")["forward"] == pytest.approx(16 / 18)
    assert values(found, "solved")["stop"] == 1


def test_routes_by_hand_and_tables_of_another_task() -> None:
    episodes = episodes_table(
        pd.concat(
            [table({"a": "s" * 11, "b": "t" * 11, "c": "s" * 10 + "x"}), table({"a": "x" + "s" * 10}, "id")]
        )
    )
    found = route_success(episodes).set_index("split")
    assert found["routes"].to_dict() == {"id": 1, "ood": 3}
    assert found["success"].to_dict() == {"id": 0, "ood": pytest.approx(2 / 3)}
    episodes = episodes_table(table({"a": "x" + "s" * 10, "b": "sstx" + "s" * 7}))
    found = per_step(episodes).iloc[0]
    assert (found["right"], found["steps"]) == (3, 2 + 1 + 1 + 2 + 2)
    shuffled = episodes.sample(frac=1, random_state=1)
    assert per_step(shuffled).equals(per_step(episodes))
    frame = episodes_table(table({"a": "s" * 11})).drop(columns="route")
    for measure in (node_accuracy, route_success, per_step):
        with pytest.raises(BadInput, match=r"^the table has no column 'route'[^\n]*$"):
            measure(frame)


def test_the_tables_of_an_evaluation_have_what_metrics_need() -> None:
    task = load_task("navigation")
    dialect = task.dialect()
    engine = HFEngine(models.create(TINY, dialect.tokenizer, 1), dialect.tokenizer)
    items = [item for split in ("held_out", "ood") for item in task.items(split)[:24]]
    settings = EvaluateSettings(task="navigation", attempts=2, sampling=Sampling(max_new_tokens=6))
    episodes = episodes_table(attempts_table(engine, dialect, task, items, settings, 0))
    assert len(episodes) == 48
    assert {"route", "node", "kind", "turn", "first_observation_right", "first_direction_right"} <= set(
        episodes
    )
    for either in (False, True):
        assert set(node_accuracy(episodes, either)["split"]) == {"held_out", "ood"}
        assert route_success(episodes, either)["routes"].sum() == len(
            {(item.split.removesuffix("_way"), item.group) for item in items}
        )
    assert (per_step(episodes)["per_step"] == 0).all()
