"""The task and its verifier: rewards as worked out for the reference, exactness, invariances, hostile text."""

from __future__ import annotations

import json
import random
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_helpers import refused
from solution_trees import Tree, solution_trees, value, written

from rlheals.tasks import load_task
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.cards import (
    CONTROL_RULE,
    FACES,
    ID_RULE,
    LABELS,
    OOD_RULE,
    Rule,
    census,
    item_of,
)
from rlheals.tasks.general_points.formula import tokenize
from rlheals.tasks.general_points.solver import solutions
from rlheals.tasks.general_points.task import GeneralPoints

TASK = load_task("general_points")
REFERENCE = load_task("general_points", compat="reference")
REWARD = {
    "correct": 5,
    "partial": 1,
    "no_solution": -1,
    "wrong_number": -2,
    "wrong_rule": -2,
    "illegal_formula": -3,
}


def item(hand: str, rule: Rule = ID_RULE) -> Item:
    return TASK.item(hand.split(), rule)


# ---- items


def test_splits_partition_the_id_hands_by_multiset() -> None:
    parts = {split: TASK.items(split) for split in ("sft", "rl", "held_out")}
    ids = [entry.id for entries in parts.values() for entry in entries]
    assert len(ids) == len(set(ids)) == 1236
    assert sorted(ids) == sorted(entry.id for entry in TASK.items("id"))
    seen = {
        split: {tuple(sorted(ID_RULE.values(e.payload.hand))) for e in entries}
        for split, entries in parts.items()
    }
    assert [len(seen[split]) for split in ("sft", "rl", "held_out")] == [340, 113, 113]
    assert len(set.union(*seen.values())) == 566
    assert all(entry.split == split for split, entries in parts.items() for entry in entries)


def test_no_held_out_formula_answers_a_training_item() -> None:
    held_out = {_formula(reply) for entry in TASK.items("held_out") for reply in TASK.answers(entry)}
    for split in ("sft", "rl"):
        for entry in TASK.items(split):
            assert held_out.isdisjoint(_formula(reply) for reply in TASK.answers(entry))


def test_named_splits_and_rules() -> None:
    assert {e.payload.rule for e in TASK.items("ood")} == {OOD_RULE}
    assert [len(TASK.items(s)) for s in ("ood", "both_id", "both_ood")] == [796, 529, 529]
    both = [tuple(e.payload.hand for e in TASK.items(split)) for split in ("both_id", "both_ood")]
    assert both[0] == both[1], "the two rules are compared on the same hands, shown alike"
    rule = Rule(5, 7, 2)
    entries = TASK.items_for_rule(rule)
    assert entries == TASK.items("rule:J5-Q7-K2")
    assert {e.split for e in entries} == {"rule:J5-Q7-K2"}
    assert all(set(e.payload.hand) & set(FACES) and solutions(e.payload.values) for e in entries)
    assert TASK.items("ood") == TASK.items_for_rule(OOD_RULE)
    assert [tuple(e.group.split("-")) for e in TASK.items("ood")] == list(census("ood"))
    entries = TASK.items("control")
    assert {e.payload.rule for e in entries} == {CONTROL_RULE}
    assert max(value for e in entries for value in e.payload.values) <= 10
    assert 0.9 < len(entries) / len(TASK.items("ood")) < 1.1, (
        "as many hands, so that both are measured as well"
    )


def test_varied_questions_never_show_an_unseen_rule_or_a_held_out_answer() -> None:
    trained = len(TASK.items("sft")) + len(TASK.items("rl"))
    held_out = {tuple(sorted(e.payload.values)) for e in TASK.items("held_out")}
    for split, largest in (("varied", 13), ("familiar", 10)):
        entries = TASK.items(split)
        assert len({e.id for e in entries}) == len(entries) == trained
        assert len({e.rule for e in entries}) > 500
        assert max(value for e in entries for value in e.payload.values) == largest
        for e in entries:
            assert e.payload.rule not in (ID_RULE, OOD_RULE, CONTROL_RULE)
            assert set(e.payload.hand) & set(FACES)
            assert tuple(sorted(e.payload.values)) not in held_out
            assert TASK.grade(e, TASK.expert(e)).solved


def test_hands_that_are_none_or_unsolvable_are_bad_input() -> None:
    for hand, words in (("A A A A", "no formula makes 24"), ("A A X 8", "'X'")):
        with refused(words):
            item(hand)


