"""The page on released artefacts: laws against simulation, counts against enumeration, resolution against draws."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from rlheals import audit, audit_compared, audit_loading, audit_tables, markup
from rlheals import audit_resolution as resolved
from rlheals import audit_spectra as spectral
from rlheals.cards import ID_RULE, OOD_RULE, census
from rlheals.errors import BadInput
from rlheals.solver import Tree, solution_trees, solved_table

# --- laws


@pytest.mark.parametrize("shape", [(256, 1024), (512, 512), (300, 100)])
def test_singular_law_agrees_with_drawn_matrices(shape: tuple[int, int]) -> None:
    law = spectral.singular_law(*shape)
    drawn = torch.linalg.svdvals(spectral.gaussian(*shape, 4, "law")).numpy()
    assert law.shape == drawn.shape[1:]
    # fluctuations are about r^(-2/3) of the largest value at an edge, and about one spacing inside
    assert np.abs(drawn.mean(0) - law).max() < 0.025 * law[0]
    inside = slice(len(law) // 20, -len(law) // 20)
    assert np.abs(drawn.mean(0) - law)[inside].max() < 2 * law[0] / len(law)


def test_the_law_scales_with_the_spread_and_knows_its_energy() -> None:
    law = spectral.singular_law(400, 900, spread=0.02)
    assert spectral.singular_law(900, 400, spread=0.04) == pytest.approx(2 * law)
    assert (law**2).sum() == pytest.approx(400 * 900 * 0.02**2, rel=1e-3)


def test_quarter_circle_at_its_ends() -> None:
    law = spectral.singular_law(4096, 4096)
    assert law[0] == pytest.approx(2 * 0.02 * 64, rel=3e-3)
    assert np.all(np.diff(law) < 0)


@pytest.mark.parametrize(("n", "k"), [(400, 40), (400, 100), (400, 200), (400, 300), (400, 400)])
def test_angle_law_agrees_with_drawn_subspaces(n: int, k: int) -> None:
    law = spectral.angle_law(n, k)
    drawn = spectral.matrix_angles(n, [k], 4, "law")[k]
    assert drawn.shape == (4, k)
    assert np.abs(drawn.mean(0) - law).max() < math.radians(2)
    forced = max(0, 2 * k - n)
    assert (law == 0).sum() == forced
    # 1e-7 is the floor of the angles between computed bases
    assert np.all((drawn < 1e-6).sum(1) == forced)
    assert math.sqrt((np.sin(law) ** 2).mean()) == pytest.approx(spectral.chordal_law(n, k), abs=2e-3)
    assert np.sqrt((np.sin(drawn) ** 2).mean()) == pytest.approx(spectral.chordal_law(n, k), abs=2e-3)


def test_first_free_angle_is_that_of_wachter() -> None:
    a = 768 / 4096
    assert spectral.angle_law(4096, 768)[0] == pytest.approx(math.acos(2 * math.sqrt(a * (1 - a))), abs=0.01)


def test_updates_of_one_base_are_nearer_than_independent_matrices_and_scale() -> None:
    small = spectral.update_angles(128, 128, [32], 6, "small")[32].mean(0)
    large = spectral.update_angles(256, 256, [64], 3, "large")[64].mean(0)
    assert np.abs(large[::2] - small).max() < math.radians(3)
    assert np.all(large[:48] < spectral.angle_law(256, 64)[:48] - math.radians(5))


def test_randomised_values_lie_a_little_below_the_law() -> None:
    found = spectral.randomised_values(1024, 1024, 2, "pca")
    edge = spectral.singular_law(1024, 1024)[0]
    assert np.all(found < edge)
    assert np.all(found > 0.85 * edge)
    assert np.array_equal(found, spectral.randomised_values(1024, 1024, 2, "pca"))


def test_draws_leave_the_generator_of_the_caller_alone() -> None:
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    spectral.randomised_values(32, 32, 1, "pca")
    assert torch.equal(before, torch.rand(1))


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.9, 0.999), (0.5, 0.9)])
def test_no_gradients_move_an_entry_further_than_adam_can(betas: tuple[float, float]) -> None:
    most = audit_compared.largest_adam_step(0.1, betas)
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
def nulls() -> spectral.Nulls:
    """Nulls of the right shapes whose draws are the laws themselves, so that no large matrix is drawn."""
    value = spectral.singular_law(*spectral.KEY_SHAPE)
    quarter = spectral.QUERY_SIZE // spectral.QUARTER
    law = {
        "q": {k: np.stack([spectral.angle_law(quarter, k)] * 2) for k in (128, 192, 256)},
        "k": {768: np.stack([spectral.angle_law(1024, 768)] * 2)},
    }
    near = {kind: {k: 0.8 * angles for k, angles in table.items()} for kind, table in law.items()}
    largest = {kind: np.array([[1.0, 1.0]]) for kind in ("down", "q", "k", "v")}
    changes = np.random.default_rng(0).normal(0, 0.0015, (2, 1024))
    return spectral.Nulls(2, np.stack([value, value]), changes, value[None], largest, near, law)


def test_every_released_point_is_compared_and_a_wrong_one_is_outside(nulls: spectral.Nulls) -> None:
    frame = audit_compared.comparison(nulls)
    readings = frame.groupby(["quantity", "file", "value"]).ngroups
    facts = spectral.released()
    listed = sum(
        len(one["points"]) for key in ("singular_values", "diagonal", "angles") for one in facts[key]
    )
    assert readings >= listed + len(facts["chordal"])
    spectra = frame[frame["quantity"].str.startswith("singular value of")]
    assert spectra["inside"].sum() >= len(spectra) - 1  # the law of k_proj misses its edge by a little
    wrong = frame[frame["quantity"].str.contains("randomised")]
    assert not wrong["inside"].any()
    forced = frame[frame["quantity"].str.contains("that are 0")]
    assert forced["inside"].all()
    assert set(forced["low"]) == {512.0}


def test_every_group_of_facts_says_where_it_is_from() -> None:
    for key, group in spectral.released().items():
        for one in group if isinstance(group, list) else [group]:
            if key == "loading":
                assert {"transformers", "call"} <= one.keys()
                continue
            assert "651e59e" in one["source"], key
            assert "file" in one or "files" in one or key == "stages", key
            assert "how" in one or key == "stages", key


def test_simulate_needs_a_band() -> None:
    with pytest.raises(BadInput, match="1 draws, at least 2"):
        spectral.simulate(1)


# --- counts


@pytest.mark.parametrize("n", [48, 234])
def test_every_whole_count_is_found_and_nothing_else(n: int) -> None:
    whole = {f"{100 * k / n:.2f}": k for k in range(n + 1)}
    for cents in range(10_001):
        printed = f"{cents / 100:.2f}"
        k, fits = audit.nearest_count(printed, n)
        assert fits == (printed in whole)
        assert not fits or whole[printed] == k


def test_published_accuracies_hold_those_that_are_known_not_to_be_counts() -> None:
    frame = audit.accuracies()
    assert len(frame) == 108
    odd = frame[~frame["whole"]]
    assert {"6.92", "19.67", "80.23", "3.66", "4.12"} <= set(odd["printed"])
    assert (frame["off"].abs() <= 50 / frame["n"] + 1e-9).all()


# --- the straight line


def test_a_planted_line_is_recovered() -> None:
    x = np.array([9.23, 8.99, 8.71, 9.31, 9.08])
    found = audit.line(x, 7 * x + 5.5)
    assert (found.slope, found.intercept) == (pytest.approx(7), pytest.approx(5.5))
    assert found.residual < 1e-12


def test_curves_that_share_nothing_leave_far_more_than_rounding() -> None:
    fits = audit.copies()
    assert (fits["residual"] <= fits["by_rounding"]).all()
    assert (fits["sampled_low"] > 30 * fits["residual"]).all()
    sampled = audit.sampled_lines("Llama", draws=500)
    _, identity = audit.restored("Llama")
    p = identity.mean() / 100
    # two of the eleven degrees of freedom go into the line
    expected = 100 * math.sqrt(p * (1 - p) / audit.HANDS * 9 / 11)
    assert math.sqrt((sampled["residual"] ** 2).mean()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 2])])
def test_a_line_needs_points(x: list[float], y: list[float]) -> None:
    with pytest.raises(BadInput, match="line"):
        audit.line(x, y)


# --- resolution


def test_intervals_of_the_published_differences() -> None:
    frame = resolved.differences()
    qwen = frame[frame["model"] == "Qwen"]
    assert list(qwen["hands"]) == [-6, 6]
    assert ((qwen["low"] < 0) & (qwen["high"] > 0)).all()
    llama = frame[frame["model"] != "Qwen"]
    assert ((llama["low"] > 0) | (llama["high"] < 0)).all()


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("decodes", [1, 3])
def test_standard_errors_agree_with_simulated_evaluations(sampled: bool, decodes: int) -> None:
    generator = np.random.default_rng(5)
    population = generator.beta(0.5, 2, 4000)  # hands of very different difficulty
    p = float(population.mean())
    between = float(population.var() / (p * (1 - p)))
    hands = 200
    fixed = population[:hands]
    runs = []
    for _ in range(3000):
        chances = generator.choice(population, hands) if sampled else fixed
        runs.append(generator.binomial(decodes, chances).mean() / decodes)
    if not sampled:
        p = float(fixed.mean())
        between = float(fixed.var() / (p * (1 - p)))
    told = resolved.standard_error(p, hands, decodes, sampled, between)
    assert np.std(runs) == pytest.approx(told, rel=0.05)


def test_power_agrees_with_simulation_and_grows() -> None:
    generator = np.random.default_rng(7)
    n, before, after = 796, 0.2, 0.15
    k1, k2 = generator.binomial(n, before, 20_000), generator.binomial(n, after, 20_000)
    pooled = np.sqrt((k1 / n * (1 - k1 / n) + k2 / n * (1 - k2 / n)) / n)
    seen = float((np.abs(k1 - k2) / n > 1.96 * pooled).mean())
    assert resolved.power(before, 0.05, n, 1) == pytest.approx(seen, abs=0.02)
    assert resolved.power(before, 0.0, n, 1) == pytest.approx(0.05, abs=1e-9)
    assert resolved.smallest_drop(before, n, 4) < resolved.smallest_drop(before, n, 1)
    assert resolved.smallest_drop(before, n, 1, between=0.5) < resolved.smallest_drop(before, n, 1)
    assert math.isnan(resolved.smallest_drop(0.01, 5, 1))


def test_paired_changes() -> None:
    assert resolved.most_other_changes(20) > resolved.most_other_changes(6) == 0
    with pytest.raises(BadInput, match="net = 0"):
        resolved.most_other_changes(0)


# --- exact against floating point


def test_the_hand_that_floating_point_cannot_win() -> None:
    assert audit.rejected_by_float((3, 3, 8, 8)) == (1, 1)
    assert audit.unwinnable() == [("8/(3-8/3)", repr(8 / (3 - 8 / 3)))]
    assert audit.rejected_by_float((1, 2, 3, 4))[1] == 0


def test_counts_of_rejected_solutions_by_set() -> None:
    frame = audit.float_against_exact().set_index("hands_of")
    assert list(frame["hands"]) == [len(census("id")), len(census("ood")), 566, 1362]
    assert list(frame["hands_with_all"]) == [1, 0, 1, 1]
    assert list(frame["hands_with_some"])[2:] == [25, 45]
    for name, rule in (("ID census", ID_RULE), ("OOD census", OOD_RULE)):
        hands = Counter(tuple(sorted(rule.values(hand))) for hand in census(name.split()[0].lower()))
        assert frame.loc[name, "hands_with_some"] == sum(
            count for values, count in hands.items() if audit.rejected_by_float(values)[1]
        )


def test_rejected_hands_are_those_of_the_solution_trees() -> None:
    """An independent enumeration: merges of pairs instead of written layouts, the tree walked in floats."""

    def in_floats(tree: Tree) -> float:
        if isinstance(tree, int):
            return tree
        operator, left, right = tree
        a, b = in_floats(left), in_floats(right)
        return {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else math.nan}[operator]

    def exactly(tree: Tree) -> Fraction:
        if isinstance(tree, int):
            return Fraction(tree)
        operator, left, right = tree
        a, b = exactly(left), exactly(right)
        return a + b if operator == "+" else a - b if operator == "-" else a * b if operator == "*" else a / b

    for values in [*list(solved_table())[::40], (3, 3, 8, 8)]:
        trees = solution_trees(values)
        assert all(exactly(tree) == 24 for tree in trees)
        rejected = any(in_floats(tree) != 24 for tree in trees)
        found, lost = audit.rejected_by_float(values)
        assert found > 0
        assert rejected or lost == 0


# --- loading


@pytest.fixture(scope="module")
def routes() -> pd.DataFrame:
    return audit_loading.routes()


def test_names_that_do_not_fit_leave_the_text_weights_at_random(routes: pd.DataFrame) -> None:
    by_route = routes.set_index("route")
    right, wrong = by_route.loc[audit_loading.OWN], by_route.loc[audit_loading.STRICT_FALSE]
    assert (right["kept"], right["left_at_random"]) == (25, 0)
    assert (wrong["kept"], wrong["left_at_random"]) == (0, 25)
    assert wrong["redrawn"] == 16, "the matrices; norms and gates start from constants"
    assert wrong["spread"] == pytest.approx(spectral.SPREAD, rel=0.05)
    assert (routes["kept"] + routes["left_at_random"] == routes["tensors"]).all()


def test_the_loading_table_keeps_what_was_measured_apart(routes: pd.DataFrame) -> None:
    text = markup.to_markdown(audit_tables.loading(routes))
    assert "not on this page" in text
    assert spectral.released()["loading"]["transformers"] in text


def test_checks_hold_no_digits_of_floating_point(nulls: spectral.Nulls, routes: pd.DataFrame) -> None:
    report = audit.checks(nulls, routes)
    assert not any(
        "." in word.strip(".,:;") and word.strip(".,:;")[0].isdigit() for word in str(report).split()
    )
    assert "25 of 25 text tensors at random" in str(report)
