"""The formula language: exact, closed against everything else, and never more than bounded work."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlheals.tasks.general_points.formula import (
    MAX_DEPTH,
    MAX_LENGTH,
    FormulaError,
    evaluate,
    evaluate_float,
    parse,
)

ALPHABET = "0123456789+-*/() "

# A word of the reason: where the complaint must point, and the texts.
NOT_FORMULAS = {
    "expected": {
        0: ["", "-3+27", "+24", ")("],
        1: ["(-4)*6", "()"],
        2: ["2**3", "7//2", "4*-6", "3--3"],
        3: ["   ", "12+", "12+)"],
    },
    "illegal": {
        0: ["٢٤", "２４", "²", "[24]", "__import__('os')"],
        1: ["1e3", "0x10", "1_000", "1.5*16", "1,000", "2⁴", "(lambda:24)()"],
        2: ["24j", "12×2", "48÷2", "30−6", "24\n", "12\t+12", "12\u00a0+12", "24\x00", "24#", "24=24"],
    },
    "operator": {1: ["2(12)"], 2: ["24)", "2 4"], 3: ["(2)(12)", "(2)12"]},
    "')'": {3: ["(24"], 5: ["((24)"]},
    "leading zero": {0: ["024"], 2: ["1+00"]},
    "division by zero": {1: ["3/0", "8/(3-3)", "0/0", "1/(8/3-8/3)"], 4: ["1/(1/0)"], 7: ["24+0*(1/0)"]},
    "longer": {
        MAX_LENGTH: ["1" * (MAX_LENGTH + 1), " " * (MAX_LENGTH - 1) + "24", "(" * 100_000, "9" * 1_000_000],
    },
    "deeper": {MAX_DEPTH: ["(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "(" * MAX_LENGTH]},
}


@pytest.mark.parametrize("word", NOT_FORMULAS)
def test_everything_else_is_an_error_with_position_and_reason(word: str) -> None:
    for position, texts in NOT_FORMULAS[word].items():
        for text, read in product(texts, (evaluate, evaluate_float)):
            with pytest.raises(FormulaError) as caught:
                read(text)
            assert (caught.value.position, word in caught.value.reason) == (position, True), text[:40]
            assert len(str(caught.value)) < 200
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("thing", [None, 24, 24.0, b"24", ["24"]])
def test_what_is_not_text_is_the_same_error(thing: object) -> None:
    with pytest.raises(FormulaError, match="text"):
        evaluate(thing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/(3-8/3)", Fraction(24)),
        ("0", Fraction(0)),
        ("8-4-2", Fraction(2)),
        ("8/4/2", Fraction(1)),
        ("2+3*4", Fraction(14)),
        ("2-3*4", Fraction(-10)),
        ("1/3+1/6", Fraction(1, 2)),
        (" ( 10 - 4 ) * 4 ", Fraction(24)),
        ("9999999999999999*9999999999999999", Fraction(9999999999999999**2)),
        ("(" * MAX_DEPTH + "24" + ")" * MAX_DEPTH, Fraction(24)),
        ("(1)+" * 31 + "(1)", Fraction(32)),
        ("9" * MAX_LENGTH, Fraction(10**MAX_LENGTH - 1)),
    ],
)
def test_values_are_exact(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


def test_floating_point_rejects_what_is_exactly_24() -> None:
    assert evaluate("8/(3-8/3)") == 24
    assert evaluate_float("8/(3-8/3)") == 8 / (3 - 8 / 3)
    assert evaluate_float("8/(3-8/3)") != 24
    assert evaluate("24+1/999999999999999999999999") != 24
    assert evaluate_float("24+1/999999999999999999999999") == 24


def test_numbers_are_known_even_without_a_value() -> None:
    parsed = parse("8/(3-3)+10")
    assert parsed.numbers == (8, 3, 3, 10)
    assert parsed.value is None
    assert parsed.error is not None
    assert parsed.error.position == 1


# A formula as (text, value, depth of brackets), built beside its value; None: somewhere divided by zero.
Made = tuple[str, Fraction | None, int]


def _joined(operator: str, left: Made, right: Made, brackets: tuple[bool, bool], space: str) -> Made:
    texts, depth = [], 0
    for (text, _, inner), needless in zip((left, right), brackets, strict=True):
        bracketed = needless or not text.isdigit()
        texts.append(f"({space}{text})" if bracketed else text)
        depth = max(depth, inner + bracketed)
    a, b = left[1], right[1]
    value: Fraction | None
    if a is None or b is None or (operator == "/" and b == 0):
        value = None
    else:
        value = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b
    return f"{texts[0]}{space}{operator}{space}{texts[1]}", value, depth


formulas: st.SearchStrategy[Made] = st.recursive(
    st.integers(0, 30).map(lambda n: (str(n), Fraction(n), 0)),
    lambda inner: st.builds(
        _joined,
        st.sampled_from("+-*/"),
        inner,
        inner,
        st.tuples(st.booleans(), st.booleans()),
        st.sampled_from(["", " "]),
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(formulas)
def test_agrees_with_values_built_beside_the_text(made: Made) -> None:
    text, value, depth = made
    if len(text) > MAX_LENGTH or depth > MAX_DEPTH:
        with pytest.raises(FormulaError):
            evaluate(text)
    else:
        assert parse(text).value == value


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 13)), min_size=1, max_size=12))
def test_precedence_agrees_with_a_sum_of_products(pairs: list[tuple[str, int]]) -> None:
    """Without brackets a formula is a sum of signed products: evaluated here without any recursion."""
    products: list[Fraction] = []
    for index, (operator, number) in enumerate(pairs):
        if index == 0 or operator == "+":
            products.append(Fraction(number))
        elif operator == "-":
            products.append(Fraction(-number))
        else:
            products[-1] = products[-1] * number if operator == "*" else products[-1] / number
    text = "".join(f"{operator}{number}" for operator, number in pairs)[1:]
    if len(text) <= MAX_LENGTH:
        assert evaluate(text) == sum(products)


def _work(text: str) -> int:
    try:
        return parse(text).steps
    except FormulaError as error:
        return error.steps


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text(ALPHABET, max_size=160), st.text("(1+)", max_size=140)))
def test_any_text_is_a_value_or_a_formula_error_with_bounded_work(text: str) -> None:
    error: FormulaError | None = None
    try:
        assert isinstance(evaluate(text), Fraction)
    except FormulaError as raised:
        error = raised
    assert error is None or (0 <= error.position <= len(text) and error.reason)
    assert _work(text) <= 5 * min(len(text), MAX_LENGTH) + 3


@pytest.mark.parametrize("piece", ["(", "1", "1+", "(1)+", "1/", "((1))*", "9*", " ", ")", "0/0+"])
def test_work_grows_no_faster_than_the_length(piece: str) -> None:
    works = []
    for count in range(1, MAX_LENGTH // len(piece)):
        text = piece * count + "1"
        works.append(_work(text))
        assert works[-1] <= 5 * len(text) + 3
    assert _work(piece * 100_000) == 0, "beyond the cap nothing is read at all"
