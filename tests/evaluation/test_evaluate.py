"""The census: rows are attempts, tables agree with one another, and a kill in the middle changes no byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lab_helpers import HARMS, FakeEngine, Killed, dies_at, files_of, work_in

from rlheals.engines import hf as hf_engine
from rlheals.engines import models
from rlheals.engines.hf import HFEngine, Sampling
from rlheals.errors import BadInput
from rlheals.evaluation import evaluate
from rlheals.evaluation.evaluate import (
    EvaluateSettings,
    attempts_table,
    census_items,
    episodes_table,
)
from rlheals.evaluation.rollout import rollout
from rlheals.stage import Tick, no_tick
from rlheals.tasks.base import END
from rlheals.tasks.general_points.cards import FACES, ID_RULE, OOD_RULE, OTHER_RULES
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.solver import canonical_solution
from rlheals.tasks.general_points.task import GeneralPoints

SOME = EvaluateSettings(splits=("sft", "held_out", "ood"), hands=14)


class Counting(HFEngine):
    """Counts the prompts of first attempts; chunks of 16 rows, as the parts here are small."""

    first = 0

    def __init__(self, model, tokenizer, rows):
        super().__init__(model, tokenizer, rows=16)

    def generate(self, prompts, keys, sampling, pasts=None, beginning=()):
        Counting.first += sum(key.endswith("/0") for key in keys)
        return super().generate(prompts, keys, sampling, pasts)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "PART", 16)
    monkeypatch.setattr(hf_engine, "HFEngine", Counting)


@pytest.fixture(scope="module")
def model_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that holds the shipped base."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(models.SHIPPED_BASE, folder / "base")
    return folder


def stage(
    folder: Path, model_run: Path, settings: EvaluateSettings = SOME, seed: int = 0, tick: Tick = no_tick
) -> Path:
    evaluate.run(work_in(folder, settings, {"model": model_run}, seed, tick))
    return folder / "out"


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory, model_run: Path) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("census")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "PART", 16)
        patch.setattr(hf_engine, "HFEngine", Counting)
        out = stage(folder, model_run)
    return SimpleNamespace(
        folder=folder,
        files=files_of(out),
        attempts=pd.read_parquet(out / "attempts.parquet"),
        episodes=pd.read_parquet(out / "episodes.parquet"),
        summary=json.loads((out / "summary.json").read_text()),
    )


# One row per attempt --------------------------------------------------------------------------------------------------


def test_rows_are_the_attempts_of_a_full_rollout_under_either_protocol(
    census: SimpleNamespace, base, dialect: Compact, task: GeneralPoints
) -> None:
    """The census plays an episode again only where the protocols can differ; here all are played under both.

    What is played again begins with a prompt that is read anew, so its probabilities may differ in the last bits.
    """
    items = census_items(task, SOME)
    keys = [f"0/{item.id}" for item in items]
    engine = HFEngine(base, dialect.tokenizer, rows=16)
    for protocol, column in (("target", "solved_at"), ("either", "solved_at_either")):
        rows = census.attempts[census.attempts["protocol"] == protocol]
        episodes = rollout(engine, dialect, task, items, keys, Sampling(), 5, protocol)
        assert [episode.solved_at for episode in episodes] == census.episodes[column].tolist()
        compared = 0
        for episode in episodes:
            mine = rows[rows["item"] == episode.item.id]
            if protocol == "either" and len(mine) == 0:
                continue
            compared += 1
            assert mine["attempt"].tolist() == list(range(1, len(episode.attempts) + 1))
            for (_, row), attempt in zip(mine.iterrows(), episode.attempts, strict=True):
                assert row["text"] == attempt.reply.text
                assert row["layout"] == attempt.reply.layout
                assert row["category"] == attempt.verdict.category
                assert row["reward"] == attempt.verdict.reward
                assert row["read_as"] == (attempt.verdict.read_as or "")
                assert row["tokens"] == len(attempt.generation.tokens)
                numbers = [attempt.generation.logprobs.sum(), attempt.generation.entropies.mean()]
                close = 0 if protocol == "target" else 1e-4
                assert [row["logprob"], row["entropy"]] == pytest.approx(numbers, rel=0, abs=close)
        assert compared > 12
    assert (census.episodes["solved_at_either"] > 0).sum() > (census.episodes["solved_at"] > 0).sum() + 7


def test_an_attempt_says_whether_the_cards_were_read_under_its_own_rule_or_under_id(
    census: SimpleNamespace, task: GeneralPoints
) -> None:
    by_id = {item.id: item for item in census_items(task, SOME)}
    for row in census.attempts.itertuples():
        item = by_id[row.item]
        assert (row.split, row.rule) == (item.split, item.rule)
        assert row.face == any(label in FACES for label in item.payload.hand)
        if row.layout == "none":
            assert not row.values_right
            assert not row.values_as_id
        elif row.layout == "target" or row.protocol == "either":
            read = sorted(json.loads(row.text)["number"])
            assert row.values_right == (read == sorted(item.payload.values))
            assert row.values_as_id == (read == sorted(ID_RULE.values(item.payload.hand)))


def test_attempts_and_episodes_agree(census: SimpleNamespace) -> None:
    attempts, episodes = census.attempts, census.episodes.set_index("item")
    assert list(episodes.index) == list(dict.fromkeys(attempts["item"]))
    assert episodes.index.is_unique
    strict = attempts[attempts["protocol"] == "target"]
    for item, rows in strict.groupby("item"):
        episode = episodes.loc[item]
        right = rows.loc[rows["category"] == "correct", "attempt"].tolist()
        assert right in ([], [len(rows)])
        assert episode["solved_at"] == (right[0] if right else 0)
        assert len(rows) == (right[0] if right else 5)
        first = rows.iloc[0]
        assert (episode["first"], episode["first_layout"]) == (first["category"], first["layout"])
        assert episode["first_values_right"] == first["values_right"]
        assert episode["first_values_as_id"] == first["values_as_id"]
    played_again = set(attempts.loc[attempts["protocol"] == "either", "item"])
    assert played_again == set(strict.loc[strict["layout"] == "plain", "item"])
    untouched = episodes[~episodes.index.isin(played_again)]
    assert (untouched["solved_at"] == untouched["solved_at_either"]).all()


def test_the_summary_adds_up(census: SimpleNamespace) -> None:
    assert list(census.summary) == [*SOME.splits, "both_id", "both_ood"]
    strict = census.attempts[census.attempts["protocol"] == "target"]
    for split in SOME.splits:
        report = census.summary[split]
        group = census.episodes[census.episodes["split"] == split]
        rows = strict[strict["split"] == split]
        assert report["hands"] == len(group) == SOME.hands
        assert report["attempts"] == sum(report["categories"].values()) == len(rows)
        assert report["first_try"] <= report["within_five"] <= report["within_five_either"] <= 1
        assert report["first_try"] <= report["first_try_either"]
        assert report["within_five"] * len(group) == pytest.approx(report["categories"].get("correct", 0))
        for name in ("both_id", "both_ood"):
            assert 0 < census.summary[name]["hands"] < len(census.episodes)
        rewards = {"correct": 5, "partial": 1, "no_solution": -1, "wrong_number": -2, "wrong_rule": -2}
        total = sum(rewards.get(name, -3) * count for name, count in report["categories"].items())
        assert report["mean_reward"] == pytest.approx(total / report["attempts"])
        assert report["mean_entropy"] == pytest.approx(rows["entropy"].mean())


# Short products -------------------------------------------------------------------------------------------------------


def test_short_weights_say_nearly_the_same_and_go_on_after_a_kill(
    census: SimpleNamespace, tmp_path: Path, model_run: Path
) -> None:
    settings = SOME.model_copy(update={"precision": "bf16"})
    calm = stage(tmp_path / "calm", model_run, settings)
    with pytest.raises(Killed):
        stage(tmp_path / "killed", model_run, settings, tick=dies_at(32))
    assert files_of(stage(tmp_path / "killed", model_run, settings)) == files_of(calm)
    short = pd.read_parquet(calm / "attempts.parquet")
    assert (
        0 < abs(short["logprob"].mean() - census.attempts["logprob"].mean()) < 0.3
    )  # nats of a whole answer


# Kill and resume ------------------------------------------------------------------------------------------------------


def test_a_census_killed_in_the_middle_goes_on_and_gives_the_same_bytes(
    census: SimpleNamespace, tmp_path: Path, model_run: Path
) -> None:
    Counting.first = 0
    with pytest.raises(Killed):
        stage(tmp_path, model_run, tick=dies_at(32))
    assert files_of(tmp_path / "out") == {}
    parts = sorted(path.name for path in (tmp_path / "scratch").iterdir())
    assert parts == ["part-000000.parquet", "part-000016.parquet", "sha256sums"]
    half = Counting.first
    Counting.first = 0
    ticks: list[tuple[int, int]] = []
    out = stage(tmp_path, model_run, tick=lambda done, total, unit: ticks.append((done, total)))
    assert files_of(out) == census.files
    assert half >= 32
    assert 10 <= Counting.first <= 2 * 10  # the ten hands of the last part, under both protocols
    assert ticks == [(16, 42), (32, 42), (42, 42)]
    Counting.first = 0
    shutil.rmtree(tmp_path / "out")
    assert files_of(stage(tmp_path, model_run)) == census.files
    assert Counting.first == 0


@pytest.mark.parametrize("harm", ["a bit flipped", "gone"])
def test_a_part_that_has_changed_since_is_dropped_and_answered_again(
    census: SimpleNamespace, tmp_path: Path, model_run: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    shutil.copytree(census.folder / "scratch", tmp_path / "scratch")
    HARMS[harm](tmp_path / "scratch/part-000016.parquet")
    Counting.first = 0
    assert files_of(stage(tmp_path, model_run)) == census.files
    assert Counting.first >= 16
    said = capsys.readouterr().err
    assert ("part-000016.parquet: is not as it was written" in said) == (harm != "gone")
    Counting.first = 0
    shutil.rmtree(tmp_path / "out")
    assert files_of(stage(tmp_path, model_run)) == census.files
    assert Counting.first == 0


def test_the_size_of_the_parts_and_of_the_census_changes_no_episode(
    census: SimpleNamespace, tmp_path: Path, model_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PART", 512)
    whole = pd.read_parquet(stage(tmp_path / "whole", model_run) / "episodes.parquet")
    pd.testing.assert_frame_equal(whole, census.episodes)
    fewer = SOME.model_copy(update={"hands": 6, "splits": ("ood",)})
    part = pd.read_parquet(stage(tmp_path / "part", model_run, fewer) / "episodes.parquet")
    wanted = census.episodes[census.episodes["split"] == "ood"].head(6).reset_index(drop=True)
    pd.testing.assert_frame_equal(part, wanted)
    same, other = (
        pd.read_parquet(stage(tmp_path / f"seed-{seed}", model_run, fewer, seed) / "attempts.parquet")
        for seed in (0, 1)
    )
    assert same["logprob"].tolist() != other["logprob"].tolist()


# Which hands ----------------------------------------------------------------------------------------------------------


def test_a_full_census_asks_every_hand_once(task: GeneralPoints) -> None:
    items = census_items(task, EvaluateSettings())
    assert len(items) == 1236 + 796 == len({item.id for item in items})
    assert [item.split for item in items] == ["sft"] * 712 + ["rl"] * 263 + ["held_out"] * 261 + ["ood"] * 796
    few = census_items(task, EvaluateSettings(hands=3))
    assert few == [item for s in ("sft", "rl", "held_out", "ood") for item in task.items(s)[:3]]
    assert len(set(OTHER_RULES)) == len(OTHER_RULES) == 21
    assert not set(OTHER_RULES) & {ID_RULE, OOD_RULE}
    items = census_items(task, EvaluateSettings(splits=("rules",), hands=5))
    assert len(items) == 5 * len(OTHER_RULES)
    assert {item.payload.rule for item in items} == set(OTHER_RULES)
    assert all(set(item.payload.hand) & set(FACES) for item in items)


def test_an_episode_is_played_again_whenever_any_attempt_of_it_was_plain(
    dialect: Compact, task: GeneralPoints
) -> None:
    """Plain and right at attempt p, in the wanted layout and right at attempt t; unreadable at all others."""
    items = task.items("ood")[:36]
    ats = [(plain, target) for plain in range(6) for target in range(6)]  # 0: at none
    by_key = {f"0/{item.id}": (item, *at) for item, at in zip(items, ats, strict=True)}

    def script(key: str, attempt: int) -> list[int]:
        item, plain, target = by_key[key]
        values = item.payload.values
        if attempt + 1 in (plain, target):
            layout = "target" if attempt + 1 == target else "plain"
            return dialect.answer(values, canonical_solution(values), layout)
        return dialect.encode(f"answer {END}")

    attempts = attempts_table(
        FakeEngine(dialect.tokenizer, script), dialect, task, items, EvaluateSettings(), 0
    )
    episodes = episodes_table(attempts)
    assert episodes["solved_at"].tolist() == [target for _, target in ats]
    either = [min((at for at in pair if at), default=0) for pair in ats]
    assert episodes["solved_at_either"].tolist() == either
    assert (attempts.groupby(["item", "protocol"])["attempt"].max() <= 5).all()


# Bad input ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_evaluated_is_refused_and_nothing_is_written(tmp_path: Path, model_run: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        stage(tmp_path, model_run, SOME.model_copy(update={"folder": "step-00040"}))
    assert files_of(tmp_path) == {}
    model = models.load(model_run / "base")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e38)
    models.save(tmp_path / "diverged/base", model, models.load_tokenizer(model_run / "base"))
    with pytest.raises(BadInput, match="logits are not finite"):
        stage(tmp_path, tmp_path / "diverged")
    assert files_of(tmp_path / "out") == {}
