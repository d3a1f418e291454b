"""Matrices of whole numbers, exactly: what counts as one, elimination, and tasks that ask for one number."""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from rlheals.errors import BadInput
from rlheals.tasks.base import Item, Task, Verdict
from rlheals.tasks.guesses import blind
from rlheals.tasks.replies import spoken, strict_json

Matrix = tuple[tuple[int, ...], ...]

MOST_ROWS = 16
LARGEST_ENTRY = 10**6
LONGEST_ANSWER = 64
SALT = 101
"""With it the parts of every task come close to that proportion: there are 70 such sets of 2x2 matrices."""
COMPAT_DRAWS = {"sft": 1200, "rl": 400, "held_out": 400}
"""Of the reference's generator, one part after the other; any other split has as many as `held_out`."""

_NUMBER = re.compile(r"[-+\u2212]?[0-9]{1,18}")
_FIELD = re.compile(r'"answer"\s*+:\s*+([^,}]{0,80})')
_REFERENCE = re.compile(r'"answer"\s*+:\s*+(-?\d+)')


def as_matrix(rows: object) -> Matrix:
    """Rows of equally many whole numbers. Raises BadInput for anything else: floats, booleans, ragged rows, text.

    >>> as_matrix([[1, 2], [3, 4]])
    ((1, 2), (3, 4))
    """
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in rows):
        raise BadInput(f"matrix: {type(rows).__name__} is not accepted, but rows, such as [[1, 2], [3, 4]]")
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not 1 <= len(rows) <= MOST_ROWS or not 1 <= min(widths) <= MOST_ROWS:
        raise BadInput(
            f"matrix: 1 to {MOST_ROWS} rows are accepted, all of the same 1 to {MOST_ROWS} numbers"
        )
    for entry in (entry for row in rows for entry in row):
        if type(entry) is not int or abs(entry) > LARGEST_ENTRY:
            kind = type(entry).__name__
            raise BadInput(
                f"matrix: an entry ({kind}) is no whole number from -{LARGEST_ENTRY} to {LARGEST_ENTRY}"
            )
    return tuple(tuple(row) for row in rows)


def eliminated(matrix: Matrix) -> tuple[int, int]:
    """Rank, and the minor of the rows and columns that have it: of a regular square matrix its determinant.

    Fraction-free elimination (Bareiss 1968): after k steps every entry is a minor of k + 1 rows, so that all divisions
    leave no rest and Python's integers are exact.

    >>> eliminated(((0, 2), (3, 4))), eliminated(((1, 2, 3), (2, 4, 6)))
    ((2, -6), (1, 1))
    """
    rows = [list(row) for row in matrix]
    done, last, sign = 0, 1, 1
    for column in range(len(rows[0])):
        found = next((index for index in range(done, len(rows)) if rows[index][column]), None)
        if found is None:
            continue
        if found != done:
            rows[done], rows[found], sign = rows[found], rows[done], -sign
        pivot = rows[done]
        for row in rows[done + 1 :]:
            factor = row[column]
            row[column:] = [
                (pivot[column] * mine - factor * its) // last
                for mine, its in zip(row[column:], pivot[column:], strict=True)
            ]
        last, done = pivot[column], done + 1
        if done == len(rows):
            break
    return done, sign * last


def rank(matrix: Matrix) -> int:
    """Over the rationals.

    >>> rank(((1, 2, 3), (2, 4, 6)))
    1
    """
    return eliminated(matrix)[0]


def determinant(matrix: Matrix) -> int:
    """Of a square matrix.

    >>> determinant(((1, 2), (3, 4)))
    -2
    """
    found, minor = eliminated(matrix)
    return minor if found == len(matrix) else 0


