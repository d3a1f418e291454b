"""The mosaic of the page "Play": every OOD hand by how a checkpoint answered it, held against the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from play_page import HELP, Runs, driven, needs_chromium, page_with

from rlheals.book import mosaic, play
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.store.store import Store
from rlheals.tasks.general_points.cards import OOD_RULE, item_of
from rlheals.tasks.general_points.task import GeneralPoints

JUDGED = """return input.map(([formula, hand]) => Play.judge(formula, hand, Play.NAMED.ood).category);"""


def read(scripts: dict[str, str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The index, and by key the attempts at every hand."""
    about = json.loads(scripts[mosaic.INDEX].removeprefix("Play.mosaic = ").removesuffix(";\n"))
    calls = {
        one["key"]: scripts[one["file"]].removeprefix("Play.attempted(").removesuffix(");\n")
        for one in about["checkpoints"]
    }
    return about, {key: json.loads(f"[{call}]")[1] for key, call in calls.items()}


@pytest.fixture(scope="module")
def scripts(played: SFTChapter, shared: Store) -> dict[str, str]:
    return mosaic.files(played, shared)


def test_every_evaluated_checkpoint_is_there_with_all_its_attempts_and_their_verdicts(
    scripts: dict[str, str], played: SFTChapter, shared: Store, javascript: Runs
) -> None:
    about, attempts = read(scripts)
    items = [item_of(tuple(hand), OOD_RULE) for hand in about["hands"]]
    episodes = played.fresh.episodes
    ood = episodes[(episodes["split"] == "ood") & (episodes["decode"] == 0)]
    assert [item.id for item in items] == list(dict.fromkeys(ood["item"]))
    plain = [one["step"] for one in about["checkpoints"] if not one["rl"]]
    assert plain == sorted(set(ood["step"]))
    assert [one["step"] for one in about["checkpoints"] if one["rl"]] == [3, 5]
    for one in about["checkpoints"]:
        assert len(one["hands"]) == len(attempts[one["key"]]) == len(items)
    by_hand = ood.set_index(["step", "item"])
    for one in about["checkpoints"][: len(plain)]:
        for item, digit, tries in zip(items, one["hands"], attempts[one["key"]], strict=True):
            row = by_hand.loc[(one["step"], item.id)]
            solved_at = int(row["solved_at_either"])
            assert (digit in "01") == (solved_at > 0)
            assert (digit == "0") == (solved_at == 1)
            assert len(tries) == (solved_at or played.profile.evaluate.attempts)
            if digit == "3":
                assert bool(row["first_values_as_id"])
                assert not bool(row["first_values_right"])
    asked = [
        [formula, list(item.payload.hand)]
        for one in about["checkpoints"]
        for item, tries in zip(items, attempts[one["key"]], strict=True)
        for formula, *_ in tries
    ]
    wanted = [
        GeneralPoints().grade(item, json.dumps({"formula": formula})).category
        for one in about["checkpoints"]
        for item, tries in zip(items, attempts[one["key"]], strict=True)
        for formula, *_ in tries
    ]
    assert javascript(JUDGED, asked) == wanted


def attempt(
    number: int, category: str, layout: str = "target", right: bool = False, as_id: bool = False
) -> dict:
    return {"item": "x", "attempt": number, "category": category, "layout": layout, "values_right": right,
            "values_as_id": as_id}  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([attempt(1, "correct", right=True)], "solved at once"),
        ([attempt(1, "wrong_number", as_id=True), attempt(2, "correct")], "solved after feedback"),
        ([attempt(1, "no_solution", right=True), attempt(2, "illegal_formula")], "values right, not 24"),
        ([attempt(1, "wrong_number", as_id=True), attempt(2, "no_solution")], "read under the ID rule"),
        ([attempt(1, "wrong_number")], "other values"),
        ([attempt(1, "illegal_formula", "none")], "unreadable"),
        ([attempt(1, "illegal_formula", "plain")], "unreadable"),
    ],
)
def test_a_hand_is_what_became_of_it_else_what_its_first_attempt_was(rows: list[dict], outcome: str) -> None:
    (place,) = mosaic.outcomes(pd.DataFrame(rows))
    assert mosaic.OUTCOMES[place] == outcome


def test_another_task_has_no_mosaic(played: SFTChapter, shared: Store) -> None:
    other = replace(played, profile=played.profile.model_copy(update={"task": "navigation"}))
    assert play.files(other, shared)[mosaic.INDEX] == ""


