"""The page "Explore": what it draws against tables made up for the purpose, and the page in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from play_page import HELP, driven, needs_chromium, page_with

from rlheals.book import explore
from rlheals.chapters.rl.runs import RLChapter
from rlheals.chapters.rows import only
from rlheals.profiles import load_profile

HANDS = {
    "sft": ["id/A-A-A-8", "id/2-3-8-J"],
    "ood": ["ood/A-A-2-J", "ood/A-3-8-J", "ood/2-3-Q-K"],
    "held_out": ["id/9-9-J-Q"],
}
STEPS, SEEDS = (0, 5, 40), (11, 12)


def episodes(random: np.random.Generator, **keys: Any) -> pd.DataFrame:
    rows = [
        {"split": split, "item": item, "solved_at": at, "solved_at_either": at or int(random.integers(0, 6)),
         "first": str(random.choice(["correct", "illegal_formula", "wrong_number"])), "decode": decode, **keys}
        for split, items in HANDS.items() for item in items for decode in (0, 1)
        for at in [int(random.integers(0, 6))]
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two base seeds, three steps, RL from one start; and a variant of one seed."""
    random = np.random.default_rng(3)
    sft = pd.concat(
        [episodes(random, seed=seed, step=step) for seed in SEEDS for step in STEPS], ignore_index=True
    )
    runs = [{"seed": seed, "start": 5, "run": run, "control": "main"} for seed in SEEDS for run in (-1, 0, 1)]
    after = pd.concat([episodes(random, **run) for run in runs], ignore_index=True)
    monkeypatch.setattr(RLChapter, "find", lambda *_: (SimpleNamespace(episodes=after), []))
    other = SimpleNamespace(episodes=sft[sft["seed"] == 11])
    chapter = SimpleNamespace(
        profile=load_profile("lab"), recorded=SimpleNamespace(episodes=sft), variants={"other": other}
    )
    return SimpleNamespace(chapter=chapter, sft=sft, after=after[after["run"] >= 0])


def read(script: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(script.removeprefix("globalThis.Explored = ").removesuffix(";\n"))
    return found


def mean(rows: pd.DataFrame, measure: str) -> float:
    column = rows["solved_at_either" if measure.endswith("either") else "solved_at"]
    if measure == "unreadable":
        return float((rows["first"] == "illegal_formula").mean())
    return float(((column == 1) if measure.startswith("pass") else (column > 0)).mean())


def test_every_number_is_that_of_the_tables(study: SimpleNamespace, tmp_path: Path) -> None:
    found = read(explore.script(study.chapter, tmp_path))
    assert list(found["studies"]) == ["lab", "other"]
    assert (found["studies"]["lab"]["steps"], found["studies"]["lab"]["seeds"]) == ([*STEPS], [*SEEDS])
    compared = 0
    for measure in found["measures"]:
        for split in HANDS:
            for seed, row in zip(SEEDS, found["studies"]["lab"][measure][split], strict=True):
                for step, value in zip(STEPS, row, strict=True):
                    rows = only(study.sft, seed=seed, step=step, split=split)
                    assert value == pytest.approx(mean(rows, measure), abs=1e-4)
                    compared += 1
            for run in found["rl"]:
                rows = study.after[(study.after["split"] == split)]
                rows = rows[
                    (rows["seed"] == run["seed"])
                    & (rows["start"] == run["start"])
                    & (rows["run"] == run["run"])
                ]
                assert run[measure][split] == pytest.approx(mean(rows, measure), abs=1e-4)
    assert compared == 5 * 3 * 6
    assert [(run["seed"], run["start"], run["run"]) for run in found["rl"]] == [
        (11, 5, 0),
        (11, 5, 1),
        (12, 5, 0),
        (12, 5, 1),
    ]


def test_the_atlas_has_every_ood_hand_with_its_tenths_and_what_is_kept_longest_first(
    study: SimpleNamespace, tmp_path: Path
) -> None:
    found = read(explore.script(study.chapter, tmp_path))["atlas"]
    assert sorted("ood/" + "-".join(hand) for hand in found["hands"]) == sorted(HANDS["ood"])
    last = []
    for row, hand in enumerate(found["hands"]):
        item, kept = "ood/" + "-".join(hand), 0
        for place, column in enumerate(found["sft"], 1):
            rows = study.sft[(study.sft["item"] == item) & (study.sft["step"] == column["at"])]
            share = float((rows["solved_at_either"] > 0).mean())
            assert int(column["tenths"][row]) == min(9, int(10 * share))
            kept = place if share >= 0.5 else kept
        last.append(kept)
        rows = study.after[study.after["item"] == item]
        assert int(found["rl"][0]["tenths"][row]) == min(9, int(10 * (rows["solved_at_either"] > 0).mean()))
    assert last == sorted(last, reverse=True)


def test_without_a_recorded_study_the_page_says_so(study: SimpleNamespace, tmp_path: Path) -> None:
    study.chapter.recorded = None
    assert read(explore.script(study.chapter, tmp_path)) == {
        "note": "No results are recorded for profile lab."
    }


@needs_chromium
def test_in_a_browser_curves_follow_the_choice_and_the_atlas_the_keys(
    study: SimpleNamespace, tmp_path: Path
) -> None:
    text = explore.script(study.chapter, tmp_path)
    drive = f"""{HELP.replace(".play-page ", "")}(async () => {{
      await until(() => find("#explore-curves svg"));
      const say = () => find("#explore-curves [role=status]").textContent;
      const lines = () => all(".explore-seed").length;
      const pick = (at, value) => {{
        const select = all("select")[at];
        select.value = value;
        select.dispatchEvent(new Event("change"));
      }};
      const first = [say(), lines(), all("td").length];
      find(".explore-seeds input").click();
      const one = [say(), lines()];
      pick(0, "other");
      const other = [lines(), find(".explore-check input").disabled];
      pick(0, "lab");
      pick(1, "pass@1");
      find(".explore-check input").click();
      const rl = all(".explore-plot path[stroke-width='1.5']").length;
      const canvas = find("canvas");
      const key = (name) => canvas.dispatchEvent(new KeyboardEvent("keydown", {{ key: name }}));
      key("ArrowRight");
      key("ArrowDown");
      done({{ first, one, other, rl, atlas: find("#explore-atlas [role=status]").textContent,
        fits: document.documentElement.scrollWidth <= innerWidth }});
    }})();"""
    found = driven(page_with(tmp_path / "full", {explore.DATA: text}, drive, "explore"))
    about = read(text)
    assert found["troubles"] == []
    assert found["fits"]
    assert found["first"][0].startswith("success@5 with feedback, OOD, mean of 2 base seeds: ")
    assert found["first"][1:] == [2, 6]
    assert found["one"][0].startswith("success@5 with feedback, OOD, mean of 1 base seed: ")
    assert (found["one"][1], found["other"], found["rl"]) == (1, [1, True], 4)
    hand = " ".join(about["atlas"]["hands"][1])
    assert found["atlas"].startswith(f"{hand}, SFT step 5: solved in ")
    drive = f"""{HELP.replace(".play-page ", "")}(async () => {{
      await until(() => !find("#explore-curves").textContent.includes("JavaScript"));
      done({{ said: find("#explore-curves").textContent }});
    }})();"""
    for script, said in (
        ('globalThis.Explored = {"note": "None."};', "None."),
        ("", "The data did not arrive. Reload the page."),
    ):
        folder = tmp_path / said[:4]
        assert driven(page_with(folder, {explore.DATA: script}, drive, "explore"))["said"] == said
