"""Routes on a street graph: crossings on a lattice, eight headings (0 is north, 2 is east), invented landmarks.

A route is a start heading and legs. A leg is a turn, sights that one passes, and the sight at its end.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate, product
from typing import Literal, NamedTuple

from rlheals.errors import BadInput
from rlheals.tasks.navigation.frames import TURNS

Kind = Literal["turn", "forward", "stop"]

STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""East and north of one block, by heading."""
LEGS = (4, 5, 6)
COUNTS = {"sft": 48, "rl": 16, "held_out": 16}
"""Routes of every length in every part."""
SIDES = ("right front", "right", "right behind", "left behind", "left", "left front")
"""Of a landmark, seen from somebody who goes on; none stands ahead or behind."""
NAMES = tuple(
    a + b
    for a, b in product(
        ("Vel", "Mor", "Tas", "Kir", "Lun", "Bra", "Fen", "Dol"), ("dana", "mok", "vik", "zar")
    )
)
SHOPS = ("Bakery", "Library", "Pharmacy", "Theatre", "Market", "Hotel", "Museum", "Garage")
LANDMARKS = tuple(f"{name} {SHOPS[place // 4]}" for place, name in enumerate(NAMES))
LONG_BLOCKS, POINTS, NAMED_CROSSINGS, NAMED_POINTS = 0.3, 0.5, 0.6, 0.4
"""How likely a leg passes a crossing, a block has a point halfway, and a crossing and a point have a landmark."""
TRIES = 30


class Sight(NamedTuple):
    """What is to be seen at a point: whether it is a crossing, a landmark, and on which side that is."""

    crossing: bool = False
    landmark: str | None = None
    side: str | None = None


class Leg(NamedTuple):
    """A turn (one of `TURNS`) to a heading, and the sights from there on, the last one at the leg's end."""

    heading: int
    turn: int
    sights: tuple[Sight, ...]

    @property
    def crossing(self) -> int:
        """At the how manieth crossing the leg ends."""
        return 1 + sum(sight.crossing for sight in self.sights[:-1])


class Node(NamedTuple):
    """Where an action is due: the number of the leg whose direction is followed, what is to be done, what is seen."""

    leg: int
    kind: Kind
    sight: Sight


@dataclass(frozen=True)
class Route:
    """start: the heading before the first turn; name: also of the items' group."""

    name: str
    start: int
    legs: tuple[Leg, ...]

    def __post_init__(self) -> None:
        where = f"route {self.name!r:.40}"
        if not self.legs or any(not leg.sights for leg in self.legs):
            raise BadInput(f"{where}: one or more legs are accepted, each with what is seen at its end")
        if wrong := [one for one in self.headings if type(one) is not int or not 0 <= one < 8]:
            raise BadInput(f"{where}: heading {wrong[0]!r:.40}; an integer from 0 to 7 is accepted")
        if wrong := [leg.turn for leg in self.legs if type(leg.turn) is not int or leg.turn not in TURNS]:
            raise BadInput(f"{where}: turn {wrong[0]!r:.40}; accepted: {', '.join(map(str, TURNS))}")

    @property
    def headings(self) -> tuple[int, ...]:
        """Before the first turn and after every turn."""
        return (self.start, *(leg.heading for leg in self.legs))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The start, then every sight: forward on the way, a turn at a leg's end, stop at the destination."""
        found = [Node(0, "turn", Sight())]
        for number, leg in enumerate(self.legs):
            found += [Node(number, "forward", sight) for sight in leg.sights[:-1]]
            more = number + 1 < len(self.legs)
            found.append(Node(number + more, "turn" if more else "stop", leg.sights[-1]))
        return tuple(found)

    @property
    def part(self) -> str:
        """Of the routes with its headings; of these parts SFT and RL have theirs, and one is held out."""
        return part_of(self.headings)

    def unwrapped(self) -> Route:
        """With the turns that the reference reads: its difference of two headings does not go round north."""
        pairs = zip(self.legs, self.headings, strict=False)
        legs = (leg._replace(turn=unwrapped(45 * leg.heading - 45 * before)) for leg, before in pairs)
        return replace(self, legs=tuple(legs))

    def renamed(self, names: dict[str, str]) -> Route:
        """With other landmarks."""
        legs = (
            leg._replace(
                sights=tuple(s._replace(landmark=names.get(s.landmark or "", s.landmark)) for s in leg.sights)
            )
            for leg in self.legs
        )
        return replace(self, legs=tuple(legs))