def part_of(matrix: Matrix) -> str:
    """`sft`, `rl` or `held_out`, in proportion 3 : 1 : 1 by the SHA-256 of the sorted absolute entries.

    Matrices that differ only in signs and places share a part, so that a held-out one is not next to one of training.
    """
    sizes = sorted(abs(entry) for row in matrix for entry in row)
    share = _digest(f"{SALT} {' '.join(map(str, sizes))}")[0] / 256
    return "sft" if share < 0.6 else "rl" if share < 0.8 else "held_out"


def by_hash(matrices: Iterable[Matrix]) -> list[Matrix]:
    """In the order of their SHA-256: the first so many are like the rest."""
    return sorted(matrices, key=lambda matrix: _digest(json.dumps(matrix)))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# Replies -------------------------------------------------------------------------------------------------------------


def fields_of(reply: str) -> dict[str, Any]:
    """The JSON object that a reply is, whose `answer` is a whole number where one can be read.

    What counts is what stands behind the last `</think>`; a thought that is not closed is no answer. There, the whole
    as strict JSON; else the last `"answer": NUMBER`; else the whole as a number. A number may be in quotes.

    >>> fields_of('{"answer": "-3"}'), fields_of("So it is {'answer': 3}, or {\\"answer\\": 5}."), fields_of("7")
    ({'answer': -3}, {'answer': 5}, {'answer': 7})
    >>> fields_of('{"answer": true}'), fields_of('{"answer": 2.0}'), fields_of("the 2x2 matrix")
    ({}, {}, {})
    """
    answer = spoken(reply)
    if answer is None:
        return {}
    whole = strict_json(answer)
    if isinstance(whole, dict) and "answer" in whole:
        found = whole.pop("answer")
        number = found if type(found) is int else _number(found)
        return whole if number is None else whole | {"answer": number}
    read = _number(fields[-1].strip().strip('"') if (fields := _FIELD.findall(answer)) else answer)
    return {} if read is None else {"answer": read}


def answer_as_reference(reply: str) -> int | None:
    """As the reference environment reads it: the field, or else the first integer anywhere in the text.

    >>> answer_as_reference("the 2x2 matrix"), answer_as_reference("none")
    (2, None)
    """
    whole = strict_json(reply)
    try:
        if isinstance(whole, dict) and "answer" in whole:
            return int(str(whole["answer"]).strip())
    except (ValueError, RecursionError):
        pass
    found = _REFERENCE.search(reply) or re.search(r"(-?\d+)", reply)
    try:
        return int(found[1]) if found else None
    except ValueError:  # thousands of digits
        return None


def _number(text: object) -> int | None:
    if not isinstance(text, str) or len(text) > LONGEST_ANSWER or not _NUMBER.fullmatch(text.strip()):
        return None
    return int(text.strip().replace("\u2212", "-"))


# Tasks ---------------------------------------------------------------------------------------------------------------


