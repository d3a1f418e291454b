"""Does a fresh run belong to the recorded study? Honest ones pass as often as promised; planted bugs do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lab_helpers import one_line
from scipy.stats import binom

from rlheals.chapters import compare
from rlheals.chapters.compare import ABOUT, Compared, judged, numbers
from rlheals.chapters.expected import LEVEL, prediction_interval
from rlheals.chapters.rl.runs import RLChapter
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.cli.main import main
from rlheals.errors import BadInput
from rlheals.store.store import Store
from rlheals.study import record

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Path(__file__).parents[1] / "planted.json"
STEPS, STARTS = (0, 10, 20, 80, 160, 320, 640, 960, 1280), (160,)


@pytest.fixture(scope="module")
def recorded() -> SimpleNamespace:
    sft, _ = record.find("lab", SFTChapter.PART, ROOT / "results")
    rl, _ = record.find("lab", RLChapter.PART, ROOT / "results")
    return SimpleNamespace(sft=sft, rl=rl)


@pytest.fixture(scope="module")
def known(recorded: SimpleNamespace) -> dict[int, dict[str, float]]:
    return numbers(recorded.sft, recorded.rl, STEPS, STARTS)


@pytest.mark.parametrize(("count", "fresh", "shared"), [(3, 1, 0.0), (5, 1, 0.0), (5, 1, 0.9), (9, 2, 0.5)])
def test_an_honest_run_passes_in_at_least_95_of_100_repetitions(
    count: int, fresh: int, shared: float
) -> None:
    """Numbers that differ between seeds, some of it in common to all numbers of a seed."""
    draw, repetitions, passed = np.random.default_rng(7), 2000, 0
    names = list(ABOUT)
    for _ in range(repetitions):
        common = draw.normal(size=(count + fresh, 1)) * shared**0.5
        values = 0.3 + 0.02 * (common + draw.normal(size=(count + fresh, len(names))) * (1 - shared) ** 0.5)
        study = {seed: dict(zip(names, row, strict=True)) for seed, row in enumerate(values[:count])}
        mean = dict(zip(names, values[count:].mean(axis=0), strict=True))
        passed += all(one.agrees for one in judged(study, mean, fresh))
    assert passed / repetitions > 0.95 - 3 * (0.95 * 0.05 / repetitions) ** 0.5


def test_recorded_seeds_agree_with_the_others_as_often_as_is_promised(
    known: dict[int, dict[str, float]],
) -> None:
    """One in twenty may lie outside: so many as there are must not be a surprise (1 %) if that is so."""
    assert sum(set(values) == set(ABOUT) for values in known.values()) >= 5
    outside = []
    for seed, values in known.items():
        others = {other: its for other, its in known.items() if other != seed}
        rest = known[11 if seed != 11 else 12]
        found = [one for one in judged(others, {**rest, **values}) if one.name in values]
        outside += [seed] if not all(one.agrees for one in found) else []
    assert binom.sf(len(outside) - 1, len(known), 1 - LEVEL) > 0.01, outside


def test_a_number_is_compared_with_every_seed_that_has_it(known: dict[int, dict[str, float]]) -> None:
    without_rl = {name: value for name, value in known[11].items() if not name.startswith("rl-")}
    found = {one.name: one for one in judged({**known, 11: without_rl}, known[12])}
    whole = {one.name: one for one in judged(known, known[12])}
    for name, one in found.items():
        assert len(one.recorded) == len(whole[name].recorded) - name.startswith("rl-")
        assert (one == whole[name]) == (not name.startswith("rl-"))


@pytest.mark.parametrize("bug", ["honest", "rule swapped", "reward negated", "feedback dropped"])
def test_a_planted_bug_is_noticed_and_an_honest_run_is_not(bug: str) -> None:
    """The numbers come from real runs with the bug in the code, `benchmarks/plant_bugs.py` makes them; beside them lie
    those of the study that was recorded then, of half-able bases."""
    planted = json.loads(PLANTED.read_text())
    found = judged(planted["recorded"], planted["numbers"][bug])
    assert all(one.agrees for one in found) == (bug == "honest"), found


def test_more_decodes_runs_checkpoints_and_starts_change_no_number(recorded: SimpleNamespace) -> None:
    sft, rl = recorded.sft.of_seed(11), recorded.rl.of_seed(11)
    assert sft.episodes["decode"].nunique() > 1
    assert rl.episodes["run"].max() > 0
    fewer = replace(
        sft, episodes=sft.episodes[(sft.episodes["decode"] == 0) & sft.episodes["step"].isin(STEPS)]
    )
    own = rl.episodes["run"].isin([-1, 0]) & (rl.episodes["decode"] == 0) & rl.episodes["start"].isin(STARTS)
    log = rl.log[(rl.log["run"] == 0) & rl.log["start"].isin(STARTS)]
    few = replace(rl, episodes=rl.episodes[own], log=log.sample(frac=1, random_state=1))
    assert numbers(sft, rl, STEPS, STARTS) == numbers(fewer, few, STEPS, STARTS)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [((8, 1, 1), (8, 1, 4)), ((4, 1, 1), (8, 1, 1)), ((8, 1, 1), (64, 1, 1)), ((8, 5, 1), (8, 1, 1))],
)
def test_fewer_seeds_on_either_side_and_more_numbers_widen_the_interval(
    wide: tuple[int, int, int], narrow: tuple[int, int, int]
) -> None:
    """recorded seeds, numbers at once, fresh seeds"""
    widths = []
    for count, of, seeds in (wide, narrow):
        low, high = prediction_interval(np.tile([0.1, 0.3], count // 2), of, seeds)
        widths.append(high - low)
    assert widths[0] > widths[1]


def test_too_little_recorded_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        compare.compare("smoke", results=tmp_path, store=Store(tmp_path / "store"))
    assert "SFT of 0 and RL of 0 base seeds of smoke are recorded there" in one_line(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("value", "code"), [(0.5, 0), (0.9, 1)])
def test_the_command_says_which_number_lies_where_and_fails_if_one_lies_elsewhere(
    value: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Compared("id-end", "ID hands solved", 0.5, 0.4, 0.6, (0.5, 0.5, 0.5)),
        Compared("ood-peak", "OOD hands solved", value, 0.4, 0.6, (0.5, 0.5, 0.5)),
    ]
    monkeypatch.setattr(compare, "compare", lambda *arguments: found)
    assert main(["report", "--compare", "results"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "inside  id-end          0.500 in [0.400, 0.600]  ID hands solved"
    assert lines[1].startswith("inside" if code == 0 else "OUTSIDE")
    assert main(["report", "--compare", "results", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["agrees"] is (code == 0)
