"""Sentences above figures: they say what is planted, a rise, a fall or nothing, and numbers alone without intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlheals.chapters import sentences as say
from rlheals.chapters.audit import figures, spectra
from rlheals.chapters.sentences import Estimate, Takeaway, takeaways_of
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display.style import Drawn

ROOMS = ("sft", "rl", "spectra", "edits", "protected", "healing", "beyond", "audit")
TAKEAWAYS: dict[str, Takeaway] = {
    name: one
    for room in ROOMS
    for name, one in import_module(f"rlheals.chapters.{room}.takeaways").TAKEAWAYS.items()
}
MEAN, STEPS, MOST = 0.3, (10, 1280), 30
NOTHING = 0.001
"""No effect, and not the same value twice."""


def effect(direction: int) -> float:
    return 0.2 * direction or NOTHING


def rows(values: Mapping[Any, float], at: str = "step", half: float = 0.02, **more: Any) -> pd.DataFrame:
    """Estimates over five base seeds in a recorded study, with intervals of that half width."""
    frame = pd.DataFrame({at: list(values), "value": list(values.values()), "seeds": 5, "study": "recorded"})
    return frame.assign(low=frame["value"] - half, high=frame["value"] + half, interval="over seeds", **more)


def line(direction: int, series: str, steps: tuple[int, int] = STEPS, **more: Any) -> pd.DataFrame:
    """A series that rises, falls or neither between its two steps."""
    return rows({steps[0]: MEAN, steps[1]: MEAN + effect(direction)}, series=series, **more)


def seeds(value: float, **more: Any) -> pd.DataFrame:
    """One value for each of five base seeds, about a mean."""
    spread = np.linspace(-0.02, 0.02, 5)
    return pd.DataFrame({"seed": range(1, 6), "value": value + spread, "study": "recorded"}).assign(**more)


def both(*frames: pd.DataFrame) -> pd.DataFrame:
    """One below the other, as a figure keeps its rows: the index counts each anew."""
    return pd.concat(frames)


def pair(direction: int, *series: str, **more: Any) -> pd.DataFrame:
    """The first series at 0.3, the second above, below or beside it."""
    ends = zip(series, (MEAN, MEAN + effect(direction)), strict=True)
    return both(*(rows({10: value}, series=name, **more) for name, value in ends))


def with_rl(direction: int, series: str) -> pd.DataFrame:
    return pair(direction, f"{series}, start of RL (SFT)", f"{series}, after RL")


def null(half: float = 0.05, **more: Any) -> pd.DataFrame:
    """The band of a null's draws, which is no interval over base seeds."""
    return rows({1: MEAN}, "index", half, **more).assign(interval=np.nan, seeds=np.nan)


PAPER = rows({0: 0.0, 140: 0.2, 900: 0.05}, series="ood_accuracy_llama").assign(study="paper")
PAPERS = (PAPER, PAPER.assign(series="ood_accuracy_after_rl_llama"))
S5 = "success@5 with feedback"
GAINS = {1: "1 of 1 starts (1 clearly)", -1: "0 of 1 starts (0 clearly)", 0: "1 of 1 starts (0 clearly)"}
MOVES = {1: "rises from 30 % to 50 %", -1: "10 %", 0: "does not clearly change"}
FALLS = MOVES | {-1: "falls from 30 % to 10 %"}
COMPARED = {1: ", above the 30 %", -1: ", below the 30 %", 0: ", not clearly different from the 30 %"}
POINTS = {1: "+20 points (interval above 0)", -1: "-20 points (interval below 0)", 0: "(interval includes 0)"}
RANKS = {1: "1 ", -1: "-1 ", 0: "0.5 "}


def edits(direction: int, at: str, **more: Any) -> pd.DataFrame:
    """Three edits whose effect goes with `at`, against it, or neither."""
    order = {1: (1, 2, 3), -1: (3, 2, 1), 0: (1, 3, 2)}[direction]
    values = {value: MEAN + 0.1 * place for value, place in zip((0.1, 0.2, 0.3), order, strict=True)}
    return rows(values, at, kind="restore", **more)