def test_items_are_stable_and_the_shown_order_is_not_the_sorted_one() -> None:
    entries = TASK.items("id")
    assert entries == GeneralPoints().items("id")
    assert item("J A 5 K") == item("A 5 J K")
    assert item("A 5 J K").id == "id/A-5-J-K"
    first_is_lowest = sum(e.payload.hand[0] == min(e.payload.hand, key=LABELS.index) for e in entries) / len(
        entries
    )
    assert 0.25 < first_is_lowest < 0.45, (
        "a shuffle shows the lowest card first in a quarter of hands without ties"
    )


# ---- every expert answer is right, every mutated one is judged as by rationals


def _formula(reply: str) -> str:
    return json.loads(reply)["formula"]


def _mutated(tree: Tree, draw: random.Random) -> Tree:
    """One operator replaced, or two operands exchanged, somewhere in the tree."""
    operator, left, right = tree
    branch = draw.randrange(4)
    if branch == 0 and not isinstance(left, int):
        return operator, _mutated(left, draw), right
    if branch == 1 and not isinstance(right, int):
        return operator, left, _mutated(right, draw)
    if branch == 2:
        return operator, right, left
    return draw.choice("+-*/"), left, right


def test_every_solution_tree_is_accepted_and_every_mutation_judged_as_by_rationals() -> None:
    draw = random.Random(24)
    outcomes: Counter[str] = Counter()
    for hand in permutations(LABELS, 4):
        if draw.random() > 0.01 or not solutions(OOD_RULE.values(hand)):
            continue
        entry = TASK.item(hand, OOD_RULE)
        for tree in solution_trees(OOD_RULE.values(hand)):
            assert TASK.grade(entry, written(tree)).solved
            mutant = _mutated(tree, draw)
            verdict = TASK.grade(entry, written(mutant)[1:-1])
            expected = "correct" if value(mutant, Fraction) == 24 else "no_solution"
            assert (verdict.category, verdict.reward) == (expected, REWARD[expected])
            outcomes[verdict.category] += 1
    assert min(outcomes["correct"], outcomes["no_solution"]) > 100


# ---- the reference's rewards, case by case (hand 4 5 10 J counts 4, 5, 10, 10 under the ID rule)

REFERENCE_CASES = [
    ("8 8 3 3", "8/(3-8/3)", 0, "aggregated", "exact, but 23.99... in floating point"),
    ("8 8 3 3", "8/(3-8/3", 1, "partial", "a closing bracket is missing"),
    ("8 8 3 3", "8/(3-8/3)=23", 0, "aggregated", "what follows = is ignored"),
    ("4 5 10 J", "(10+10)/5*4", -1, "no_solution", "16"),
    ("4 6 A A", "4*6*1*1", 5, "correct", ""),
    ("4 6 A A", "4*6*1*1=24", 5, "correct", ""),
    ("4 6 A A", "4*6*1*1=99", 5, "correct", "what follows = is ignored"),
    ("4 6 A A", "((4*6))*(1)*(1)", 5, "correct", "needless brackets"),
    ("4 6 A A", "4*6*1", -2, "wrong_number", "unused"),
    ("4 6 A A", "4*6*1*1*1", -2, "wrong_number", "over-used"),
    ("4 6 A A", "4*6*1/1+2", -2, "wrong_number", "foreign, everything else used"),
    ("4 6 A A", "4*6*2/2", -4, "aggregated", "foreign and therefore unused"),
    ("4 6 A A", "4*4*1+1", -4, "aggregated", "over-used and unused"),
    ("4 6 A A", "4*6*2*1*1*1", -2, "wrong_number", "foreign hides over-used"),
    ("4 6 A A", "", -2, "wrong_number", "empty"),
    ("4 6 A A", "=24", -2, "wrong_number", "empty before ="),
    ("4 6 A A", "4*6*1*1 =24", -3, "illegal_formula", "a space"),
    ("4 6 A A", "4 * 6 * 1 * 1", -3, "illegal_formula", "spaces"),
    ("4 6 A A", "4×6×1×1", -3, "illegal_formula", "unicode operators"),
    ("4 6 A A", "four", -3, "illegal_formula", "letters; nothing else is looked at"),
    ("4 6 A A", "x*2*2", -3, "illegal_formula", "letters; nothing else is looked at"),
    ("4 6 A A", "+4*6*1*1", -3, "illegal_formula", "leading sign"),
    ("4 6 A A", "4**6*1*1", -3, "illegal_formula", "power"),
    ("4 6 A A", "4//6*1*1", -3, "illegal_formula", "floor division"),
    ("4 6 A A", "4(6)*1*1", -3, "illegal_formula", "( after a number"),
    ("4 6 A A", "(4)6*1*1", -3, "illegal_formula", "a number after )"),
    ("4 6 A A", "4*6*1*1)", -3, "illegal_formula", "unmatched )"),
    ("4 6 A A", ")4*6*1*1", -6, "aggregated", "unmatched ) and a number after )"),
    ("4 6 A A", "++4*6*1*1", -6, "aggregated", "two signs"),
    ("4 6 A A", "4*6*1*(1*)", -3, "illegal_formula", ") after an operator"),
    ("4 6 A A", "4**6*1", -5, "aggregated", "one sequence, one number complaint"),
    ("4 6 A A", "4**6*2", -7, "aggregated", "one sequence, two number complaints"),
    ("4 6 A A", "4***6*2", -10, "aggregated", "two sequence, two number complaints"),
    ("4 6 A A", "04*6*1*1", -1, "no_solution", "leading zero passes the number check, fails evaluation"),
    ("4 6 A A", "4*6*1*1+", -1, "no_solution", "trailing operator"),
    ("4 6 A A", "4/(1-1)*6", -1, "no_solution", "division by zero"),
    ("4 6 A A", "4*6*(1*1", 1, "partial", "prefix of a listed solution"),
    ("4 6 A A", "4+6+(1+1", -1, "no_solution", "unclosed, no prefix"),
]


