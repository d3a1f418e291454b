"""Card ranks, rules for the face cards, hands, the census of solvable hands and the split of the ID hands."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

from rlheals.errors import BadInput
from rlheals.tasks.base import Item
from rlheals.tasks.general_points.solver import (
    LARGEST,
    TARGET,
    Values,
    canonical_solution,
    solutions,
    solvable,
    solved_table,
)

__all__ = [
    "FACES", "ID_RULE", "LABELS", "OOD_RULE", "TARGET", "Cards", "Hand", "Rule", "all_hands", "canonical_solution",
    "census", "hands_solvable", "parse_hand", "solutions", "solvable", "split_of",
]  # fmt: skip

LABELS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
FACES = ("J", "Q", "K")
SHARES = {"sft": 0.6, "rl": 0.2, "held_out": 0.2}

Hand = tuple[str, str, str, str]

_RANK = {label: rank for rank, label in enumerate(LABELS, 1)}
_NAMED = {"id": (10, 10, 10), "ood": (11, 12, 13)}
_RULE_TEXT = re.compile(r"J([0-9]{1,2})-Q([0-9]{1,2})-K([0-9]{1,2})|([0-9]{1,2}),([0-9]{1,2}),([0-9]{1,2})")


@dataclass(frozen=True, order=True)
class Rule:
    """What J, Q and K count as; A counts 1 and the number cards their number.

    Raises BadInput unless all three are integers from 1 to 13.

    >>> Rule(5, 7, 2).name, Rule(10, 10, 10).name, Rule(5, 7, 2).values(("A", "J", "J", "K"))
    ('J5-Q7-K2', 'id', (1, 5, 5, 2))
    """

    jack: int
    queen: int
    king: int

    def __post_init__(self) -> None:
        for label, value in zip(FACES, (self.jack, self.queen, self.king), strict=True):
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise BadInput(f"rule: {label} = {value!r}; an integer from 1 to {LARGEST} is accepted")

    @property
    def name(self) -> str:
        """`id`, `ood`, or the three values written out."""
        faces = (self.jack, self.queen, self.king)
        for name, values in _NAMED.items():
            if faces == values:
                return name
        return f"J{self.jack}-Q{self.queen}-K{self.king}"

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule with a name, or of three values. Raises BadInput for anything else.

        >>> Rule.parse("ood"), Rule.parse("5,7,2") == Rule.parse("J5-Q7-K2")
        (Rule(jack=11, queen=12, king=13), True)
        """
        if not isinstance(text, str):
            raise BadInput(f"rule: {text!r} is not text")
        if text in _NAMED:
            return cls(*_NAMED[text])
        match = _RULE_TEXT.fullmatch(text)
        if match is None:
            raise BadInput(f"rule {text[:40]!r}: accepted are 'id', 'ood', 'J5-Q7-K2' or '5,7,2'")
        return cls(*(int(value) for value in match.groups() if value is not None))

    def value(self, label: str) -> int:
        """What one card counts. Raises BadInput for an unknown label."""
        rank = _rank(label)
        return rank if rank <= 10 else (self.jack, self.queen, self.king)[rank - 11]

    def values(self, hand: Sequence[str]) -> Values:
        """What the cards count, in the order of the hand. Raises BadInput for an unknown label."""
        return tuple(self.value(label) for label in hand)


ID_RULE = Rule(*_NAMED["id"])
OOD_RULE = Rule(*_NAMED["ood"])
CONTROL_RULE = Rule(7, 8, 9)
"""As new to a model as the OOD rule, of values that it knows from number cards: is it the rule or the vocabulary?"""
UNSEEN = (OOD_RULE, CONTROL_RULE)
"""Rules that no training data state."""
OTHER_RULES = tuple(
    Rule(*values)
    for values in (
        *((n, n, n) for n in (1, 3, 5, 7, 8, 9, 11, 12, 13)),
        (10, 10, 11), (10, 11, 10), (11, 10, 10), (10, 10, 13), (10, 11, 12), (9, 10, 11),
        (11, 13, 12), (12, 11, 13), (12, 13, 11), (13, 11, 12), (13, 12, 11), (2, 4, 6),
    )
)  # fmt: skip
"""What an evaluation asks beside the ID and the OOD rule."""


def _rank(label: str) -> int:
    try:
        return _RANK[label]
    except (KeyError, TypeError):
        raise BadInput(f"unknown card {label!r:.40}; accepted: {' '.join(LABELS)}") from None