def trajectories(direction: int) -> pd.DataFrame:
    frame = edits(direction, "size").rename(columns={"value": "ood"})
    return frame.assign(angle=frame["size"], kl=frame["size"])[["size", "angle", "kl", "ood", "study"]]


def restored(direction: int, of: Mapping[str, float], column: str = "edit", **more: Any) -> pd.DataFrame:
    """Edits with their values; the first has the planted effect besides."""
    first, *_ = of
    values = {name: value + effect(direction) * (name == first) for name, value in of.items()}
    return rows(values, column, kind="restore", **more)


def stages(of: Mapping[str, float], column: str = "series", **more: Any) -> pd.DataFrame:
    """Levels or shares from the start that has lost half, by second stage."""
    return rows(of, column, state=50, **more)


def path(direction: int, arm: str) -> pd.DataFrame:
    """Of five base seeds' runs: at distance 1 from the start the planted angle to the peak, beyond it far off."""
    planted = seeds(MEAN, arm=arm, state=50, size=1.0)
    planted["value"] += 0.2 * direction or 0.03 * (-1) ** planted["seed"] * (arm == "rl-varied")
    beyond = seeds(9.0, arm=arm, state=50, size=2.0)
    return both(seeds(0.0, arm=arm, state=50, size=0.0), planted, beyond[beyond["arm"] == "rl-varied"])


