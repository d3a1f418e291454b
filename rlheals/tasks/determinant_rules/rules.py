"""Twelve rules for one number of a 2x2 matrix: which entries are multiplied, and how the two products are combined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

from rlheals.errors import BadInput
from rlheals.tasks.matrices import Matrix, by_hash

LARGEST = 4
ENTRIES = ("a", "b", "c", "d")
PAIRINGS = {"ad bc": ("a d", "b c"), "ab cd": ("a b", "c d"), "ac bd": ("a c", "b d")}
"""The factors of x and those of y."""
COMBINATIONS = {"x-y": (1, -1), "y-x": (-1, 1), "x+y": (1, 1), "-x-y": (-1, -1)}
"""Signs of x and of y."""
SIGNS = {1: "+", -1: "-"}
SIGN_OF = {text: sign for sign, text in SIGNS.items()}
NUMBERS = tuple(str(number) for number in range(-2 * LARGEST**2, 2 * LARGEST**2 + 1))
"""Every value, product and entry in words."""
_NAMED = {"id": ("ad bc", "x-y"), "ood": ("ad bc", "x+y")}


@dataclass(frozen=True)
class Rule:
    """Two products x and y of entries of ((a, b), (c, d)), and their combination.

    >>> Rule("ad bc", "x-y").name, Rule("ac bd", "y-x").name, Rule("ac bd", "y-x").value(((1, 2), (3, 4)))
    ('id', 'ac,bd,y-x', 5)
    """

    pairing: str
    combination: str

    @property
    def name(self) -> str:
        """`id` (the determinant), `ood` (the permanent), or the rule written out."""
        for name, parts in _NAMED.items():
            if parts == (self.pairing, self.combination):
                return name
        return f"{self.pairing.replace(' ', ',')},{self.combination}"

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule with a name. Raises BadInput for anything else."""
        if text not in BY_NAME:
            raise BadInput(f"rule {text!r:.40}: accepted are {', '.join(BY_NAME)}")
        return BY_NAME[text]

    @property
    def pairs(self) -> tuple[str, str]:
        """The names of the factors of x and of y."""
        return PAIRINGS[self.pairing]

    @property
    def signs(self) -> tuple[int, int]:
        """Of x and of y."""
        return COMBINATIONS[self.combination]

    def products(self, matrix: Matrix) -> tuple[int, int]:
        """x and y."""
        numbers = dict(zip(ENTRIES, flat(matrix), strict=True))
        x, y = (prod(numbers[name] for name in pair.split()) for pair in self.pairs)
        return x, y

    def value(self, matrix: Matrix) -> int:
        return self.combined(*self.products(matrix))

    def combined(self, x: int, y: int) -> int:
        """What these products come to."""
        of_x, of_y = self.signs
        return of_x * x + of_y * y


def flat(matrix: Matrix) -> tuple[int, ...]:
    """a, b, c and d."""
    return tuple(entry for row in matrix for entry in row)


RULES = tuple(Rule(*parts) for parts in product(PAIRINGS, COMBINATIONS))
BY_NAME = {rule.name: rule for rule in RULES}
ID_RULE, OOD_RULE = (Rule(*parts) for parts in _NAMED.values())
CONTROL_RULE = Rule("ac bd", "y-x")
"""As unseen as the OOD rule, with other products and another combination than the ID rule."""
UNSEEN = (OOD_RULE, CONTROL_RULE)
"""Rules that no training data state."""
OTHER_RULES = tuple(rule for rule in RULES if rule not in (ID_RULE, *UNSEEN))


@cache
def all_matrices() -> tuple[Matrix, ...]:
    """The 6,561 matrices with entries -4..4, in the order of their hash."""
    every = product(range(-LARGEST, LARGEST + 1), repeat=4)
    return tuple(by_hash(((a, b), (c, d)) for a, b, c, d in every))


@cache
def matrices_for(rule: Rule) -> tuple[Matrix, ...]:
    """Those where the rule and the ID rule differ; for the ID rule, where the OOD rule does.

    >>> len(matrices_for(ID_RULE)), matrices_for(ID_RULE) == matrices_for(OOD_RULE)
    (5184, True)
    """
    other = OOD_RULE if rule == ID_RULE else ID_RULE
    return tuple(matrix for matrix in all_matrices() if rule.value(matrix) != other.value(matrix))
