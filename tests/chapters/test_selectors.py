"""Choosing an SFT checkpoint without OOD labels: rules never see what they must not, and regrets are those of planted
curves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlheals.chapters import selectors
from rlheals.chapters.selectors import ANY, RULES, Rule
from rlheals.chapters.spectra.runs import SFT
from rlheals.cli.main import main
from rlheals.errors import BadInput
from rlheals.study.tables import Tables

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "rlheals/base"
SEEDS = (11, 12)


@pytest.fixture(scope="module")
def study() -> tuple[Any, ...]:
    """Two base seeds of the recorded study, with weights that go away from the base as SFT goes on."""
    found = selectors.recorded("lab", ROOT / "results")
    assert found is not None
    frames = []
    for tables in (found[0], found[2]):
        names = [field.name for field in dataclasses.fields(tables)]
        rows = {name: getattr(tables, name) for name in names}
        frames.append(type(tables)(**{name: row[row["seed"].isin(SEEDS)] for name, row in rows.items()}))
    return frames[0], Weights([step for step in frames[0].steps if step in (0, 20) or step > 100]), frames[1]


class Weights:
    """Points of plain SFT, as chapter 3 measures them."""

    def __init__(self, steps: list[int]) -> None:
        rows = [(seed, step, step**0.5 + seed, seed - step) for seed in SEEDS for step in steps]
        made = pd.DataFrame(rows, columns=["seed", "step", "angle", "excess"])
        self.points = made.assign(branch=SFT, size=made["step"], kl=made["step"])

    def once(self, make: Any) -> pd.DataFrame:
        return self.points


def with_ood(sft: Tables, seed: int, accuracy: dict[int, float]) -> Tables:
    """The same study with other OOD accuracies of one base seed: nothing else is different."""
    episodes = sft.episodes.copy()
    for step, share in accuracy.items():
        place = (episodes["seed"] == seed) & (episodes["step"] == step) & (episodes["split"] == "ood")
        ranks = np.arange(place.sum()) / place.sum()
        solved = (ranks * 7919 % 1 < share).astype("uint8")  # spread over both halves of the hands
        episodes.loc[place, "solved_at"] = episodes.loc[place, "solved_at_either"] = solved
    return dataclasses.replace(sft, episodes=episodes)


def test_a_rule_sees_no_ood_answer_of_the_run_it_chooses_from(study: tuple[Any, ...]) -> None:
    sft, spectra, _ = study
    steps = sorted(selectors.signals(sft, spectra)["step"].unique())
    changed = with_ood(sft, 11, {step: (0.9 if step == steps[-2] else 0.05) for step in steps})
    before, after = (
        selectors.regrets(one, spectra).set_index(["rule", "seed"])["step"] for one in (sft, changed)
    )
    assert before.xs(11, level="seed").equals(after.xs(11, level="seed"))
    assert not before.xs(12, level="seed").equals(after.xs(12, level="seed")), "the peak of seed 11 has moved"
    own = [rule.words for rule in RULES if rule.by != "peak"]
    assert before.xs(12, level="seed")[own].equals(after.xs(12, level="seed")[own])


def test_regret_is_what_the_choice_costs_against_the_best_checkpoint(study: tuple[Any, ...]) -> None:
    sft, spectra, _ = study
    steps = [int(step) for step in sorted(selectors.signals(sft, spectra)["step"].unique())]
    planted = {step: 0.8 - 0.06 * place for place, step in enumerate(steps)}
    made = with_ood(with_ood(sft, 11, planted), 12, planted)
    found = selectors.regrets(made, spectra)
    expected = [0.8 - planted.get(step, np.mean(list(planted.values()))) for step in found["step"]]
    assert found["value"].to_numpy() == pytest.approx(np.array(expected), abs=0.04)
    assert set(found["rule"]) == {ANY, *(rule.words for rule in RULES)}
    assert found.loc[found["rule"] == "the last checkpoint", "step"].eq(steps[-1]).all()


def test_starts_of_rl_are_chosen_among_those_that_rl_started_from(study: tuple[Any, ...]) -> None:
    found = selectors.regrets(*study)
    starts = set(study[2].starts)
    assert set(found.loc[found["question"] == "start", "step"]) - {-1} <= starts
    assert set(found["question"]) == {"ship", "start"}


def test_the_figure_says_what_rules_have_cost(
    study: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "recorded", lambda name, results: study)
    drawn = selectors.figure("lab", Path("results"))
    assert len(drawn.frame) == 2 * (len(RULES) + 1)
    assert drawn.takeaway.startswith("To ship one, ")
    assert "To start RL from one, " in drawn.takeaway
    assert "base seeds 11-12" in drawn.origin
    costs = drawn.frame.set_index("rule").query("question == 'ship'").drop(ANY)["value"]
    assert f"the last checkpoint, {costs[RULES[0].words]:.1f} [" in drawn.takeaway
    alike = (costs.round(1) == round(costs.min(), 1)).sum() - 1
    assert f"(and {alike} others) costs least: {costs.min():.1f} points of OOD accuracy [" in drawn.takeaway
    monkeypatch.setattr(selectors, "recorded", lambda name, results: (study[0], None, study[2]))
    without = selectors.figure("lab", Path("results"))
    weights = [rule.words for rule in RULES if rule.column in ("size", "angle", "excess", "kl")]
    assert {*drawn.frame["rule"]} - {*without.frame["rule"]} == {*weights}
    assert "weights have no data yet" in without.caption
    monkeypatch.setattr(selectors, "recorded", lambda name, results: None)
    nothing = selectors.figure("smoke", Path("results"))
    assert nothing.svg.count(b"no data here") == 2
    assert (nothing.takeaway, nothing.origin, len(nothing.frame)) == ("", "", 0)


@pytest.mark.parametrize(
    ("by", "wanted"), [("lowest", 30), ("highest", 10), ("first", 20), ("peak", 40)], ids=str
)
def test_rules(by: Any, wanted: int) -> None:
    rule, losses = Rule("", "test", by), pd.Series({10: 0.5, 20: 0.2015, 30: 0.2, 40: 0.3, 50: np.nan})
    for order in (losses, losses * 8):
        level = 0.33 * order[40] / 0.3
        assert rule.choose(order.to_frame("test"), level) == wanted
    assert rule.choose(pd.DataFrame({"test": [np.nan, np.nan]}), 0.3) is None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A base, and three checkpoints further and further from it, as the trainer of transformers leaves them."""
    weights, random = load_file(BASE / "model.safetensors"), torch.Generator().manual_seed(0)
    for step, size, loss in ((20, 0.02, 0.3), (80, 0.06, 0.2), (1280, 0.2, 0.5)):
        folder = shutil.copytree(BASE, tmp_path / f"checkpoint-{step}")
        noise = {
            name: one + size * one.std() * torch.randn(one.shape, generator=random)
            for name, one in weights.items()
        }
        save_file(noise, folder / "model.safetensors", metadata={"format": "pt"})
        log = [{"step": 1, "eval_loss": 9.0}, {"step": step, "loss": 0.1}, {"step": step, "eval_loss": loss}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    return tmp_path


def test_anybodys_checkpoints_are_ranked_and_rules_say_what_they_cost(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, study: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(selectors, "recorded", lambda name, results: study)
    folders = [str(run / f"checkpoint-{step}") for step in (1280, 20, 80)]
    assert main(["select", str(BASE), *folders, "--task", "general_points", "--hands", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in found["checkpoints"]] == [20, 80, 1280]
    assert [row["test"] for row in found["checkpoints"]] == [0.3, 0.2, 0.5]
    for name in ("size", "angle", "kl"):
        values = [row[name] for row in found["checkpoints"]]
        assert values == sorted(values)
        assert values[0] > 0
    rules = {row["rule"]: row for row in found["rules"]}
    assert rules["lowest held-out loss"]["step"] == 80
    assert "lowest training loss" not in rules, "nothing is known of it"
    assert rules["the last checkpoint"]["ship_low"] <= rules["the last checkpoint"]["ship"]


def test_without_a_recorded_study_rules_that_need_none_choose_and_that_is_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(run / f"checkpoint-{step}") for step in (20, 80)]
    assert main(["select", str(BASE), *folders, "--study", "smoke", "--draws", "1"]) == 0
    said = capsys.readouterr().out
    assert "lowest held-out loss" in said
    assert "as at the peak" not in said
    assert "no rule's regret is known" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("state", "loss"),
    [
        ("[]", None),
        ("{", None),
        ('{"log_history": 3}', 0),
        ('{"log_history": [1, {"step": 20, "eval_loss": NaN}]}', 0),
    ],
    ids=["a list", "half a file", "no log", "nothing known"],
)
def test_a_trainers_log_of_any_kind(run: Path, state: str, loss: float | None) -> None:
    (run / "checkpoint-20/trainer_state.json").write_text(state)
    folders = [str(run / f"checkpoint-{step}") for step in (20, 80)]
    if loss is None:
        with pytest.raises(BadInput, match=r"trainer_state\.json"):
            selectors.observed(str(BASE), folders, draws=1)
    else:
        seen = selectors.observed(str(BASE), folders, draws=1)
        assert seen["test"].tolist() == pytest.approx([np.nan, 0.2], nan_ok=True)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["checkpoint-20"], "two checkpoints"),
        (["checkpoint-20", "20"], "step 20"),
        (["checkpoint-20", "last"], "step"),
    ],
    ids=["one", "the same step", "no step"],
)
def test_what_cannot_be_chosen_from(run: Path, names: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        selectors.observed(str(BASE), [str(run / name) for name in names])