INTO = "rl-familiar"
PARTS = [f"edit of {INTO}: {part}(all) @ kinds=q,k,v,o,gate,up,down" for part in ("directions", "values")]
CASES: dict[str, tuple[Callable[[int], pd.DataFrame], dict[int, str]]] = {
    "sft-accuracy": (lambda d: both(line(d, f"ood, {S5}"), line(1, f"sft, {S5}")), MOVES),
    "sft-layout-free": (lambda d: both(line(d, "ood, format-agnostic"), line(1, "ood, format asked for")), MOVES),
    "sft-common-hands": (lambda d: pair(d, "id", "ood"), COMPARED),
    "sft-paper": (
        lambda d: both(PAPER, line(d, "this book")),
        {1: "accuracy rises during SFT; the paper's rises and then falls", -1: "accuracy falls during SFT; the paper's",
         0: "does not clearly change during SFT; the paper's"},
    ),
    "sft-losses": (lambda d: both(line(d, "ood"), line(-1, "train")),
                   {1: "rises from 0.3", -1: "falls from 0.3 to 0.1", 0: "does not clearly change"}),
    "sft-format": (lambda d: line(d, "ood"), {1: "rises from 30 %", -1: "falls from 30 %", 0: "does not clearly"}),
    "sft-errors": (
        lambda d: both(line(d, "ood, correct"), line(-d, "ood, wrong_number"), line(1, "sft, correct")),
        {1: 'is "correct" (50 %)', -1: 'is "other wrong values" (50 %)', 0: "is \"correct\" (30 %)"},
    ),
    "sft-parts": (
        lambda d: both(line(d, "ood, rule: read right"), line(0, "sft, format: readable")),
        {1: "none ends clearly below its highest value (rule: 50 %", -1: "rule ends furthest below its highest value",
         0: "none ends clearly below"},
    ),
    "sft-rule-distance": (
        lambda d: both(*(line(way, "", rule=rule) for rule, way in (("J1-Q1-K1", d), ("ood", 1)))),
        {1: "under 0 of 2 rules (0 clearly); J, Q, K = 1, 1, 1: 30 % to 50 %", -1: "1 of 2 rules (1 clearly); J, Q",
         0: "under 0 of 2 rules (0 clearly); J, Q, K = 1, 1, 1: 30 % to 30 %"},
    ),
    "sft-sensitivity": (
        lambda d: both(seeds(MEAN, what="base, format-agnostic", variant="lab"), seeds(MEAN, what="last checkpoint",
                       variant="lab"), seeds(MEAN, what="peak", variant="lab").assign(
                           value=MEAN + (0.2 * d or np.linspace(-0.03, 0.03, 5)))),
        {1: "In 5 of 5 runs OOD success@5 falls from the peak to the last checkpoint; in 5 ", -1: "In 0 of 5 runs",
         0: "In 2 of 5 runs"},
    ),
    "rl-ood": (lambda d: with_rl(d, f"OOD, {S5}"), COMPARED),
    "rl-id": (lambda d: both(with_rl(d, "held_out"), with_rl(1, "rl")),
              {1: "on held-out hands rises", -1: "on held-out hands falls", 0: "on held-out hands does not clearly"}),
    "rl-window": (
        lambda d: rows({10: effect(d), 20: 0.0}, series=S5),
        {1: "from 1 of 2 starts, clearly lowers it from 0; the largest change is +20 points",
         -1: "from 0 of 2 starts, clearly lowers it from 1; the largest change is -20", 0: "from 0;"},
    ),
    "rl-paper": (lambda d: both(with_rl(d, "OOD, this book"), *PAPERS),
                 {one: f"{said.replace('clearly', 'with intervals apart')}; the paper's from 0 of 3"
                  for one, said in GAINS.items()}),
    "rl-stages": (
        lambda d: pair(d, "start", "rl", start=1280).assign(
            stage=lambda frame: frame["series"], series="ood, lab (this book)"),
        FALLS,
    ),
    "rl-parts": (lambda d: with_rl(d, "rule: read right"), {one: f"share {said}" for one, said in FALLS.items()}),
    "rl-why": (lambda d: line(d, "zero_variance"), MOVES),
    "rl-advantages": (
        lambda d: pd.DataFrame({"advantage": [-1.0, -0.2, 0.5, -1.0, -0.2, 0.5], "start": [10] * 3 + [20] * 3,
                                "share": [0, MEAN, 0, 0, MEAN + 0.2 * d, 0], "study": "recorded"}),
        {1: "30 % from step 10 and 50 % from", -1: "30 % from step 10 and 10 % from", 0: "10 and 30 % from step 20"},
    ),
    "rl-learning": (lambda d: line(d, "solved", start=10), GAINS),
    "rl-losses": (lambda d: line(d, "ood, start 10"),
                  {1: "step 10 rises from 0.3 to 0.5", -1: "falls from 0.3 to 0.1", 0: "does not clearly change"}),
    "rl-controls": (
        lambda d: both(seeds(MEAN, control="start"), seeds(MEAN + effect(d), control="RL"), seeds(0.9, control="ppo"))
        .assign(value=lambda frame: frame["value"] + 0.03 * (frame["control"] == "RL") * (-1) ** frame["seed"]),
        {1: "(interval above 0); of the controls, PPO changes", -1: "(interval below 0); of", 0: "includes 0); of"},
    ),
    "rl-entropy": (
        lambda d: both(seeds(MEAN, control="main", run=-1), seeds(0.2, control="temperature-1", run=-1),
                       seeds(MEAN, control="main", run=0).assign(value=lambda frame: frame["value"] + (
                           0.2 * d or 0.001 * (-1) ** frame["seed"]))),
        {one: f"{said} of its start at the best of 2 temp" for one, said in COMPARED.items()},
    ),
    "rotation-values": (
        lambda d: both(rows({1: MEAN + effect(d)}, "index", series="peak-end, q, difference"),
                       null(series="peak-end, q, difference, null")),
        {1: "1 of 1 changes of singular values lie above the 95 % band of Gaussian changes, 0 below",
         -1: "0 of 1 changes of singular values lie above the 95 % band of Gaussian changes, 1 below",
         0: "0 of 1 changes of singular values lie above the 95 % band of Gaussian changes, 0 below"},
    ),
    "rotation-changes": (
        lambda d: pair(d, "gaussian", "change", pair="peak-end").assign(
            what=lambda frame: frame["series"], series="value_change_mean"),
        COMPARED,
    ),
    "rotation-curves": (
        lambda d: both(rows({1: MEAN + effect(d)}, "index", series="peak-end, q, left"),
                       null(series="peak-end, q, left, null")),
        {1: "0.5 times its null, above the", -1: "0.1 times its null, below the", 0: ", inside the 95 % Gaussian band"},
    ),
    "rotation-by-size": (lambda d: rows({4: 1 + effect(d)}, "part", series="peak-end, top, over null"),
                         {1: "1.2 times as far", -1: "(interval below 1)", 0: "(interval includes 1)"}),
    "rotation-where": (
        lambda d: rows({0: 1.0, 3: 1 + effect(d)}, "layer", kind="q", head=-1),
        {1: "highest for q, layer 3 (1.2)", -1: "lowest for q, layer 3 (0.8)", 0: "does not clearly differ"},
    ),
    "rotation-heat": (
        lambda d: pd.DataFrame([{"left": i, "right": j, "energy": 1 + 0.5 * d * (i == 0)} for i in range(4)
                                for j in (1, 2)]).assign(pair="peak-end", kind="q", study="recorded"),
        {1: "has 1.5 times", -1: "has 0.5 times", 0: "has 1 times"},
    ),
    "rotation-along": (
        lambda d: both(line(1, "angle"), line(1, "null"), rows({1280: effect(d)}, series="excess"), line(1, "ood")),
        {1: "0.5 degrees, above the 0.5 of", -1: ", below the 0.5 of", 0: ", not clearly different from the 0.5 of"},
    ),
    "rotation-trajectories": (trajectories, {one: f"correlation of {said}with" for one, said in RANKS.items()}),
    "rotation-matched": (
        lambda d: both(rows({0: effect(d)}, series="rotation"), rows({0: MEAN}, series="held-out ID accuracy")),
        {1: "0.2 (interval above 0) for rotation", -1: "-0.2 (interval below 0) for", 0: "includes 0) for rotation"},
    ),
    "rotation-back": (
        lambda d: both(rows({1280: effect(d)}, "start", series="RL, share"),
                       rows({1280: 0.5}, "start", series="null, share")),
        {1: "by +20 % (away from it)", -1: "by -20 % (toward it)", 0: "(interval includes 0)"},
    ),
    "swaps-size": (lambda d: restored(d, {"rollback()": 0.0}, family="rollback", split="ood",
                                      where="kinds=q,k,v,o,gate,up,down"), POINTS),
    "swaps-dose": (
        lambda d: both(rows({40.0: MEAN + effect(d), 100.0: 0.9}, "share", series=f"{S5}, ood, directions"),
                       rows({40.0: MEAN}, "share", series=f"{S5}, ood, partial")),
        COMPARED,
    ),
    "swaps-controls": (
        lambda d: restored(d, {"directions(all)": MEAN, "rollback()": MEAN, "noise() like directions(all)": 0.0},
                           quantity="effect"),
        {1: "+50 points (interval above 0), above a rollback's +30", -1: "0), below a rollback's +30",
         0: "not clearly different"},
    ),
    "swaps-layers": (
        lambda d: restored(d, {"embeddings and output head": MEAN, "all blocks": MEAN, "blocks, embeddings and "
                               "output head": 0.9}, "where", edit="directions(all)", quantity="value"),
        {one: f"{said} from all blocks" for one, said in COMPARED.items()},
    ),
    "swaps-behaviour": (
        lambda d: both(edits(d, "at", scale="left"), edits(1, "at", scale="kl_target")),
        {one: f"rank correlation {said}with distance left" for one, said in RANKS.items()},
    ),
    "protection-plane": (
        lambda d: rows({"sft": MEAN, "kl=0.1": MEAN + effect(d)}, "way", step=40, id=0.9),
        {1: "KL to the base 0.1, has 50 % at 90 %", -1: "has 10 % at", 0: "has 30 % at"},
    ),
    "protection-gains": (
        lambda d: rows({"kl=0.1": effect(d)}, "way", quantity="gained"),
        {1: "1 of 1 regularisers clearly beat", -1: "at equal ID, 1 clearly lose", 0: "0 clearly lose"},
    ),
    "healing-levels": (
        lambda d: both(stages({"ood, sft": MEAN, "ood, rl-varied": MEAN + effect(d), "ood, rl": 0.4}),
                       rows({0: 0.9}, "state", series="ood, sft")),
        FALLS,
    ),
    "healing-map": (
        lambda d: stages({"rl-varied": 0.25 + effect(d), "rl": 0.1}, "arm", ability=0.9),
        {1: "Of losses of 50 %, RL on rules up to 13 regains 45 %; ID rule: 10 %", -1: "regains 5 %;", 0: "25 %;"},
    ),
    "healing-numbers": (
        lambda d: stages({"control": MEAN, "ood": MEAN + effect(d)}, "split", arm="rl-familiar"), COMPARED,
    ),
    "healing-imitation": (
        lambda d: stages({"imitate-varied": MEAN, "rl-varied": MEAN + effect(d), "expert-varied": 0.9}, "arm"),
        {one: f"{said} of SFT; expert iteration regains 90 %" for one, said in COMPARED.items()},
    ),
    "healing-why": (
        lambda d: stages({"rule, sft": MEAN, "rule, rl-varied": MEAN + effect(d), "arithmetic, sft": 0.9,
                          "arithmetic, rl-varied": 0.9}),
        {one: f"changes reading more than arithmetic: its share {said}" for one, said in FALLS.items()},
    ),
    "healing-gradients": (
        lambda d: edits(d, "groups").assign(entropy=lambda frame: -frame["groups"]),
        {1: "rank correlation 1 with the share of groups with a gradient and -1 with entropy",
         -1: "rank correlation -1 with the", 0: "rank correlation 0.5 with the"},
    ),
    "healing-arms": (
        lambda d: stages({"rl": MEAN, "ppo": MEAN + effect(d), "dft": 0.9}, "arm").assign(start_value=[0.2, 0.2, 0.8]),
        {1: "start, 1 end clearly above RL on the ID rule (30 %; highest: 50 %); of 1 from another, 1",
         -1: "0 end clearly above RL on the ID rule (30 %; highest: 10 %)", 0: "highest: 30 %)"},
    ),
    "healing-paths": (
        lambda d: both(path(0, "rl-familiar"), path(d, "rl-varied")),
        {1: "0.5 degrees from the peak, above the 0.3 of", -1: "0.1 degrees from the peak, below the 0.3 of",
         0: "not clearly different from the 0.3 of"},
    ),
    "healing-mixed": (
        lambda d: stages(dict(zip((INTO, *PARTS), (MEAN, MEAN + effect(d), 0.9), strict=True)), "edit", target=INTO),
        FALLS,
    ),
    "beyond-stages": (
        lambda d: stages({"sft": MEAN, "rl": MEAN + effect(d)}, "arm", series="navigation, ood"),
        {1: "in 1 of 1 tasks (1 clearly): navigation 30 % to 50 %", -1: "in 0 of 1 tasks (0 clearly)",
         0: "in 1 of 1 tasks (0 clearly)"},
    ),
    "beyond-curves": (
        lambda d: line(d, "navigation, ood, success@2"),
        {1: "rises (30 %, 50 %, 50 %) in navigation", -1: "falls (30 %, 30 %, 10 %) in", 0: "does not clearly change"},
    ),
    "beyond-routes": (
        lambda d: both(pair(d, "later turns", "first turn"), rows({10: 0.2}, series="routes")),
        {one: f"{said} of later turns; whole routes: 20 %" for one, said in COMPARED.items()},
    ),
    "beyond-healed": (
        lambda d: stages({"navigation, rl": MEAN, "navigation, rl-varied": MEAN + effect(d)}),
        {1: "regains more than ID-rule RL in 1 of 1 tasks (1 clearly): navigation 50 %",
         -1: "in 0 of 1 tasks (0 clearly): navigation 10 %", 0: "in 1 of 1 tasks (0 clearly)"},
    ),
    "beyond-weights": (lambda d: rows({"navigation, directions(all)": effect(d)}, "series"), POINTS),
}  # fmt: skip
DIRECTIONS = [(name, direction) for name in CASES for direction in (1, -1, 0)]
WORDED = re.compile(r"rises|falls|clearly|interval")


