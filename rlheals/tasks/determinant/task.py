"""Determinants in words: of two rows for training, of three rows as OOD."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from itertools import product
from typing import ClassVar

from rlheals.tasks.matrices import Matrix, MatrixTask, by_hash, determinant, part_of

SIZES = {"id": (2, 4), "ood": (3, 5), "4x4": (4, 3)}
"""By rule: rows, and the largest absolute value of an entry."""
DRAWN = 600
MOST_OF_A_SIZE = 4
"""Matrices with the same absolute determinant among those drawn."""
MOST_HELD_OUT = 24
"""The same among those held out."""


class Determinant(MatrixTask):
    """Five attempts at the determinant, a number that is not 0; whoever learns it for 2x2 is asked for 3x3.

    >>> task = Determinant()
    >>> item = task.items("held_out")[0]
    >>> task.grade(item, task.answers(item)[0]).solved
    True
    """

    name = "determinant"
    called = ("matrix", "matrices")
    rules = tuple(SIZES)
    wordings: ClassVar = (
        "Compute the determinant of this {rows}x{columns} matrix:\n{matrix}",
        "The rows of a {rows}x{columns} matrix are {matrix}. What is its determinant?",
        "Let M = {matrix}, a {rows}x{columns} matrix. Give det(M).",
        "Work out the determinant of the matrix {matrix} ({rows} rows, {columns} columns).",
    )
    forms = len(wordings)

    def value(self, matrix: Matrix) -> int:
        return determinant(matrix)

    def matrices(self, split: str, rule: str) -> tuple[Matrix, ...]:
        """sft, rl, held_out: parts of the 6,016 regular 2x2 matrices with entries -4..4 (`part_of`); else drawn ones.

        At most 24 held-out matrices and 4 drawn ones have the same absolute determinant: no answer is common.

        >>> [len(Determinant().items(split)) for split in ("sft", "rl", "held_out", "ood")]
        [3672, 1216, 368, 600]
        """
        return _parts()[split] if rule == "id" else _drawn(rule)

    def draws(self, rule: str, count: int) -> list[Matrix]:
        """Uniform entries; every other matrix, by chance, the mean of it and its transpose, halves to even."""
        rows, largest = SIZES[rule]
        chance, found = random.Random(f"reference {rule}"), list[Matrix]()
        while len(found) < count:
            symmetric = chance.random() < 0.5
            matrix = _uniform(chance, rows, largest)
            while not determinant(made := _symmetric(matrix) if symmetric else matrix):
                matrix = _uniform(chance, rows, largest)
            found.append(made)
        return found

    def chance(self) -> dict[str, float]:
        """Also the trained rule where a 3x3 matrix has 2x2: in its upper left corner."""
        matrices, answers = self.solved("ood")
        corners = [determinant(tuple(row[:2] for row in matrix[:2])) for matrix in matrices]
        copied = sum(corner == right for corner, right in zip(corners, answers, strict=True))
        return super().chance() | {"upper left 2x2 determinant on ood": copied / len(corners)}


TASK = Determinant


def _uniform(chance: random.Random, rows: int, largest: int) -> Matrix:
    return tuple(tuple(chance.randint(-largest, largest) for _ in range(rows)) for _ in range(rows))


def _symmetric(matrix: Matrix) -> Matrix:
    """The mean with the transpose; Python rounds halves to even, as NumPy does."""
    return tuple(
        tuple(round((mine + its) / 2) for mine, its in zip(row, column, strict=True))
        for row, column in zip(matrix, zip(*matrix, strict=True), strict=True)
    )


@cache
def _drawn(rule: str) -> tuple[Matrix, ...]:
    rows, largest = SIZES[rule]
    chance, found, sizes = random.Random(f"determinant {rule}"), dict[Matrix, None](), Counter[int]()
    while len(found) < DRAWN:
        matrix = _uniform(chance, rows, largest)
        size = abs(determinant(matrix))
        if size and matrix not in found and sizes[size] < MOST_OF_A_SIZE:
            found[matrix] = None
            sizes[size] += 1
    return tuple(found)


@cache
def _parts() -> dict[str, tuple[Matrix, ...]]:
    largest = SIZES["id"][1]
    every = product(range(-largest, largest + 1), repeat=4)
    parts: dict[str, list[Matrix]] = {"sft": [], "rl": [], "held_out": []}
    sizes = Counter[int]()
    for matrix in by_hash(((a, b), (c, d)) for a, b, c, d in every if a * d != b * c):
        size, part = abs(determinant(matrix)), part_of(matrix)
        if part == "held_out":
            sizes[size] += 1
        if part != "held_out" or sizes[size] <= MOST_HELD_OUT:
            parts[part].append(matrix)
    return {part: tuple(matrices) for part, matrices in parts.items()}
