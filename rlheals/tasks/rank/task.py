"""The rank of a matrix in words: 4x5 for training, 5x4 with larger entries as OOD."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rlheals.tasks.matrices import Matrix, MatrixTask, by_hash, part_of, rank

if TYPE_CHECKING:
    import numpy as np

ROWS, COLUMNS = 4, 5
NEGATIVE = ROWS * COLUMNS // 2
MOST_OF_A_SET = 24
MOST_DRAWN = 150
BATCH = 250_000


class Range(NamedTuple):
    """Largest entries of both factors for ranks 1, 2, 3, that of the product, and how many batches are drawn."""

    factors: tuple[tuple[int, int], ...]
    largest: int
    batches: int


SMALL = Range(((3, 4), (2, 2), (2, 2)), 9, 16)
LARGE = Range(((3, 4), (2, 3), (2, 2)), 12, 6)
KINDS = {"id": (SMALL, False), "ood": (LARGE, True), "5x4": (SMALL, True), "large": (LARGE, False)}
"""By rule: the range, and whether the matrices are shown with rows as columns."""
REFERENCE = {"id": 4, "ood": 5, "5x4": 4, "large": 5}
"""Largest entry of both factors in the reference's generator."""


class Rank(MatrixTask):
    """Two attempts at the rank, 1 to 4.

    In sets of matrices of all four ranks with the same absolute entries, each with ten negative ones: what does not
    look at the places of entries has no more than chance.

    >>> task = Rank()
    >>> item = task.items("ood")[0]
    >>> task.grade(item, task.answers(item)[0]).solved
    True
    """

    name = "rank"
    called = ("matrix", "matrices")
    rules = tuple(KINDS)
    attempts = 2
    wordings: ClassVar = (
        "What is the rank of this {rows}x{columns} matrix?\n{matrix}",
        "Find the number of linearly independent rows of the {rows}x{columns} matrix {matrix}.",
        "Let M = {matrix}, a {rows}x{columns} matrix. Give rank(M).",
        "Determine the rank of the matrix {matrix} ({rows} rows, {columns} columns).",
    )
    forms = len(wordings)

    def value(self, matrix: Matrix) -> int:
        return rank(matrix)

    def right(self, answer: int, matrix: Matrix) -> bool:
        """The reference compares what is left after division by 1000."""
        return (answer % 1000 if self.compat else answer) == self.value(matrix)

    def matrices(self, split: str, rule: str) -> tuple[Matrix, ...]:
        """sft, rl, held_out: parts (`part_of`); else at most 600 matrices: of each rank as many, always."""
        kind, turned = KINDS[rule]
        sets = [one for one in _sets(kind) if rule != "id" or part_of(one[0]) == split]
        found = by_hash(matrix for one in (sets if rule == "id" else sets[:MOST_DRAWN]) for matrix in one)
        return tuple(tuple(zip(*matrix, strict=True)) for matrix in found) if turned else tuple(found)

    def draws(self, rule: str, count: int) -> list[Matrix]:
        """Ranks 0 to 4, a product of uniform factors: entries grow with the rank, and a fifth of matrices is zero."""
        largest, (rows, columns) = REFERENCE[rule], (COLUMNS, ROWS) if KINDS[rule][1] else (ROWS, COLUMNS)
        chance, found = random.Random(f"reference {rule}"), list[Matrix]()
        for _ in range(count):
            wanted, made = chance.randint(0, ROWS), tuple((0,) * columns for _ in range(rows))
            while rank(made) != wanted:
                left = [[chance.randint(-largest, largest) for _ in range(wanted)] for _ in range(rows)]
                right = [[chance.randint(-largest, largest) for _ in range(columns)] for _ in range(wanted)]
                made = tuple(
                    tuple(
                        sum(x * y for x, y in zip(row, column, strict=True))
                        for column in zip(*right, strict=True)
                    )
                    for row in left
                )
            found.append(made)
        return found


TASK = Rank


@cache
def _sets(kind: Range) -> tuple[tuple[Matrix, ...], ...]:
    """Matrices of rank 1, 2, 3 and 4 that have the same absolute entries; none of them 0, ten of them negative.

    Of the first three ranks, products of random factors whose absolute entries occur with all three; of rank 4, the
    entries of that of rank 1 in random places.
    """
    import numpy as np

    random = np.random.default_rng([kind.largest, 4])
    found: dict[int, dict[bytes, dict[Matrix, None]]] = {wanted: defaultdict(dict) for wanted in (1, 2, 3)}
    for wanted, (left, right) in enumerate(kind.factors, 1):
        for _ in range(kind.batches):
            drawn = random.integers(-left, left + 1, (BATCH, ROWS, wanted), dtype=np.int8) @ random.integers(
                -right, right + 1, (BATCH, wanted, COLUMNS), dtype=np.int8
            )
            sizes = np.sort(np.abs(drawn).reshape(BATCH, -1), axis=1)
            fit = (sizes[:, 0] > 0) & (sizes[:, -1] <= kind.largest)
            for key, rows in zip(map(bytes, sizes[fit]), drawn[fit], strict=True):
                if (wanted > 1 and key not in found[wanted - 1]) or len(found[wanted][key]) == MOST_OF_A_SET:
                    continue
                matrix = _balanced(rows, random)
                if matrix and rank(matrix) == wanted:
                    found[wanted][key][matrix] = None
    sets = list[tuple[Matrix, ...]]()
    for key in sorted(found[3]):
        for matrices in zip(*(found[wanted][key] for wanted in (1, 2, 3)), strict=False):
            full = matrices[0]
            while rank(full) < ROWS:
                mixed = random.permutation(np.array(matrices[0]).ravel()).reshape(ROWS, COLUMNS)
                full = tuple(map(tuple, mixed.tolist()))
            sets.append((*matrices, full))
    return tuple(sets[index] for index in random.permutation(len(sets)))


def _balanced(rows: np.ndarray, random: np.random.Generator) -> Matrix | None:
    """With random signs of rows and columns, which change no rank, such that ten entries are negative; 64 tries."""
    import numpy as np

    signs = random.choice(np.array([-1, 1], np.int8), (64, ROWS + COLUMNS))
    signed = rows * signs[:, :ROWS, None] * signs[:, None, ROWS:]
    right = np.flatnonzero((signed < 0).sum((1, 2)) == NEGATIVE)
    return tuple(map(tuple, signed[right[0]].tolist())) if len(right) else None
