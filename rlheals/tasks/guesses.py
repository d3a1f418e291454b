"""What a policy scores that looks at a matrix from afar, or not at all: lines to draw beside every accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Solved = tuple[Sequence[tuple[tuple[int, ...], ...]], Sequence[int]]
"""Matrices and their answers."""

NEIGHBOURS = 15
MOST_ASKED = 1000


def blind(trained: Solved, asked: Mapping[str, Solved], attempts: int) -> dict[str, float]:
    """What fixed guesses and guesses by magnitude score on splits (on the first 1,000 matrices), by policy, at the
    first try and within an episode's attempts."""
    scores = dict[str, float]()
    for split, (matrices, answers) in asked.items():
        some = matrices[:MOST_ASKED], answers[:MOST_ASKED]
        for tries in (1, attempts):
            scores[f"{tries} fixed guesses on {split}"] = common_answers(trained[1], some[1], tries)
            scores[f"{tries} guesses by magnitude on {split}"] = nearest(trained, some, tries)
    return scores


def common_answers(trained: Sequence[int], asked: Sequence[int], tries: int) -> float:
    """Share of answers that are among the `tries` most common ones of the training set: the same guesses always.

    >>> common_answers([1, 1, 1, 2, 2, 3], [1, 2, 2, 5], 2)
    0.75
    """
    ordered = sorted(Counter(trained).items(), key=lambda pair: (-pair[1], pair[0]))
    return sum(answer in [guess for guess, _ in ordered[:tries]] for answer in asked) / len(asked)


def nearest(trained: Solved, asked: Solved, tries: int = 1) -> float:
    """Share of answers that are among the `tries` most common ones of the 15 training matrices that are closest in
    magnitude: mean, root mean square, median and largest of the absolute entries, and the share of zeros.

    >>> train = [((1, 1),), ((9, 9),)] * 15, [1, 9] * 15
    >>> nearest(train, ([((8, 8),), ((2, 2),)], [9, 2]))
    0.5
    """
    import numpy as np

    mine, theirs = (np.array([magnitudes(matrix) for matrix in one[0]]) for one in (trained, asked))
    mean, scale = mine.mean(0), np.where(mine.std(0) > 0, mine.std(0), 1)
    mine, theirs = (mine - mean) / scale, (theirs - mean) / scale
    right = 0
    for row, answer in zip(theirs, asked[1], strict=True):
        closest = np.argsort(((mine - row) ** 2).sum(1), kind="stable")[:NEIGHBOURS]
        votes = Counter(trained[1][index] for index in closest)
        right += answer in sorted(votes, key=lambda guess: (-votes[guess], guess))[:tries]
    return right / len(theirs)


def magnitudes(matrix: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Mean, root mean square, median, largest of the absolute entries, and the share of zeros.

    >>> magnitudes(((3, -4), (0, 1)))
    (2.0, 2.5495097567963922, 2.0, 4.0, 0.25)
    """
    sizes = sorted(abs(entry) for row in matrix for entry in row)
    count, half = len(sizes), len(sizes) // 2
    mean, square = sum(sizes) / count, sum(size * size for size in sizes) / count
    return mean, square**0.5, (sizes[half] + sizes[~half]) / 2, float(sizes[-1]), sizes.count(0) / count