class MatrixTask(Task):
    """Shows a matrix and asks for one number, in words: for language models.

    compat="reference": matrices as the reference's generator draws them, again and again the same ones, in all splits;
    replies as it reads them. Source of rewards and ranges: the reference's environments.
    """

    options = ("compat",)
    rewards: ClassVar = {"correct": 5.0, "wrong": -1.0, "unreadable": -1.0}
    feedback_words: ClassVar = {"wrong": "value", "unreadable": "format"}
    wordings: ClassVar[tuple[str, ...]]
    """Questions with {rows}, {columns} and {matrix} to fill in."""

    def __init__(self, compat: str | None = None) -> None:
        if compat not in (None, "reference"):
            raise BadInput(f"task {self.name}: compat = {compat!r:.40}; accepted: None, 'reference'")
        self.compat = compat

    @abstractmethod
    def value(self, matrix: Matrix) -> int:
        """The right answer."""

    @abstractmethod
    def matrices(self, split: str, rule: str) -> Sequence[Matrix]:
        """Those of a split, all different; `rule` is the one that the split is asked under."""

    @abstractmethod
    def draws(self, rule: str, count: int) -> list[Matrix]:
        """The first so many that the reference's generator draws."""

    def items(self, split: str) -> list[Item]:
        """The matrices of a split, as items whose payload is the matrix. BadInput for other splits."""
        known = (*self.splits, self.rules[0], *(f"rule:{rule}" for rule in self.rules))
        if split not in known:
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(known)}")
        named = split.removeprefix("rule:")
        if named == self.rules[0]:
            return [item for part in self.splits[:3] for item in self.items(part)]
        rule = named if named in self.rules else self.rules[0]
        if self.compat is None:
            return [self._item(matrix, rule, named) for matrix in self.matrices(named, rule)]
        parts = tuple(COMPAT_DRAWS)
        before = sum(COMPAT_DRAWS[part] for part in parts[: parts.index(named)]) if named in parts else 0
        drawn = self.draws(rule, before + COMPAT_DRAWS.get(named, COMPAT_DRAWS["held_out"]))
        return [self._item(drawn[at], rule, named, f"{at}/") for at in range(before, len(drawn))]

    def _item(self, matrix: Matrix, rule: str, split: str, number: str = "") -> Item:
        text = ";".join(",".join(map(str, row)) for row in matrix)
        split = split if split in self.splits else f"rule:{rule}"
        return Item(f"{rule}/{number}{text}", split, rule, text, matrix)

    def prompt(self, item: Item, form: int = 0) -> str:
        """The question in one of `wordings`, and the form of the answer."""
        matrix = item.payload
        asked = self.wordings[form].format(
            rows=len(matrix), columns=len(matrix[0]), matrix=json.dumps(matrix)
        )
        return f'{asked}\nAnswer with one JSON object: {{"answer": [a whole number]}}'

    def answers(self, item: Item) -> tuple[str, ...]:
        """The one expert reply."""
        return (json.dumps({"answer": self.value(item.payload)}),)

    def grade(self, item: Item, reply: str) -> Verdict:
        """correct +5, wrong -1, unreadable -1: see `fields_of`, or `answer_as_reference` under compat."""
        if not isinstance(reply, str):
            raise BadInput(f"item {item.id}: the reply is {type(reply).__name__}; text is accepted")
        answer = answer_as_reference(reply) if self.compat else fields_of(reply).get("answer")
        if answer is None:
            return Verdict(False, self.rewards["unreadable"], "unreadable", "No answer can be read.")
        if self.right(answer, item.payload):
            return Verdict(True, self.rewards["correct"], "correct", "The answer is right.")
        return Verdict(False, self.rewards["wrong"], "wrong", f"The {self.name} is another number.")

    def right(self, answer: int, matrix: Matrix) -> bool:
        return answer == self.value(matrix)

    def solved(self, split: str) -> tuple[list[Matrix], list[int]]:
        """Matrices of a split and their answers."""
        matrices = [item.payload for item in self.items(split)]
        return matrices, [self.value(matrix) for matrix in matrices]

    def chance(self) -> dict[str, float]:
        """What policies score that calculate nothing of the kind, by name."""
        return blind(
            self.solved("sft"), {split: self.solved(split) for split in ("held_out", "ood")}, self.attempts
        )

    def facts(self) -> tuple[str, ...]:
        return facts(self, self.splits, self.chance())


def facts(task: Task, splits: Iterable[str], chance: Mapping[str, float]) -> tuple[str, ...]:
    """Sizes of the splits, what chance policies score, and a digest of all items with their answers."""
    sizes, digest = list[str](), hashlib.sha256()
    for split in splits:
        items = task.items(split)
        sizes.append(f"{split}: {len(items)} items")
        for item in items:
            digest.update(f"{split}\t{item.id}\t{task.answers(item)[0]}\n".encode())
    scores = (f"chance, {policy}: {score:.3f}" for policy, score in chance.items())
    return (*sizes, *scores, f"digest of items and answers: {digest.hexdigest()[:16]}")