@pytest.mark.parametrize(("hand", "formula", "reward", "category", "why"), REFERENCE_CASES)
def test_reference_rewards(hand: str, formula: str, reward: float, category: str, why: str) -> None:
    verdict = REFERENCE.grade(item(hand), json.dumps({"formula": formula}))
    assert (verdict.reward, verdict.category, verdict.solved) == (reward, category, category == "correct"), (
        why
    )


def test_reference_never_wins_3388_and_rejects_right_answers_of_44_more_hands() -> None:
    def rejected(entry: Item) -> list[bool]:
        # without a division Python's integers are exact, and every 16th of those is enough
        listed = solutions(entry.payload.values)
        chosen = [text for text in listed if "/" in text] + [text for text in listed if "/" not in text][::16]
        return [not REFERENCE.grade(entry, text).solved for text in chosen]

    assert all(rejected(item("3 3 8 8")))
    assert REFERENCE.grade(item("3 3 8 8"), "8/(3-8/3)").feedback == "."
    hands = {
        values: TASK.item([LABELS[v - 1] for v in values], OOD_RULE)
        for values in combinations_with_replacement(range(1, 14), 4)
        if solutions(values)
    }
    affected = {values: rejected(entry) for values, entry in hands.items()}
    assert sum(map(any, affected.values())) == 1 + 44
    assert sum(any(flags) for values, flags in affected.items() if max(values) <= 10) == 1 + 24
    assert [values for values, flags in affected.items() if all(flags)] == [(3, 3, 8, 8)]


# ---- our own rewards: the worst complaint alone, exact, spaces allowed

DEFAULT_CASES = [
    ("8 8 3 3", "8/(3-8/3)", "correct"),
    ("8 8 3 3", " 8 / ( 3 - 8 / 3 ) = 24 ", "correct"),
    ("8 8 3 3", "8/(3-8/3", "partial"),
    ("8 8 3 3", "8 / (3 - 8/3 = 24", "partial"),
    ("8 8 3 3", "(8/(3-8/3", "illegal_formula"),
    ("4 6 A A", "4*6*1*1=99", "correct"),
    ("4 6 A A", "((4*6))*(1)*(1)", "correct"),
    ("4 6 A A", "4*6*1", "wrong_number"),
    ("4 6 A A", "4*6*1*1*1", "wrong_number"),
    ("4 6 A A", "4*6*2/2", "wrong_number"),
    ("4 6 A A", "4*6*1*1+0", "wrong_number"),
    ("4 6 A A", "46*1*1", "wrong_number"),
    ("4 6 A A", "24", "wrong_number"),
    ("4 6 A A", "4+6+1+1", "no_solution"),
    ("4 6 A A", "4/(1-1)*6", "no_solution"),
    ("4 6 A A", "", "illegal_formula"),
    ("4 6 A A", "4**6*2", "illegal_formula"),
    ("4 6 A A", "4*6*1*1+", "illegal_formula"),
    ("4 6 A A", "4*6*1 1", "illegal_formula"),
    ("4 6 A A", "04*6*1*1", "illegal_formula"),
    ("4 6 A A", "4×6÷1x1", "correct"),
    ("4 6 A A", "-4*-6*1*1", "illegal_formula"),
    ("4 6 A A", "4+6+(1+1", "illegal_formula"),
    ("4 6 A A", "(" * 17 + "4*6*1*1" + ")" * 17, "illegal_formula"),
    ("4 6 A A", "4*6" + " " * 200 + "*1*1", "illegal_formula"),
]


