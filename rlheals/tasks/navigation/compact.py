"""The lab's dialect of navigation, about 110 words, and its pretraining documents.

A landmark is one word, and so is a word for a turn; sides are left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerFast

from rlheals.tasks.base import BOS, Document, Item, Layout, Variant, WordDialect
from rlheals.tasks.navigation.frames import COMPASS, FAMILIES, ID_RULE, RELATIVE, TURNS, Rule
from rlheals.tasks.navigation.graph import LEGS, Route, route_of
from rlheals.tasks.navigation.prompts import AT_CROSSING, FIELDS, NOTHING, Place, called
from rlheals.tasks.navigation.verifier import judge
from rlheals.tasks.navigation.words import (
    FEEDBACK_WORDS,
    NUMBERS,
    TURN_WORDS,
    WORDS,
    action_word,
    followed_words,
    move_words,
    sight_words,
    turn_words,
)

ID_SHARE = 0.25
SHORTEST, LONGEST = 2, LEGS[-1]
WRONG_SHARE = 0.45
OTHER_WORD_SHARE = 0.6
TARGET_LAYOUT_SHARE = 0.08
SIDE_WEIGHT = 0.02


class Compact(WordDialect):
    """Question ``<s> say left slightly-left slightly-right right forward stop route i1 right east second cross Velmok
    i2 ... seen clear right clear forward now cross Velmok answer``; target answer ``{ cross Velmok i2 left north | left
    } <end>``; plain answer ``cross Velmok i2 left north so left <end>``; feedback ``wrong action answer``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        super().__init__(WORDS, FEEDBACK_WORDS, tokenizer)

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(item.payload)

    def expert(self, item: Item, form: int = 0) -> list[int]:
        return self.answer(item.payload)

    def question(self, place: Place) -> list[int]:
        """Tokens of the question at any node."""
        before = place.route.nodes[: place.at]
        parts = [BOS, "say", *map(action_word, FAMILIES[place.rule.listed]), "forward stop route"]
        for leg in range(len(place.route.legs)):
            parts += [NUMBERS[leg], turn_words(place, leg), move_words(place, leg)]
        parts += [
            "seen",
            *(f"{sight_words(n.sight)} {action_word(place.action(at))}" for at, n in enumerate(before)),
        ]
        return self.encode(" ".join((*parts, "now", sight_words(place.node.sight), "answer")))

    def answer(self, place: Place, layout: Layout = "target") -> list[int]:
        """Tokens of the expert's answer: what is seen, the number and text of the direction, the action."""
        stated = f"{sight_words(place.node.sight)} {followed_words(place)}"
        return self.laid_out(stated, action_word(place.action()), layout)

    def stated(self, words: list[str]) -> tuple[str, str] | None:
        """Observation and direction, each as its words; the direction begins with a number."""
        at = next((at for at, word in enumerate(words) if word in NUMBERS), None)
        return None if at is None else (" ".join(words[:at]), " ".join(words[at:]))

    def reply(self, stated: tuple[Any, ...], result: list[str]) -> str:
        what, _, name = stated[0].partition(" ")
        observation = f"{name or NOTHING}{f'; {AT_CROSSING}' if what == 'cross' else ''}."
        word = " ".join(result)
        action = called(TURN_WORDS.get(word, word), word if word in ("forward", "stop") else "turn")
        return json.dumps(dict(zip(FIELDS, (observation, stated[1], action), strict=True)))


# Pretraining documents ------------------------------------------------------------------------------------------------


class Corpus:
    """An endless stream of documents, which depends on the seed only; their payload is the place asked about."""

    def __init__(self, dialect: Compact, seed: int, variant: Variant = "default") -> None:
        self.dialect = dialect
        self.random = random.Random(f"navigation {seed}")
        self.variant = variant

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self.document()

    def document(self) -> Document:
        """A route, a rule, a node, perhaps a wrong attempt with the verifier's feedback, and the expert's answer."""
        chance = self.random
        rule, route = self._rule(), self._route()
        place = Place(route, chance.randrange(len(route.nodes)), rule)
        layout: Layout = "target" if chance.random() < TARGET_LAYOUT_SHARE else "plain"
        tokens = self.dialect.question(place)
        if chance.random() < WRONG_SHARE:
            tokens += self._wrong(place, layout)
        answer = self.dialect.answer(place, layout)
        return Document(tokens + answer, [SIDE_WEIGHT] * len(tokens) + [1.0] * len(answer), rule.name, place)

    def _rule(self) -> Rule:
        """The ID rule in one document of four, else two families, one of them listed; unseen rules are drawn again."""
        chance = self.random
        if self.variant != "new_rules" and chance.random() < ID_SHARE:
            return ID_RULE
        while True:
            listed, other = chance.sample(list(FAMILIES), 2)
            rule = Rule(listed, "after" if chance.random() < 0.5 else "before", other)
            as_id = (listed, other) == (COMPASS, RELATIVE)
            if not rule.unseen and not (as_id and self.variant == "new_rules"):
                return rule

    def _route(self) -> Route:
        chance = self.random
        while True:
            turns = tuple(chance.choices(TURNS, k=chance.randint(SHORTEST, LONGEST)))
            route = route_of(chance.randrange(8), turns, chance)
            if route is not None and not (self.variant == "strict" and route.part == "held_out"):
                return route

    def _wrong(self, place: Place, layout: Layout) -> list[int]:
        """An answer in the other printed word (60 %), or what would be right at another node, with its feedback."""
        chance, node = self.random, place.node
        if node.kind == "turn" and chance.random() < OTHER_WORD_SHARE:
            word = action_word(place.turn(node.leg, place.rule.other))
            stated = f"{sight_words(node.sight)} {followed_words(place)}"
            wrong = self.dialect.laid_out(stated, word, layout)
        else:
            right = place.action()
            elsewhere = [at for at in range(len(place.route.nodes)) if place.action(at) != right]
            wrong = self.dialect.answer(Place(place.route, chance.choice(elsewhere), place.rule), layout)
        return wrong + self.dialect.feedback(judge(self.dialect.read(wrong, "either").text, place))
