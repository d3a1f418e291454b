"""Every way to make 24 by merging two numbers at a time: an enumeration of its own, against which others are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from rlheals.tasks.general_points.solver import TARGET, Values, check_values

Tree = Any  # an int, or (operator, left Tree, right Tree)


def written(tree: Tree) -> str:
    """As text, every pair in brackets."""
    return str(tree) if isinstance(tree, int) else f"({written(tree[1])}{tree[0]}{written(tree[2])})"


def value(tree: Tree, number: Callable[[int], Any]) -> Any:
    """Computed in the arithmetic of `number`; None when it divides by zero."""
    if isinstance(tree, int):
        return number(tree)
    a, b = value(tree[1], number), value(tree[2], number)
    if a is None or b is None or (tree[0] == "/" and b == 0):
        return None
    if tree[0] == "/":
        return a / b
    return {"+": a + b, "-": a - b, "*": a * b}[tree[0]]


def solution_trees(values: Values) -> tuple[Tree, ...]:
    """Every sequence of three merges of two numbers that ends in exactly 24, as the tree it builds.

    A merge replaces two entries by their sum, product, either difference or either quotient; the order of
    the operands of + and * counts once, equal cards and independent merges count separately. Over the
    1,820 hands from 1 to 13 there are 31,152 such sequences.

    >>> solution_trees((3, 3, 8, 8))[0]
    ('/', 8, ('-', 3, ('/', 8, 3)))
    """
    return _trees(check_values(values))


@lru_cache(maxsize=2048)
def _trees(values: Values) -> tuple[Tree, ...]:
    return tuple(_merge([(value, 1, value) for value in values]))


def _merge(entries: list[tuple[int, int, Tree]]) -> Iterator[Tree]:
    for i in range(1, len(entries)):
        for j in range(i):
            merged = _merged(entries[j], entries[i])
            if len(entries) == 2:
                yield from (tree for a, b, tree in merged if a == TARGET * b)
            else:
                rest = entries[:j] + entries[j + 1 : i] + entries[i + 1 :]
                for entry in merged:
                    yield from _merge([*rest, entry])


def _merged(left: tuple[int, int, Tree], right: tuple[int, int, Tree]) -> list[tuple[int, int, Tree]]:
    (a, b, x), (c, d, y) = left, right
    ad, cb, bd = a * d, c * b, b * d
    merged = [
        (ad + cb, bd, ("+", x, y)),
        (a * c, bd, ("*", x, y)),
        (ad - cb, bd, ("-", x, y)),
        (cb - ad, bd, ("-", y, x)),
    ]
    if c:
        merged.append((ad, cb, ("/", x, y)))
    if a:
        merged.append((cb, ad, ("/", y, x)))
    return merged
