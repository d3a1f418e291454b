"""Null models: what they keep, that they are as random as they say, and what theory says they turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from rlheals.errors import BadInput
from rlheals.weights.linalg import Overlap, decompose, principal_angles
from rlheals.weights.nulls import NULLS, haar, null

W = torch.randn((20, 30), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
DELTA = 0.1 * torch.randn((20, 30), generator=torch.Generator().manual_seed(2), dtype=torch.float64).exp()
DRAWS = 40


@pytest.mark.parametrize("name", NULLS)
def test_the_key_decides_and_every_draw_is_another(name: str) -> None:
    one, again, other = (null(name, W, DELTA, 3, key) for key in ("a", "a", "b"))
    assert one.shape == (3, 20, 30)
    assert one.dtype == torch.float64
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize("name", ["gaussian", "permuted", "turned"])
def test_a_change_keeps_its_size(name: str) -> None:
    sizes = (null(name, W, DELTA, DRAWS, "k") - W).flatten(1).norm(dim=1)
    assert torch.allclose(sizes, DELTA.norm(), rtol=1e-10)


def test_permuted_entries_are_the_same_entries() -> None:
    made = null("permuted", W, DELTA, 2, "k") - W
    for one in made:
        assert torch.allclose(one.flatten().sort().values, DELTA.flatten().sort().values, atol=1e-12)


def test_turned_keeps_singular_values_and_no_direction() -> None:
    made = null("turned", W, DELTA, DRAWS, "k") - W
    assert torch.allclose(decompose(made).s, decompose(DELTA).s.expand(DRAWS, -1), rtol=1e-9)
    first, mine = decompose(made).u[:, :, 0], decompose(DELTA).u[:, 0]
    squares = (first @ mine).square()
    # a random line in 20 dimensions: the squared cosine is Beta(1/2, 19/2)
    assert scipy.stats.kstest(squares.numpy(), scipy.stats.beta(0.5, 9.5).cdf).pvalue > 1e-3


def test_an_ulp_is_the_distance_to_a_neighbouring_bfloat16() -> None:
    made = null("ulp", W, DELTA, DRAWS, "k")
    rounded = W.to(torch.bfloat16)
    assert torch.equal(made.to(torch.bfloat16).double(), made)
    steps = made.to(torch.bfloat16).view(torch.int16).int() - rounded.view(torch.int16).int()
    assert set(steps.abs().flatten().tolist()) == {1}
    assert 0.45 < float((steps > 0).double().mean()) < 0.55


def test_independent_matrices_have_the_norm_of_the_base_and_nothing_else_of_it() -> None:
    made = null("independent", W, DELTA, DRAWS, "k")
    assert torch.allclose(made.flatten(1).norm(dim=1), W.norm(), rtol=1e-10)
    correlation = (made * W).sum((1, 2)) / W.norm() ** 2
    assert float(correlation.abs().max()) < 5 / math.sqrt(600)


def test_an_unknown_null_is_refused() -> None:
    with pytest.raises(BadInput, match="'shuffled' is not one of gaussian"):
        null("shuffled", W, DELTA, 1, "k")


# Haar ---------------------------------------------------------------------------------------------------------------


def test_random_bases_are_orthonormal_and_uniform() -> None:
    n, draws = 6, 4000
    made = haar(n, n, draws, "haar")
    assert torch.allclose(made.mT @ made, torch.eye(n, dtype=torch.float64), atol=1e-12)
    for row, column in ((0, 0), (3, 0), (5, 5), (0, 4)):
        entries = made[:, row, column].numpy()
        # an entry of a uniform unit vector in n dimensions: its square is Beta(1/2, (n - 1)/2), its sign is fair
        assert scipy.stats.kstest(entries**2, scipy.stats.beta(0.5, (n - 1) / 2).cdf).pvalue > 1e-3
        assert scipy.stats.binomtest(int((entries > 0).sum()), draws).pvalue > 1e-3
    # the trace of a Haar orthogonal matrix has mean 0 and variance 1 (Diaconis and Shahshahani 1994)
    traces = made.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(traces.mean())) < 4 / math.sqrt(draws)
    assert float(traces.var()) == pytest.approx(1, abs=0.15)


def test_plain_qr_would_not_be_uniform() -> None:
    """The mistake that `haar` avoids is one that the test above sees."""
    random = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn((4000, 6, 6), generator=random, dtype=torch.float64))
    positive = int((q[:, 0, 0] > 0).sum())
    assert scipy.stats.binomtest(positive, 4000).pvalue < 1e-9


@pytest.mark.parametrize(("k", "n"), [(1, 12), (4, 12), (6, 12), (9, 12)])
def test_independent_subspaces_stand_at_the_angles_of_theory(k: int, n: int) -> None:
    """Squared cosines of two random k-subspaces sum to k^2 / n on average; 2k - n of the angles are 0 at least."""
    draws = 2000
    found = principal_angles(haar(n, k, draws, "a"), haar(n, k, draws, "b"))
    sums = torch.cos(found).square().sum(1)
    error = float(sums.std()) / math.sqrt(draws)
    assert abs(float(sums.mean()) - k * k / n) < 4 * error + 1e-12
    zeros = max(0, 2 * k - n)
    assert (found[:, :zeros] == 0).all()
    assert (found[:, zeros:] > 0).all()
    if k == 1:
        squares = torch.cos(found[:, 0]).square().numpy()
        assert scipy.stats.kstest(squares, scipy.stats.beta(0.5, (n - 1) / 2).cdf).pvalue > 1e-3


# What a small Gaussian change turns ----------------------------------------------------------------------------------


def test_a_small_gaussian_change_turns_directions_as_perturbation_theory_says() -> None:
    """First order: the squared sine of u_1 is entry^2 sum_j (s1^2 + sj^2) / (s1^2 - sj^2)^2 on average."""
    m, n, draws = 12, 12, 3000
    s = torch.linspace(3.0, 1.0, n, dtype=torch.float64)
    w = haar(m, n, 1, "u")[0] * s @ haar(n, n, 1, "v")[0].T
    delta = torch.full((m, n), 1e-4, dtype=torch.float64)
    base, after = decompose(w), decompose(null("gaussian", w, delta, draws, "k"))
    overlap = Overlap.of(base.u.expand(draws, -1, -1), after.u)
    sines = torch.sin(overlap.angles(1)[:, 0]).square()
    theory = float((((s[0] ** 2 + s[1:] ** 2) / (s[0] ** 2 - s[1:] ** 2) ** 2).sum()) * 1e-8)
    assert float(sines.mean()) == pytest.approx(theory, abs=4 * float(sines.std()) / math.sqrt(draws))


def test_a_value_changes_by_the_noise_along_its_own_direction() -> None:
    """First order: s_i moves by u_i^T dW v_i, Gaussian with the standard deviation of one entry."""
    s = torch.linspace(3.0, 1.0, 10, dtype=torch.float64)
    w = haar(10, 10, 1, "u")[0] * s @ haar(10, 10, 1, "v")[0].T
    after = decompose(null("gaussian", w, torch.full((10, 10), 1e-4), 2000, "k"))
    moved = ((after.s[:, 0] - s[0]) / 1e-4).numpy()
    assert scipy.stats.kstest(moved, scipy.stats.norm.cdf).pvalue > 1e-3
    assert np.std(moved) == pytest.approx(1, abs=0.08)