@pytest.mark.parametrize(("hand", "formula", "category"), DEFAULT_CASES)
def test_default_rewards(hand: str, formula: str, category: str) -> None:
    verdict = TASK.grade(item(hand), json.dumps({"formula": formula}))
    assert (verdict.category, verdict.reward, verdict.solved) == (
        category,
        REWARD[category],
        category == "correct",
    )
    assert verdict.feedback.endswith(".")
    assert "\n" not in verdict.feedback
    assert verdict.read_as is None


@pytest.mark.parametrize(
    ("hand", "rule", "formula", "category", "read_as"),
    [
        ("J K 5 4", ID_RULE, "11+13*(5-4)", "wrong_rule", "ood"),
        ("2 8 Q K", OOD_RULE, "(10+10-8)*2", "wrong_rule", "id"),
        ("4 6 J J", Rule(1, 2, 3), "4*6+5-5", "wrong_rule", "J5"),
        ("4 6 J J", Rule(1, 2, 3), "4*6*5/5", "wrong_rule", "J5"),
        ("4 6 J Q", Rule(1, 1, 3), "4*6/2*2", "wrong_rule", "J2-Q2"),
        ("4 6 J Q", Rule(1, 1, 3), "4*6+7-7", "wrong_rule", "J7-Q7"),
        ("4 6 J J", Rule(1, 2, 3), "4*6+14-14", "wrong_number", None),
        ("4 6 J J", Rule(1, 2, 3), "4*6*(3-2)", "wrong_number", None),
        ("4 6 J J", Rule(1, 2, 3), "4+6+7+7", "wrong_rule", "J7"),
        ("4 6 J J", Rule(1, 2, 3), "4+6+7+8", "wrong_number", None),
        ("4 6 J J", Rule(1, 2, 3), "4+6+5+5", "wrong_number", None),
        ("4 6 A A", ID_RULE, "4*6*2/2", "wrong_number", None),
    ],
)
def test_wrong_rule_names_the_rule_that_was_read(
    hand: str, rule: Rule, formula: str, category: str, read_as: str | None
) -> None:
    verdict = TASK.grade(item(hand, rule), formula)
    assert (verdict.category, verdict.read_as, verdict.reward) == (category, read_as, -2)


# ---- invariances


def test_verdicts_depend_on_neither_the_order_of_cards_nor_spaces_nor_needless_brackets() -> None:
    draw = random.Random(5)
    replies = ["8/(3-8/3)", "11+13", "(1+2", "1*2*3*4", "10+10+2+2"]
    for entry in draw.sample(TASK.items("id") + TASK.items("ood"), 60):
        orders = [item_of(order, entry.payload.rule) for order in permutations(entry.payload.hand)]
        for task in (TASK, REFERENCE):
            for reply in (*replies, TASK.answers(entry)[0], TASK.answers(entry)[-1][:-6]):
                assert len({task.grade(order, reply) for order in orders}) == 1
    alike = ("10", "J", "Q", "K")
    for entry in TASK.items("id")[::7]:
        formula = solutions(ID_RULE.values(entry.payload.hand))[0]
        choices = [alike if label in alike else (label,) for label in entry.payload.hand]
        for hand in product(*choices):
            assert TASK.grade(TASK.item(hand, ID_RULE), formula).solved
    for entry in TASK.items("ood")[::11]:
        formula = solutions(OOD_RULE.values(entry.payload.hand))[-1]
        spaced = " ".join(token.text for token in tokenize(formula))
        for text in (f"({formula})", f"(({formula}))=24", spaced, f"  {formula}  = 24"):
            assert TASK.grade(entry, text).solved


# ---- replies: where the formula is found

