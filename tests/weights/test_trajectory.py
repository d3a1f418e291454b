"""Where a run went: forward KL obeys its laws, the table says what the checkpoints say."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from lab_helpers import refused
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.evaluation import kl as divergence
from rlheals.stage import Work
from rlheals.tasks.base import END, PAD
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.weights import trajectory
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.spectra_stage import SpectraSettings, compare


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    dialect = Compact()
    return [dialect.prompt(item) for item in GeneralPoints().items("sft")[:12]]


def sampled(model: PreTrainedModel, prompts: list[list[int]], seed: int = 0) -> divergence.Answers:
    end, pad = Compact().encode(f"{END} {PAD}")
    return divergence.sample(model, prompts, end, pad, seed)


def perturbed(model: PreTrainedModel, size: float) -> PreTrainedModel:
    made = type(model)(model.config)
    made.load_state_dict(model.state_dict())
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += size * torch.randn(parameter.shape, generator=random)
    return made


# Forward KL --------------------------------------------------------------------------------------------------------


def test_answers_are_the_models_own_end_where_it_ends_and_depend_on_the_seed_only(
    base: PreTrainedModel, prompts
) -> None:
    answers = sampled(base, prompts)
    end = Compact().encode(END)[0]
    for prompt, tokens, own in zip(prompts, answers.tokens.tolist(), answers.own.tolist(), strict=True):
        assert tokens[: len(prompt)] == prompt
        assert not any(own[: len(prompt)])
        said = [token for token, mine in zip(tokens, own, strict=True) if mine]
        assert 1 <= len(said) <= 48
        assert end not in said[:-1]
        assert own == [False] * len(prompt) + [True] * len(said) + [False] * (
            len(own) - len(prompt) - len(said)
        )
    one = sampled(base, prompts)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert torch.equal(sampled(base, prompts).tokens, one.tokens)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(sampled(base, prompts, 1).tokens[:, -20:], one.tokens[:, -20:])


def test_prompts_of_other_lengths_beside_it_do_not_change_what_a_model_finds_likely(
    base: PreTrainedModel, prompts
) -> None:
    mixed = [prompts[0], prompts[1][2:], prompts[2][5:]]
    together = sampled(base, mixed)
    lengths = together.own.sum(1).tolist()
    whole = torch.split(divergence.log_probabilities(base, together), lengths)
    for row, part in enumerate(whole):
        alone = divergence.Answers(together.tokens[row : row + 1], together.own[row : row + 1])
        assert torch.allclose(divergence.log_probabilities(base, alone), part, atol=1e-4)


def test_kl_is_zero_at_home_grows_with_distance_and_is_none_of_what_overflows(
    base: PreTrainedModel, prompts
) -> None:
    answers = sampled(base, prompts)
    assert np.abs(divergence.forward_kl(base, base, answers)).max() == 0
    values = [divergence.forward_kl(base, perturbed(base, size), answers) for size in (0.003, 0.01, 0.03)]
    assert all((one >= 0).all() for one in values)
    assert values[0].mean() < values[1].mean() < values[2].mean()
    answers, broken = sampled(base, prompts[:3]), copy.deepcopy(base)
    with torch.no_grad():
        broken.lm_head.weight.mul_(1e38)
    for ask in (lambda: divergence.forward_kl(base, broken, answers), lambda: sampled(broken, prompts)):
        with pytest.raises(BadInput, match="logits are not finite"):
            ask()


def test_kl_is_that_of_the_definition_token_by_token(base: PreTrainedModel, prompts, monkeypatch) -> None:
    answers, other = sampled(base, prompts[:3]), perturbed(base, 0.01)
    found = divergence.forward_kl(base, other, answers)
    monkeypatch.setattr(models, "LOGITS", 1)
    assert np.allclose(divergence.forward_kl(base, other, answers), found, rtol=1e-4), "one at a time"
    for row in range(3):
        wanted = 0.0
        for at in torch.nonzero(answers.own[row]).flatten().tolist():
            seen = answers.tokens[row : row + 1, :at]
            with torch.inference_mode():
                p, q = (model(seen).logits[0, -1].double().softmax(0) for model in (base, other))
            wanted += float((p * (p / q).log()).sum())
        assert found[row] == pytest.approx(wanted, rel=1e-4)


def test_what_cannot_be_sampled_or_compared_is_refused(
    base: PreTrainedModel, prompts, tmp_path: Path
) -> None:
    for bad in ([], [[]]):
        with refused():
            sampled(base, bad)
    answers = sampled(base, prompts[:1])
    folder = tiny_models.folder(tmp_path / "other", "qwen2")
    with pytest.raises(BadInput, match="vocabularies"):
        divergence.forward_kl(base, models.load(folder), answers)
    with pytest.raises(ValueError, match="different folders"):
        trajectory.TrajectorySettings(folders=("a", "a"))


# The stage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trajectory of three checkpoints: the base, a little noise, more noise."""
    root = tmp_path_factory.mktemp("trajectory")
    for step, size in ((0, 0.0), (10, 0.002), (20, 0.01)):
        tiny_models.moved_base(root / "run" / f"step-{step:05d}", size)
    (root / "bases").mkdir()
    (root / "bases" / "base").symlink_to(SHIPPED_BASE)
    (root / "out").mkdir()
    settings = {"folders": ["step-00000", "step-00010", "step-00020"], "draws": 3, "questions": 8}
    inputs = {"base": root / "bases", "model": root / "run"}
    trajectory.run(Work(root / "out", root, settings, 5, inputs))
    return root