def told(name: str, frame: pd.DataFrame, one_seed: bool = False) -> str:
    """What is said above a figure, checked for what holds of all."""
    sentence = say.said(TAKEAWAYS[name], frame, {"recorded": 1, "fresh": 1} if one_seed else None)
    assert "nan" not in sentence.split()
    assert len(re.findall(r"\S*\w\S*", sentence)) < MOST, sentence
    assert re.fullmatch(r"([A-Z0-9][^\n]*\.)?", sentence), sentence
    return sentence


def test_every_figure_has_a_planted_case() -> None:
    assert {name for name in TAKEAWAYS if not name.startswith("audit-")} == set(CASES)


@pytest.mark.parametrize(("name", "direction"), DIRECTIONS)
def test_the_sentence_says_what_was_planted(name: str, direction: int) -> None:
    plant, expected = CASES[name]
    assert expected[direction] in told(name, plant(direction))


@pytest.mark.parametrize("name", CASES)
def test_the_opposite_effect_and_none_give_other_sentences(name: str) -> None:
    plant, _ = CASES[name]
    assert len({told(name, plant(direction)) for direction in (1, -1, 0)}) == 3


@pytest.mark.parametrize(("name", "direction"), DIRECTIONS)
def test_of_one_seed_and_of_a_fresh_run_only_numbers_are_told(name: str, direction: int) -> None:
    frame = CASES[name][0](direction)
    alone = told(name, frame[frame["seed"] == 1] if "seed" in frame else frame, one_seed=True)
    assert alone.startswith("With one base seed, ")
    ours = alone.partition("; the paper's")[0].partition("; in the paper")[0]
    if name not in ("sft-sensitivity", "rl-learning"):  # these count runs and starts
        assert not WORDED.search(ours), alone
    fresh = frame.assign(study=frame["study"].replace("recorded", "fresh"))
    assert told(name, fresh).startswith("In this fresh run, ")
    mixed = both(frame, fresh.assign(**dict.fromkeys({"value", "share", "energy", "ood"} & set(fresh), -1.0)))
    assert told(name, mixed) == told(name, frame), "the recorded study is the one that is shown"


