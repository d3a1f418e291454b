"""Nulls of the page on released artefacts: laws against simulation, and released points beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlheals.chapters.audit import loading, numbers, spectra
from rlheals.errors import BadInput

# --- laws


@pytest.mark.parametrize("shape", [(256, 1024), (512, 512), (300, 100)])
def test_singular_law_agrees_with_drawn_matrices(shape: tuple[int, int]) -> None:
    law = spectra.singular_law(*shape)
    drawn = torch.linalg.svdvals(spectra.gaussian(*shape, 4, "law")).numpy()
    assert law.shape == drawn.shape[1:]
    # fluctuations are about r^(-2/3) of the largest value at an edge, and about one spacing inside
    assert np.abs(drawn.mean(0) - law).max() < 0.025 * law[0]
    inside = slice(len(law) // 20, -len(law) // 20)
    assert np.abs(drawn.mean(0) - law)[inside].max() < 2 * law[0] / len(law)


def test_the_law_scales_with_the_spread_and_knows_its_energy() -> None:
    law = spectra.singular_law(400, 900, spread=0.02)
    assert np.all(np.diff(law) < 0)
    assert spectra.singular_law(900, 400, spread=0.04) == pytest.approx(2 * law)
    assert (law**2).sum() == pytest.approx(400 * 900 * 0.02**2, rel=1e-3)


@pytest.mark.parametrize(("n", "k"), [(400, 40), (400, 100), (400, 200), (400, 300), (400, 400)])
def test_angle_law_agrees_with_drawn_subspaces(n: int, k: int) -> None:
    law = spectra.angle_law(n, k)
    drawn = spectra.matrix_angles(n, [k], 4, "law")[k]
    assert drawn.shape == (4, k)
    assert np.abs(drawn.mean(0) - law).max() < math.radians(2)
    forced = max(0, 2 * k - n)
    assert (law == 0).sum() == forced
    # 1e-7 is the floor of the angles between computed bases
    assert np.all((drawn < 1e-6).sum(1) == forced)
    for angles in (law, drawn):
        assert math.sqrt((np.sin(angles) ** 2).mean()) == pytest.approx(spectra.chordal_law(n, k), abs=2e-3)


def test_first_free_angle_is_that_of_wachter() -> None:
    a = 768 / 4096
    assert spectra.angle_law(4096, 768)[0] == pytest.approx(math.acos(2 * math.sqrt(a * (1 - a))), abs=0.01)


def test_updates_of_one_base_are_nearer_than_independent_matrices_and_scale() -> None:
    small = spectra.update_angles(128, 128, [32], 6, "small")[32].mean(0)
    large = spectra.update_angles(256, 256, [64], 3, "large")[64].mean(0)
    assert np.abs(large[::2] - small).max() < math.radians(3)
    assert np.all(large[:48] < spectra.angle_law(256, 64)[:48] - math.radians(5))


def test_randomised_values_lie_a_little_below_the_law_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    found = spectra.randomised_values(1024, 1024, 2, "pca")
    assert torch.equal(before, torch.rand(1))
    edge = spectra.singular_law(1024, 1024)[0]
    assert np.all(found < edge)
    assert np.all(found > 0.85 * edge)
    assert np.array_equal(found, spectra.randomised_values(1024, 1024, 2, "pca"))


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.9, 0.999), (0.5, 0.9)])
def test_no_gradients_move_an_entry_further_than_adam_can(betas: tuple[float, float]) -> None:
    most = spectra.largest_adam_step(0.1, betas)
    worst = 0.0
    b1, b2 = betas
    ratio = b1 / b2  # the gradients that reach the bound grow by this factor backwards in time
    for gradients in ([1.0] * 60, [ratio ** (300 - t) for t in range(300)], [(-1.0) ** t for t in range(60)]):
        weight = torch.zeros(1, requires_grad=True)
        adam = torch.optim.Adam([weight], lr=0.1, betas=betas, eps=0.0)
        for gradient in gradients:
            before = weight.item()
            weight.grad = torch.tensor([gradient])
            adam.step()
            worst = max(worst, abs(weight.item() - before))
    assert worst <= most * 1.001
    assert worst > 0.5 * most


# --- released points beside nulls


@pytest.fixture(scope="module")
def nulls() -> spectra.Nulls:
    """Nulls of the right shapes whose draws are the laws themselves, so that no large matrix is drawn."""
    value = spectra.singular_law(*spectra.KEY_SHAPE)
    quarter = spectra.QUERY_SIZE // spectra.QUARTER
    law = {
        "q": {k: np.stack([spectra.angle_law(quarter, k)] * 2) for k in (128, 192, 256)},
        "k": {768: np.stack([spectra.angle_law(1024, 768)] * 2)},
    }
    near = {kind: {k: 0.8 * angles for k, angles in table.items()} for kind, table in law.items()}
    largest = {kind: np.array([[1.0, 1.0]]) for kind in ("down", "q", "k", "v")}
    changes = np.random.default_rng(0).normal(0, 0.0015, (2, 1024))
    return spectra.Nulls(2, np.stack([value, value]), changes, value[None], largest, near, law)


def test_every_released_point_is_compared_and_a_wrong_one_is_outside(nulls: spectra.Nulls) -> None:
    frame = spectra.comparison(nulls)
    readings = frame.groupby(["quantity", "file", "value"]).ngroups
    facts = spectra.released()
    listed = sum(
        len(one["points"]) for key in ("singular_values", "diagonal", "angles") for one in facts[key]
    )
    assert readings >= listed + len(facts["chordal"])
    singular = frame[frame["quantity"].str.startswith("singular value of")]
    assert singular["inside"].sum() >= len(singular) - 1  # the law of k_proj misses its edge by a little
    wrong = frame[frame["quantity"].str.contains("randomised")]
    assert not wrong["inside"].any()
    forced = frame[frame["quantity"].str.contains("that are 0")]
    assert forced["inside"].all()
    assert set(forced["low"]) == {512.0}


def test_every_group_of_facts_says_where_it_is_from() -> None:
    for key, group in spectra.released().items():
        for one in group if isinstance(group, list) else [group]:
            assert "651e59e" in one["source"], key
            assert "file" in one or "files" in one or key == "stages", key
            assert "how" in one or key == "stages", key


def test_simulate_needs_a_band() -> None:
    with pytest.raises(BadInput, match="1 draws, at least 2"):
        spectra.simulate(1)


# --- checks


def test_checks_hold_no_digits_of_floating_point(nulls: spectra.Nulls) -> None:
    report = numbers.checks(nulls, loading.routes())
    assert not any(
        "." in word.strip(".,:;") and word.strip(".,:;")[0].isdigit() for word in str(report).split()
    )
    assert "25 of 25 text tensors at random" in str(report)
