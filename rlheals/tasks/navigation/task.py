"""Navigation: items are nodes of routes, grouped by route, since a right action leads on and a wrong one nowhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from rlheals.errors import BadInput
from rlheals.tasks.base import Document, Item, Reply, Task, Variant, Verdict
from rlheals.tasks.navigation.frames import (
    COMPASS,
    CONTROL_RULE,
    FAMILIES,
    ID_RULE,
    MIXED_ID,
    MIXED_OOD,
    OOD_RULE,
    OTHER_RULES,
    RELATIVE,
    WAY,
    Rule,
)
from rlheals.tasks.navigation.graph import LANDMARKS, Route, all_routes
from rlheals.tasks.navigation.prompts import (
    INSTRUCTION,
    OBSERVATION,
    Place,
    Words,
    followed,
    question,
    reply_of,
    seen,
)
from rlheals.tasks.navigation.reference import read_routes
from rlheals.tasks.navigation.verifier import REWARDS, fields_of, judge, judge_as_reference
from rlheals.tasks.navigation.words import FEEDBACK_WORDS, WORDS, followed_words, sight_words

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from rlheals.tasks.navigation.compact import Compact

SEEN_RULES = tuple(
    rule
    for listed, other in permutations(FAMILIES, 2)
    for rule in (Rule(listed, "after", other), Rule(listed, "before", other))
    if rule != ID_RULE and not rule.unseen
)
"""What pretraining shows beside the ID rule."""
OTHER_WORDS = tuple(rule for rule in SEEN_RULES if not {rule.listed, rule.other} & {COMPASS, RELATIVE})


class Navigation(Task):
    """The paper's second task, on streets of our own.

    words: what the direction of a turn prints: "both" words, as in the paper, so that one has to be copied; "compass":
    relative words have to be worked out from two headings; "relative": compass words from all turns before.
    compat="reference": differences of headings do not go round north, and a right observation of an intersection is
    contradicted, as in the original. routes: a `route_infos.json` of the reference's, to be walked instead of ours.
    The lab plays with both words and our routes.

    >>> task = Navigation()
    >>> item = task.items("ood")[0]
    >>> task.grade(item, task.expert(item)).solved
    True
    """

    name = "navigation"
    called = ("node", "nodes")
    options = ("words", "compat", "routes")
    rules = (ID_RULE.name, OOD_RULE.name, *(rule.name for rule in OTHER_RULES))
    more_splits: ClassVar[tuple[str, ...]] = ("varied", "familiar", "control", "mixed", "mixed_ood")
    paired = ("id", "ood")
    rewards = REWARDS
    feedback_words = FEEDBACK_WORDS
    attempts: ClassVar[int] = 2
    words = WORDS
    prompt_tokens = 125
    answer_tokens = 16

    def __init__(self, words: Words = "both", compat: str | None = None, routes: str | None = None) -> None:
        if words not in get_args(Words):
            raise BadInput(f"task {self.name}: words = {words!r:.40}; accepted: {', '.join(get_args(Words))}")
        if compat not in (None, "reference"):
            raise BadInput(f"task {self.name}: compat = {compat!r:.40}; accepted: None, 'reference'")
        self.printed, self.compat = words, compat
        self.unjudged = -1.0 if compat else None
        self._routes = all_routes() if routes is None else read_routes(routes, wrapped=not compat)
        if compat and routes is None:
            self._routes = tuple(route.unwrapped() for route in self._routes)
        if words != "both":  # no other words can be worked out
            self.rules, self.more_splits = self.rules[:2], ()  # type: ignore[misc]
        if words != "both" or routes is not None:
            self.words = ()  # type: ignore[misc]

    def items(self, split: str) -> list[Item]:
        """The nodes of the routes of a split, route by route.

        sft, rl, held_out: parts of the routes (`graph.part_of`) under the ID rule; id: all of them; ood: the same nodes
        under the OOD rule; control: under `CONTROL_RULE`; varied: the routes of sft and rl, each under a random rule
        that pretraining shows; familiar: the same under rules that list compass words beside relative ones, but not
        always after them; mixed: the routes of sft, printed words in random order; mixed_ood: all routes so, under the
        OOD rule's list; rule:NAME: their turns under that rule. Raises BadInput for other names.

        All rules answer alike where one goes on or stops. There an item's own `split` ends in `_way`, so that `ood` and
        the others mean turns in the tables of an evaluation; `ood_way` is a name of such nodes here, too.

        >>> [len({item.group for item in Navigation().items(s)}) for s in ("sft", "rl", "held_out", "id", "ood")]
        [144, 48, 48, 240, 240]
        """
        if isinstance(split, str) and split.startswith("rule:"):
            items = self._under(Rule.parse(split.removeprefix("rule:")), self._routes)
            return [item for item in items if item.payload.node.kind == "turn"]
        if isinstance(split, str) and split.endswith(WAY):
            return [item for item in self.items(split.removesuffix(WAY)) if item.split == split]
        known = (*self.splits, *self.paired[:1], *self.more_splits)
        if split not in known:
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(known)}, rule:NAME")
        if split in ("varied", "familiar"):
            chance = random.Random(split)
            rules = SEEN_RULES if split == "varied" else (Rule(COMPASS, "before", RELATIVE), MIXED_ID)
            routes = [route for route in self._routes if route.part != "held_out"]
            return [item for route in routes for item in self._under(chance.choice(rules), [route], split)]
        if split in ("mixed", "mixed_ood"):
            routes = [route for route in self._routes if route.part == "sft" or split == "mixed_ood"]
            rule = MIXED_ID if split == "mixed" else MIXED_OOD
            return self._under(rule, routes, split)
        if split in ("ood", "control"):
            return self._under(OOD_RULE if split == "ood" else CONTROL_RULE, self._routes)
        return self._under(ID_RULE, [route for route in self._routes if split in ("id", route.part)])

    def _under(self, rule: Rule, routes: Sequence[Route], split: str = "") -> list[Item]:
        if rule.name not in self.rules and self.printed != "both":
            raise BadInput(f"rule {rule.name}: its words are not printed; accepted with one word: id, ood")
        split = split or {ID_RULE: "", OOD_RULE: "ood", CONTROL_RULE: "control"}.get(
            rule, f"rule:{rule.name}"
        )
        return [
            Item(
                f"{rule.name}/{route.name}/{at:02}",
                (split or route.part) + ("" if node.kind == "turn" else WAY),
                rule.name,
                route.name,
                Place(route, at, rule, self.printed),
            )
            for route in routes
            for at, node in enumerate(route.nodes)
        ]

    def prompt(self, item: Item, form: int = 0) -> str:
        """The question: directions, actions, what was seen and done so far, and the form of the answer."""
        return question(item.payload)

    def answers(self, item: Item) -> tuple[str, ...]:
        """The expert's reply: the observation, the direction that is followed, the action."""
        return (reply_of(item.payload),)

    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply. Rewards and categories: `verifier.judge`, or `verifier.judge_as_reference` under compat.

        >>> task = Navigation()
        >>> at_start = task.items("ood")[0]
        >>> task.grade(at_start, task.expert(task.items("id")[0])).read_as
        'id'
        """
        if not isinstance(reply, str):
            raise BadInput(f"item {item.id}: the reply is {type(reply).__name__}; text is accepted")
        return (judge_as_reference if self.compat else judge)(reply, item.payload)

    def shown(self, item: Item, random: np.random.Generator) -> Item:
        """The same route with other landmarks."""
        place: Place = item.payload
        names = dict(
            zip(LANDMARKS, (LANDMARKS[at] for at in random.permutation(len(LANDMARKS))), strict=True)
        )
        return replace(item, payload=replace(place, route=place.route.renamed(names)))

    def item_columns(self, item: Item) -> dict[str, Any]:
        """route; node: its number, from 0; kind: turn, forward or stop; turn: the how manieth of the route, 0: none."""
        node = item.payload.node
        turn = node.leg + 1 if node.kind == "turn" else 0
        return {"route": item.group, "node": item.payload.at, "kind": node.kind, "turn": turn}

    def reply_columns(self, item: Item, reply: Reply) -> dict[str, Any]:
        """Whether the observation that a reply states is right, and the direction that it says it follows."""
        place, stated = item.payload, reply.stated
        right = sight_words(place.node.sight), followed_words(place)
        if not stated:
            fields = fields_of(reply.text)
            stated = fields.get(OBSERVATION), fields.get(INSTRUCTION)
            right = seen(place.node.sight), followed(place)
        return {"observation_right": stated[0] == right[0], "direction_right": stated[1] == right[1]}

    def rule_distance(self, rule: str) -> float:
        """1 for words other than the compass's, and 1 for the first place, half of it for a place at random.

        >>> [Navigation().rule_distance(name) for name in ("id", "ood", "letters-after-relative")]
        [0.0, 2.0, 1.0]
        """
        read = Rule.parse(rule)
        return (read.listed != COMPASS) + {"after": 0.0, "beside": 0.5, "before": 1.0}[read.place]

    def chance(self) -> dict[str, float]:
        """Turns: compass words at every one; words drawn from the OOD list."""
        return {
            "trained words on ood": 0.0,
            f"{self.attempts} words of the list on ood": 1
            - (1 - 1 / len(FAMILIES[RELATIVE])) ** self.attempts,
        }

    def facts(self) -> tuple[str, ...]:
        """Counts of routes and nodes, and what two policies score under the OOD rule that look at nothing else."""
        items = {split: self.items(split) for split in self.splits}
        counts = (
            f"{name} {len({i.group for i in found})} routes, {len(found)} nodes"
            for name, found in items.items()
        )
        turns = Counter(item.group for item in items["ood"] if item.split == "ood")
        trained, drawn = self.chance().values()
        share = turns.total() / len(items["ood"])
        walked = sum(drawn**count for count in turns.values()) / len(turns)
        return (
            f"splits: {'; '.join(counts)}",
            f"compass words under the OOD rule, the rest right: {trained:.1%} of turns, "
            f"{1 - share:.1%} of nodes, no route",
            f"turns drawn from the list, the rest right: {drawn:.1%} of turns within {self.attempts} attempts, "
            f"{1 - share + share * drawn:.1%} of nodes, {walked:.1%} of routes",
        )

    def dialect(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Compact:
        if not self.words:
            super().dialect(tokenizer)
        from rlheals.tasks.navigation.compact import Compact

        return Compact(tokenizer)

    def documents(self, dialect: Compact, seed: int, variant: Variant = "default") -> Iterator[Document]:
        from rlheals.tasks.navigation.compact import Corpus

        return iter(Corpus(dialect, seed, variant))

    def panel(self, size: int) -> list[Item]:
        """Turns under random rules without compass and relative words, first and later ones by turns."""
        chance, routes = random.Random("panel"), [route for route in self._routes if route.part == "sft"]
        found: dict[str, Item] = {}
        while len(found) < size:
            items = self._under(chance.choice(OTHER_WORDS), [chance.choice(routes)])
            turns = [item for item in items if item.payload.node.kind == "turn"]
            for item in (turns[0], chance.choice(turns[1:])):
                found[item.id] = item
        return list(found.values())[:size]


TASK = Navigation
