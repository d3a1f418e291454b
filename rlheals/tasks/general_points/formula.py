"""Text to exact rational value: a tokenizer and a recursive descent of our own, with bounded work.

The language is `expr = term (("+"|"-") term)*`, `term = factor (("*"|"/") factor)*`,
`factor = number | "(" expr ")"`, with non-negative decimal integers and spaces between the pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import Any, NamedTuple

MAX_LENGTH = 128
MAX_DEPTH = 16

_DIGITS = frozenset("0123456789")
_ILLEGAL = re.compile(r"[^0-9+\-*/() ]")
_PIECE = re.compile(r"[0-9]+|[+\-*/()]")


class FormulaError(ValueError):
    """The text is no formula, or has no value; `position` (0-based) and `reason` say where and why.

    >>> evaluate("2**3")
    Traceback (most recent call last):
    ...
    rlheals.tasks.general_points.formula.FormulaError: position 2: a number or '(' is expected, not '*'
    """

    def __init__(self, reason: str, position: int, steps: int = 0) -> None:
        super().__init__(f"position {position}: {reason}")
        self.reason = reason
        self.position = position
        self.steps = steps


class Token(NamedTuple):
    """One number, operator or bracket, and where it begins (0-based)."""

    text: str
    position: int

    @property
    def is_number(self) -> bool:
        return self.text[0] in _DIGITS


@dataclass(frozen=True)
class Parsed:
    """A well-formed formula: its numbers from left to right, and its value or why it has none.

    `value` is None exactly when `error` is set, which only a division by zero does.
    `steps` counts characters read, grammar rules entered and operations carried out: the work done.

    >>> parse("3 / (1-1)").numbers, parse("3 / (1-1)").error.reason
    ((3, 1, 1), 'division by zero')
    """

    numbers: tuple[int, ...]
    value: Fraction | None
    error: FormulaError | None
    steps: int


def tokenize(text: str) -> list[Token]:
    """Cut text into numbers, operators and brackets, in one pass; spaces separate.

    Raises FormulaError at the first character that is none of `0-9 + - * / ( )` or a space.

    >>> [token.text for token in tokenize("8/(3 - 8/3)")]
    ['8', '/', '(', '3', '-', '8', '/', '3', ')']
    """
    illegal = _ILLEGAL.search(text)
    if illegal is not None:
        raise FormulaError(f"illegal character {illegal.group()!a}", illegal.start(), illegal.start() + 1)
    return [Token(piece.group(), piece.start()) for piece in _PIECE.finditer(text)]


def parse(text: str) -> Parsed:
    """Read text as a formula with exact rational arithmetic; its value may be missing, its numbers not.

    Work: at most 5 steps per character and 3 more, whatever the text (`Parsed.steps`, `FormulaError.steps`).
    Raises FormulaError when text is not a formula: anything but the grammar of this module, more than
    128 characters, brackets nested deeper than 16, a number with a leading zero. Raises nothing else.

    >>> parse("8/(3-8/3)")
    Parsed(numbers=(8, 3, 8, 3), value=Fraction(24, 1), error=None, steps=22)
    """
    descent = _Descent(text, _exact, lambda number: (number, 1))
    pair = descent.run()
    value = None if pair is None else Fraction(*pair)
    return Parsed(tuple(descent.numbers), value, descent.undefined, descent.steps)


def evaluate(text: str) -> Fraction:
    """The exact value of a formula.

    Raises FormulaError, and nothing else, for whatever is not a formula with a value (see `parse`).

    >>> evaluate("8/(3-8/3)")
    Fraction(24, 1)
    >>> evaluate("1/(2-2)")
    Traceback (most recent call last):
    ...
    rlheals.tasks.general_points.formula.FormulaError: position 1: division by zero
    """
    parsed = parse(text)
    if parsed.value is None:
        raise parsed.error or FormulaError("no value", 0)
    return parsed.value


def evaluate_float(text: str) -> float:
    """The value in binary floating point, as Python computes it: how the reference environment compares.

    Raises FormulaError like `evaluate`.

    >>> evaluate_float("8/(3-8/3)") == 24, evaluate_float("(1+5)*4") == 24
    (False, True)
    """
    descent = _Descent(text, _inexact, lambda number: number)
    value = descent.run()
    if value is None:
        raise descent.undefined or FormulaError("no value", 0)
    return float(value)


def fold(text: str, apply: Callable[[str, Any, Any], Any], leaf: Callable[[int], Any]) -> Any:
    """Read a formula bottom-up: leaf(number) for every number, apply(operator, left, right) for every pair.

    None when an apply raised ZeroDivisionError. Raises FormulaError like `parse`.

    >>> fold("1+2*3", lambda operator, left, right: f"({left} {operator} {right})", str)
    '(1 + (2 * 3))'
    """
    return _Descent(text, apply, leaf).run()


def _exact(operator: str, left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    """(numerator, denominator) pairs, not reduced: digits never exceed the digits of the text plus a few."""
    (a, b), (c, d) = left, right
    if operator == "+":
        return a * d + c * b, b * d
    if operator == "-":
        return a * d - c * b, b * d
    if operator == "*":
        return a * c, b * d
    if c == 0:
        raise ZeroDivisionError
    return a * d, b * c


def _inexact(operator: str, left: float, right: float) -> float:
    """Integers stay integers until a division, as in Python."""
    return {"+": add, "-": sub, "*": mul, "/": truediv}[operator](left, right)


def _seen(token: Token) -> str:
    return f"{token.text!r:.20}" if token.text else "the end"


class _Descent:
    """One recursive descent over the tokens of one text, calculating while it reads."""

    def __init__(self, text: str, apply: Callable[[str, Any, Any], Any], leaf: Callable[[int], Any]) -> None:
        if not isinstance(text, str):
            raise FormulaError(f"a formula is text, not {type(text).__name__}", 0)
        if len(text) > MAX_LENGTH:
            raise FormulaError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
        self.apply = apply
        self.leaf = leaf
        self.tokens = tokenize(text)
        self.end = Token("", len(text))
        self.steps = len(text)
        self.next = 0
        self.depth = 0
        self.numbers: list[int] = []
        self.undefined: FormulaError | None = None

    def run(self) -> Any:
        value = self._expression()
        if self.next < len(self.tokens):
            token = self.tokens[self.next]
            raise self._error(f"an operator is expected, not {_seen(token)}", token)
        return value

    def _error(self, reason: str, token: Token) -> FormulaError:
        return FormulaError(reason, token.position, self.steps)

    def _peek(self) -> Token:
        return self.tokens[self.next] if self.next < len(self.tokens) else self.end

    def _expression(self) -> Any:
        return self._chain("+-", self._term)

    def _term(self) -> Any:
        return self._chain("*/", self._factor)

    def _chain(self, operators: str, operand: Callable[[], Any]) -> Any:
        """Operands with one of the operators between each two, from left to right."""
        self.steps += 1
        value = operand()
        while (token := self._peek()).text and token.text in operators:
            self.next += 1
            value = self._combine(token, value, operand())
        return value

    def _factor(self) -> Any:
        self.steps += 1
        token = self._peek()
        if token.text == "(":
            return self._bracket(token)
        if not token.text or not token.is_number:
            raise self._error(f"a number or '(' is expected, not {_seen(token)}", token)
        if len(token.text) > 1 and token.text[0] == "0":
            raise self._error(f"the number {_seen(token)} has a leading zero", token)
        self.next += 1
        self.numbers.append(int(token.text))
        return self.leaf(self.numbers[-1])

    def _bracket(self, opening: Token) -> Any:
        if self.depth == MAX_DEPTH:
            raise self._error(f"brackets nested deeper than {MAX_DEPTH}", opening)
        self.depth += 1
        self.next += 1
        value = self._expression()
        token = self._peek()
        if token.text != ")":
            raise self._error(f"an operator or ')' is expected, not {_seen(token)}", token)
        self.next += 1
        self.depth -= 1
        return value

    def _combine(self, operator: Token, left: Any, right: Any) -> Any:
        self.steps += 1
        if left is None or right is None:
            return None
        try:
            return self.apply(operator.text, left, right)
        except ZeroDivisionError:
            self.undefined = self.undefined or self._error("division by zero", operator)
            return None
