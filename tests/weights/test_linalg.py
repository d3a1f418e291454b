"""Decompositions and angles, and null models: constructed cases, invariances, other libraries, and what theory says."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from rlheals.errors import BadInput
from rlheals.weights import linalg
from rlheals.weights.linalg import (
    ENDS,
    SIDES,
    Overlap,
    concentration,
    decompose,
    effective_rank,
    energies,
    orthonormal,
    principal_angles,
    projector_distance,
    value_changes,
)
from rlheals.weights.nulls import NULLS, haar, null

SHAPES = [(12, 12), (9, 30), (30, 9), (1, 7), (7, 1)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed))[0]


def power_law(m: int, n: int, exponent: float = 1.0, seed: int = 0) -> torch.Tensor:
    r = min(m, n)
    s = torch.arange(1, r + 1, dtype=torch.float64) ** -exponent
    return rotation(m, seed)[:, :r] * s @ rotation(n, seed + 1)[:, :r].T


# Angles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "angle", [0.0, 1e-15, 1e-7, 1e-6, 1e-4, 0.01, 0.5, math.pi / 4, 1.2, math.pi / 2 - 1e-7, math.pi / 2]
)
def test_constructed_angles_are_found_from_the_smallest_to_the_right_angle(angle: float) -> None:
    q = rotation(50)
    a, b = q[:, :6], math.cos(angle) * q[:, :6] + math.sin(angle) * q[:, 6:12]
    found = principal_angles(a @ rotation(6, 3), b @ rotation(6, 4))
    assert found.tolist() == pytest.approx([angle] * 6, abs=1e-14 if angle < 1 else 1e-9)


def test_angles_of_different_sizes_come_in_ascending_order_and_batches_one_by_one() -> None:
    q, wanted = rotation(20), torch.tensor([1e-7, 0.3, 1.5], dtype=torch.float64)
    a = q[:, :5] @ rotation(5, 1)
    b = (torch.cos(wanted) * q[:, :3] + torch.sin(wanted) * q[:, 5:8]) @ rotation(3, 2)
    for one, other in ((a, b), (b, a)):
        assert principal_angles(one, other).tolist() == pytest.approx(wanted.tolist(), abs=1e-12)
    a, b = normal(4, 15, 3, seed=1), normal(4, 15, 3, seed=2)
    together = principal_angles(a, b)
    for i in range(4):
        assert together[i].tolist() == pytest.approx(principal_angles(a[i], b[i]).tolist(), abs=1e-14)


def test_a_subspace_and_itself_are_exactly_0_apart_in_whatever_basis() -> None:
    a = rotation(40)[:, :7]
    for basis in (a, -a, a[:, torch.randperm(7)], a @ rotation(7, 5), 3 * a @ normal(7, 7, seed=6)):
        assert principal_angles(a, basis).tolist() == [0.0] * 7
    q = rotation(9)[:, :4]
    assert orthonormal(q) is q
    made = orthonormal(1e-9 * q * torch.tensor([1.0, 1e5, 1e-5, 1.0]))
    assert torch.dist(made.T @ made, torch.eye(4, dtype=torch.float64)) < 1e-13
    assert principal_angles(made, q).max() < 1e-14


def test_mpmath_agrees_on_small_cases_far_below_what_float32_can_see() -> None:
    """The angle of two lines, and of two planes in space, with fifty digits."""
    mpmath.mp.dps = 50
    for step in (1e-9, 1e-5, 0.1, 2.0):
        a, b = [3.0, -1.0, 2.0], [3.0 + step, -1.0, 2.0 - step]
        exact = _angle(a, b)
        columns = [torch.tensor(one, dtype=torch.float64)[:, None] for one in (a, b)]
        assert float(principal_angles(*columns)[0]) == pytest.approx(float(exact), rel=1e-7, abs=1e-15)
        planes = [torch.linalg.svd(column)[0][:, 1:] for column in columns]  # their normals are a and b
        assert float(principal_angles(*planes)[1]) == pytest.approx(float(exact), rel=1e-6, abs=1e-15)


def _angle(a: list[float], b: list[float]) -> mpmath.mpf:
    x, y = mpmath.matrix(a), mpmath.matrix(b)
    cosine = (x.T * y)[0] / mpmath.norm(x) / mpmath.norm(y)
    return mpmath.acos(cosine)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(5, 2), torch.eye(5)[:, :2]),
        (torch.ones(5, 2), torch.eye(5)[:, :2]),
        (torch.eye(5)[:, :2], torch.eye(6)[:, :2]),
        (torch.eye(5)[:, :2], torch.full((5, 1), torch.nan)),
        (torch.eye(3), torch.ones(3, 0)),
        (torch.ones(2, 3), torch.ones(2, 3)),
    ],
    ids=["zero", "dependent", "other space", "nan", "empty", "too many"],
)
def test_what_spans_no_subspace_is_refused(a: torch.Tensor, b: torch.Tensor) -> None:
    with pytest.raises(BadInput):
        principal_angles(a, b)


# Decompositions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
def test_a_decomposition_gives_the_matrix_back(shape: tuple[int, int], method: str) -> None:
    w = torch.stack([normal(*shape, seed=1), power_law(*shape, seed=2)])
    found = decompose(w, method)
    r = min(shape)
    assert torch.dist((found.u * found.s[:, None, :]) @ found.v.mT, w) < 1e-12
    assert (found.s.diff(dim=-1) <= 0).all()
    for side in SIDES:
        vectors = found.side(side)
        assert torch.dist(vectors.mT @ vectors, torch.eye(r, dtype=torch.float64).expand(2, r, r)) < 1e-12


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_gram_and_svd_find_the_same_subspaces(exponent: float) -> None:
    w = power_law(60, 200, exponent)
    fast, slow = decompose(w, "gram"), decompose(w, "svd")
    assert torch.allclose(fast.s, slow.s, rtol=1e-9, atol=0)
    for side in SIDES:
        overlap = Overlap.of(slow.side(side), fast.side(side))
        for k in (1, 10, 30, 59):
            for end in ENDS:
                assert overlap.angles(k, end).max() < 1e-6


def test_where_squaring_would_cost_the_small_directions_the_whole_way_is_taken() -> None:
    w = power_law(20, 40, 5.0)  # smallest to largest: 3e-7
    assert torch.equal(decompose(w).v, decompose(w, "svd").v)
    assert torch.equal(decompose(power_law(20, 40, 1.0)).v, decompose(power_law(20, 40, 1.0), "gram").v)
    with pytest.raises(BadInput, match="singular"):
        decompose(torch.zeros(3, 5), "gram")


def test_ranks_of_zero_products_and_equal_directions_gaps_and_changes_beyond_the_rank() -> None:
    assert decompose(torch.zeros(4, 6)).rank == 0
    assert decompose(normal(10, 3) @ normal(3, 8, seed=1)).rank == 3
    assert decompose(torch.stack([torch.eye(3), torch.zeros(3, 3)])).rank.tolist() == [3, 0]
    for r in (1, 3, 8):
        delta = 0.7 * rotation(10)[:, :r] @ rotation(14, 1)[:, :r].T
        for matrix in (delta, delta.T, 1e-20 * delta):
            assert float(effective_rank(matrix)) == pytest.approx(r)
    before = decompose(normal(6, 2) @ normal(2, 6, seed=1))
    changes = value_changes(before, decompose(normal(6, 6, seed=2)))
    assert torch.isfinite(changes).tolist() == [True, True, False, False, False, False]
    base = decompose(torch.diag(torch.tensor([4.0, 3.0, 3.0, 1.0])))
    assert [float(base.gap(k)) for k in (1, 2, 3, 4)] == pytest.approx([0.25, 0.0, 2 / 3, 1.0])
    assert [float(base.gap(k, "bottom")) for k in (1, 2, 3, 4)] == pytest.approx([2 / 3, 0.0, 0.25, 1.0])


@pytest.mark.parametrize(
    "w", [torch.tensor([[1.0, math.nan]]), torch.tensor([[math.inf]]), torch.ones(3), torch.ones(0, 3)]
)
def test_what_is_no_finite_matrix_is_refused(w: torch.Tensor) -> None:
    with pytest.raises(BadInput, match="decompose"):
        decompose(w)


# Overlaps: all leading subspaces at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (9, 30), (30, 9)], ids=str)
def test_an_overlap_gives_the_angles_of_every_k_at_either_end(shape: tuple[int, int]) -> None:
    w = normal(*shape, seed=1)
    one, other = decompose(w), decompose(w + 0.3 * normal(*shape, seed=2))
    r = min(shape)
    for side in SIDES:
        a, b = one.side(side), other.side(side)
        overlap = Overlap.of(a, b)
        for k in range(1, r + 1):
            assert torch.allclose(overlap.angles(k), principal_angles(a[:, :k], b[:, :k]), atol=1e-12)
            wanted = principal_angles(a[:, r - k :], b[:, r - k :])
            assert torch.allclose(overlap.angles(k, "bottom"), wanted, atol=1e-12)
            distance = torch.dist(a[:, :k] @ a[:, :k].T, b[:, :k] @ b[:, :k].T)
            assert float(projector_distance(overlap.angles(k))) == pytest.approx(float(distance), abs=1e-12)
        with pytest.raises(BadInput, match=f"accepted are 1 to {r}"):
            overlap.angles(r + 1)


def test_many_directions_are_compared_to_a_ten_millionth(monkeypatch: pytest.MonkeyPatch) -> None:
    q, wanted = rotation(30), torch.tensor([1e-9, 3e-7, 1e-4, 0.1, 1.0, 1.5707], dtype=torch.float64)
    a = q[:, :6] @ rotation(6, 1)
    b = (torch.cos(wanted) * q[:, :6] + torch.sin(wanted) * q[:, 6:12]) @ rotation(6, 2)
    exact = Overlap.of(a, b).angles(6)
    assert torch.allclose(exact, wanted, rtol=1e-9, atol=1e-15)
    monkeypatch.setattr(linalg, "EXACT", 5)
    fast = Overlap.of(a, b)
    assert fast.rest is None
    found = fast.angles(6)
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1.5e-7)
    assert found[0] == 0
    for k in range(1, 7):
        for end in ENDS:
            wanted_k = (
                principal_angles(a[:, :k], b[:, :k])
                if end == "top"
                else principal_angles(a[:, 6 - k :], b[:, 6 - k :])
            )
            assert torch.allclose(fast.angles(k, end), wanted_k, atol=1.5e-7)


def angles(before: torch.Tensor, after: torch.Tensor, k: int = 4) -> list[float]:
    one, other = decompose(before), decompose(after)
    return [
        angle
        for side in SIDES
        for end in ENDS
        for angle in Overlap.of(one.side(side), other.side(side)).angles(k, end).tolist()
    ]


def test_sign_scale_order_and_transposition_change_no_angle() -> None:
    w, after = normal(10, 14), normal(10, 14) + 0.2 * normal(10, 14, seed=1)
    found = angles(w, after)
    assert max(found) > 0.05
    assert angles(-w, after) == pytest.approx(found, abs=1e-10)
    assert angles(1e-6 * w, 1e6 * after) == pytest.approx(found, abs=1e-10)
    rows, columns = torch.randperm(10), torch.randperm(14)
    assert angles(w[rows][:, columns], after[rows][:, columns]) == pytest.approx(found, abs=1e-10)
    left, right = rotation(10, 5), rotation(14, 6)
    assert angles(left @ w @ right, left @ after @ right) == pytest.approx(found, abs=1e-10)
    transposed = angles(w.T, after.T)
    assert transposed[8:] + transposed[:8] == pytest.approx(found, abs=1e-10)


def test_scaling_values_turns_nothing_and_turning_directions_changes_no_value() -> None:
    w = power_law(12, 20, 0.5)
    base = decompose(w)
    stretched = (base.u * (base.s * torch.linspace(1.2, 1.0, 12, dtype=torch.float64))) @ base.v.T
    assert max(angles(w, stretched)) < 1e-12
    turned = torch.linalg.matrix_exp(0.1 * (normal(12, 12) - normal(12, 12).T)) @ w
    assert value_changes(base, decompose(turned)).abs().max() < 1e-12
    assert max(angles(w, turned)) > 0.05


# What a change is made of ---------------------------------------------------------------------------------------------


def test_energies_tell_stretching_from_turning_and_from_what_is_new() -> None:
    w = power_law(6, 9)
    base = decompose(w)
    stretch = (base.u * torch.arange(6)) @ base.v.T
    inside = base.u @ (normal(6, 6) * (1 - torch.eye(6))) @ base.v.T
    new = base.u @ normal(6, 9) @ (torch.eye(9, dtype=torch.float64) - base.v @ base.v.T)
    for delta, wanted in ((stretch, (1, 0)), (inside, (0, 1)), (new, (0, 0)), (torch.zeros(6, 9), (0, 0))):
        assert [float(share) for share in energies(base, delta)] == pytest.approx(wanted, abs=1e-12)
    both = [float(share) for share in energies(base, stretch / stretch.norm() + new / new.norm())]
    assert both == pytest.approx((0.5, 0.0), abs=1e-12)


def test_white_noise_is_concentrated_nowhere_and_a_change_of_one_direction_in_one_block() -> None:
    base = decompose(power_law(40, 50, 0.5))
    noise = normal(400, 40, 50, seed=9)
    mean = concentration(base, noise, 8).mean(0)
    assert mean.shape == (8, 8)
    assert (mean - 1).abs().max() < 5 * math.sqrt(2 / (400 * 25))
    one = base.u[:, 7:8] @ base.v[:, 39:40].T
    cells = concentration(base, one, 8)
    assert torch.nonzero(cells > 1e-9).tolist() == [[1, 7]]
    assert float(cells[1, 7]) == pytest.approx(2000 / 25)
    assert concentration(base, torch.zeros(40, 50)).abs().max() == 0
    assert concentration(base, one).shape == (32, 32)


# Null models ---------------------------------------------------------------------------------------------------------


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


def test_every_null_keeps_what_it_says_and_nothing_else() -> None:
    made = null("permuted", W, DELTA, 2, "k") - W
    for one in made:
        assert torch.allclose(one.flatten().sort().values, DELTA.flatten().sort().values, atol=1e-12)
    made = null("turned", W, DELTA, DRAWS, "k") - W
    assert torch.allclose(decompose(made).s, decompose(DELTA).s.expand(DRAWS, -1), rtol=1e-9)
    first, mine = decompose(made).u[:, :, 0], decompose(DELTA).u[:, 0]
    squares = (first @ mine).square()
    # a random line in 20 dimensions: the squared cosine is Beta(1/2, 19/2)
    assert scipy.stats.kstest(squares.numpy(), scipy.stats.beta(0.5, 9.5).cdf).pvalue > 1e-3
    made = null("independent", W, DELTA, DRAWS, "k")
    assert torch.allclose(made.flatten(1).norm(dim=1), W.norm(), rtol=1e-10)
    correlation = (made * W).sum((1, 2)) / W.norm() ** 2
    assert float(correlation.abs().max()) < 5 / math.sqrt(600)
    made = null("ulp", W, DELTA, DRAWS, "k")
    rounded = W.to(torch.bfloat16)
    assert torch.equal(made.to(torch.bfloat16).double(), made)
    steps = made.to(torch.bfloat16).view(torch.int16).int() - rounded.view(torch.int16).int()
    assert set(steps.abs().flatten().tolist()) == {1}
    assert 0.45 < float((steps > 0).double().mean()) < 0.55
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


def test_a_small_gaussian_change_moves_directions_and_values_as_perturbation_theory_says() -> None:
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
    # s_i moves by u_i^T dW v_i, Gaussian with the standard deviation of one entry
    s = torch.linspace(3.0, 1.0, 10, dtype=torch.float64)
    w = haar(10, 10, 1, "u")[0] * s @ haar(10, 10, 1, "v")[0].T
    after = decompose(null("gaussian", w, torch.full((10, 10), 1e-4), 2000, "k"))
    moved = ((after.s[:, 0] - s[0]) / 1e-4).numpy()
    assert scipy.stats.kstest(moved, scipy.stats.norm.cdf).pvalue > 1e-3
    assert np.std(moved) == pytest.approx(1, abs=0.08)
