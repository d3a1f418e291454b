"""Exact solver of the 24 game: every solution of four numbers, and the shipped table of solved hands.

A formula is written in one of seven bracket layouts; several formulas can mean one tree of operations.
The solver combines numbers along the five tree shapes in integer (numerator, denominator) pairs,
for all orders and operators at once, and then writes each solving tree in every layout that reads as it.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from itertools import permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlheals.errors import BadInput
from rlheals.tasks.general_points.formula import fold

if TYPE_CHECKING:
    import numpy as np

    Pairs = tuple[np.ndarray, np.ndarray]


TARGET = 24
LARGEST = 13
OPERATORS = "+-*/"
TABLE_FILE = "solved_hands.csv"
CODE_DATA = ("solved_hands.csv",)
TABLE_SHA256 = "b5b2aae3c9f6d5741f6a6871f259939f526925c4af0e0dddefc54ba4f018bd40"

# a, b, c, d are the numbers and 1, 2, 3 the operators
_LAYOUTS = ("a1b2c3d", "(a1b)2c3d", "(a1b2c)3d", "a1(b2c)3d", "a1(b2c3d)", "a1b2(c3d)", "(a1b)2(c3d)")
_NUMBERED = str.maketrans("abcd", "1234")
_SLOTS = str.maketrans({letter: f"{{{slot}}}" for slot, letter in enumerate("abcd")})

Values = tuple[int, ...]


def check_values(values: Values) -> Values:
    """The four values in ascending order. Raises BadInput unless there are four integers from 1 to 13."""
    if len(values) != 4 or not all(type(v) is int and 1 <= v <= LARGEST for v in values):
        raise BadInput(f"values {tuple(values)!r}: four integers from 1 to {LARGEST} are accepted")
    return tuple(sorted(values))


def solvable(values: Values) -> bool:
    """Whether + - * / and brackets make 24 from four values, each used once; looked up in the shipped table.

    >>> solvable((3, 3, 8, 8)), solvable((1, 1, 1, 1))
    (True, False)
    """
    return check_values(values) in solved_table()


def canonical_solution(values: Values) -> str:
    """The expert's answer: fewest brackets, then no division if that can be, then first in the alphabet.

    Raises BadInput when there is no solution.

    >>> canonical_solution((3, 8, 3, 8)), canonical_solution((10, 2, 9, 8))
    ('8/(3-8/3)', '(10+2-9)*8')
    """
    ordered = check_values(values)
    try:
        return solved_table()[ordered]
    except KeyError:
        raise BadInput(f"values {ordered!r}: no formula makes {TARGET}") from None


@cache
def solved_table() -> dict[Values, str]:
    """Sorted values of every solvable hand from 1 to 13 -> its canonical solution (1,362 entries).

    Read once from the file in the package, whose SHA-256 is checked. Raises BadInput when it differs.
    """
    data = Path(__file__).with_name(TABLE_FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != TABLE_SHA256:
        raise BadInput(f"{TABLE_FILE} does not match its SHA-256: install rlheals again")
    rows = (line.split(",") for line in data.decode("ascii").splitlines()[1:])
    return {tuple(map(int, row[:4])): row[4] for row in rows}


def solutions(values: Values) -> tuple[str, ...]:
    """Every formula that is exactly 24, in the seven bracket layouts, without spaces, in ASCII order.

    Layouts: no brackets, or around the first two, first three, middle two, last three, last two, or
    both the first two and the last two numbers. Empty when the hand has no solution.
    Source: the solution list of the reference environment, with exact arithmetic throughout.

    >>> solutions((3, 3, 8, 8))
    ('8/(3-8/3)',)
    >>> len(solutions((1, 5, 10, 10))), solutions((1, 1, 1, 1))
    (63, ())
    """
    return _solutions(check_values(values))


@lru_cache(maxsize=2048)
def _solutions(values: Values) -> tuple[str, ...]:
    import numpy as np

    orders = sorted(set(permutations(values)))
    numbers = np.array(orders, dtype=np.int64).T.reshape(4, -1, 1, 1, 1)
    a, b, c, d = ((column, np.ones_like(column)) for column in numbers)
    ab, bc, cd = _combine(a, b, 1), _combine(b, c, 2), _combine(c, d, 3)
    by_shape = {
        "(((ab)c)d)": _combine(_combine(ab, c, 2), d, 3),
        "((a(bc))d)": _combine(_combine(a, bc, 1), d, 3),
        "((ab)(cd))": _combine(ab, cd, 2),
        "(a((bc)d))": _combine(a, _combine(bc, d, 3), 1),
        "(a(b(cd)))": _combine(a, _combine(b, cd, 2), 1),
    }
    layouts = _layouts_by_tree()
    found = {
        layout.format(*orders[order])
        for shape, (numerator, denominator) in by_shape.items()
        for order, *operators in np.argwhere(
            (numerator == TARGET * denominator) & (denominator != 0)
        ).tolist()
        for layout in layouts.get((shape, *operators), ())
    }
    return tuple(sorted(found))


def _combine(left: Pairs, right: Pairs, axis: int) -> Pairs:
    """left (+, -, *, /) right as (numerators, denominators), the four along a new axis of operators.

    A denominator of 0 means "no value" and stays 0 whatever is done with it.
    """
    import numpy as np

    (a, b), (c, d) = left, right
    ad, cb, ac, bd = a * d, c * b, a * c, b * d
    quotient = cb * (d != 0)
    numerators = np.concatenate(np.broadcast_arrays(ad + cb, ad - cb, ac, ad), axis=axis)
    return numerators, np.concatenate(np.broadcast_arrays(bd, bd, bd, quotient), axis=axis)


@cache
def _layouts_by_tree() -> dict[tuple[Any, ...], tuple[str, ...]]:
    """(shape of the tree, its three operators from left to right) -> the layouts that read as this tree."""
    readings: dict[tuple[Any, ...], list[str]] = {}
    for layout, operators in product(_LAYOUTS, product(range(4), repeat=3)):
        marks = dict(zip("123", (OPERATORS[o] for o in operators), strict=True))
        text = "".join(marks.get(character, character) for character in layout)
        shape = fold(text.translate(_NUMBERED), lambda _, x, y: f"({x}{y})", lambda n: "abcd"[n - 1])
        template = text.translate(_SLOTS)
        readings.setdefault((shape, *operators), []).append(template)
    return {key: tuple(templates) for key, templates in readings.items()}
