"""The scale trend: every lab model that is recorded, its weights counted, its levels with intervals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab_helpers import study_of
from rl_tables import rows, solved, tables

from rlheals.chapters import scale
from rlheals.chapters.rl import runs as rl_runs
from rlheals.chapters.rl.runs import RLTables
from rlheals.display.markup import Table
from rlheals.engines import models
from rlheals.engines.models import ModelSettings
from rlheals.profiles import load_profile
from rlheals.study import record
from rlheals.study.tables import SFT, Part, Tables, joined
from rlheals.tasks.general_points.compact import Compact


def of_hundred(share: float) -> np.ndarray:
    return np.arange(100) < 100 * share


def of(seed: int, peak: float, end: float, known: float) -> Tables:
    accuracy = {
        step: {"ood": of_hundred(ood), "sft": of_hundred(id_), "held_out": of_hundred(id_)}
        for step, ood, id_ in ((0, 0.0, 0.1), (40, peak, 0.5), (1280, end, known))
    }
    either = {
        step: {name: of_hundred(0.3) if step == 0 else hit for name, hit in splits.items()}
        for step, splits in accuracy.items()
    }
    return study_of(accuracy, either=either, seed=seed)


def found_of(recorded: dict[str, Any], of: Part[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is recorded."""
    monkeypatch.setattr(
        record, "find", lambda name, part, results: (recorded.get(name) if part is of else None, [])
    )


@pytest.mark.parametrize("name", ["scale-1m", "scale-10m"])
def test_weights_are_those_of_the_model_and_what_the_name_says(name: str) -> None:
    settings = load_profile(name).pretrain.model
    count = scale.weights(settings)
    assert count == sum(p.numel() for p in models.create(settings, Compact().tokenizer, 1).parameters())
    assert count == pytest.approx({"scale-1m": 1e6, "scale-10m": 1e7}[name], rel=0.2)
    assert scale.weights(ModelSettings()) == 193_984 < count


def test_levels_are_means_over_seeds_with_intervals_of_a_single_seed_over_hands() -> None:
    several = joined([of(1, 0.6, 0.1, 0.9), of(2, 0.5, 0.2, 1.0), of(3, 0.4, 0.3, 0.8)], Tables)
    table = scale.trend({"lab": several, "scale-1m": of(1, 0.5, 0.25, 0.75)}).set_index(["profile", "level"])
    assert set(table.index.get_level_values("level")) == set(scale.LEVELS)
    mean = table["value"].unstack()
    assert mean.loc["lab", "OOD, base, format-agnostic"] == pytest.approx(0.3)
    assert mean.loc["lab", "OOD, peak"] == pytest.approx(0.5, abs=0.03)
    assert mean.loc["lab", "OOD, last checkpoint"] == pytest.approx(0.2)
    assert mean.loc["lab", "ID, last checkpoint"] == pytest.approx(0.9)
    single = table.loc[("scale-1m", "OOD, last checkpoint")]
    assert (single["seeds"], round(single["low"], 3), round(single["high"], 3)) == (1, 0.175, 0.343)


def test_the_table_is_of_what_is_recorded_and_says_when_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert scale.scale_table(tmp_path) == ["No study of another size is recorded."]
    recorded = {
        "scale-10m": of(1, 0.5, 0.2, 0.9),
        "lab": joined([of(1, 0.6, 0.1, 0.9), of(2, 0.5, 0.2, 1)], Tables),
    }
    found_of(recorded, SFT, monkeypatch)
    table, about = scale.scale_table(tmp_path)
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["`lab`", "`scale-10m`"], "small models first"
    assert [row[2] for row in table.rows] == ["2", "1"]
    assert "single base seed" in str(about)


def climbed(gains: dict[int, dict[int, float]]) -> RLTables:
    """RL by base seed and start: a fifth of the hands is solved before, so much more afterwards."""
    return tables(
        *(
            rows(solved(share), seed=seed, start=start, run=run)
            for seed, of_seed in gains.items()
            for start, gain in of_seed.items()
            for run, share in ((-1, 0.2), (0, 0.2 + gain))
        )
    )


def test_what_rl_adds_is_shown_for_starts_that_all_sizes_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = {
        "lab": climbed({1: {10: 0.1, 20: 0.2, 40: 0.1}, 2: {10: 0.2, 20: 0.2, 40: 0.1}}),
        "scale-1m": climbed({1: {10: 0.3, 40: 0.0, 80: 0.1}}),
    }
    found_of(recorded, rl_runs.STUDY, monkeypatch)
    table, about, nothing = scale.scale_table(tmp_path)
    assert isinstance(table, Table)
    assert table.head[2:] == ("OOD at steps 10 / 40", "RL from 10", "RL from 40")
    lab, larger = table.rows
    assert (lab[:2], larger[:2]) == (("`lab`", "2"), ("`scale-1m`", "1"))
    assert [float(one) for one in lab[2].split(" / ")] == pytest.approx([0.2, 0.2], abs=0.01)
    mean, low, high = (float(one) for one in re.findall(r"-?[\d.]+", lab[3]))
    assert (mean, high - mean) == pytest.approx((0.15, mean - low), abs=0.01)
    assert high - mean > 12.7 * 0.05, "as wide as two base seeds are, and wider: it holds for three starts"
    assert float(larger[3]) == pytest.approx(0.3, abs=0.01), "a single base seed has no interval"
    assert "none for a single base seed" in str(about)
    assert "No study of another size" in str(nothing)
    recorded["scale-1m"] = climbed({1: {80: 0.1}})
    assert scale.scale_table(tmp_path) == [nothing], "no start in common"
    del recorded["scale-1m"]
    assert scale.scale_table(tmp_path) == [nothing]


def test_the_lab_stands_in_the_book() -> None:
    first = scale.scale_table(Path(__file__).resolve().parents[2] / "results")[0]
    assert isinstance(first, Table)
    assert first.rows[0][:2] == ("`lab`", "193,984")
