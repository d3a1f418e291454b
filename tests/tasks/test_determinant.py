"""Determinants, in words and as stated rules, and ranks: exact, separate splits, hostile replies, chance."""

from __future__ import annotations

import json
import random
from collections import Counter
from fractions import Fraction
from itertools import islice, permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_helpers import refused

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.base import Item, Task
from rlheals.tasks.determinant_rules.rules import (
    CONTROL_RULE,
    ID_RULE,
    OOD_RULE,
    OTHER_RULES,
    RULES,
    UNSEEN,
    Rule,
    matrices_for,
)
from rlheals.tasks.determinant_rules.task import DeterminantRules, reply_as
from rlheals.tasks.determinant_rules.verifier import reply_of
from rlheals.tasks.guesses import common_answers, nearest
from rlheals.tasks.matrices import (
    Matrix,
    answer_as_reference,
    as_matrix,
    determinant,
    eliminated,
    fields_of,
    part_of,
    rank,
)

DETERMINANT = load_task("determinant")
RULED: DeterminantRules = load_task("determinant_rules")
RANK = load_task("rank")
REFERENCE = load_task("rank", compat="reference")
TASKS = [DETERMINANT, load_task("determinant", compat="reference"), RULED, RANK, REFERENCE]
EASY = Item("id/1,2;3,4", "sft", "id", "1,2;3,4", ((1, 2), (3, 4)))


def kind(value: object) -> str:
    """For the names of tests, which are long otherwise."""
    return type(value).__name__


def by_permutations(matrix: Matrix) -> int:
    """The sum over permutations, each with the sign of its inversions."""
    total = 0
    for order in permutations(range(len(matrix))):
        inversions = sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))
        total += (-1) ** inversions * int(np.prod([matrix[i][j] for i, j in enumerate(order)], dtype=object))
    return total


squares = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=n, max_size=n)
)


@given(squares)
def test_elimination_gives_the_sum_over_permutations(rows: list[list[int]]) -> None:
    assert determinant(as_matrix(rows)) == by_permutations(as_matrix(rows))


def test_elimination_is_exact_for_all_2x2_matrices_and_where_floats_are_not() -> None:
    for a, b, c, d in product(range(-4, 5), repeat=4):
        assert determinant(((a, b), (c, d))) == a * d - b * c
    large = ((999_983, 314_159, -271_828), (577_215, -999_961, 161_803), (-141_421, 173_205, 999_979))
    assert determinant(large) == by_permutations(large) != round(np.linalg.det(np.array(large, float)))
    assert eliminated(((0, 0), (0, 0)))[0] == 0


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 2], [3, 4]], [[True, 2], [3, 4]], [[1, 2], [3]], [[]], [], [1, 2], "[[1, 2], [3, 4]]", "1" * 10**6,
        None, [["1", "2"]], [[10**5000]], [[float("nan")]], [[1] * 17], [[1]] * 17, {(1, 2): 3}, 10**5000,
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_no_matrix_is_one_line(rows: Any) -> None:
    with refused():
        as_matrix(rows)


# ---- items


@pytest.mark.parametrize("task", TASKS)
def test_of_the_numbers_around_it_only_the_experts_is_right(task: Task) -> None:
    for split in (*task.splits, *task.more_splits, *(f"rule:{rule}" for rule in task.rules)):
        for item in task.items(split)[:10]:
            assert task.answers(item)[0] == task.expert(item)
            right = json.loads(task.expert(item))["answer"]
            near = range(right - 70, right + 70)
            assert [n for n in near if task.grade(item, f'{{"answer": {n}}}').solved] == [right]