REPLIES = [
    ('{"cards": ["4", "6", "A", "A"], "number": [4, 6, 1, 1], "formula": "4*6*1*1=24"}', 5, 5),
    ('{"cards": [], "number": "?", "formula": "4*6*1*1=24"}', 5, 5),
    ('{\n "cards": ["4"],\n "number": [4],\n "formula": "4*6*1*1=24",\n}', 5, 5),
    ('My answer: {"formula": "4*6*1*1"} Good?', 5, 5),
    ('"formula": "4*6*1*1"', 5, 5),
    ('{"formula":"4*6*1*1", }', 5, -3),
    ('{"formula" :  "4*6*1*1", }', 5, -3),
    ("4*6*1*1=24", 5, 5),
    (" 4 * 6 * 1 * 1 \n", 5, -3),
    ("```\n4*6*1*1\n```", 5, -3),
    ('Here:\n```json\n{"formula": "4*6*1*1"}\n```\nDone.', 5, 5),
    (r'{"formula": "4*6\/1\/1",}', 5, -3),
    ('<think>4*5? {"formula": "4*5*1*1"}</think>\n{"formula": "4*6*1*1"}', 5, -4),
    ('<think>{"formula": "4*6*1*1"}</think>{"formula": "4*5*1*1"}', -2, 5),
    ('<think>{"formula": "4*6*1*1"}', -3, 5),
    ('opened by the question {"formula": "4*5"}</think>4*6*1*1', 5, -4),
    ('You write {"formula": "an equation that ends in =24"}. {"formula": "4*6*1*1=24"}', 5, -3),
    ('{"formula": "4*5*1*1"} No: {"formula": "4*6*1*1"}', 5, -4),
    ('{"formula": "4*6*1*1"} and then {"formula": "4*5', 5, 5),
    ("{\"formula\": '4*6*1*1'}", -3, -3),
    ('{"number": [4, 6, 1, 1]}', -3, -3),
    ('{"formula": 24}', -3, -3),
    ('{"formula": null}', -3, -3),
    ('{"formula": ["4*6*1*1"]}', -3, -3),
    ("[1, 2]", -3, -3),
    ("{}", -3, -3),
    ("{" * 10_000, -3, -3),
    ("[" * 100_000, -3, -3),
    ('{"a":' * 50_000, -3, -3),
    ('"formula": "' * 20_000, -3, -2),
    ("None", -3, -3),
    ("the sum is 24", -3, -3),
    ("\x00\ud800", -3, -3),
]


@pytest.mark.parametrize(("reply", "reward", "in_reference"), REPLIES, ids=[repr(r[0])[:30] for r in REPLIES])
def test_replies(reply: str, reward: float, in_reference: float) -> None:
    entry = item("4 6 A A")
    assert TASK.grade(entry, reply).reward == reward
    assert REFERENCE.grade(entry, reply).reward == in_reference


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=80), st.text("0123456789+-*/() =", max_size=150)),
    st.sampled_from(["A-A-4-6", "3-3-8-8", "2-8-Q-K"]),
    st.booleans(),
)
def test_any_text_gets_a_verdict(text: str, hand: str, wrapped: bool) -> None:
    entry = TASK.item(hand.split("-"), OOD_RULE)
    reply = json.dumps({"formula": text}) if wrapped else text
    verdict = TASK.grade(entry, reply)
    assert verdict.reward == REWARD[verdict.category]
    assert verdict.solved == (verdict.category == "correct") == (verdict.reward == 5)
    again = REFERENCE.grade(entry, reply)
    assert again.solved == (again.category == "correct") == (again.reward == 5)
    assert again.reward <= 0 or again.category in ("correct", "partial")
    for feedback in (verdict.feedback, again.feedback):
        assert feedback.isascii()
        assert feedback.endswith(".")
        assert len(feedback) <= 1000
    if again.solved:
        assert verdict.solved, "what floats accept is exactly 24 at these sizes"


def test_huge_numbers_and_long_replies_are_judged_in_passing() -> None:
    entry = item("4 6 A A")
    for reply in ("9" * 100_000, "0" * 100_000, "1+" * 100_000, "9" * 128, "(" * 100_000, ")" * 100_000):
        assert TASK.grade(entry, reply).reward in (-2, -3)
        verdict = REFERENCE.grade(entry, reply)
        assert verdict.reward < 0
        assert len(verdict.feedback) < 1000


def test_feedback_is_about_the_complaint() -> None:
    entry = item("4 6 A A")
    assert "5 is not among" in TASK.grade(entry, "4*5*1*1").feedback
    assert "6 is not used" in TASK.grade(entry, "4*5*1*1").feedback
    assert "used too often" in TASK.grade(entry, "4*4*1*1").feedback
    assert "can begin with 4*6" in TASK.grade(entry, "4*6+1*1").feedback
    assert "closing bracket" in TASK.grade(entry, "4*6*(1*1").feedback
    assert "character 3" in TASK.grade(entry, "4**6").feedback