@pytest.mark.parametrize("name", TAKEAWAYS)
def test_rows_that_are_not_there_leave_no_sentence_and_no_error(name: str) -> None:
    nothing = pd.DataFrame(columns=["value", "low", "high"])
    for empty in (nothing, nothing.assign(study=""), nothing.assign(study="", series="", step=0, start=0)):
        assert told(name, empty) == "" or name == "audit-counts"
    if name in CASES:
        frame = CASES[name][0](1)
        for column in set(frame) & {
            "series",
            "step",
            "what",
            "control",
            "edit",
            "where",
            "way",
            "scale",
            "stage",
            "at",
            "arm",
            "state",
            "split",
            "target",
        }:
            for value in frame[column].unique():
                told(name, frame[frame[column] != value])
                told(name, frame[frame[column] == value])


E = Estimate


@pytest.mark.parametrize(
    ("curve", "lowest", "expected"),
    [
        ([0.1, 0.5, 0.2], False, "rises from 10 % to 50 % at step 1 and falls to 20 % by step 2"),
        ([0.1, 0.5, 0.48], False, "rises from 10 % to 50 % at step 1, not clearly different at step 2"),
        ([0.1, 0.2, 0.5], False, "rises from 10 % to 50 % at step 2"),
        ([0.5, 0.52, 0.2], False, "falls from 50 % at step 0 to 20 % at step 2"),
        ([0.28, 0.33, 0.25], False, "falls from 33 % at step 1 to 25 % at step 2"),
        ([0.5, 0.2, 0.5], False, "does not clearly change from 50 % at step 0 to 50 % at step 2"),
        ([0.5, 0.2, 0.4], True, "falls from 50 % to 20 % at step 1 and rises to 40 % by step 2"),
        ([0.2, 0.3, 0.5], True, "rises from 20 % at step 0 to 50 % at step 2"),
    ],
)
def test_the_course_of_a_curve(curve: list[float], lowest: bool, expected: str) -> None:
    half = 0.03
    found = [E(value, value - half, value + half, step) for step, value in enumerate(curve)]
    assert say.course(found, lowest=lowest) == expected
    bare = say.course([one._replace(low=np.nan) for one in found], lowest=lowest)
    assert bare.startswith("goes from ")
    assert (" via " in bare) == (curve[1] == (min if lowest else max)(curve))


