"""Dialects: every expert answer survives the way through tokens, and nothing else is ever taken for an answer."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import tiny_models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlheals.engines.hf import Sampling
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import Chat, dialect_for
from rlheals.tasks import load_task
from rlheals.tasks.base import END, UNK, Item, Verdict
from rlheals.tasks.general_points.cards import OOD_RULE, OTHER_RULES
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.formula import FormulaError, evaluate
from rlheals.tasks.general_points.prompts import NUMBERS
from rlheals.tasks.general_points.solver import canonical_solution
from rlheals.tasks.general_points.task import GeneralPoints

WRONG = Verdict(False, -1.0, "no_solution", "The formula is not 24.")


def every_item(task: GeneralPoints) -> list[Item]:
    items = [item for split in ("sft", "rl", "held_out", "ood") for item in task.items(split)]
    return items + [item for rule in OTHER_RULES for item in task.items_for_rule(rule)]


def answer(dialect: Compact, item: Item, layout: str = "target") -> list[int]:
    values = item.payload.values
    return dialect.answer(values, canonical_solution(values), layout)


# The law of reading ---------------------------------------------------------------------------------------------------


def test_every_expert_answer_of_every_hand_survives_the_way_through_tokens(
    dialect: Compact, task: GeneralPoints
) -> None:
    longest = read = 0
    for split in ("sft", "rl", "held_out", "ood"):
        for item in task.items(split):
            values = item.payload.values
            for reply in task.answers(item):
                formula = json.loads(reply)["formula"].removesuffix("=24")
                tokens = dialect.answer(values, formula)
                back = dialect.read(tokens)
                assert (back.layout, back.stated) == ("target", values)
                assert json.loads(back.text) == {"number": list(values), "formula": f"{formula}=24"}
                longest, read = max(longest, len(tokens)), read + 1
    assert read > 100_000
    assert longest <= Sampling().max_new_tokens


def test_every_hand_of_every_rule_is_solved_in_the_target_layout_and_in_the_plain_one_only_if_either_counts(
    dialect: Compact, task: GeneralPoints
) -> None:
    for item in every_item(task):
        target, plain = answer(dialect, item), answer(dialect, item, "plain")
        assert task.grade(item, dialect.read(target, "target").text).solved
        assert task.grade(item, dialect.read(target, "either").text).solved
        assert task.grade(item, dialect.read(plain, "either").text).solved
        rejected = dialect.read(plain, "target")
        verdict = task.grade(item, rejected.text)
        assert (rejected.layout, rejected.stated) == ("plain", item.payload.values)
        assert (verdict.solved, verdict.category) == (False, "illegal_formula")


def solves(words: list[str], item: Item, protocol: str) -> bool:
    """Independently of the dialect: is this text, word for word, an answer in an accepted layout that makes 24?"""
    numbers = "|".join(NUMBERS)
    target = rf"\{{(?: (?:{numbers}))* \|([^|{{}}]*) \}} <end>"
    plain = rf"(?:(?:{numbers}) )*so((?:(?! so )[^{{}}])*) <end>"
    text = " ".join(words)
    found = re.fullmatch(target, text) or (re.fullmatch(plain, text) if protocol == "either" else None)
    if found is None:
        return False
    formula = found[1].partition("=")[0]
    try:
        right = evaluate(formula) == 24
    except FormulaError:
        return False
    return right and sorted(map(int, re.findall(r"\d+", formula))) == sorted(item.payload.values)


def test_of_all_texts_one_word_away_from_an_answer_only_answers_are_solved(
    dialect: Compact, task: GeneralPoints
) -> None:
    words = [word for word in dialect.tokenizer.get_vocab() if word != UNK]
    draw = random.Random(7)
    solved = 0
    for item in draw.sample(every_item(task), 6):
        for layout in ("target", "plain"):
            right = dialect.words(answer(dialect, item, layout))
            changed = [right[:at] + right[at + 1 :] for at in range(len(right))]
            for at in range(len(right) + 1):
                changed += [[*right[:at], word, *right[at:]] for word in words]
                changed += [[*right[:at], word, *right[at + 1 :]] for word in words]
            for text in changed:
                tokens = dialect.encode(" ".join(text))
                for protocol in ("target", "either"):
                    verdict = task.grade(item, dialect.read(tokens, protocol).text)
                    assert verdict.solved == solves(text, item, protocol), " ".join(text)
                    solved += verdict.solved
    assert solved > 100  # answers with another value in the list, without brackets that were not needed, ...


def test_strange_tokens_are_no_answer_and_strange_words_are_refused(
    dialect: Compact, task: GeneralPoints
) -> None:
    for tokens in ([10_000], [-1], [dialect.encode("{")[0], 999, *dialect.encode("} <end>")]):
        reply = dialect.read(tokens)
        assert reply.layout == "none"
        assert not task.grade(task.items("ood")[0], reply.text).solved
    apart = dialect.read(
        dialect.encode("{ 1 2 2 12 | 1 2 * 2 = 24 } <end>")
    )  # 1 and 2 side by side are not 12
    assert task.grade(task.item(("A", "2", "2", "Q"), OOD_RULE), apart.text).category == "illegal_formula"
    with pytest.raises(BadInput, match="no word 'joker'"):
        dialect.encode("cards joker 3")


@pytest.mark.parametrize("protocol", ["target", "either"])
@pytest.mark.parametrize("layout", ["target", "plain"])
def test_cut_prolonged_or_bare_replies_are_never_solved(
    dialect: Compact, task: GeneralPoints, layout: str, protocol: str
) -> None:
    for item in task.items("ood")[::23]:
        right = dialect.words(answer(dialect, item, layout))
        formula = right[right.index("|" if layout == "target" else "so") + 1 : right.index("=")]
        bare = (formula, [*formula, END], [*formula, "=", "24", END])
        for text in (right[: len(right) // 2], [*right[:-1], *right], *bare, []):
            reply = dialect.read(dialect.encode(" ".join(text)), protocol)
            assert not task.grade(item, reply.text).solved, " ".join(text)


# Prompts and retries --------------------------------------------------------------------------------------------------


def test_a_prompt_says_the_rule_and_the_cards_as_shown_and_no_two_questions_are_the_same(
    dialect: Compact, task: GeneralPoints
) -> None:
    seen = set()
    for item in every_item(task):
        rule = item.payload.rule
        text = f"<s> J {rule.jack} Q {rule.queen} K {rule.king} cards {' '.join(item.payload.hand)} answer"
        tokens = dialect.prompt(item)
        assert " ".join(dialect.words(tokens)) == text
        assert dialect.tokenizer.unk_token_id not in tokens
        seen.add(tuple(tokens))
    assert len(seen) == len({(item.rule, item.payload.hand) for item in every_item(task)})


# The tokenizer --------------------------------------------------------------------------------------------------------


def test_the_tokenizer_survives_its_files(tmp_path: Path, dialect: Compact, task: GeneralPoints) -> None:
    dialect.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, PreTrainedTokenizerFast)
    assert again.get_vocab() == dialect.tokenizer.get_vocab()
    assert again.padding_side == "left"
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(again, name) == getattr(dialect.tokenizer, name)
    for item in task.items("ood")[::50]:
        text = " ".join(dialect.words(dialect.prompt(item) + answer(dialect, item)))
        assert again(text)["input_ids"] == dialect.prompt(item) + answer(dialect, item)
        assert again.decode(again(text)["input_ids"]) == text


# Chat models ----------------------------------------------------------------------------------------------------------


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = tiny_models.tokenizer("qwen2")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def chat(task: GeneralPoints) -> Chat:
    return Chat(chat_tokenizer(tiny_models.CHATML), task)


def test_a_chat_episode_is_the_template_of_the_whole_conversation(chat: Chat, task: GeneralPoints) -> None:
    """Also where answers were cut before their end."""
    item = task.items("ood")[3]
    said = ['{"formula": "1+1=24"}', "I do not know!", "", "24"]
    tokens, messages = chat.prompt(item), [{"role": "user", "content": task.prompt(item)}]
    for number, text in enumerate(said):
        assert chat.tokenizer.decode(tokens) == chat.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        attempt = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        attempt += [chat.tokenizer.eos_token_id] * (number % 2)
        verdict = task.grade(item, chat.read(attempt).text)
        assert not verdict.solved
        before = tokens
        tokens = tokens + chat.retry(attempt, verdict)
        assert tokens[: len(before) + len(attempt)] == before + attempt, number
        messages += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": f"That attempt failed: {verdict.feedback}"},
        ]
    assert chat.tokenizer.decode(tokens) == chat.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )


def test_the_dialect_follows_from_the_tokenizer(dialect: Compact, task: GeneralPoints) -> None:
    assert isinstance(dialect_for(dialect.tokenizer, task), Compact)
    assert isinstance(dialect_for(chat_tokenizer(tiny_models.CHATML), task), Chat)
    with pytest.raises(BadInput, match="no chat template"):
        dialect_for(chat_tokenizer(None), task)
    with pytest.raises(BadInput, match="navigation has no short form; accepted: fixed, diverse"):
        Chat(chat_tokenizer(tiny_models.CHATML), load_task("navigation"), "short")
    with pytest.raises(BadInput, match="short is for language models"):
        dialect_for(dialect.tokenizer, task, "short")


def test_short_questions_say_the_same_in_half_the_words_and_share_their_beginning(
    task: GeneralPoints,
) -> None:
    full, short = (Chat(chat_tokenizer(tiny_models.CHATML), task, prompts) for prompts in ("fixed", "short"))
    items = [item for split in ("sft", "ood", "control") for item in task.items(split)[::40]]
    for item in items:
        asked, said = short.prompt(item), short.tokenizer.decode(short.expert(item), skip_special_tokens=True)
        rule = item.payload.rule
        for fact in (", ".join(item.payload.hand), f"J={rule.jack}", f"Q={rule.queen}", f"K={rule.king}"):
            assert fact in short.tokenizer.decode(asked)
        assert task.grade(item, said).solved
        assert short.read(short.expert(item)).text == said
        words, usual = task.prompt(item, task.short_form), task.prompt(item)
        assert len(words) < 0.4 * len(usual)
        assert len(said) < 0.7 * len(task.expert(item))
        assert usual in full.tokenizer.decode(full.prompt(item))
        assert tuple(asked[: len(short.beginning)]) == short.beginning
        assert len(short.beginning) > 0.6 * len(asked)
    assert len({tuple(short.prompt(item)) for item in items}) == len(items)
