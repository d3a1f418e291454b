"""Twenty prompts, replies and verdicts for the task's page: real items, real verdicts, every category, both rules."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from rlheals.tasks.gallery import Sample
from rlheals.tasks.general_points.cards import ID_RULE, OOD_RULE, Cards
from rlheals.tasks.general_points.prompts import FORMS, answer
from rlheals.tasks.general_points.solver import solutions
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.tasks.general_points.verifier import REWARDS

Breaker = Callable[[Cards, random.Random], str | None]

SIZE = 20
SEED = 24


def samples(seed: int = SEED) -> list[Sample]:
    """Twenty samples drawn by a seeded generator: every category under both rules once or twice, in order.

    A reply is an expert's answer, broken in one way; its category is the verifier's word on it, not the breaker's.

    >>> {sample.verdict.category for sample in samples()} == set(REWARDS)
    True
    """
    chance = random.Random(seed)
    pairs = [(category, split) for category in REWARDS for split in GeneralPoints.paired]
    wanted = pairs + chance.sample(pairs, SIZE - len(pairs))
    order = list(REWARDS)
    found: list[Sample] = []
    for category, split in sorted(wanted, key=lambda pair: order.index(pair[0])):
        found.append(_sample(category, split, chance, {sample.item.id for sample in found}))
    return found


def _sample(category: str, split: str, chance: random.Random, used: set[str]) -> Sample:
    task = GeneralPoints()
    items = [item for item in task.items(split) if item.id not in used]
    while True:
        item = chance.choice(items)
        formula = BREAKERS[category](item.payload, chance)
        if formula is None:
            continue
        # who reads the cards under the other rule states their values under it
        values = _other(item.payload).values if category == "wrong_rule" else item.payload.values
        reply = answer(FORMS[0], item.payload.hand, values, formula)
        if category == "partial":
            reply = reply.replace("=24", "")
        verdict = task.grade(item, reply)
        if verdict.category == category:
            return Sample(item, task.prompt(item), reply, verdict)


def _other(cards: Cards) -> Cards:
    """Both rules make 24 from the hands drawn here."""
    return replace(cards, rule=OOD_RULE if cards.rule == ID_RULE else ID_RULE)


def _solution(cards: Cards, chance: random.Random) -> str:
    return chance.choice(solutions(cards.values))


def _unclosed(cards: Cards, chance: random.Random) -> str | None:
    ending = [text for text in solutions(cards.values) if text.endswith(")")]
    return chance.choice(ending)[:-1] if ending else None


def _replaced(pattern: str, draw: Callable[[random.Random], str]) -> Breaker:
    """One match of the pattern in a solution replaced by what is drawn."""

    def broken(cards: Cards, chance: random.Random) -> str:
        text = _solution(cards, chance)
        match = chance.choice(list(re.finditer(pattern, text)))
        return text[: match.start()] + draw(chance) + text[match.end() :]

    return broken


BREAKERS: dict[str, Breaker] = {
    "correct": _solution,
    "partial": _unclosed,
    "no_solution": _replaced(r"[-+*/]", lambda chance: chance.choice("+-*/")),
    "wrong_number": _replaced(r"\d+", lambda chance: str(chance.randint(1, 13))),
    "wrong_rule": lambda cards, chance: _solution(_other(cards), chance),
    "illegal_formula": _replaced(r"[-+*/]", lambda chance: chance.choice(["**", "//", "x", "+*", "^"])),
}