def test_a_missing_interval_on_either_side_forbids_a_comparison() -> None:
    sure, bare = E(0.5, 0.4, 0.6), E(0.1)
    assert [say.compare(*ends) for ends in ((sure, bare), (bare, sure), (bare, bare))] == [None] * 3
    assert say.compare(E(0.1, 0.0, 0.4), sure) == 0, "intervals that touch overlap"


def test_points_of_one_seed_have_no_interval_whatever_their_ends_say() -> None:
    frame = line(1, "zero_variance")
    for one in (frame.assign(seeds=1), frame.assign(interval="")):
        assert told("rl-why", one).startswith(
            "The share of groups without gradient when RL starts goes from 30 %"
        )


def test_figures_of_other_tasks_go_without_the_paper() -> None:
    assert told("sft-paper", line(1, "this book")) == "OOD success@5 rises from 30 % to 50 % at step 1,280."
    assert told("rl-paper", with_rl(1, "OOD, this book")).endswith("(1 with intervals apart).")
    same = both(PAPER, rows({0: 0.1, 10: 0.5, 20: 0.1}, series="this book"))
    assert "rises and then falls during SFT, as does the paper's" in told("sft-paper", same)


def test_tasks_side_by_side_are_those_that_there_are() -> None:
    tasks = ("general_points", "navigation", "determinant_rules")
    three = both(*(stages({"sft": 0.2, "rl": end}, "arm", series=f"{task}, ood")
                   for task, end in zip(tasks, (0.5, 0.21, 0.1), strict=True)))  # fmt: skip
    count = (
        "2 of 3 tasks (1 clearly): cards 20 % to 50 %, navigation 20 % to 21 %, determinants 20 % to 10 %."
    )
    assert told("beyond-stages", three).endswith(count)
    two = both(*(rows({0: 0.1, 10: top, 20: 0.1}, series=f"{task}, ood, success@2")
                 for task, top in zip(tasks[1:], (0.5, 0.11), strict=True)))  # fmt: skip
    said = "rises and then falls (10 %, 50 %, 10 %) in navigation and does not clearly change (10 %, 11 %, 10 %) in det"
    assert said in told("beyond-curves", two)


