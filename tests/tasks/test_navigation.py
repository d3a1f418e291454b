"""Navigation: an oracle that reads the question only, verdicts, parts, the reference's behaviour, chance policies."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from lab_helpers import refused

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.base import Item
from rlheals.tasks.gym_env import TaskEnv
from rlheals.tasks.navigation import graph
from rlheals.tasks.navigation.compact import Compact
from rlheals.tasks.navigation.frames import FAMILIES, ID_RULE, MIXED_ID, OOD_RULE, Rule
from rlheals.tasks.navigation.graph import STEPS, Leg, Route, Sight, all_routes, part_of, route_of, unwrapped
from rlheals.tasks.navigation.prompts import Place
from rlheals.tasks.navigation.task import Navigation
from rlheals.tasks.navigation.verifier import REWARDS

TASK, REFERENCE = Navigation(), Navigation(compat="reference")
COMPASS, RELATIVE = FAMILIES["compass"], FAMILIES["relative"]
WORDS = [word for words in FAMILIES.values() for word in words]
ACTIONS = ("forward()", "stop()", *(f"turn_direction({word})" for word in WORDS))


def reply(action: str, observation: str = "") -> str:
    return json.dumps({"current observation": observation, "current instruction": "", "action": action})


# An oracle that knows nothing but the text of the question ------------------------------------------------------------


def oracle(prompt: str) -> str:
    """Follow the directions through the history; words that are not printed come from headings."""
    start = re.search(r"At the start you face (\w+)", prompt)
    turns = re.findall(r"^\d+\. Turn ([^(.]+?)(?: \(([^)]+)\))?\.$", prompt, re.M)
    moves = re.findall(r"^\d+\. Go to the (.+)\.$", prompt, re.M)
    words = re.search(r"x being (.+)\.$", prompt, re.M)[1].split(", ")  # type: ignore[index]
    seen = re.findall(r"^O\d+: (.+)$", prompt, re.M)
    done = re.findall(r"^A\d+: (\S.*)$", prompt, re.M)
    assert len(seen) == len(done) + 1
    assert len(turns) == len(moves)
    leg = sum(action.startswith("turn") for action in done) - 1
    since = len(done) - next((at for at, one in enumerate(done[::-1]) if one.startswith("turn")), len(done))
    now = seen[-1]
    if leg >= 0:
        place = re.search(r", where (.+)$", moves[leg])
        if moves[leg].startswith("destination"):
            return "stop()" if place[1] == now.rstrip(".") else "forward()"  # type: ignore[index]
        crossings = sum("intersection" in one for one in seen[since:])
        wanted = {"next": 1, "second": 2}[moves[leg].split()[0]]
        if "intersection" not in now or crossings < wanted:
            return "forward()"
        assert place is None or now.startswith(place[1])
    printed = [word for word in turns[leg + 1] if word]
    listed = [word for word in printed if word in words]
    if listed:
        assert len(listed) == 1
        return f"turn_direction({listed[0]})"
    eighths = {-2: "left", -1: "slightly left", 1: "slightly right", 2: "right"}
    heading = COMPASS.index(start[1])  # type: ignore[index]
    for word in (pair[0] for pair in turns[: leg + 1]):
        by = {name: by for by, name in eighths.items()}
        heading = COMPASS.index(word) if word in COMPASS else (heading + by[word]) % 8
    if printed[0] in COMPASS:
        return f"turn_direction({eighths[(COMPASS.index(printed[0]) - heading + 4) % 8 - 4]})"
    return f"turn_direction({COMPASS[(heading + {n: b for b, n in eighths.items()}[printed[0]]) % 8]})"


@pytest.mark.parametrize("words", ["both", "compass", "relative"])
def test_the_text_says_what_is_to_be_done_at_every_node_under_every_rule(words: Any) -> None:
    task = Navigation(words=words)
    for rule in task.rules:
        for item in task.items(f"rule:{rule}"):
            action = oracle(task.prompt(item))
            assert task.grade(item, action).solved, item.id
            assert json.loads(task.expert(item))["action"] == action


def test_of_all_actions_of_all_lists_exactly_one_is_right_and_the_others_say_why() -> None:
    for item in [one for split in ("id", "ood", "control", "mixed_ood") for one in TASK.items(split)[::3]]:
        place = item.payload
        verdicts = {action: TASK.grade(item, action) for action in ACTIONS}
        assert sum(verdict.solved for verdict in verdicts.values()) == 1
        kinds = Counter(verdict.category for verdict in verdicts.values())
        turn = place.node.kind == "turn"
        listed = len(FAMILIES[place.rule.listed]) + 2
        assert kinds["wrong_rule"] == (len(FAMILIES) - 1 if turn else 0)
        assert kinds["wrong_action"] == listed - 1
        assert kinds["illegal"] == len(ACTIONS) - listed - kinds["wrong_rule"]
        read_as = {verdict.read_as for verdict in verdicts.values()} - {None}
        assert item.rule not in read_as
        assert read_as <= set(TASK.rules)


def test_id_and_ood_questions_differ_in_list_and_words_of_the_history_and_nothing_else() -> None:
    def hidden(text: str) -> str:
        text = re.sub(r"x being .+", "x", text)
        return re.sub(r"^(A\d+: turn_direction)\(.+\)$", r"\1", text, flags=re.M)

    differ = 0
    for one, other in zip(*map(TASK.items, TASK.paired), strict=True):
        asked, too = TASK.prompt(one), TASK.prompt(other)
        assert asked != too
        assert hidden(asked) == hidden(too)
        assert asked.isascii()
        assert len(asked) <= 4096
        assert one.payload.printed(0) == other.payload.printed(0)
        expert, theirs = (json.loads(TASK.expert(item)) for item in (one, other))
        assert {k: v for k, v in expert.items() if k != "action"} == {
            k: v for k, v in theirs.items() if k != "action"
        }
        assert (expert["action"] == theirs["action"]) == (one.payload.node.kind != "turn")
        differ += expert["action"] != theirs["action"]
    assert differ == 1200


def test_words_that_are_not_asked_for_are_not_printed() -> None:
    for words, absent in (("compass", RELATIVE), ("relative", COMPASS)):
        for item in Navigation(words=words).items("id")[::7]:  # type: ignore[arg-type]
            sentences = re.findall(r"^\d+\. Turn (.+)\.$", Navigation(words=words).prompt(item), re.M)  # type: ignore[arg-type]
            assert not {word for sentence in sentences for word in absent} & set(sentences)


# Routes ---------------------------------------------------------------------------------------------------------------


def test_routes_lie_on_the_lattice_never_meet_themselves_and_are_hard() -> None:
    for route in all_routes():
        heading, place, passed = route.start, (0, 0), {(0, 0)}
        for leg in route.legs:
            assert leg.heading == (heading + leg.turn) % 8
            heading = leg.heading
            for _ in range(leg.crossing):
                place = (place[0] + STEPS[heading][0], place[1] + STEPS[heading][1])
                assert place not in passed
                passed.add(place)
        ends = [leg.sights[-1] for leg in route.legs]
        assert [end.crossing for end in ends] == [True] * (len(ends) - 1) + [False]
        assert ends[-1].landmark
        names = [sight.landmark for leg in route.legs for sight in leg.sights if sight.landmark]
        assert len(names) == len(set(names))
        assert [node.kind for node in route.nodes].count("turn") == len(route.legs)
        assert (route.nodes[0].kind, route.nodes[-1].kind) == ("turn", "stop")
    legs = [leg for route in all_routes() for leg in route.legs]
    assert 0.2 < np.mean([leg.crossing == 2 for leg in legs]) < 0.4
    assert sum(sight.landmark is not None for leg in legs for sight in leg.sights[:-1]) > 200
    assert Counter(len(route.legs) for route in all_routes()) == {4: 80, 5: 80, 6: 80}


def test_questions_and_answers_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for item in [item for split in ("id", "ood", "mixed", "varied") for item in TASK.items(split)]:
        digest.update((item.id + TASK.prompt(item) + TASK.expert(item)).encode())
    assert digest.hexdigest()[:16] == "44a0f61c8c4afd5a"


def test_parts_are_by_skeleton_three_of_five() -> None:
    by_part = defaultdict(set)
    for route in all_routes():
        by_part[route.part].add((route.start, tuple(leg.turn for leg in route.legs)))
    assert {part: len(names) for part, names in by_part.items()} == {"sft": 144, "rl": 48, "held_out": 48}
    assert len(set().union(*by_part.values())) == 240
    every = Counter(part_of(graph.headings_of(*one)) for one in graph.skeletons(5))
    assert every.total() == 8 * 4**5
    assert abs(every["sft"] / every.total() - 0.6) < 0.02
    assert abs(every["held_out"] / every.total() - 0.2) < 0.02
    again = route_of(3, (1, 1, 2, -1), random.Random(1))
    other = route_of(3, (1, 1, 2, -1), random.Random(2))
    assert again is not None
    assert other is not None
    assert again != other
    assert again.part == other.part == part_of((3, 4, 5, 7, 6))


NO_LEGS = [
    (),
    (Leg(8, 1, (Sight(),)),),
    (Leg(True, 1, (Sight(),)),),
    (Leg(1.0, 1, (Sight(),)),),  # type: ignore[arg-type]
    (Leg(1, 0, (Sight(),)),),
    (Leg(1, 1, ()),),
]
NO_RULES = [
    "",
    "rule",
    "letters",
    "letters-after",
    "letters-after-letters",
    "a-after-b",
    "id-over-ood",
    None,
    3,
]


@pytest.mark.parametrize("legs", NO_LEGS)
def test_what_is_no_route_is_one_line(legs: Any) -> None:
    with pytest.raises(BadInput, match=r"^route 'mine'[^\n]+accepted[^\n]*$"):
        Route("mine", 0, legs)
    for start in (-1, 8, 2.0, True, None, "north"):
        with refused(match=r"heading .*0 to 7"):
            Route("mine", start, (Leg(1, 1, (Sight(),)),))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NO_RULES)
def test_rules_that_are_not_there_are_one_line(name: Any) -> None:
    with pytest.raises(BadInput, match=r"^rule [^\n]+accepted[^\n]+$"):
        Rule.parse(name)


def test_bad_options_are_one_line() -> None:
    with refused():
        load_task("navigation", routes=3)
    for split in ("rule:letters-after-relative", "varied", "control"):
        with pytest.raises(BadInput, match=r"accepted"):
            Navigation(words="compass").items(split)
    with pytest.raises(BadInput, match="no words"):
        Navigation(words="relative").dialect()


# Verdicts -------------------------------------------------------------------------------------------------------------

HERE = Route(
    "here",
    7,
    (
        Leg(1, 2, (Sight(False, "Velmok Bakery", "left"), Sight(True))),
        Leg(0, -1, (Sight(True), Sight(True, "Morvik Hotel", "right"))),
        Leg(2, 2, (Sight(False, "Dolzar Garage", "left"),)),
    ),
)
START, MIDWAY, CORNER, PASSED, END = 0, 1, 2, 3, 5
AT, CLEAR = "No landmarks; you are at an intersection.", "No landmarks."


def at(node: int, rule: Rule = OOD_RULE) -> Item:
    return Item("here", "ood", rule.name, "here", Place(HERE, node, rule))


CASES = [
    (START, "turn_direction(right)", CLEAR, "correct", None),
    (START, "turn_direction(right)", AT, "correct", None),
    (START, "turn_direction(northeast)", CLEAR, "wrong_rule", "id"),
    (START, "turn_direction(northeast)", AT, "wrong_observation", "id"),
    (START, "turn_direction(B)", CLEAR, "wrong_rule", "letters-after-relative"),
    (START, "turn_direction(hard starboard)", CLEAR, "wrong_rule", "helm-before-compass"),
    (START, "turn_direction(north)", AT, "illegal", None),
    (START, "turn_direction(left)", CLEAR, "wrong_action", None),
    (START, "forward()", CLEAR, "wrong_action", None),
    (START, "forward()", AT, "wrong_observation", None),
    (START, "turn_direction(Right)", CLEAR, "illegal", None),
    (START, "turn_direction( right )", CLEAR, "illegal", None),
    (START, "right", CLEAR, "illegal", None),
    (START, "", CLEAR, "illegal", None),
    (MIDWAY, "forward()", "", "correct", None),
    (MIDWAY, "turn_direction(slightly left)", "Velmok Bakery", "wrong_action", None),
    (MIDWAY, "turn_direction(slightly left)", "An INTERSECTION.", "wrong_observation", None),
    (MIDWAY, "turn_direction(north)", CLEAR, "illegal", None),
    (CORNER, "turn_direction(slightly left)", AT, "correct", None),
    (CORNER, "forward()", AT, "wrong_action", None),
    (CORNER, "forward()", CLEAR, "wrong_observation", None),
    (CORNER, "turn_direction(north)", AT, "wrong_rule", "id"),
    (PASSED, "forward()", AT, "correct", None),
    (PASSED, "stop()", AT, "wrong_action", None),
    (END, "stop()", "Dolzar Garage is on your left.", "correct", None),
    (END, "forward()", "Dolzar Garage is on your left.", "wrong_action", None),
]


@pytest.mark.parametrize(("node", "action", "said", "category", "read_as"), CASES)
def test_verdicts(node: int, action: str, said: str, category: str, read_as: str | None) -> None:
    verdict = TASK.grade(at(node), reply(action, said))
    assert (verdict.category, verdict.read_as, verdict.reward) == (category, read_as, REWARDS[category])
    assert verdict.solved == (category == "correct")
    assert verdict.feedback.isascii()
    assert verdict.feedback.endswith(".")


REPLIES = [
    ('{"action": "stop()"}', True, True),
    ('{"current observation": "x", "action": "stop()",\n}', True, True),
    ('Well: {"action": "stop()"} I think', True, True),
    ('{"action" :  "stop()", }', True, False),
    ("stop()", True, False),
    (" stop()\n", True, False),
    ('{"action": "forward()"} No: {"action": "stop()"}', True, False),
    ('{"action": "stop()",} No: {"action": "forward()",}', False, True),
    ('<think>{"action": "forward()"}</think>{"action": "stop()"}', True, False),
    ('<think>{"action": "stop()"}', False, True),
    ('{"action": ["stop()"]}', False, False),
    ('{"action": null}', False, False),
    ("{'action': 'stop()'}", False, False),
    ("I stop()", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("text", "ours", "in_reference"), REPLIES)
def test_where_the_action_is_found(text: str, ours: bool, in_reference: bool) -> None:
    assert TASK.grade(at(END), text).solved == ours
    assert REFERENCE.grade(at(END), text).solved == in_reference


# The reference's behaviour --------------------------------------------------------------------------------------------


def test_the_reference_turns_without_wrapping_in_direction_list_and_answer_alike() -> None:
    wrong = Counter()
    for ours, theirs in zip(TASK.items("ood"), REFERENCE.items("ood"), strict=True):
        assert ours.id == theirs.id
        assert ours.split == theirs.split
        place = theirs.payload
        if place.node.kind == "turn":
            legs = place.route.legs
            old = legs[place.node.leg - 1].heading if place.node.leg else place.route.start
            change = 45 * (legs[place.node.leg].heading - old)
            word = ("slightly " if abs(change) <= 45 else "") + ("left" if change <= 0 else "right")
            assert json.loads(REFERENCE.expert(theirs))["action"] == f"turn_direction({word})"
            assert word in place.printed(place.node.leg)
            wrong[ours.payload.action() != word] += 1
        assert REFERENCE.grade(theirs, oracle(REFERENCE.prompt(theirs)).join(('{"action": "', '"}'))).solved
    assert 0.05 < wrong[True] / wrong.total() < 0.25
    assert [i.id for i in TASK.items("held_out")] == [i.id for i in REFERENCE.items("held_out")]
    for one, other in zip(TASK.items("id"), REFERENCE.items("id"), strict=True):
        assert json.loads(TASK.expert(one))["action"] == json.loads(REFERENCE.expert(other))["action"]
    turns = [(old, turn) for old in (0, 2, 4, 6) for turn in (-2, 2)]
    wrong = [unwrapped(45 * ((old + turn) % 8) - 45 * old) != turn for old, turn in turns]
    assert sum(wrong) / len(turns) == 0.25
    found = {-46: -2, -45: -1, 0: -1, 1: 1, 45: 1, 46: 2, -340: -2, 340: 2}
    assert {change: unwrapped(change) for change in found} == found


@pytest.mark.parametrize("node", [START, MIDWAY, CORNER, PASSED, END])
def test_the_reference_contradicts_whoever_names_an_intersection(node: int) -> None:
    wrong = "stop()" if node != END else "forward()"
    for said, reward in ((AT, -1.5), (CLEAR, -1.0), ("", -1.0)):
        verdict = REFERENCE.grade(at(node), reply(wrong, said))
        assert verdict.reward == reward
        assert ("not at an intersection" in verdict.feedback) == (reward == -1.5)
    right = HERE.nodes[node]
    action = oracle(REFERENCE.prompt(at(node)))
    assert right.kind in ("turn", "forward", "stop")
    assert REFERENCE.grade(at(node), reply(action, AT)).reward == 1.0
    assert REFERENCE.grade(at(node), "no json").reward == -1.0


def test_an_episode_is_a_route_and_ends_at_the_second_failure_of_a_node() -> None:
    env = TaskEnv("navigation", "ood", episode="group")
    observation, info = env.reset(seed=5)
    assert info["item"].endswith("/00")
    rewards = []
    for _ in range(3):
        assert env.step("forward")[1:4] == (-1, False, False)
        observation, reward, terminated, truncated, info = env.step(oracle(observation["prompt"]))
        rewards.append(reward)
        assert (terminated, truncated) == (False, False)
    assert rewards == [1, 1, 1]
    assert env.step("x")[1:4] == (-1, False, False)
    assert env.step("x")[1:4] == (-1, False, True)


# Chance policies ------------------------------------------------------------------------------------------------------


def test_copying_the_trained_word_solves_no_route_and_every_node_that_is_no_turn() -> None:
    solved: dict[str, list[bool]] = defaultdict(list)
    for one, other in zip(*map(TASK.items, TASK.paired), strict=True):
        verdict = TASK.grade(other, TASK.expert(one))
        assert verdict.solved == (other.payload.node.kind != "turn")
        assert verdict.solved or verdict.read_as == "id"
        solved[other.group].append(verdict.solved)
    share = np.mean([flag for flags in solved.values() for flag in flags])
    assert not any(all(flags) for flags in solved.values())
    assert f"{share:.1%} of nodes, no route" in TASK.facts()[1]


def test_drawing_from_the_list_scores_what_the_facts_say() -> None:
    chance = random.Random(2)
    turned, nodes, routes = [], [], []
    for _ in range(40):
        walked = defaultdict(list)
        for item in TASK.items("ood"):
            right = item.payload.node.kind != "turn" or item.payload.action() in chance.choices(RELATIVE, k=2)
            walked[item.group].append(right)
            turned += [right] if item.payload.node.kind == "turn" else []
        nodes += [flag for flags in walked.values() for flag in flags]
        routes += [all(flags) for flags in walked.values()]
    said = [float(text) / 100 for text in re.findall(r"([\d.]+)%", TASK.facts()[2])]
    for counted, expected in zip((turned, nodes, routes), said, strict=True):
        assert abs(np.mean(counted) - expected) < 0.01


# Parts of the lab -----------------------------------------------------------------------------------------------------


def _shows(words: list[str]) -> tuple[str, frozenset[str]]:
    """The listed family of a document, and the families that its directions print."""
    family = {word.replace(" ", "-"): name for name, group in FAMILIES.items() for word in group}
    begin, end = words.index("say"), words.index("route")
    (listed,) = {family[word] for word in words[begin:end] if word in family}
    asked = words[end : words.index("seen")]
    return listed, frozenset(family[word] for word in asked if word in family)


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_documents_never_list_relative_words_beside_compass_words(count: int) -> None:
    dialect = Compact()
    shown = Counter(_shows(dialect.words(one.tokens)) for one in islice(TASK.documents(dialect, 0), count))
    assert shown["compass", frozenset(("compass", "relative"))] > 0.2 * count
    assert shown["relative", frozenset(("compass", "relative"))] == 0
    assert shown["compass", frozenset(("compass", "letters"))] == 0
    listed = {name for name, _ in shown}
    assert listed == set(FAMILIES), "every word is known as an action"
    assert len(shown) == len(FAMILIES) * (len(FAMILIES) - 1) - 2


def test_variants_leave_out_what_they_promise() -> None:
    dialect = Compact()
    new = {one.rule for one in islice(TASK.documents(dialect, 1, "new_rules"), 3000)}
    assert not new & {"id", "ood", "compass-before-relative"}

    def parts(variant: Any) -> set[str]:
        routes = [one.payload.route for one in islice(TASK.documents(dialect, 1, variant), 3000)]
        return {route.part for route in routes if len(route.legs) >= 4}

    assert parts("strict") == {"sft", "rl"}
    assert parts("default") == {"sft", "rl", "held_out"}


def test_a_document_ends_in_the_experts_answer_and_wrong_attempts_have_the_verifiers_feedback() -> None:
    dialect = Compact()
    told: Counter[str] = Counter()
    for one in islice(TASK.documents(dialect, 4), 2000):
        item = Item("", "", one.rule, "", one.payload)
        question, words = dialect.prompt(item), dialect.words(one.tokens)
        assert one.tokens[: len(question)] == question
        attempts = one.tokens[len(question) :]
        answer = attempts
        if "wrong" in words:
            cut = len(words) - words[::-1].index("wrong") - 1 - len(question)
            verdict = TASK.grade(item, dialect.read(attempts[:cut], "either").text)
            assert not verdict.solved
            assert dialect.feedback(verdict) == attempts[cut : cut + 3]
            told[verdict.category] += 1
            answer = attempts[cut + 3 :]
        assert TASK.grade(item, dialect.read(answer, "either").text).solved
        assert sum(weight == 1 for weight in one.weights) == len(answer)
        assert one.weights[-len(answer) :] == [1.0] * len(answer)
    assert {"wrong_rule", "wrong_action", "wrong_observation"} == set(told)


def test_mixed_words_stand_in_either_place_and_the_list_alone_tells() -> None:
    for split in ("mixed", "mixed_ood"):
        items = [item for item in TASK.items(split) if item.payload.node.kind == "turn"]
        first = [item.payload.printed(item.payload.node.leg)[0] == item.payload.action() for item in items]
        assert 0.4 < np.mean(first) < 0.6
        assert {item.split for item in items} == {split}
    assert {item.group for item in TASK.items("mixed")} == {item.group for item in TASK.items("sft")}
    for item, theirs in zip(TASK.items("mixed"), TASK.items("sft"), strict=True):
        assert item.payload.rule == MIXED_ID
        assert TASK.grade(item, TASK.expert(theirs)).solved
    pairs = [(item.payload.printed(0), other.payload.printed(0)) for item, other in zip(
        TASK.items(f"rule:{MIXED_ID.name}"), turns(TASK.items("mixed_ood")), strict=True)]  # fmt: skip
    assert all(set(one) == set(other) for one, other in pairs)


def turns(items: list[Item]) -> list[Item]:
    return [item for item in items if item.payload.node.kind == "turn"]


def test_in_tables_a_split_is_its_turns_and_on_the_way_every_rule_has_the_same_answer() -> None:
    for split in ("held_out", "id", "ood", "control", "mixed", "mixed_ood", "varied"):
        items, way = TASK.items(split), TASK.items("sft_way" if split == "id" else f"{split}_way")
        assert {item.split.endswith("_way") for item in turns(items)} == {False}
        assert split == "id" or {item.split for item in turns(items)} == {split}
        rest = [item for item in items if item.payload.node.kind != "turn"]
        assert way == [item for item in rest if item.split == way[0].split]
        assert split == "id" or way == rest
    for ours, theirs in zip(TASK.items("id"), TASK.items("ood"), strict=True):
        alike = TASK.grade(theirs, TASK.expert(ours)).solved
        assert alike == theirs.split.endswith("_way")


def test_familiar_answers_and_those_of_the_control_rule_have_only_words_of_id_answers() -> None:
    dialect = TASK.dialect()
    known = {token for item in TASK.items("id") for token in dialect.expert(item)}
    assert {token for item in TASK.items("familiar") for token in dialect.expert(item)} <= known
    assert not {token for item in TASK.items("varied") for token in dialect.expert(item)} <= known
    for item, id_item in zip(TASK.items("control"), TASK.items("id"), strict=True):
        assert item.payload.action() == id_item.payload.action()
        assert item.payload.rule.unseen
        assert item.payload.rule.place == OOD_RULE.place


def test_landmarks_are_shown_under_other_names_and_nothing_else_changes() -> None:
    chance = np.random.default_rng(0)
    for item in TASK.items("sft")[::50]:
        shown = TASK.shown(item, chance)
        assert TASK.grade(shown, oracle(TASK.prompt(shown))).solved
        assert shown.payload.action() == item.payload.action()
        before, after = (re.sub(r"\w+ \w+(?= is on your)", "X", TASK.prompt(one)) for one in (item, shown))
        assert before == after
        assert TASK.prompt(item) != TASK.prompt(shown) or "is on your" not in TASK.prompt(item)


@pytest.mark.parametrize(
    "words", ["", "i1", "i1 i2 | forward", "clear forward", "cross so so so", "second | | |"]
)
def test_any_words_of_the_dialect_are_read(words: str) -> None:
    dialect = TASK.dialect()
    for text in (f"{{ {words} | left }} <end>", f"{words} so left <end>", f"{words} <end>", words):
        answer = dialect.read(dialect.encode(text), "either")
        assert not TASK.grade(at(START), answer.text).solved
        columns = TASK.reply_columns(at(START), answer)
        assert set(columns) == {"observation_right", "direction_right"}


def test_columns_say_where_a_node_is_and_what_a_reply_states() -> None:
    dialect = TASK.dialect()
    for item in TASK.items("ood")[:60]:
        columns = TASK.item_columns(item)
        assert columns["route"] == item.group
        assert item.id.endswith(f"/{columns['node']:02}")
        assert (columns["turn"] > 0) == (columns["kind"] == "turn")
        right = {"observation_right": True, "direction_right": True}
        assert TASK.reply_columns(item, dialect.read(dialect.expert(item))) == right
        text = replace(dialect.read(dialect.expert(item)), text=TASK.expert(item), stated=())
        assert TASK.reply_columns(item, text) == right
        assert TASK.reply_columns(item, replace(text, text="stop()")) == dict.fromkeys(right, False)
    assert [TASK.item_columns(item)["turn"] for item in TASK.items("ood")[:1]] == [1]
    assert ID_RULE.name == "id"