def as_hand(labels: Sequence[str]) -> Hand:
    """Four labels as a hand, sorted by rank. Raises BadInput for unknown labels or another number of them.

    >>> as_hand(["K", "10", "A", "2"])
    ('A', '2', '10', 'K')
    """
    ranked = sorted(labels, key=_rank)
    if len(ranked) != 4:
        raise BadInput(f"hand {' '.join(ranked)[:40]!r} has {len(ranked)} cards; a hand has 4")
    return ranked[0], ranked[1], ranked[2], ranked[3]


def parse_hand(text: str) -> Hand:
    """A hand from its labels, separated by spaces or commas. Raises BadInput like `as_hand`.

    >>> parse_hand("10 A,K J")
    ('A', '10', 'J', 'K')
    """
    if not isinstance(text, str):
        raise BadInput(f"hand: {text!r:.40} is not text")
    return as_hand(text.replace(",", " ").split())


def has_face(hand: Sequence[str]) -> bool:
    """Whether a J, Q or K is among the cards."""
    return any(label in FACES for label in hand)


@dataclass(frozen=True)
class Cards:
    """Four labels in the order in which they are shown, and the rule: the payload of an item."""

    hand: tuple[str, ...]
    rule: Rule

    @property
    def values(self) -> Values:
        """What the cards count, in the order shown."""
        return self.rule.values(self.hand)


def item_of(hand: Sequence[str], rule: Rule, split: str = "") -> Item:
    """The question about cards as they are shown, solvable or not.

    >>> item_of(("K", "A", "J", "5"), OOD_RULE).id
    'ood/A-5-J-K'
    """
    group = "-".join(as_hand(hand))
    return Item(f"{rule.name}/{group}", split, rule.name, group, Cards(tuple(hand), rule))


@cache
def all_hands() -> tuple[Hand, ...]:
    """The 1,820 hands, sorted by rank: multisets of four of the 13 labels."""
    return tuple(combinations_with_replacement(LABELS, 4))


@cache
def hands_solvable(rule: Rule, faces_only: bool = False) -> tuple[Hand, ...]:
    """The hands that make 24 under a rule; with `faces_only` those that hold a face card.

    >>> len(hands_solvable(ID_RULE)), len(hands_solvable(ID_RULE, faces_only=True))
    (1236, 670)
    """
    table = solved_table()
    return tuple(
        hand
        for hand in all_hands()
        if (has_face(hand) or not faces_only) and tuple(sorted(rule.values(hand))) in table
    )


def census(name: str) -> tuple[Hand, ...]:
    """Every hand of a named set, in the order of `all_hands`.

    `id`: solvable under the ID rule; `ood`: with a face card, solvable under the OOD rule; `both`: with a
    face card, solvable under both. Any other `Rule.parse` text: with a face card, solvable under it.
    Raises BadInput for other names. Source: the support of the reference environment's deals.

    >>> len(census("id")), len(census("ood")), len(census("both")), len(census("J5-Q7-K2"))
    (1236, 796, 529, 890)
    """
    if name == "id":
        return hands_solvable(ID_RULE)
    if name == "both":
        under_id = set(hands_solvable(ID_RULE, faces_only=True))
        return tuple(hand for hand in hands_solvable(OOD_RULE, faces_only=True) if hand in under_id)
    try:
        return hands_solvable(Rule.parse(name), faces_only=True)
    except BadInput:
        values = f"the values of J, Q, K, each from 1 to {LARGEST}, such as '5,7,2'"
        raise BadInput(f"census {name!r:.40}: accepted are 'id', 'ood', 'both', or {values}") from None


def split_of(values: Values) -> str:
    """The part of an ID hand: `sft`, `rl` or `held_out`, by its values under the ID rule, in any order.

    The 566 solvable value multisets, sorted by the SHA-256 of their text, are cut at 60 % and 80 %: hands
    that differ only in 10, J, Q, K share a part. SFT trains on `sft`, RL on `sft` and `rl`.
    Raises BadInput when the values have no solution or exceed 10.

    >>> split_of((1, 5, 10, 10)) == split_of((10, 1, 10, 5))
    True
    """
    try:
        return _parts()[tuple(sorted(values))]
    except (KeyError, TypeError):
        raise BadInput(f"values {values!r:.40} are no hand that is solvable under the ID rule") from None


@cache
def _parts() -> dict[Values, str]:
    multisets = sorted({tuple(sorted(ID_RULE.values(hand))) for hand in census("id")}, key=_digest)
    ends = [round(share * len(multisets)) for share in (SHARES["sft"], SHARES["sft"] + SHARES["rl"])]
    return {
        values: "sft" if index < ends[0] else "rl" if index < ends[1] else "held_out"
        for index, values in enumerate(multisets)
    }


def _digest(values: Values) -> str:
    return hashlib.sha256(" ".join(map(str, values)).encode()).hexdigest()
