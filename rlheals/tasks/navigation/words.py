"""The lab's words of navigation and its phrases, without the libraries that a model needs."""

from __future__ import annotations

from rlheals.tasks.navigation.frames import FAMILIES
from rlheals.tasks.navigation.graph import LEGS, NAMES, Sight
from rlheals.tasks.navigation.prompts import Place

FEEDBACK_WORDS = {
    "wrong_rule": "action",
    "wrong_action": "action",
    "wrong_observation": "place",
    "illegal": "format",
}
NUMBERS = tuple(f"i{number}" for number in range(1, LEGS[-1] + 1))
TURN_WORDS = {word.replace(" ", "-"): word for words in FAMILIES.values() for word in words}
WORDS = (
    *(*TURN_WORDS, *NAMES, *NUMBERS),
    *("say", "route", "second", "cross", "clear", "goal", "seen", "now", "forward", "stop"),
    *dict.fromkeys(FEEDBACK_WORDS.values()),
)
"""Their order is that of the tokens of every lab model."""


def action_word(action: str) -> str:
    """An action as one word.

    >>> action_word("slightly left")
    'slightly-left'
    """
    return action.replace(" ", "-")


def sight_words(sight: Sight) -> str:
    """An observation: whether it is a crossing, and a landmark's name."""
    return f"{'cross' if sight.crossing else 'clear'} {_name(sight)}".rstrip()


def turn_words(place: Place, leg: int) -> str:
    return " ".join(action_word(word) for word in place.printed(leg))


def move_words(place: Place, leg: int) -> str:
    legs = place.route.legs
    end = "goal" if leg + 1 == len(legs) else "second cross" if legs[leg].crossing == 2 else "cross"
    return f"{end} {_name(legs[leg].sights[-1])}".rstrip()


def followed_words(place: Place) -> str:
    """The direction that is followed at a place, with its number."""
    node = place.node
    return f"{NUMBERS[node.leg]} {(turn_words if node.kind == 'turn' else move_words)(place, node.leg)}"


def _name(sight: Sight) -> str:
    return (sight.landmark or "").partition(" ")[0]
