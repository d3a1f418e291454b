"""The page on released artefacts: counts against enumeration, resolution against draws."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from solution_trees import Tree, solution_trees

from rlheals.chapters.audit import numbers, resolution
from rlheals.errors import BadInput
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE, census
from rlheals.tasks.general_points.solver import solved_table

# --- counts


@pytest.mark.parametrize("n", [48, 234])
def test_every_whole_count_is_found_and_nothing_else(n: int) -> None:
    whole = {f"{100 * k / n:.2f}": k for k in range(n + 1)}
    for cents in range(10_001):
        printed = f"{cents / 100:.2f}"
        k, fits = numbers.nearest_count(printed, n)
        assert fits == (printed in whole)
        assert not fits or whole[printed] == k


def test_published_accuracies_hold_those_that_are_known_not_to_be_counts() -> None:
    frame = numbers.accuracies()
    assert len(frame) == 108
    odd = frame[~frame["whole"]]
    assert {"6.92", "19.67", "80.23", "3.66", "4.12"} <= set(odd["printed"])
    assert (frame["off"].abs() <= 50 / frame["n"] + 1e-9).all()


# --- the straight line


def test_a_planted_line_is_recovered() -> None:
    x = np.array([9.23, 8.99, 8.71, 9.31, 9.08])
    slope, intercept, residual = numbers.line([x, 2 * x], [7 * x + 5.5, x])
    assert slope == pytest.approx([7, 0.5])
    assert intercept == pytest.approx([5.5, 0])
    assert residual == pytest.approx([0, 0], abs=1e-12)
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    assert numbers.line(x, values)[:2] == pytest.approx(tuple(np.polyfit(x, values, 1)))


def test_curves_that_share_nothing_leave_far_more_than_rounding() -> None:
    fits = numbers.copies()
    assert (fits["residual"] <= fits["by_rounding"]).all()
    assert (fits["sampled_low"] > 30 * fits["residual"]).all()
    sampled = numbers.sampled_lines("Llama", draws=500)
    _, identity = numbers.restored("Llama")
    p = identity.mean() / 100
    # two of the eleven degrees of freedom go into the line
    expected = 100 * math.sqrt(p * (1 - p) / numbers.HANDS * 9 / 11)
    assert math.sqrt((sampled["residual"] ** 2).mean()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 2])])
def test_a_line_needs_points(x: list[float], y: list[float]) -> None:
    with pytest.raises(BadInput, match="line"):
        numbers.line(x, y)


# --- resolution


def test_intervals_of_the_published_differences() -> None:
    frame = resolution.differences()
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
    told = resolution.standard_error(p, hands, decodes, sampled, between)
    assert np.std(runs) == pytest.approx(told, rel=0.05)


def test_power_agrees_with_simulation_and_grows() -> None:
    generator = np.random.default_rng(7)
    n, before, after = 796, 0.2, 0.15
    k1, k2 = generator.binomial(n, before, 20_000), generator.binomial(n, after, 20_000)
    pooled = np.sqrt((k1 / n * (1 - k1 / n) + k2 / n * (1 - k2 / n)) / n)
    seen = float((np.abs(k1 - k2) / n > 1.96 * pooled).mean())
    assert resolution.power(before, 0.05, n, 1) == pytest.approx(seen, abs=0.02)
    assert resolution.power(before, 0.0, n, 1) == pytest.approx(0.05, abs=1e-9)
    assert resolution.smallest_drop(before, n, 4) < resolution.smallest_drop(before, n, 1)
    assert resolution.smallest_drop(before, n, 1, between=0.5) < resolution.smallest_drop(before, n, 1)
    assert math.isnan(resolution.smallest_drop(0.01, 5, 1))


def test_paired_changes() -> None:
    assert resolution.most_other_changes(20) > resolution.most_other_changes(6) == 0
    with pytest.raises(BadInput, match="net = 0"):
        resolution.most_other_changes(0)


# --- exact against floating point


def test_the_hand_that_floating_point_cannot_win() -> None:
    assert numbers.rejected_by_float((3, 3, 8, 8)) == (1, 1)
    assert numbers.unwinnable() == [("8/(3-8/3)", repr(8 / (3 - 8 / 3)))]
    assert numbers.rejected_by_float((1, 2, 3, 4))[1] == 0


def test_counts_of_rejected_solutions_by_set() -> None:
    frame = numbers.float_against_exact().set_index("hands_of")
    assert list(frame["hands"]) == [len(census("id")), len(census("ood")), 566, 1362]
    assert list(frame["hands_with_all"]) == [1, 0, 1, 1]
    assert list(frame["hands_with_some"])[2:] == [25, 45]
    for name, rule in (("ID census", ID_RULE), ("OOD census", OOD_RULE)):
        hands = Counter(tuple(sorted(rule.values(hand))) for hand in census(name.split()[0].lower()))
        assert frame.loc[name, "hands_with_some"] == sum(
            count for values, count in hands.items() if numbers.rejected_by_float(values)[1]
        )


def test_rejected_hands_are_those_of_the_solution_trees() -> None:
    """An independent enumeration: merges of pairs instead of written layouts, the tree walked in either arithmetic."""

    def value(tree: Tree, number: type) -> float | Fraction:
        if isinstance(tree, int):
            return number(tree)
        operator, a, b = tree[0], value(tree[1], number), value(tree[2], number)
        if operator == "/":
            return a / b if b else math.nan
        return {"+": a + b, "-": a - b, "*": a * b}[operator]

    for values in [*list(solved_table())[::40], (3, 3, 8, 8)]:
        trees = solution_trees(values)
        assert all(value(tree, Fraction) == 24 for tree in trees)
        rejected = any(value(tree, float) != 24 for tree in trees)
        found, lost = numbers.rejected_by_float(values)
        assert found > 0
        assert rejected or lost == 0