def test_what_is_no_chapter_of_the_registry_has_no_takeaways() -> None:
    assert takeaways_of(SFTChapter).keys() == {name for name in TAKEAWAYS if name.startswith("sft-")}
    assert takeaways_of(type("Own", (SFTChapter,), {"__module__": "my.own.runs"})) == {}


def test_a_takeaway_is_text_above_the_image_and_in_its_description() -> None:
    drawn = Drawn("x", "Title", b"<svg/>", pd.DataFrame(), "Caption.", takeaway='a < b & "c"')
    html = drawn._repr_html_()
    said = "a &lt; b &amp; &quot;c&quot;"
    assert html.startswith(
        f'<figure class="rlheals-figure" id="x"><p class="rlheals-takeaway">{said}</p><img'
    )
    assert f'alt="Title: {said}"' in html
    assert "rlheals-takeaway" not in Drawn("x", "Title", b"<svg/>", pd.DataFrame(), "Caption.")._repr_html_()


# --- the page on released artefacts, which has neither seeds nor studies


def audited(name: str, values: Mapping[str, Any], **more: Any) -> str:
    return told(f"audit-{name}", pd.DataFrame(values).assign(**more))


def test_released_numbers_beside_their_nulls() -> None:
    law = {"series": ["law", "law", "released"], "index": [0, 2, 1], "file": "f"}
    for off in (0.0, 0.2, -0.2):
        assert f"by at most {abs(off):g}." in audited("spectra", law | {"value": [1.0, 1.0, 1 + off]})
    names = ["Llama", "null, Llama's shape", "Qwen", "null, Qwen's shape, law"]
    for value, said in ((3.0, "1 of 1"), (4.0, "0 of 1"), (2.0, "0 of 1"), (3.05, "1 of 1")):
        ends = {"low": [value, 2.9, 4.0, 2.0], "high": [value, 3.04, 8.0, 2.0]}
        sentence = audited("largest", {"series": names} | ends, matrix="q", error=0.01)
        assert f"in {said} projections; Qwen's are up to 4 times" in sentence
    nulls = ["independent matrices, draws", "updates of one base, draws", "released"]
    for value, said in ((20.0, "1 lie nearer to independent matrices and 0"), (80.0, "0 lie nearer to ind")):
        angles = {
            "series": nulls,
            "value": [10.0, 90.0, value],
            "index": 1,
            "matrix": "q",
            "k": 512,
            "file": "f",
        }
        assert said in audited("angles", angles)


