"""Verdicts on a formula for a hand: ours (exact, worst complaint) and the reference's (floats, summed)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product, takewhile
from typing import NamedTuple

from rlheals.tasks.base import Verdict
from rlheals.tasks.general_points.cards import FACES, ID_RULE, LABELS, OOD_RULE, Rule
from rlheals.tasks.general_points.formula import FormulaError, Token, evaluate_float, parse, tokenize
from rlheals.tasks.general_points.solver import LARGEST, TARGET, Values, solutions

REWARDS = {
    "correct": 5.0,
    "partial": 1.0,
    "no_solution": -1.0,
    "wrong_number": -2.0,
    "wrong_rule": -2.0,
    "illegal_formula": -3.0,
}
TOO_LARGE = 10**6
MOST_CLAUSES = 8
NO_FORMULA = "the answer has no formula"
UNFINISHED = "the formula begins a solution but a closing bracket is missing"


class Complaint(NamedTuple):
    """One thing that is wrong with a formula: its category and a clause for the feedback."""

    category: str
    clause: str


def judge(formula: str | None, hand: Sequence[str], rule: Rule) -> Verdict:
    """The verdict with exact arithmetic; the most severe complaint alone sets the reward.

    correct +5: every value once, exactly 24. partial +1: a listed solution that lacks its closing bracket.
    illegal_formula -3: no formula, or not readable. wrong_rule -2: exactly 24, with the values of the hand
    under another rule. wrong_number -2: other numbers than the hand's. no_solution -1: not 24, or no value.
    Only what stands before the first `=` is read. Source: the reference environment's rewards.

    >>> judge("8/(3-8/3)=24", ("8", "3", "3", "8"), Rule(10, 10, 10)).reward
    5.0
    >>> judge("11+13*(5-4)", ("J", "K", "5", "4"), Rule(10, 10, 10)).read_as
    'ood'
    """
    if formula is None:
        return _verdict("illegal_formula", [NO_FORMULA])
    text = formula.split("=", 1)[0]
    values = rule.values(hand)
    try:
        parsed = parse(text)
    except FormulaError as error:
        return _verdict("partial", [UNFINISHED]) if _is_unfinished(text, values) else _unreadable(error)
    if sorted(parsed.numbers) != sorted(values):
        complaints = [complaint.clause for complaint in number_complaints(parsed.numbers, values)]
        read_as = read_under(hand, parsed.numbers) if parsed.value == TARGET else None
        if read_as is None:
            return _verdict("wrong_number", complaints)
        return _verdict("wrong_rule", [*complaints, "it would be right under another rule"], read_as)
    if parsed.value == TARGET:
        return _verdict("correct", ["the formula is right"])
    return _verdict("no_solution", [_no_solution(tokenize(text), values)])


def judge_as_reference(formula: str | None, hand: Sequence[str], rule: Rule) -> Verdict:
    """The verdict of the reference environment: penalties summed, spaces illegal, Python's floating point.

    A sum of several penalties, and 0, has the category `aggregated`: 0 is given for a listed solution whose
    value in floating point is not 24. Text beyond the caps of `formula.py` counts as having no value.

    >>> judge_as_reference("8/(3-8/3)=24", ("8", "3", "3", "8"), Rule(10, 10, 10)).reward
    0.0
    >>> judge_as_reference("2+11*(3-1)", ("J", "3", "2", "A"), Rule(10, 10, 10)).reward
    -4.0
    """
    if formula is None:
        return _verdict("illegal_formula", [NO_FORMULA])
    text = formula.split("=", 1)[0]
    values = rule.values(hand)
    try:
        if " " in text:
            raise FormulaError("illegal character ' '", text.index(" "))
        tokens = tokenize(text)
    except FormulaError as error:
        return _unreadable(error)
    numbers = [_small_number(token.text) for token in tokens if token.is_number]
    complaints = sequence_complaints(tokens) + number_complaints(numbers, values)
    if complaints:
        total = sum(REWARDS[complaint.category] for complaint in complaints)
        category = complaints[0].category if len(complaints) == 1 else "aggregated"
        return Verdict(False, total, category, _sentence([complaint.clause for complaint in complaints]))
    try:
        value: float | None = evaluate_float(text)
    except FormulaError:
        value = None
    if value == TARGET:
        return _verdict("correct", ["the formula is right"])
    if len(tokens) == longest_beginning(tokens, values):
        if value is None:
            return _verdict("partial", [UNFINISHED])
        return Verdict(False, 0.0, "aggregated", ".")
    return _verdict("no_solution", [_no_solution(tokens, values)])


def sequence_complaints(tokens: Sequence[Token]) -> list[Complaint]:
    """What is wrong with the order of the tokens, one by one; unclosed brackets are not seen.

    A number belongs at the start or after an operator or `(`; an operator after a number or `)`; `(` not
    after a number or `)`; `)` not after an operator or `(`, and there must be a `(` to close.

    >>> [complaint.clause for complaint in sequence_complaints(tokenize("3 4)"))]
    ["'4' may not follow '3'", "nothing is open for ')' to close"]
    """
    complaints: list[Complaint] = []
    before, opened = "", 0
    for token in tokens:
        text = token.text
        after_value = before == ")" or before.isdigit()
        wanted_after_value = text != "(" and not token.is_number
        if after_value != wanted_after_value and not (text == ")" and not before):
            seen = repr(before[:20]) if before else "the beginning"
            complaints.append(Complaint("illegal_formula", f"{text[:20]!r} may not follow {seen}"))
        if text == "(":
            opened += 1
        elif text == ")":
            if opened == 0:
                complaints.append(Complaint("illegal_formula", "nothing is open for ')' to close"))
            opened = max(0, opened - 1)
        before = text
    return complaints


def number_complaints(numbers: Sequence[int], values: Values) -> list[Complaint]:
    """What is wrong with the numbers: foreign ones, else over-used ones; and, independently, unused ones.

    >>> [complaint.clause for complaint in number_complaints((3, 3, 5, 6), (3, 5, 6, 10))]
    ['3 is used too often', '10 is not used']
    """
    used, owned = Counter(numbers), Counter(values)
    clauses = []
    if foreign := used.keys() - owned.keys():
        clauses.append(f"{_are(foreign)} not among the hand's values")
    elif excess := used - owned:
        clauses.append(f"{_are(excess)} used too often")
    if unused := owned - used:
        clauses.append(f"{_are(unused)} not used")
    return [Complaint("wrong_number", clause) for clause in clauses]


def read_under(hand: Sequence[str], numbers: Sequence[int]) -> str | None:
    """The rule under which these numbers are the hand's values, None if there is none.

    `id` or `ood` where that rule gives these numbers, else the values of the hand's faces, such as `J5-Q7`.

    >>> read_under(("A", "J", "Q", "J"), (5, 1, 7, 5)), read_under(("A", "J", "2", "J"), (5, 1, 7, 2))
    ('J5-Q7', None)
    """
    wanted = sorted(numbers)
    for rule in (ID_RULE, OOD_RULE):
        if sorted(rule.values(hand)) == wanted:
            return rule.name
    faces = [face for face in FACES if face in hand]
    candidates = sorted({number for number in numbers if 1 <= number <= LARGEST})
    for assignment in product(candidates, repeat=len(faces)):
        face_values = dict(zip(faces, assignment, strict=True))
        if sorted(face_values.get(label) or LABELS.index(label) + 1 for label in hand) == wanted:
            return "-".join(f"{face}{value}" for face, value in face_values.items())
    return None


def longest_beginning(tokens: Sequence[Token], values: Values) -> int:
    """How many leading tokens are also the leading tokens of some listed solution of the hand.

    >>> longest_beginning(tokenize("8/(3*8/3)"), (3, 3, 8, 8))
    4
    """
    best = 0
    for solution in _solution_tokens(tuple(sorted(values))):
        pairs = zip(tokens, solution, strict=False)
        best = max(best, sum(1 for _ in takewhile(lambda pair: pair[0].text == pair[1], pairs)))
    return best


@lru_cache(maxsize=2048)
def _solution_tokens(values: Values) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(token.text for token in tokenize(text)) for text in solutions(values))


def _unreadable(error: FormulaError) -> Verdict:
    where = f"at character {error.position + 1}, {error.reason}"
    return _verdict("illegal_formula", [f"the formula cannot be read: {where}"])


def _is_unfinished(text: str, values: Values) -> bool:
    """Whether closing brackets at the end are all that a listed solution has more than this text."""
    if text.count("(") <= text.count(")"):
        return False
    try:
        tokens = tokenize(text)
    except FormulaError:
        return False
    numbers = [_small_number(token.text) for token in tokens if token.is_number]
    return sorted(numbers) == sorted(values) and longest_beginning(tokens, values) == len(tokens)


def _no_solution(tokens: Sequence[Token], values: Values) -> str:
    count = longest_beginning(tokens, values)
    if count == 0:
        return f"the formula is not {TARGET} and no solution begins like it"
    beginning = "".join(token.text for token in tokens[:count])
    return f"the formula is not {TARGET}, but a solution can begin with {beginning}"


def _verdict(category: str, clauses: Sequence[str], read_as: str | None = None) -> Verdict:
    return Verdict(category == "correct", REWARDS[category], category, _sentence(clauses), read_as)


def _sentence(clauses: Sequence[str]) -> str:
    text = "; ".join(clauses[:MOST_CLAUSES])
    return text[:1].upper() + text[1:] + "."


def _small_number(text: str) -> int:
    """The number, or a stand-in for one too large to be on any card (so that no huge integer is made)."""
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= 6 else TOO_LARGE


def _are(numbers: Iterable[int]) -> str:
    """At most eight numbers in ascending order, and the verb."""
    ordered = sorted(numbers)
    listed = ", ".join(str(number) if number < TOO_LARGE else "a large number" for number in ordered[:8])
    return f"{listed} {'is' if len(ordered) == 1 else 'are'}"


_FIELD = re.compile(r'"formula"\s*:\s*"((?:[^"\\]|\\.)*)"')
_REFERENCE = re.compile(r'"formula": "([^"]*)"')
_FENCE = re.compile(r"```\w*\s*(.*?)\s*```", re.DOTALL)
_SIGNS = str.maketrans("×xX·÷−–", "****/--")
"""How people write the four operations."""


def formula_of(reply: str, reference: bool = False) -> str | None:
    """The formula field of a reply, None when it has none that is text.

    What counts is what stands behind the last `</think>`; a thought that is not closed is no answer. There, the whole
    as strict JSON; else the last `"formula": "..."`, so that a draft, a repeated question, a trailing comma or words
    around the object do no harm. A reply without braces and double quotes is taken to be the formula itself, in a code
    fence or not. White space at the ends goes, and `×`, `x`, `·`, `÷` and `−` are read as the signs that they stand
    for. `reference`: as the reference environment reads it, the first field with exactly one space after the colon.
    Never raises for text. Source: the field extraction of the reference environment; the rest is our addition.

    >>> formula_of('{"cards": ["A"], "formula": "8/(3-8/3)=24",}'), formula_of(" 8 ÷ (3 − 8 ÷ 3)\\n")
    ('8/(3-8/3)=24', '8 / (3 - 8 / 3)')
    >>> formula_of('<think>{"formula": "3*8"}</think>{"formula": "8+16"}')
    '8+16'
    >>> formula_of('{"formula": 24}'), formula_of('{"number": [1]}')
    (None, None)
    """
    if reference:
        return _as_reference(reply)
    _, closed, answer = reply.rpartition("</think>")
    if not closed and "<think>" in answer:
        return None
    answer = answer.strip()
    whole = _json(answer)
    if isinstance(whole, dict) and "formula" in whole:
        found = whole["formula"]
    elif fields := _FIELD.findall(answer):
        found = _json(f'"{fields[-1]}"')
        found = fields[-1] if found is None else found
    elif "{" in answer or '"' in answer:
        return None
    else:
        found = (_FENCE.findall(answer) or [answer])[-1]
    return found.strip().translate(_SIGNS) if isinstance(found, str) else None


def _as_reference(reply: str) -> str | None:
    read = _json(reply)
    if isinstance(read, dict) and "formula" in read:
        return read["formula"] if isinstance(read["formula"], str) else None
    match = _REFERENCE.search(reply)
    if match is not None:
        return match.group(1)
    return None if "{" in reply or '"' in reply else reply


def _json(text: str) -> object:
    """What strict JSON says, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