def test_every_part_of_every_matrix_has_its_row_and_noise_turns_as_much_as_its_null(measured: Path) -> None:
    rows = pd.read_parquet(measured / "out/path.parquet")
    assert len(rows) == 3 * 4 * 30
    assert not rows.duplicated(["folder", "tensor", "part"]).any()
    still = rows[rows["folder"] == "step-00000"]
    assert (still[["change_norm", "angle", "gaussian", "value_change_mean"]] == 0).all(axis=None)
    assert (rows.loc[rows["folder"] == "step-00020", ["angle", "gaussian"]] > 0).all(axis=None)
    rows = pd.read_parquet(measured / "out/path.parquet")
    rows = rows[(rows["folder"] == "step-00020") & rows["kind"].isin(["q", "k", "v", "o"])]
    assert rows["angle"].mean() == pytest.approx(rows["gaussian"].mean(), rel=0.05)
    found = pd.read_parquet(measured / "out/divergence.parquet").set_index("folder")
    assert found.loc["step-00000", "kl"] == 0
    assert 0 < found.loc["step-00010", "kl"] < found.loc["step-00020", "kl"]
    assert (found["kl_error"] >= 0).all()


def test_a_row_says_what_a_comparison_of_the_two_checkpoints_says(measured: Path) -> None:
    rows = pd.read_parquet(measured / "out/path.parquet")
    mine = rows[(rows["folder"] == "step-00020") & (rows["part"] == 8)].set_index("tensor")
    found = compare(
        Checkpoint(SHIPPED_BASE), Checkpoint(measured / "run/step-00020"), SpectraSettings(draws=0)
    )
    top = found.angles[(found.angles["end"] == "top") & (found.angles["what"] == "change")]
    for tensor, group in top.groupby("tensor"):
        k = min(group["rows"].iloc[0], group["columns"].iloc[0]) // 8
        wanted = np.rad2deg(group.loc[group["k"] == k, "mean"].mean())
        assert mine.loc[tensor, "angle"] == pytest.approx(wanted, abs=1e-9)
    sizes = found.matrices.set_index("tensor")
    assert mine["change_norm"].to_numpy() == pytest.approx(sizes.loc[mine.index, "change_norm"].to_numpy())