def unwrapped(degrees: float) -> int:
    """The turn that the reference's thresholds give to a difference of headings.

    >>> unwrapped(90), unwrapped(45), unwrapped(0), unwrapped(10 - 350)
    (2, 1, -1, -2)
    """
    return -2 if degrees < -45 else -1 if degrees <= 0 else 1 if degrees <= 45 else 2


# Skeletons: a start heading and turns, which routes of different parts do not share -----------------------------------


def skeleton(start: int, turns: tuple[int, ...]) -> str:
    """The name of a start heading and turns: L, l, r, R are the four turns.

    >>> skeleton(3, (-2, 1, 2))
    '3LrR'
    """
    return str(start) + "".join("LlrR"[TURNS.index(turn)] for turn in turns)


def part_of(headings: tuple[int, ...]) -> str:
    """The part of a skeleton, by a hash of all its headings: `sft` three times of five, `rl` and `held_out` once."""
    return ("sft", "sft", "sft", "rl", "held_out")[_digest(headings)[0] % 5]


def _digest(headings: tuple[int, ...]) -> bytes:
    return hashlib.sha256(" ".join(map(str, headings)).encode()).digest()


def headings_of(start: int, turns: tuple[int, ...]) -> tuple[int, ...]:
    """The headings before and after every turn.

    >>> headings_of(7, (2, -1))
    (7, 1, 0)
    """
    return tuple(accumulate(turns, lambda heading, turn: (heading + turn) % 8, initial=start))


def skeletons(legs: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """All 8 * 4^legs start headings with turns."""
    return product(range(8), product(TURNS, repeat=legs))


def route_of(start: int, turns: tuple[int, ...], chance: random.Random) -> Route | None:
    """A random route with this skeleton that nowhere meets itself; None when none was found."""
    headings = headings_of(start, turns)[1:]
    for _ in range(TRIES):
        blocks = [1 + (chance.random() < LONG_BLOCKS) for _ in turns]
        if _avoids_itself(headings, blocks):
            break
    else:
        return None
    names = chance.sample(LANDMARKS, len(LANDMARKS))
    legs = [
        Leg(heading, turn, tuple(_sights(count, names, chance)))
        for heading, turn, count in zip(headings, turns, blocks, strict=True)
    ]
    legs[-1] = legs[-1]._replace(sights=(*legs[-1].sights[:-1], _sight(False, True, names, chance)))
    return Route(skeleton(start, turns), start, tuple(legs))


def _avoids_itself(headings: tuple[int, ...], blocks: list[int]) -> bool:
    """Whether no point, also halfway between crossings, is passed twice."""
    east = north = 0
    passed = {(east, north)}
    for heading, count in zip(headings, blocks, strict=True):
        for _ in range(2 * count):
            east, north = east + STEPS[heading][0], north + STEPS[heading][1]
            if (east, north) in passed:
                return False
            passed.add((east, north))
    return True


def _sights(blocks: int, names: list[str], chance: random.Random) -> Iterator[Sight]:
    for _ in range(blocks):
        if chance.random() < POINTS:
            yield _sight(False, chance.random() < NAMED_POINTS, names, chance)
        yield _sight(True, chance.random() < NAMED_CROSSINGS, names, chance)


def _sight(crossing: bool, named: bool, names: list[str], chance: random.Random) -> Sight:
    return Sight(crossing, names.pop(), chance.choice(SIDES)) if named else Sight(crossing)


@cache
def all_routes() -> tuple[Route, ...]:
    """80 routes of 4, 5 and 6 legs each, the first of every part in the order of their skeletons' hashes.

    A skeleton has one route; its lengths and landmarks follow from a second hash.
    """
    found = []
    for legs in LEGS:
        left = dict(COUNTS)
        for start, turns in sorted(skeletons(legs), key=lambda one: _digest(headings_of(*one))):
            part = part_of(headings_of(start, turns))
            chance = random.Random(f"route {skeleton(start, turns)}")
            if left[part] and (route := route_of(start, turns, chance)) is not None:
                left[part] -= 1
                found.append(route)
    return tuple(found)
