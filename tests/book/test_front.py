"""The picture on the front page: planted levels, read back from it and from the sentence above it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import healing_tables
import numpy as np
import pandas as pd
import pytest
from lab_helpers import study_of

from rlheals.book import front
from rlheals.chapters.healing.runs import HEALED
from rlheals.study import record, tables
from rlheals.study.tables import Tables, joined

LEVELS = {"base": 0.3, "end": 0.0}


def sft(seed: int) -> Tables:
    """SFT of 200 hands by four sampling seeds alike: three tenths at the base, nothing at the end."""
    hands = np.arange(200)
    made = study_of(
        {step: dict.fromkeys(("ood", "held_out"), hands < 200 * level)
         for step, level in ((0, LEVELS["base"]), (5120, LEVELS["end"]))},
        seed=seed,
    )  # fmt: skip
    return replace(made, episodes=pd.concat([made.episodes.assign(decode=decode) for decode in range(4)]))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {
        tables.SFT.suffix: joined([sft(seed) for seed in (11, 12, 13)], Tables),
        "-healing": healing_tables.study(),
    }
    monkeypatch.setattr(record, "find", lambda name, part, results: (found.get(part.suffix), []))
    return found


def test_the_picture_holds_what_sft_loses_and_rl_brings_back(recorded: dict[str, Any]) -> None:
    drawn = front.picture("lab", Path("results"))
    ood = drawn.frame[drawn.frame["split"] == "ood"].set_index(["arm", "place"])["value"]
    top, back = healing_tables.TOP[0.9], healing_tables.BACK["rl"]
    wanted = {"base": LEVELS["base"], "peak": top, "50 % lost": top / 2, "end": LEVELS["end"]}
    for place, level in wanted.items():
        assert ood["sft", front.PLACES.index(place)] == pytest.approx(level, abs=0.06), place
    half = front.PLACES.index("50 % lost")
    assert ood["rl", half] == pytest.approx(top * (0.5 + 0.5 * back), abs=0.06)
    assert ood[HEALED, half] > ood["rl", half] + 0.2
    assert f"{100 * ood['sft', 1]:.0f} % (peak)" in drawn.takeaway
    assert f"11, 12 and 13 makes it {100 * ood[HEALED, half]:.0f} %" in drawn.takeaway
    assert "base seeds 11-13" in drawn.origin


@pytest.mark.parametrize("lacking", ["", "-healing"])
def test_without_a_recorded_chapter_there_is_no_picture(recorded: dict[str, Any], lacking: str) -> None:
    del recorded[lacking]
    drawn = front.picture("lab", Path("results"))
    assert (len(drawn.frame), drawn.takeaway, drawn.origin) == (0, "", "")
    assert drawn.svg.count(b"no data here") == 2


def test_a_state_that_sft_did_not_reach_is_left_out(recorded: dict[str, Any]) -> None:
    recorded["-healing"] = healing_tables.study(states=(10,))
    drawn = front.picture("lab", Path("results"))
    assert set(drawn.frame["place"]) == {0, 1, 2, len(front.PLACES) - 1}
    assert drawn.takeaway == ""