@needs_chromium
def test_in_a_browser_slider_rl_and_a_hand_show_what_the_tables_hold(
    tmp_path: Path, scripts: dict[str, str]
) -> None:
    about, attempts = read(scripts)
    plain = [one for one in about["checkpoints"] if not one["rl"]]
    last, trained = plain[-1], next(one for one in about["checkpoints"] if one["rl"] and one["step"] == 5)
    drive = f"""{HELP}(async () => {{
      const legend = () => all(".mosaic-legend li").map((one) => one.textContent.trim());
      const status = () => document.querySelector("#play-mosaic .play-status").textContent;
      const move = (step) => {{
        const slider = find("#mosaic-step");
        slider.value = step;
        slider.dispatchEvent(new Event("input"));
      }};
      await until(() => find("#mosaic-step"));
      const base = status();
      move({len(plain) - 1});
      const end = {{ status: status(), legend: legend(), value: find("#mosaic-step").getAttribute("aria-valuetext") }};
      const shown = async (act) => {{
        find(".mosaic-detail").replaceChildren();
        act();
        await until(() => find(".mosaic-detail h3"));
        return {{ title: find(".mosaic-detail h3").textContent,
          codes: all(".mosaic-detail li code").map((one) => one.textContent) }};
      }};
      const map = find("svg[tabindex]"), squares = [...map.querySelectorAll("rect")];
      const key = (name) => map.dispatchEvent(new KeyboardEvent("keydown", {{ key: name }}));
      const clicked = await shown(() => squares[0].dispatchEvent(new MouseEvent("click", {{ bubbles: true }})));
      const right = await shown(() => key("ArrowRight"));
      move({[one["step"] for one in plain].index(5)});
      find(".mosaic-controls input[type=checkbox]").click();
      const rl = {{ status: status(), legend: legend() }};
      done({{ base, end, clicked, right, rl, width: document.documentElement.scrollWidth <= innerWidth }});
    }})();"""
    quiet = {play.INDEX: 'Play.index = {"note": "", "checkpoints": []};'}
    found = driven(page_with(tmp_path, {**scripts, **quiet}, drive))
    assert found["troubles"] == []
    assert found["width"]
    assert found["base"].startswith("base: ")

    def counted(one: dict[str, Any]) -> list[str]:
        return [f"{name}: {one['hands'].count(str(at))}" for at, name in enumerate(mosaic.OUTCOMES)]

    assert found["end"]["legend"] == counted(last)
    assert found["end"]["value"] == f"SFT step {last['step']}"
    assert found["rl"]["legend"] == counted(trained)
    assert found["rl"]["status"].startswith("after RL from SFT step 5: ")
    for shown, at in ((found["clicked"], 0), (found["right"], 1)):
        hand = " ".join(about["hands"][at])
        outcome = mosaic.OUTCOMES[int(last["hands"][at])]
        assert shown["title"] == f"{hand}, SFT step {last['step']}: {outcome}"
        assert shown["codes"] == [tried[0] or tried[1] for tried in attempts[last["key"]][at]]


@needs_chromium
def test_in_a_browser_what_is_missing_is_a_sentence(tmp_path: Path, scripts: dict[str, str]) -> None:
    drive = f"""{HELP}(async () => {{
      await until(() => find("svg[tabindex]"));
      find("svg[tabindex] rect").dispatchEvent(new MouseEvent("click", {{ bubbles: true }}));
      await until(() => find(".mosaic-detail .play-trouble"));
      done({{ said: find(".mosaic-detail .play-trouble").textContent }});
    }})();"""
    alone = {mosaic.INDEX: scripts[mosaic.INDEX], play.INDEX: 'Play.index = {"note": "", "checkpoints": []};'}
    assert "did not arrive" in driven(page_with(tmp_path, alone, drive))["said"]
    drive = f"""{HELP}(async () => {{
      await until(() => !document.getElementById("play-mosaic").textContent.includes("JavaScript"));
      done({{ said: document.getElementById("play-mosaic").textContent }});
    }})();"""
    none = {mosaic.INDEX: "", play.INDEX: alone[play.INDEX]}
    assert (
        driven(page_with(tmp_path / "none", none, drive))["said"]
        == "There is no full evaluation to show here."
    )
