"""Words for turns and the rules that list them: every direction prints two words, and the listed one is the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlheals.errors import BadInput

Place = Literal["after", "before", "beside"]
"""Where the listed word stands: second, first, or at random, drawn for every turn."""

COMPASS, RELATIVE, LETTERS = "compass", "relative", "letters"
WAY = "_way"
"""Ends the name of the part of a split that has the nodes where all rules answer alike."""
TURNS = (-2, -1, 1, 2)
"""Left, slightly left, slightly right, right: in eighths of a circle."""
FAMILIES: dict[str, tuple[str, ...]] = {
    COMPASS: ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest"),
    RELATIVE: ("left", "slightly left", "slightly right", "right"),
    LETTERS: ("A", "B", "C", "D", "E", "F", "G", "H"),
    "colours": ("red", "orange", "yellow", "green", "blue", "violet", "brown", "grey"),
    "degrees": ("0", "45", "90", "135", "180", "225", "270", "315"),
    "spanish": ("norte", "noreste", "este", "sureste", "sur", "suroeste", "oeste", "noroeste"),
    "helm": ("hard port", "port", "starboard", "hard starboard"),
    "signs": ("-2", "-1", "+1", "+2"),
}
"""Eight words name the new heading, clockwise from north; four words name the turn, in the order of `TURNS`."""


def word_for(family: str, heading: int, turn: int) -> str:
    """A family's word for a turn to a heading.

    >>> word_for("compass", 2, 1), word_for("helm", 2, 1)
    ('east', 'starboard')
    """
    words = FAMILIES[family]
    return words[heading] if len(words) == 8 else words[TURNS.index(turn)]


@dataclass(frozen=True)
class Rule:
    """Which family is listed, where its word stands in a direction, and which family is printed beside it.

    Raises BadInput for families and places that there are not.

    >>> Rule("letters", "before", "helm").name, ID_RULE.name, OOD_RULE.name
    ('letters-before-helm', 'id', 'ood')
    """

    listed: str
    place: Place
    other: str

    def __post_init__(self) -> None:
        known = (
            self.listed in FAMILIES and self.other in FAMILIES and self.place in ("after", "before", "beside")
        )
        if not known or self.listed == self.other:
            raise BadInput(
                f"rule {f'{self.listed}-{self.place}-{self.other}'!r:.60}: accepted are 'id', 'ood', and two different "
                f"of {', '.join(FAMILIES)} with -after-, -before- or -beside- between them"
            )

    @property
    def name(self) -> str:
        return {ID_RULE: "id", OOD_RULE: "ood"}.get(self, f"{self.listed}-{self.place}-{self.other}")

    @property
    def unseen(self) -> bool:
        """Whether no training data list these words beside the other ones: as under the OOD and the control rule."""
        return (self.listed, self.other) in ((RELATIVE, COMPASS), (COMPASS, LETTERS))

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule of a name. Raises BadInput for anything else.

        >>> Rule.parse("compass-after-relative") == Rule.parse("id")
        True
        """
        named = {"id": ID_RULE, "ood": OOD_RULE}
        if text in named:
            return named[text]
        parts = text.split("-") if isinstance(text, str) else []
        return cls(*parts) if len(parts) == 3 else cls(str(text), "after", "")  # type: ignore[arg-type]


ID_RULE = Rule(COMPASS, "after", RELATIVE)
OOD_RULE = Rule(RELATIVE, "before", COMPASS)
"""The same directions as under the ID rule, the other word listed."""
CONTROL_RULE = Rule(COMPASS, "before", LETTERS)
"""As new as the OOD rule, but its answers are words that SFT rewards: is it the rule or the vocabulary?"""
MIXED_ID, MIXED_OOD = Rule(COMPASS, "beside", RELATIVE), Rule(RELATIVE, "beside", COMPASS)
"""Without a place of the listed word that could be learnt instead of the list."""
OTHER_RULES = (
    Rule(COMPASS, "before", RELATIVE),
    Rule(RELATIVE, "after", COMPASS),
    MIXED_ID,
    MIXED_OOD,
    CONTROL_RULE,
    *(Rule(family, "after", RELATIVE) for family in (LETTERS, "colours", "degrees", "spanish")),
    *(Rule(family, "before", COMPASS) for family in ("helm", "signs")),
    Rule(LETTERS, "before", "colours"),
)
"""What an evaluation asks beside the ID and the OOD rule; the first two tell the place of a word from the list."""
