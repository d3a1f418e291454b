"""Verdicts on a reply at a node of a route, ours and the reference's; both read three fields of the reply."""

from __future__ import annotations

import re

from rlheals.tasks.base import Verdict
from rlheals.tasks.navigation.frames import COMPASS, FAMILIES, ID_RULE, OOD_RULE, OTHER_RULES, RELATIVE
from rlheals.tasks.navigation.prompts import ACTION, FIELDS, INTERSECTION, OBSERVATION, Place, called
from rlheals.tasks.replies import spoken, strict_json

REWARDS = {
    "correct": 1.0,
    "wrong_rule": -1.0,
    "wrong_action": -1.0,
    "wrong_observation": -1.5,
    "illegal": -1.0,
}
ASKED = f"answer with the fields {', '.join(FIELDS)}"
TOLD = {
    "wrong_rule": "The action is not right",
    "wrong_action": "The action is not right",
    "illegal": "The action is none of the list",
}
NOT_THERE, THERE = "You are not at an intersection", "You are at an intersection"
READ_AS = {COMPASS: ID_RULE.name, RELATIVE: OOD_RULE.name}
for _rule in OTHER_RULES:
    READ_AS.setdefault(_rule.listed, _rule.name)
_FIELD = {name: re.compile(rf'"{name}"\s*:\s*"((?:[^"\\]|\\.)*)"') for name in FIELDS}
_REFERENCE = {name: re.compile(rf'"{name}": "([^"]*)"') for name in FIELDS}


def judge(reply: str, place: Place) -> Verdict:
    """The verdict on a reply.

    correct +1: the action due here, in listed words. illegal -1: no action, or none of the list. wrong_observation
    -1.5: another action, and the observation says intersection where there is none, or does not where there is one.
    wrong_rule -1: the right turn in words of another rule. wrong_action -1: any other. Source: the reference
    environment's rewards; it compares the observation with one that never names the intersection.

    >>> from rlheals.tasks import load_task
    >>> task = load_task("navigation"); item = task.items("ood")[0]
    >>> judge("turn_direction(north)", item.payload).category in ("wrong_rule", "illegal")
    True
    """
    found = fields_of(reply)
    action, said = found.get(ACTION), found.get(OBSERVATION)
    if action == called(place.action(), place.node.kind):
        return _verdict("correct", "The action is right.")
    if action is None:
        return _verdict("illegal", f"No action can be read; {ASKED}.")
    read_as = _read_as(action, place)
    crossing = place.node.sight.crossing
    if said is not None and (INTERSECTION in said.lower()) != crossing and (read_as or listed(action, place)):
        return _verdict("wrong_observation", f"{THERE if crossing else NOT_THERE}; {ASKED}.", read_as)
    category = "wrong_rule" if read_as else "wrong_action" if listed(action, place) else "illegal"
    return _verdict(category, f"{TOLD[category]}; {ASKED}.", read_as)


def judge_as_reference(reply: str, place: Place) -> Verdict:
    """The verdict of the reference environment: a wrong action is -1.5 whenever the observation names an intersection.

    It never knows of the intersection itself, so that a right observation at one is contradicted too.
    """
    found = fields_of(reply, reference=True)
    action = found.get(ACTION, "None")
    if action == called(place.action(), place.node.kind):
        return _verdict("correct", "The action is right.")
    read_as = _read_as(action, place)
    if INTERSECTION in found.get(OBSERVATION, ""):
        return _verdict("wrong_observation", f"{NOT_THERE}; {ASKED}.", read_as)
    category = "wrong_rule" if read_as else "wrong_action" if listed(action, place) else "illegal"
    return _verdict(category, f"{TOLD['wrong_action']}; {ASKED}.", read_as)


def listed(action: str, place: Place) -> bool:
    """Whether an action is one of the list in the question."""
    return action in ("forward()", "stop()") or action in (
        called(word, "turn") for word in FAMILIES[place.rule.listed]
    )


def _read_as(action: str, place: Place) -> str | None:
    """The rule under which a wrong action would be the right turn."""
    node = place.node
    if node.kind == "turn":
        for family in FAMILIES:
            if family != place.rule.listed and action == called(place.turn(node.leg, family), "turn"):
                return READ_AS[family]
    return None


def _verdict(category: str, feedback: str, read_as: str | None = None) -> Verdict:
    return Verdict(category == "correct", REWARDS[category], category, feedback, read_as)


def fields_of(reply: str, reference: bool = False) -> dict[str, str]:
    """The fields of a reply that are text; a reply without braces and double quotes is taken to be the action.

    What counts is what stands behind the last `</think>`; a thought that is not closed is no answer. There, the whole
    as strict JSON, else the last place of every field. `reference`: as the reference environment reads it, strict JSON
    or the first field with exactly one space after the colon.

    >>> fields_of('{"action": "stop()",}'), fields_of(" forward() ")
    ({'action': 'stop()'}, {'action': 'forward()'})
    """
    if reference:
        answer, patterns, pick = reply, _REFERENCE, 0
    else:
        behind = spoken(reply)
        if behind is None:
            return {}
        answer, patterns, pick = behind.strip(), _FIELD, -1
    whole = strict_json(answer)
    if isinstance(whole, dict) and (reference or ACTION in whole):
        return {name: whole[name] for name in FIELDS if isinstance(whole.get(name), str)}
    if not reference and "{" not in answer and '"' not in answer:
        return {ACTION: answer} if answer else {}
    places = {name: pattern.findall(answer) for name, pattern in patterns.items()}
    return {name: values[pick] for name, values in places.items() if values}
