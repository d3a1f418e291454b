"""The seam between tasks and everything else: a second task goes the whole way without an edit anywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import TINY
from lab_helpers import refused
from toy_task import Sums

from rlheals.chapters.sft import figures
from rlheals.chapters.sft.runs import sft
from rlheals.chapters.spectra.runs import spectra
from rlheals.errors import BadInput
from rlheals.planning.dry_run import planned
from rlheals.profiles import load_profile, to_yaml
from rlheals.profiles.profile import Profile
from rlheals.store.stages import OF_A_TASK, STAGES, code_behind, modules_behind
from rlheals.store.store import Store
from rlheals.tasks import load_task

TOY = "toy_task:Sums"
SHORT = {"max_new_tokens": 8}
PROFILE = Profile.model_validate(
    {
        "name": "sums", "task": TOY, "shipped_base": False, "seeds": [1], "rule_steps": [6], "rule_hands": 2,
        "pretrain": {
            "model": TINY.model_dump() | {"hidden": 32}, "ability": None, "min_steps": 0, "max_steps": 40,
            "check_every": 40, "panel_hands": 16, "batch_tokens": 2048, "learning_rate": 1e-2, "warmup_steps": 5,
        },
        "sft": {"checkpoints": [0, 3, 6], "batch": 8, "loss_examples": 8, "learning_rate": 1e-2},
        "evaluate": {"hands": 12, "attempts": 2, "sampling": SHORT},
        "rl_starts": {
            "starts": [6], "runs": 1, "decodes": 1, "controls": [],
            "rl": {
                "checkpoints": [1], "episodes": 8, "group": 4, "micro_batch_size": 4, "attempts": 2,
                "loss_examples": 4, "sampling": SHORT | {"temperature": 1.0},
            },
        },
        "rotation": {"steps": [0, 3, 6], "branches": [], "controls": [], "draws": 2, "questions": 4},
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A study of the toy task: pretraining, SFT, evaluation, RL, spectra, trajectories, and the chapters' tables."""
    store = Store(tmp_path_factory.mktemp("toy"))
    turned = spectra(PROFILE, [1], results=Path("nothing"), store=store, quiet=True)
    return SimpleNamespace(
        store=store, spectra=turned, sft=sft(PROFILE, [1], results=Path("nothing"), store=store, quiet=True)
    )


def test_a_second_task_goes_through_every_stage(played: SimpleNamespace) -> None:
    runs = {run.manifest.stage: run for run in (*played.spectra.runs, *played.sft.runs)}
    assert set(runs) == {"pretrain", "sft", "evaluate", "rl", "spectra", "trajectory"}
    assert {run.manifest.settings["task"] for stage, run in runs.items() if stage in OF_A_TASK} == {TOY}
    attempts = pd.read_parquet(runs["evaluate"].file("attempts.parquet"))
    assert set(attempts["category"]) <= set(Sums.rewards)
    for row in attempts.itertuples():
        rule, _, pair = row.item.partition("/")
        item = Sums().item(*map(int, pair.split("+")), rule)
        assert (row.rule, row.category) == (rule, Sums().grade(item, row.text).category)
    summary = json.loads(runs["evaluate"].file("summary.json").read_text())
    assert {"sft", "rl", "held_out", "ood", "id"} <= set(summary) or set(summary) == {
        "rule:twice",
        "rule:thrice",
    }
    assert not played.spectra.fresh.angles.empty
    drawn = figures.accuracy(played.sft)
    assert {"sft", "ood"} <= {series.partition(",")[0] for series in drawn.frame["series"]}
    assert "face" not in played.sft.fresh.episodes


def test_the_profile_names_the_task_once_for_all_stages(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(to_yaml(PROFILE))
    assert to_yaml(PROFILE).count("task: ") == 1
    again = load_profile(tmp_path / "sums.yaml")
    assert again == PROFILE
    tasks = {again.pretrain.task, again.sft.task, again.evaluate.task, again.rl_starts.rl.task}
    assert tasks == {TOY}
    asked = planned(PROFILE, Store(tmp_path)).values()
    assert {spec.settings.get("task") for spec in asked if spec.stage in OF_A_TASK} == {TOY}
    with pytest.raises(BadInput, match=r"sft\.task=general_points, but the profile's task is toy_task:Sums"):
        load_profile(tmp_path / "sums.yaml", {"sft.task": "general_points"})
    with pytest.raises(BadInput, match="shipped_base: that base has not learnt the task toy_task:Sums"):
        load_profile("smoke", {"task": TOY})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("general_point", "accepted: .*general_points, .*or package.module:CLASS"),
        ("toy_task:Nothing", "Nothing"),
        ("no_such_package:Sums", "no_such_package"),
        ("toy_task:total", "no subclass"),
        ("../etc", "accepted"),
        (None, "accepted"),
    ],
)
def test_tasks_that_are_not_there_are_one_line(name: str, said: str) -> None:
    with refused(match=said):
        load_task(name)


# The code behind a run ------------------------------------------------------------------------------------------------


def test_an_edit_in_the_tasks_folder_makes_its_runs_stale_and_another_tasks_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine_of_seam", "other_of_seam"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("from " + name + ".parts import ONE\n")
        (tmp_path / name / "parts.py").write_text("ONE = 1\n")

    def hashes() -> list[str]:
        named = ("mine_of_seam:T", "other_of_seam:T", "general_points")
        return [code_behind("evaluate", {"task": task}).hash for task in named]

    before = hashes()
    assert len(set(before)) == 3
    (tmp_path / "mine_of_seam" / "parts.py").write_text("ONE = 2\n")
    after = hashes()
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, True, True]


def test_every_stage_that_names_a_task_is_known_as_one() -> None:
    from importlib import import_module

    for stage, module in STAGES.items():
        kinds = [kind for name, kind in vars(import_module(module)).items() if name.endswith("Settings")]
        names_one = any("task" in getattr(kind, "model_fields", {}) for kind in kinds)
        assert names_one == (stage in OF_A_TASK) or module.endswith("vllm"), stage
    code = code_behind("sft", {"task": "general_points"}).modules
    assert "rlheals.tasks.general_points.compact" in code
    assert "rlheals.tasks.general_points.task" not in code_behind("spectra", {}).modules
    assert modules_behind("sft", {"task": TOY}) == ("rlheals.training.sft", "toy_task")
    assert not [name for name in code_behind("rl", {"task": TOY}).modules if "general_points" in name]