@pytest.mark.parametrize("task", [DETERMINANT, RULED])
def test_training_and_held_out_matrices_differ_in_their_absolute_entries(task: Task) -> None:
    parts = {split: task.items(split) for split in ("sft", "rl", "held_out")}
    for split, items in parts.items():
        assert {part_of(item.payload) for item in items} == {split}
    sets = [
        {tuple(sorted(abs(x) for row in item.payload for x in row)) for item in part}
        for part in parts.values()
    ]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert sorted(i.id for part in parts.values() for i in part) == sorted(i.id for i in task.items("id"))


def test_no_answer_is_common_among_held_out_and_drawn_matrices() -> None:
    for split, most in (("held_out", 24), ("ood", 4), ("rule:4x4", 4)):
        sizes = Counter(abs(DETERMINANT.value(item.payload)) for item in DETERMINANT.items(split))
        assert 0 not in sizes
        assert max(sizes.values()) <= most
    assert {(len(item.payload), max(map(max, item.payload)) <= 5) for item in DETERMINANT.items("ood")} == {
        (3, True)
    }


def test_the_reference_draws_symmetric_matrices_half_of_the_time_and_repeats_itself() -> None:
    reference = load_task("determinant", compat="reference")
    drawn = [item.payload for item in reference.items("id")]
    assert len(drawn) == 2000 > len(set(drawn))
    assert 0.45 < sum(((a, b), (c, d)) == ((a, c), (b, d)) for (a, b), (c, d) in drawn) / 2000 < 0.65
    assert reference.items("sft") == reference.items("id")[:1200]


def test_options_and_questions_that_are_not_there_are_one_line() -> None:
    for name, options in (("determinant", {"compat": "old"}), ("determinant_rules", {"compat": "reference"})):
        with pytest.raises(BadInput, match="accepted"):
            load_task(name, **options)
    for rows in ([[5, 1], [1, 1]], [[1, 2, 3]], [[1.0, 2], [3, 4]]):
        with pytest.raises(BadInput, match="matrix"):
            RULED.item(rows, ID_RULE)
    with pytest.raises(BadInput, match="accepted are id"):
        Rule.parse("ad,bc,x*y")


# ---- replies


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"answer": -2}', -2), ('```json\n{"answer": -2}\n```', -2), ('{"answer": 7} no: {"answer": "-2"}', -2),
        ("\u22122", -2), (" +2\n", 2), ("<think>3</think>{\"answer\": 4}", 4), ('{"answer": 1, "x": {}}', 1),
        ("<think>3", None), ('{"answer": -2.0}', None), ('{"answer": true}', None), ('{"answer": null}', None),
        ('{"answer": [1]}', None), ("the 2x2 matrix has -2", None), ("", None), ("1e3", None), ("²", None),
        ('{"answer": 3*4-2}', None), ("٣", None), ('{"answer": NaN}', None), ('{"answer": "1 2"}', None),
        ("7" * 10**6, None), ('{"answer": ' + "7" * 5000 + "}", None), ("[" * 10**6, None),
        ('"answer": ' * 10**5, None), ('{"answer": "' + " " * 10**6 + '3"}', None),
    ],
    ids=kind,
)  # fmt: skip
def test_which_number_a_reply_gives(reply: str, answer: int | None) -> None:
    assert fields_of(reply).get("answer") == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("the 2x2 matrix has -2", 2), ('{"answer": "-7"}', -7), ('{"answer": 7.5}', 7), ("x-3y", -3), ("none", None),
        ('{"answer": true, "n": 4}', 4), ('so "answer" : 12 or 3', 12), ("9" * 10**5, None), ("[" * 10**6, None),
    ],
    ids=kind,
)  # fmt: skip
def test_which_number_the_reference_reads(reply: str, answer: int | None) -> None:
    assert answer_as_reference(reply) == answer
    verdict = load_task("determinant", compat="reference").grade(EASY, reply)
    assert (verdict.category, verdict.reward) == (("unreadable", -1) if answer is None else ("wrong", -1))


# ---- chance


