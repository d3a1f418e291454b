"""GeneralPoints, the card game of 24: items, prompts, expert replies, grading, its lab side; hands as plain data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from rlheals.errors import BadInput
from rlheals.tasks.base import Document, Item, Reply, Task, Variant, Verdict
from rlheals.tasks.general_points.cards import (
    CONTROL_RULE,
    ID_RULE,
    OOD_RULE,
    OTHER_RULES,
    SHARES,
    UNSEEN,
    Cards,
    Hand,
    Rule,
    all_hands,
    as_hand,
    census,
    hands_solvable,
    has_face,
    item_of,
    parse_hand,
    split_of,
)
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS, FORMS, LONG_FORMS, WORDS, answer, question
from rlheals.tasks.general_points.solver import LARGEST, canonical_solution, solutions, solvable
from rlheals.tasks.general_points.verifier import REWARDS, formula_of, judge, judge_as_reference

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from rlheals.tasks.general_points.compact import Compact

SPLITS = ("sft", "rl", "held_out", "id", "ood", "both_id", "both_ood", "varied", "familiar", "control")
GRADED_HANDS = 25
"""Under either rule; for `GeneralPoints.facts`."""


class GeneralPoints(Task):
    """The task of the paper; `compat="reference"` sums penalties and compares floats as the original does.

    >>> task = GeneralPoints()
    >>> item = task.item(("A", "J", "Q", "K"), OOD_RULE)
    >>> task.grade(item, task.answers(item)[0]).solved
    True
    """

    name = "general_points"
    called = ("hand", "hands")
    options = ("compat",)
    rules = (ID_RULE.name, OOD_RULE.name, *(rule.name for rule in OTHER_RULES))
    more_splits = ("varied", "familiar", "control")
    paired = ("both_id", "both_ood")
    rewards = REWARDS
    feedback_words = FEEDBACK_WORDS
    forms: ClassVar[int] = len(LONG_FORMS)
    short_form: ClassVar[int | None] = len(LONG_FORMS)
    words = WORDS
    prompt_tokens = 13

    def __init__(self, compat: str | None = None) -> None:
        if compat not in (None, "reference"):
            raise BadInput(f"task {self.name}: compat = {compat!r:.40}; accepted: None, 'reference'")
        self.compat = compat
        self.unjudged = -1.0 if compat else None

    def items(self, split: str) -> list[Item]:
        """The items of a split, in the order of `rlheals.tasks.general_points.cards.all_hands`.

        sft, rl, held_out: parts of the 1,236 ID hands (`split_of`); id: all of these; ood: the 796 OOD hands;
        both_id, both_ood: the 529 face-card hands solvable under both rules, under either of them;
        varied: 975 face-card hands, each under a random rule that is neither ID nor unseen, of values that are not held
        out; familiar: the same with rules up to 10; control: the 778 face-card hands under `CONTROL_RULE`;
        rule:NAME: as `items_for_rule`. Raises BadInput for other names.

        >>> [len(GeneralPoints().items(split)) for split in ("sft", "rl", "held_out", "id", "ood")]
        [712, 263, 261, 1236, 796]
        """
        if isinstance(split, str) and split.startswith("rule:"):
            return self.items_for_rule(Rule.parse(split.removeprefix("rule:")))
        if split not in SPLITS:
            raise BadInput(f"split {split!r:.40} is not known; accepted: {', '.join(SPLITS)}, rule:NAME")
        return list(_items(split))

    def items_for_rule(self, rule: Rule) -> list[Item]:
        """The hands with a face card that are solvable under a rule.

        >>> len(GeneralPoints().items_for_rule(Rule(5, 7, 2)))
        890
        """
        return [_item(hand, rule) for hand in hands_solvable(rule, faces_only=True)]

    def item(self, hand: Sequence[str], rule: Rule) -> Item:
        """The item of a hand, whose cards may come in any order. Raises BadInput when it is not solvable."""
        ordered = as_hand(hand)
        if not solvable(rule.values(ordered)):
            raise BadInput(f"hand {' '.join(ordered)}: no formula makes 24 under rule {rule.name}")
        return _item(ordered, rule)

    def prompt(self, item: Item, form: int = 0) -> str:
        """The question: rule, cards, goal and the form of the answer."""
        return question(FORMS[form], item.payload.hand, item.payload.rule)

    def expert(self, item: Item, form: int = 0) -> str:
        """The canonical solution as a reply to the question in that form.

        >>> task = GeneralPoints()
        >>> task.expert(task.item(("8", "3", "8", "3"), ID_RULE))
        '{"cards": ["8", "8", "3", "3"], "number": [8, 8, 3, 3], "formula": "8/(3-8/3)=24"}'
        """
        values = item.payload.values
        return answer(FORMS[form], item.payload.hand, values, canonical_solution(values))

    def answers(self, item: Item) -> tuple[str, ...]:
        """Expert replies, one per listed solution, the canonical one first."""
        hand, values = item.payload.hand, item.payload.values
        first = canonical_solution(values)
        formulas = (first, *(formula for formula in solutions(values) if formula != first))
        return tuple(answer(FORMS[0], hand, values, formula) for formula in formulas)

    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply: its formula field, or the reply itself when it is a bare formula.

        Rewards and categories: `verifier.judge`, or `verifier.judge_as_reference` under compat.

        >>> task = GeneralPoints()
        >>> task.grade(task.item(("8", "3", "8", "3"), ID_RULE), "8*3+8-3").feedback
        'The formula is not 24, but a solution can begin with 8.'
        """
        if not isinstance(reply, str):
            raise BadInput(f"item {item.id}: the reply is {type(reply).__name__}; text is accepted")
        reference = self.compat == "reference"
        formula = formula_of(reply, reference)
        return (judge_as_reference if reference else judge)(formula, item.payload.hand, item.payload.rule)

    def shown(self, item: Item, random: np.random.Generator) -> Item:
        """The same cards in random order."""
        hand, rule = item.payload.hand, item.payload.rule
        return replace(item, payload=Cards(tuple(hand[place] for place in random.permutation(4)), rule))

    def item_columns(self, item: Item) -> dict[str, Any]:
        """face: whether a face card is among the hand's."""
        return {"face": has_face(item.payload.hand)}

    def reply_columns(self, item: Item, reply: Reply) -> dict[str, Any]:
        """Whether the values that a reply states are those of the item's rule, and those of the ID rule."""
        stated = sorted(reply.stated)
        return {
            "values_right": stated == sorted(item.payload.values),
            "values_as_id": stated == sorted(ID_RULE.values(item.payload.hand)),
        }

    def rule_distance(self, rule: str) -> float:
        """Mean of |value - 10| over J, Q, K.

        >>> GeneralPoints().rule_distance("ood"), GeneralPoints().rule_distance("J10-Q10-K11")
        (2.0, 0.33)
        """
        read = Rule.parse(rule)
        return round(sum(abs(value - 10) for value in (read.jack, read.queen, read.king)) / 3, 2)

    def facts(self) -> tuple[str, ...]:
        """Counts of hands and items, and 200 graded replies with the digest of their verdicts."""
        counts = census_counts()
        lines = [
            f"hands: {counts['all']}; solvable under the ID rule {counts['id']}, with a face card under the OOD rule "
            f"{counts['ood']}, with a face card under both {counts['both']}",
            f"splits: sft {counts['sft']}, rl {counts['rl']}, held-out {counts['held_out']}",
        ]
        digest = hashlib.sha256()
        for name, rule in (("ID", ID_RULE), ("OOD", OOD_RULE)):
            verdicts = []
            for hand in census("both")[::21][:GRADED_HANDS]:
                for reply in replies(hand):
                    verdict = self.grade(item_of(hand, rule), reply)
                    verdicts.append(verdict)
                    said = verdict.category, f"{verdict.reward:+.1f}", verdict.read_as or ""
                    digest.update(("\t".join((name, *hand, reply, *said)) + "\n").encode())
            categories = sorted(Counter(verdict.category for verdict in verdicts).items())
            lines.append(
                f"{len(verdicts)} replies graded under the {name} rule: "
                + ", ".join(f"{category} {count}" for category, count in categories)
                + f"; sum of rewards {sum(verdict.reward for verdict in verdicts):+.0f}"
            )
        return (*lines, f"digest of these verdicts: {digest.hexdigest()[:16]}")

    def dialect(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Compact:
        from rlheals.tasks.general_points.compact import Compact

        return Compact(tokenizer)

    def documents(self, dialect: Compact, seed: int, variant: Variant = "default") -> Iterator[Document]:
        from rlheals.tasks.general_points.compact import Corpus

        return iter(Corpus(dialect, seed, variant))

    def panel(self, size: int) -> list[Item]:
        """Face-card hands under random rules (neither ID nor unseen ones), eight of a rule, always the same."""
        import numpy as np

        random, panel = np.random.default_rng(24), list[Item]()
        while len(panel) < size:
            rule = Rule(*(int(v) for v in random.integers(1, 14, 3)))
            if rule in (ID_RULE, *UNSEEN):
                continue
            items = self.items_for_rule(rule)
            panel += [items[i] for i in random.choice(len(items), size=min(8, len(items)), replace=False)]
        return panel[:size]


TASK = GeneralPoints


@cache
def _items(split: str) -> tuple[Item, ...]:
    if split.startswith("both_"):
        rule = ID_RULE if split == "both_id" else OOD_RULE
        return tuple(_item(hand, rule) for hand in census("both"))
    if split in ("ood", "control"):
        rule = OOD_RULE if split == "ood" else CONTROL_RULE
        return tuple(_item(hand, rule) for hand in hands_solvable(rule, faces_only=True))
    if split in ("varied", "familiar"):
        return _varied(split, LARGEST if split == "varied" else 10, len(_items("sft")) + len(_items("rl")))
    items = (_item(hand, ID_RULE) for hand in census("id"))
    return tuple(item for item in items if split in ("id", item.split))


def _varied(split: str, largest: int, count: int) -> tuple[Item, ...]:
    """Hands with a face card, each under its own random rule of values up to `largest`."""
    import numpy as np

    random, found = np.random.default_rng(25), dict[str, Item]()
    while len(found) < count:
        rule = Rule(*(int(v) for v in random.integers(1, largest + 1, 3)))
        hands = hands_solvable(rule, faces_only=True)
        hand = hands[random.integers(len(hands))]
        values = rule.values(hand)
        held_out = max(values) <= 10 and split_of(values) == "held_out"
        if rule not in (ID_RULE, *UNSEEN) and not held_out:
            item = replace(_item(hand, rule), split=split)
            found[item.id] = item
    return tuple(found.values())


@lru_cache(maxsize=65536)
def _item(hand: Hand, rule: Rule) -> Item:
    """One item per hand and rule, whatever split is asked for; the order shown depends on the hand only."""
    name = "-".join(hand)
    shown = sorted(range(4), key=lambda place: hashlib.sha256(f"{name}/{place}".encode()).digest())
    split = {OOD_RULE: "ood", CONTROL_RULE: "control"}.get(rule, f"rule:{rule.name}")
    if rule == ID_RULE:
        split = split_of(rule.values(hand))
    return item_of([hand[place] for place in shown], rule, split)


# Hands as plain data -------------------------------------------------------------------------------------------------


def replies(hand: Hand) -> list[str]:
    """Right under the ID rule, right under the OOD rule, the latter with an operator changed, and cut short."""
    under_id, under_ood = (canonical_solution(rule.values(hand)) for rule in (ID_RULE, OOD_RULE))
    swapped = under_ood.translate(str.maketrans("+-*/", "-+/*"))
    return [f"{under_id}=24", f'{{"formula": "{under_ood}=24"}}', swapped, under_ood[:-1]]


def census_counts() -> dict[str, int]:
    """How many hands there are, by set and by part of the ID split.

    >>> census_counts()["both"]
    529
    """
    parts = Counter(split_of(ID_RULE.values(hand)) for hand in census("id"))
    return {
        "all": len(all_hands()),
        "id": parts.total(),
        **{part: parts[part] for part in SHARES},
        "ood": len(census("ood")),
        "both": len(census("both")),
    }


def census_hands(name: str) -> dict[str, Any]:
    """Every hand of a set (`cards.census`); for "both" the values and the solution are those under the OOD rule.

    >>> census_hands("ood")["hands"][0]
    {'hand': ['A', 'A', 'A', 'J'], 'values': [1, 1, 1, 11], 'solution': '(1+1)*(1+11)'}
    """
    hands = census(name)
    rule = OOD_RULE if name == "both" else Rule.parse(name)
    valued = [(hand, rule.values(hand)) for hand in hands]
    rows = [{"hand": list(h), "values": list(v), "solution": canonical_solution(v)} for h, v in valued]
    return {"census": name, "rule": rule.name, "count": len(rows), "hands": rows}


def graded(hand: str, reply: str, rule: str, compat: str | None = None) -> dict[str, Any]:
    """The verdict on an answer to any hand, also one that no formula solves; then `solvable` is False.

    >>> graded("3 3 8 8", "8/(3-8/3)", "id")["solved"]
    True
    """
    task, item = GeneralPoints(compat), item_of(parse_hand(hand), Rule.parse(rule))
    values = item.payload.values
    about = {"hand": list(item.payload.hand), "rule": item.rule, "values": list(values)}
    return about | {"solvable": solvable(values)} | asdict(task.grade(item, reply))
