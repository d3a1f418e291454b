"""The lab's texts: what they promise about rules, shares, feedback and held-out hands, read back from the words."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import pytest
from lab_helpers import Text, read_text

from rlheals.engines.models import ModelSettings
from rlheals.tasks.base import Document
from rlheals.tasks.general_points.cards import FACES, ID_RULE, OOD_RULE, UNSEEN, item_of
from rlheals.tasks.general_points.compact import (
    ID_SHARE,
    MISREAD_SHARE,
    MOST_WRONG,
    SIDE_WEIGHT,
    TARGET_LAYOUT_SHARE,
    WRONG_SHARE,
    Compact,
    Corpus,
    expert_formula,
    held_out,
)
from rlheals.tasks.general_points.prompts import FEEDBACK_WORDS
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.training.expert import IGNORED, LOSS_SETS, loss_set
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.sft import SFTSettings, examples

SIZE = 20_000


def documents(dialect: Compact, seed: int, variant: str = "default", size: int = SIZE) -> list[Document]:
    return list(islice(iter(Corpus(dialect, seed, variant)), size))


@pytest.fixture(scope="module")
def stream(dialect: Compact) -> SimpleNamespace:
    made = documents(dialect, seed=2)
    return SimpleNamespace(documents=made, texts=[read_text(dialect, document.tokens) for document in made])


def within_chance(count: int, size: int, share: float) -> bool:
    """Whether a count is within 4.5 standard deviations of a binomial with this share (one chance in 150,000)."""
    return abs(count - size * share) < 4.5 * math.sqrt(size * share * (1 - share))


def multisets_of(text: Text) -> set[tuple[int, ...]]:
    """Every multiset of values that a document mentions: dealt, listed in an attempt, or used in a formula."""
    found = {tuple(sorted(text.rule.values(text.hand)))}
    for said in text.said:
        found |= {tuple(sorted(said.values)), tuple(sorted(said.numbers))}
    return found


# Pretraining ----------------------------------------------------------------------------------------------------------


def test_the_ood_rule_never_occurs_and_neither_does_a_reading_under_it_that_names_it(
    stream: SimpleNamespace,
) -> None:
    for document, text in zip(stream.documents, stream.texts, strict=True):
        assert text.rule.name == document.rule != OOD_RULE.name
        assert text.rule.values(text.hand) == document.payload
        if set(FACES) <= set(text.hand):
            read = {said.values for said in text.said}
            assert OOD_RULE.values(text.hand) not in read


def test_the_documented_shares_hold_and_every_value_of_every_face_occurs(stream: SimpleNamespace) -> None:
    texts = stream.texts
    as_id = ID_SHARE + (1 - ID_SHARE) / (13**3 - 1)
    assert within_chance(sum(text.rule == ID_RULE for text in texts), SIZE, as_id)
    assert within_chance(sum(text.said[-1].target for text in texts), SIZE, TARGET_LAYOUT_SHARE)
    assert (ID_SHARE, TARGET_LAYOUT_SHARE, MISREAD_SHARE) == (0.25, 0.08, 0.6)
    tries = Counter(len(text.said) - 1 for text in texts)
    for wrong in range(MOST_WRONG + 1):
        share = WRONG_SHARE**wrong * (1 - WRONG_SHARE if wrong < MOST_WRONG else 1)
        assert within_chance(tries[wrong], SIZE, share), wrong
    faces = sum(any(label in FACES for label in text.hand) for text in texts)
    assert faces > SIZE * (0.5 + 0.5 * (1 - (10 / 13) ** 4) - 0.05)
    rules = {text.rule for text in stream.texts}
    for face in ("jack", "queen", "king"):
        assert {getattr(rule, face) for rule in rules} == set(range(1, 14))
    assert len(rules) > 2000  # of 2,196


def test_the_last_answer_is_right_and_every_earlier_one_wrong_with_the_verifiers_own_feedback(
    stream: SimpleNamespace, dialect: Compact, task: GeneralPoints
) -> None:
    kinds: Counter[str] = Counter()
    for text in stream.texts:
        item = item_of(text.hand, text.rule)
        *wrong, last = text.said
        reply = dialect.read(dialect.encode(" ".join(last.words)), "either")
        assert task.grade(item, reply.text).solved
        assert last.feedback == []
        assert last.values == text.rule.values(text.hand)
        for said in wrong:
            reply = dialect.read(dialect.encode(" ".join(said.words)), "either")
            verdict = task.grade(item, reply.text)
            assert not verdict.solved
            assert said.feedback == ["wrong", FEEDBACK_WORDS[verdict.category], "answer"]
            assert said.target == last.target
            kinds[said.feedback[1]] += 1
    assert kinds.keys() == {"numbers", "value"}
    # a draw that gives no wrong answer is repeated, which moves the share of misread hands a little
    assert abs(kinds["numbers"] / kinds.total() - MISREAD_SHARE) < 0.03


def test_only_the_correct_answer_has_full_weight_and_a_document_fits_into_the_model(
    stream: SimpleNamespace,
) -> None:
    for document, text in zip(stream.documents, stream.texts, strict=True):
        start = text.said[-1].start
        assert document.weights[:start] == [SIDE_WEIGHT] * start
        assert document.weights[start:] == [1.0] * (len(document.tokens) - start)
    assert max(len(document.tokens) for document in stream.documents) <= ModelSettings().max_tokens
    assert max(len(d.tokens) for d in stream.documents) <= PretrainSettings().batch_tokens


def test_strict_never_mentions_a_held_out_multiset_and_default_does(
    stream: SimpleNamespace, dialect: Compact
) -> None:
    banned = held_out()
    strict = [read_text(dialect, document.tokens) for document in documents(dialect, 2, "strict", 10_000)]
    assert not any(multisets_of(text) & banned for text in strict)
    seen = set().union(*(multisets_of(text) for text in stream.texts))
    assert len(seen & banned) > 0.9 * len(banned)
    assert not any(text.rule == OOD_RULE for text in strict)


@pytest.mark.parametrize("variant", ["default", "strict", "new_rules"])
def test_unseen_rules_never_occur_and_new_rules_leave_out_the_id_rule_too(
    dialect: Compact, variant: str
) -> None:
    seen = Counter(document.rule for document in documents(dialect, 2, variant, 10_000))
    assert not seen.keys() & {rule.name for rule in UNSEEN}
    share = 0 if variant == "new_rules" else ID_SHARE
    assert within_chance(seen[ID_RULE.name], 10_000, share) if share else ID_RULE.name not in seen


# SFT ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5])
def test_sft_shows_right_answers_to_hands_of_its_split_only_in_every_order(
    dialect: Compact, task: GeneralPoints, seed: int
) -> None:
    settings = SFTSettings(checkpoints=(0, 160))
    items = [item for split in ("rl", "held_out") for item in task.items(split)]
    others = {tuple(sorted(item.payload.values)) for item in items}
    formulas = {expert_formula(values) for values in others}
    rows = examples(dialect, settings, seed)
    assert len(rows) == 160 * settings.batch
    hands, orders = Counter(), Counter()
    for row in rows:
        text = read_text(dialect, row["input_ids"])
        (said,) = text.said
        assert text.rule == ID_RULE
        assert said.target
        assert not multisets_of(text) & others
        assert said.formula.replace(" ", "") not in formulas
        assert said.values == ID_RULE.values(text.hand)
        hands[tuple(sorted(text.hand))] += 1
        start = said.start
        assert row["labels"] == [IGNORED] * start + row["input_ids"][start:]
        assert task.grade(item_of(text.hand, ID_RULE), dialect.read(row["input_ids"][start:]).text).solved
        if len(set(text.hand)) == 4:
            shown = task.item(text.hand, ID_RULE).payload.hand
            orders[tuple(shown.index(card) for card in text.hand)] += 1
    sft = {tuple(sorted(item.payload.hand)) for item in task.items("sft")}
    assert set(hands) == sft
    expected = len(rows) / len(sft)
    square = sum((count - expected) ** 2 / expected for count in hands.values())
    assert abs(square - len(sft)) < 5 * math.sqrt(2 * len(sft))  # uniform over hands
    assert len(orders) == 24
    assert max(orders.values()) < 2 * min(orders.values())


def test_sft_on_several_splits_draws_from_all_their_items_alike(
    dialect: Compact, task: GeneralPoints
) -> None:
    rows = examples(dialect, SFTSettings(checkpoints=(0, 80), splits=("sft", "rl", "varied")), 0)
    other = [read_text(dialect, row["input_ids"]).rule != ID_RULE for row in rows]
    assert within_chance(sum(other), len(rows), 0.5)


@pytest.mark.parametrize("name", list(LOSS_SETS))
def test_loss_sets_are_fixed_right_and_from_their_own_split(
    dialect: Compact, task: GeneralPoints, name: str
) -> None:
    split = LOSS_SETS[name]
    rows = loss_set(dialect, task, split, 256)
    assert rows == loss_set(dialect, task, split, 256)
    assert rows[:100] == loss_set(dialect, task, split, 100)
    known = {(item.payload.rule, tuple(sorted(item.payload.hand))) for item in task.items(split)}
    hands = set()
    for tokens, start in rows:
        text = read_text(dialect, tokens)
        (said,) = text.said
        assert said.start == start
        assert said.target
        hands.add((text.rule, tuple(sorted(text.hand))))
        item = item_of(text.hand, text.rule)
        assert task.grade(item, dialect.read(tokens[start:]).text).solved
    assert hands <= known
    assert len(hands) == len(rows) == 256
