"""Rank: exact, and not to be seen in magnitudes."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.base import Task
from rlheals.tasks.guesses import nearest
from rlheals.tasks.matrices import Matrix, as_matrix, part_of, rank

RANK = load_task("rank")
REFERENCE = load_task("rank", compat="reference")


def by_fractions(matrix: Matrix) -> int:
    """Pivots of Gaussian elimination."""
    rows, found = [[Fraction(x) for x in row] for row in matrix], 0
    for column in range(len(matrix[0])):
        pivot = next((row for row in rows[found:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        rows.insert(found, pivot)
        for index in range(found + 1, len(rows)):
            factor = rows[index][column] / pivot[column]
            rows[index] = [x - factor * y for x, y in zip(rows[index], pivot, strict=True)]
        found += 1
    return found


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
matrices = shapes.flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(-3, 3), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


@given(matrices, st.integers(-5, 5), st.randoms())
def test_elimination_finds_the_rank_of_fractions_whatever_the_order(
    rows: list[list[int]], factor: int, chance: random.Random
) -> None:
    matrix = as_matrix(rows)
    assert rank(matrix) == by_fractions(matrix) == rank(tuple(zip(*matrix, strict=True)))
    dependent = [factor * x - 2 * y for x, y in zip(rows[0], rows[-1], strict=True)]
    more = [*rows, dependent]
    chance.shuffle(more)
    assert rank(as_matrix(more)) == rank(matrix)


@pytest.mark.parametrize("task", [RANK, REFERENCE])
def test_the_expert_solves_every_item_and_no_other_rank_does(task: Task) -> None:
    for split in (*task.splits, "id", *(f"rule:{rule}" for rule in task.rules)):
        items = task.items(split)
        assert len({item.id for item in items}) == len(items) > 0
        assert all(task.grade(item, task.expert(item)).solved for item in items)
        for item in items[:100]:
            right = by_fractions(item.payload)
            assert task.answers(item) == (f'{{"answer": {right}}}',)
            assert [n for n in range(-5, 9) if task.grade(item, str(n)).solved] == [right]


@pytest.mark.parametrize(
    ("rule", "shape", "largest"),
    [("id", (4, 5), 9), ("ood", (5, 4), 12), ("5x4", (5, 4), 9), ("large", (4, 5), 12)],
)
def test_every_rank_has_the_same_absolute_entries_and_ten_negative_ones(
    rule: str, shape: tuple[int, int], largest: int
) -> None:
    sets: dict[int, Counter[tuple[int, ...]]] = {wanted: Counter() for wanted in (1, 2, 3, 4)}
    for item in RANK.items("id" if rule == "id" else f"rule:{rule}"):
        entries = [entry for row in item.payload for entry in row]
        assert np.shape(item.payload) == shape
        assert sum(entry < 0 for entry in entries) == 10
        assert 0 < min(map(abs, entries)) <= max(map(abs, entries)) <= largest
        sets[rank(item.payload)][tuple(sorted(map(abs, entries)))] += 1
    assert sets[1] == sets[2] == sets[3] == sets[4]
    assert len(sets[1]) > 20


def test_splits_have_no_set_of_entries_in_common() -> None:
    for split in ("sft", "rl", "held_out"):
        assert {part_of(item.payload) for item in RANK.items(split)} == {split}
        assert len(RANK.items(split)) > 400


def test_magnitudes_say_nothing_about_the_rank_and_much_in_the_reference() -> None:
    train, reference = RANK.solved("sft"), REFERENCE.solved("sft")
    for split in ("held_out", "ood"):
        for tries in (1, 2):
            assert abs(nearest(train, RANK.solved(split), tries) - tries / 4) <= 0.05
        assert nearest(reference, REFERENCE.solved(split)) > 0.4
    score = RANK.chance()["1 guesses by magnitude on held_out"]
    assert f"chance, 1 guesses by magnitude on held_out: {score:.3f}" in RANK.facts()


def test_a_classifier_of_signed_entries_without_their_places_has_chance_too() -> None:
    """Held-out matrices, nearest neighbours by how often every value occurs: the signs are not matched one by one."""

    def histograms(split: str) -> tuple[np.ndarray, np.ndarray]:
        found, answers = RANK.solved(split)
        return np.array([np.bincount(np.ravel(m) + 12, minlength=25) for m in found]), np.array(answers)

    (mine, right), (theirs, wanted) = histograms("sft"), histograms("held_out")
    closest = np.argsort(((theirs[:, None] - mine[None]) ** 2).sum(2), axis=1, kind="stable")[:, :15]
    guessed = [np.bincount(right[row], minlength=5).argmax() for row in closest]
    assert abs(np.mean(guessed == wanted) - 0.25) <= 0.05


def test_the_reference_draws_zero_matrices_and_compares_modulo_1000() -> None:
    drawn = [item.payload for item in REFERENCE.items("id")]
    assert 0.17 < sum(not any(map(any, matrix)) for matrix in drawn) / len(drawn) < 0.23
    item = next(item for item in RANK.items("sft") if rank(item.payload) == 3)
    assert REFERENCE.grade(item, "1003").solved
    assert not RANK.grade(item, "1003").solved
    assert REFERENCE.grade(item, "a 4x5 matrix").category == "wrong"
    assert RANK.grade(item, "a 4x5 matrix").category == "unreadable"


@pytest.mark.parametrize("reply", [None, 3, 3.0, b"3"])
def test_replies_that_are_no_text_are_bad_input(reply: Any) -> None:
    with pytest.raises(BadInput, match="text is accepted"):
        RANK.grade(RANK.items("ood")[0], reply)


def test_replies_of_a_megabyte_are_refused() -> None:
    item = RANK.items("ood")[0]
    for reply in (
        "3" * 10**6,
        "3 " * 10**6,
        '{"answer": ' * 10**5,
        "{" * 10**6,
        '"answer":' + " " * 10**6 + "3,",
    ):
        assert not RANK.grade(item, reply).solved


def test_it_is_for_language_models_only() -> None:
    assert RANK.words == ()
    with pytest.raises(BadInput, match="no words for a model that is trained from scratch"):
        RANK.dialect()