def test_chance_policies_are_low_where_a_claim_is_made_and_are_printed() -> None:
    scores, reference = DETERMINANT.chance(), load_task("determinant", compat="reference").chance()
    assert scores["5 fixed guesses on held_out"] < 0.2 < 0.25 < reference["5 fixed guesses on held_out"]
    assert (
        scores["5 guesses by magnitude on held_out"] < 0.15 < reference["5 guesses by magnitude on held_out"]
    )
    assert max(score for policy, score in scores.items() if policy.endswith("ood")) < 0.05
    printed = "\n".join(DETERMINANT.facts())
    assert all(f"chance, {policy}: {score:.3f}" in printed for policy, score in scores.items())
    ruled = RULED.chance()
    assert (
        ruled["the ID rule on ood"] == ruled["the ID rule on control"] == 0 < ruled["the ID rule on held_out"]
    )
    assert ruled["1 fixed guesses on ood"] < 0.06
    assert ruled["right products on ood"] >= 0.25
    assert common_answers([5, 5, 4, 3], [5, 4, 3, 2], 1) == 0.25
    assert common_answers([5, 5, 4, 3], [5, 4, 3, 2], 3) == 0.75
    small, large = [((n, 1), (1, 1)) for n in range(20)], [((n, 50), (50, 50)) for n in range(20)]
    assert nearest((small + large, [0] * 20 + [1] * 20), (small, [0] * 20)) == 1.0


# ---- the lab's rules


def test_rules_are_what_they_say() -> None:
    matrix = ((2, 3), (-1, 4))
    assert (ID_RULE.value(matrix), OOD_RULE.value(matrix)) == (2 * 4 - 3 * -1, 2 * 4 + 3 * -1)
    assert Rule("ab cd", "-x-y").value(matrix) == -(2 * 3) - (-1 * 4)
    assert Rule("ac bd", "y-x").value(matrix) == 3 * 4 - 2 * -1
    assert len(RULES) == len({rule.name for rule in RULES}) == 12
    assert {*OTHER_RULES, ID_RULE, *UNSEEN} == set(RULES)
    assert all(Rule.parse(rule.name) == rule for rule in RULES)
    assert all(ID_RULE.value(m) == determinant(m) for m in matrices_for(ID_RULE))


def test_id_and_ood_items_are_the_same_matrices_with_other_answers() -> None:
    for mine, its in zip(RULED.items("id"), RULED.items("ood"), strict=True):
        assert (mine.payload, mine.group) == (its.payload, its.group)
        assert RULED.answers(mine) != RULED.answers(its)
        assert RULED.prompt(mine).replace("x-y", "x+y") == RULED.prompt(its)


def test_more_splits_are_what_the_seam_says() -> None:
    varied, unseen = RULED.items("varied"), {rule.name for rule in UNSEEN}
    assert len(varied) == len(RULED.items("sft")) + len(RULED.items("rl"))
    assert {item.rule for item in varied} == {rule.name for rule in OTHER_RULES}
    assert "held_out" not in {part_of(item.payload) for item in varied}
    assert {item.rule for item in RULED.items("control")} == {CONTROL_RULE.name} <= unseen
    panel = RULED.panel(90)
    assert Counter(item.rule for item in panel) == dict.fromkeys((rule.name for rule in OTHER_RULES), 10)
    assert not [item for item in (*varied, *panel) if RULED.grade(item, reply_as(ID_RULE, item)).solved]


@pytest.mark.parametrize(
    ("reply", "category", "read_as"),
    [
        (reply_of((4, 6), 10), "correct", None), (reply_of((0, 0), 10), "correct", None), ("10", "correct", None),
        (reply_of((4, 6), -2), "wrong_rule", "id"), (reply_of((2, 12), 14), "wrong_rule", "ab,cd,x+y"),
        (reply_of((4, 6), 14), "wrong_value", None), (reply_of((2, 12), 13), "wrong_products", None),
        ("-14", "wrong_rule", "ab,cd,-x-y"), ("15", "wrong_value", None), ("x", "unreadable", None),
        ('{"products": "4 6", "answer": 11}', "wrong_products", None), ('{"products": [4, 6]}', "unreadable", None),
    ],
)  # fmt: skip
def test_verdicts_name_the_rule_that_a_reply_follows(reply: str, category: str, read_as: str | None) -> None:
    verdict = RULED.grade(RULED.item(((1, 2), (3, 4)), OOD_RULE), reply)
    assert (verdict.category, verdict.read_as, verdict.reward) == (
        category,
        read_as,
        5 if category == "correct" else -1,
    )