def test_released_counts_lines_and_differences() -> None:
    assert audited("counts", {"whole": [True, False, False]}).startswith(
        "2 of 3 published accuracies match no whole"
    )
    curves = {
        "series": ["published"] * 3 + ["sampled"] * 3,
        "ood": [1.0, 2, 3] * 2,
        "id": [1.0, 2, 3, 1, 9, 3],
    }
    assert "0 (Llama) points off a straight line" in audited("copy", curves, model="Llama")
    for low, said in ((1.0, "1 of 2"), (-1.0, "0 of 2")):
        frame = {"series": ["published"] * 2 + ["design"] * 2, "value": [2.0, 0.0, np.nan, np.nan],
                 "low": [low, -1, 0, 0], "high": [3.0, 1.0, 0, 0],
                 "drop": [np.nan, np.nan, 0, 4], "chance": [np.nan, np.nan, 0, 1]}  # fmt: skip
        sentence = audited("resolution", frame)
        assert sentence.startswith(f"{said} published differences have intervals without 0")
        assert "with design, the chance of detecting a true drop of 2 points is 50 %" in sentence


def test_every_figure_of_that_page_has_its_sentence() -> None:
    known = spectra.released()["angles"]
    ks = {
        kind: sorted({one["k"] // part for one in known if one["matrix"] == kind})
        for kind, part in (("q", 4), ("k", 1))
    }
    bent = {kind: {k: np.tile(spectra.angle_law(1024, k), (2, 1)) for k in of} for kind, of in ks.items()}
    values = np.tile(spectra.singular_law(*spectra.KEY_SHAPE), (2, 1))
    kinds = spectra.released()["largest_two"][0]["matrices"]
    nulls = spectra.Nulls(2, values, values, values, dict.fromkeys(kinds, np.full((2, 2), 2.32)), bent, bent)
    drawn = [figures.spectra(nulls), figures.largest(nulls), figures.angles(nulls)]
    drawn += [figures.counts(), figures.copy(), figures.resolution()]
    assert {one.name for one in drawn} == {name for name in TAKEAWAYS if name.startswith("audit-")}
    assert all(one.takeaway and one.takeaway == told(one.name, one.frame) for one in drawn)
