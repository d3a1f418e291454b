"""What is trained is what is asked, with every chat template that is accepted; every other one is refused at once."""

from __future__ import annotations

import re

import pytest
import templates
from lab_helpers import one_line, refused

from rlheals.errors import BadInput
from rlheals.evaluation.dialects import DAY, NO_CLOCK, Chat
from rlheals.tasks.base import Verdict
from rlheals.tasks.general_points.task import GeneralPoints

TASK = GeneralPoints()
WRONG = Verdict(False, -1.0, "no_solution", "The formula is not 24.")
THOUGHT = re.compile(r"<think>\s*(</think>)?|\s")


def conversation(chat: Chat, *texts: str, opening: bool) -> str:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    template = NO_CLOCK + chat.tokenizer.get_chat_template()
    made = chat.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=opening, chat_template=template, date_string=DAY
    )
    return str(made)


def plain(text: str) -> str:
    """Without thoughts that a template opens or puts in, and without white space."""
    return THOUGHT.sub("", text)


def agrees(chat: Chat) -> None:
    """Question and answer are the template's conversation token by token; a retry is its next turn."""
    item = TASK.items("sft")[0]
    question, answer = TASK.prompt(item), TASK.expert(item)
    trained = [*chat.prompt(item), *chat.expert(item)]
    whole = conversation(chat, question, answer, opening=False)
    end = whole.rindex(answer) + len(answer) + len(chat.tokenizer.eos_token)
    assert trained == chat.tokenizer(whole[:end], add_special_tokens=False)["input_ids"]
    asked = chat.tokenizer.decode(chat.prompt(item))
    assert plain(asked) == plain(conversation(chat, question, opening=True))
    again = chat.tokenizer.decode([*chat.prompt(item), *chat.retry(chat.expert(item), WRONG)])
    feedback = f"That attempt failed: {WRONG.feedback}"
    assert plain(again) == plain(conversation(chat, question, answer, feedback, opening=True))


def made(template: str) -> Chat | list[str]:
    """With the end token that the template writes, whichever that is; else the reasons why not."""
    reasons = []
    for end in templates.ENDS:
        try:
            return Chat(templates.tokenizer(template, end), TASK)
        except BadInput as refused:
            reasons.append(one_line(refused))
    return reasons


@pytest.mark.parametrize("name", templates.SHIPPED)
def test_every_template_that_trl_ships_agrees_or_is_refused_when_the_dialect_is_made(name: str) -> None:
    chat = made(templates.SHIPPED[name])
    if isinstance(chat, Chat):
        agrees(chat)
    else:
        assert all("chat template" in reason for reason in chat)


def test_most_templates_are_supported() -> None:
    taken = {name for name, text in templates.SHIPPED.items() if isinstance(made(text), Chat)}
    assert taken >= {
        "qwen2_5",
        "qwen3",
        "qwen3_training",
        "llama3",
        "llama3_2",
        "gemma",
        "phi3",
        "deepseek_r1_distill",
    }
    assert len(taken) > 0.6 * len(templates.SHIPPED)


@pytest.mark.parametrize("name", templates.MISLEADING)
def test_misleading_templates_are_refused_with_the_reason(name: str) -> None:
    template, words = templates.MISLEADING[name]
    with refused(match=words):
        Chat(templates.tokenizer(template), TASK)


def test_of_several_templates_the_default_is_used() -> None:
    several = {"tool_use": "{{ 'tools' }}", "default": templates.CHATML}
    agrees(Chat(templates.tokenizer(several), TASK))
    one, other = (Chat(templates.tokenizer(text), TASK) for text in (several, templates.CHATML))
    item = TASK.items("ood")[0]
    assert one.prompt(item) == other.prompt(item)
