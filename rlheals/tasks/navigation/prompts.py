"""How navigation is put into words: what an item holds, its question and its expert reply as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlheals.tasks.navigation.frames import COMPASS, FAMILIES, Rule, word_for
from rlheals.tasks.navigation.graph import Node, Route, Sight

Words = Literal["both", "compass", "relative"]
"""Words of a turn that directions print: both, or one, so that the other has to be worked out from headings."""

OBSERVATION, INSTRUCTION, ACTION = FIELDS = ("current observation", "current instruction", "action")
NOTHING, AT_CROSSING = "No landmarks", "you are at an intersection"
INTERSECTION = "intersection"
ORDINALS = ("next", "second", "third")


@dataclass(frozen=True)
class Place:
    """A node of a route under a rule: the payload of an item."""

    route: Route
    at: int
    rule: Rule
    words: Words = "both"

    @property
    def node(self) -> Node:
        return self.route.nodes[self.at]

    def action(self, at: int | None = None, family: str | None = None) -> str:
        """What is to be done here or at another node: forward, stop, or a word of the listed or another family."""
        node = self.route.nodes[self.at if at is None else at]
        return self.turn(node.leg, family or self.rule.listed) if node.kind == "turn" else node.kind

    def turn(self, leg: int, family: str) -> str:
        return word_for(family, self.route.legs[leg].heading, self.route.legs[leg].turn)

    def printed(self, leg: int) -> tuple[str, ...]:
        """The words of a leg's turn, as its direction prints them."""
        if self.words != "both":
            return (self.turn(leg, self.words),)
        pair = self.turn(leg, self.rule.listed), self.turn(leg, self.rule.other)
        first = self.rule.place == "before"
        if self.rule.place == "beside":
            first = hashlib.sha256(f"{self.route.name} {leg}".encode()).digest()[0] % 2 == 0
        return pair if first else pair[::-1]


def question(place: Place) -> str:
    """Directions, actions, what has been seen and done so far, and the form of the answer."""
    history = [
        line
        for at, node in enumerate(place.route.nodes[: place.at])
        for line in (f"O{at + 1}: {seen(node.sight)}", f"A{at + 1}: {called(place.action(at), node.kind)}")
    ]
    here = place.at + 1
    return "\n".join(
        (
            "You walk through a town and follow these directions, one action after the other.",
            *(
                []
                if place.words == "both"
                else [f"At the start you face {FAMILIES[COMPASS][place.route.start]}."]
            ),
            *(f"{number}. {text}" for number, text in enumerate(directions(place), 1)),
            f"Actions: forward(), stop(), turn_direction(x), x being {', '.join(FAMILIES[place.rule.listed])}.",
            "Observations and actions so far:",
            *history,
            f"O{here}: {seen(place.node.sight)}",
            f"A{here}:",
            f"Choose action A{here}. Answer with one JSON object that has these three fields:",
            f'{{"{OBSERVATION}": "[what O{here} says]", "{INSTRUCTION}": "[the direction that you follow now]", '
            f'"{ACTION}": "[one of the actions]"}}',
        )
    )


def reply_of(place: Place) -> str:
    """The expert's reply: the observation, the direction that is being followed, the action."""
    values = (seen(place.node.sight), followed(place), called(place.action(), place.node.kind))
    return json.dumps(dict(zip(FIELDS, values, strict=True)), ensure_ascii=False)


def followed(place: Place) -> str:
    """The direction that is followed at a place."""
    return list(directions(place))[2 * place.node.leg + (place.node.kind != "turn")]


def directions(place: Place) -> Iterator[str]:
    """Two sentences a leg: the turn, and where to go then."""
    last = len(place.route.legs) - 1
    for number, leg in enumerate(place.route.legs):
        first, *more = place.printed(number)
        yield f"Turn {first}{''.join(f' ({word})' for word in more)}."
        goal = "destination" if number == last else f"{ORDINALS[leg.crossing - 1]} intersection"
        end = leg.sights[-1]
        yield f"Go to the {goal}{f', where {landmark(end)}' if end.landmark else ''}."


def seen(sight: Sight) -> str:
    """An observation.

    >>> seen(Sight(True, "Velmok Bakery", "left front"))
    'Velmok Bakery is on your left front; you are at an intersection.'
    """
    text = landmark(sight) if sight.landmark else NOTHING
    return f"{text}; {AT_CROSSING}." if sight.crossing else f"{text}."


def landmark(sight: Sight) -> str:
    return f"{sight.landmark} is on your {sight.side}" if sight.side else str(sight.landmark)


def called(action: str, kind: str) -> str:
    """An action as it is written in a reply.

    >>> called("left", "turn"), called("stop", "stop")
    ('turn_direction(left)', 'stop()')
    """
    return f"turn_direction({action})" if kind == "turn" else f"{action}()"