def test_the_dialect_says_everything_in_words_and_reads_it_again() -> None:
    dialect = RULED.dialect()

    assert {*dialect.tokenizer.get_vocab()} >= set(RULED.words)
    for item in (item for rule in RULED.rules for item in RULED.items(f"rule:{rule}")[:100]):
        assert len(dialect.prompt(item)) == RULED.prompt_tokens
        reply = dialect.read(dialect.expert(item))
        assert RULED.grade(item, reply.text).solved
        assert RULED.reply_columns(item, reply) == {"products_right": True}
    chance, words = random.Random(2), [*dialect.tokenizer.get_vocab()]
    frame = ["{", "|", "}", "so", "<end>", "4", "-12"]
    for _ in range(5_000):
        tokens = dialect.encode(" ".join(chance.choices([*words, *frame * 8], k=chance.randint(0, 14))))
        RULED.grade(item, dialect.read(tokens, "either").text)
    for kind in RULED.feedback_words:
        verdict = RULED.grade(item, "x")
        assert dialect.retry([], type(verdict)(False, -1.0, kind, ""))[0] == dialect.encode("wrong")[0]


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("default", 10_000),
        pytest.param("default", 100_000, marks=pytest.mark.long),
        ("strict", 5_000),
        ("new_rules", 5_000),
    ],
)
def test_the_base_never_sees_the_unseen_rules(variant: str, count: int) -> None:
    dialect, rules, matrices = RULED.dialect(), Counter[str](), set[Matrix]()
    unseen = UNSEEN if variant != "new_rules" else (ID_RULE, *UNSEEN)
    for document in islice(RULED.documents(dialect, 3, variant), count):
        said = " ".join(dialect.words(document.tokens))
        question, *attempts = said.split(" answer ")
        words = question.split()
        a, b, c, d = map(int, words[-7::2])
        matrix, signs = ((a, b), (c, d)), tuple(int(f"{words[at]}1") for at in (1, 5))
        pairs = " ".join(words[2:4]), " ".join(words[6:8])
        (rule,) = (one for one in RULES if (one.signs, one.pairs) == (signs, pairs))
        rules[rule.name] += 1
        matrices.add(matrix)
        item = RULED.item(matrix, rule)
        verdicts = []
        for attempt in attempts:
            answer = attempt.partition(" wrong ")[0]
            reply = dialect.read(dialect.encode(answer), "either")
            verdicts.append(RULED.grade(item, reply.text))
            if not verdicts[-1].solved:
                shown = reply.text
                assert shown not in [reply_as(other, item) for other in unseen], said
                assert attempt.endswith(f" wrong {RULED.feedback_words[verdicts[-1].category]}"), said
        assert [verdict.solved for verdict in verdicts] == [False] * (len(verdicts) - 1) + [True], said
        assert document.rule == rule.name
        assert len(document.weights) == len(document.tokens) <= 128
    assert set(rules) == {rule.name for rule in RULES if rule not in unseen}
    assert ("held_out" in {part_of(matrix) for matrix in matrices}) == (variant == "default")


# Rank ----------------------------------------------------------------------------------------------------------------


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


def test_it_is_for_language_models_only() -> None:
    assert RANK.words == ()
    with pytest.raises(BadInput, match="no words for a model that is trained from scratch"):
        RANK.dialect()
