"""What is trained is what is asked, with every chat template that is accepted; every other one is refused at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trl
from lab_helpers import one_line, refused
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from rlheals.errors import BadInput
from rlheals.evaluation.dialects import DAY, NO_CLOCK, Chat
from rlheals.tasks.base import Verdict
from rlheals.tasks.general_points.task import GeneralPoints

_FOLDER = Path(trl.__file__).parent / "chat_templates"
SHIPPED = {file.stem: file.read_text(encoding="utf-8") for file in sorted(_FOLDER.glob("*.jinja"))}
_SPECIAL = re.compile(r"<[|｜]?[a-zA-Z_▁｜|]+[|｜]?>|</s>|\[/?INST\]")
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<turn|>", "<｜end▁of▁sentence｜>", "<|end|>",
    "<|return|>", "<end_of_utterance>", "<|endoftext|>", "<|user|>", "</s>", "<|END_RESPONSE|>",
    "<|eot|>",
)  # fmt: skip

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template: str | dict[str, str] | None, end: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose special tokens are those that the template writes."""
    core = Tokenizer(BPE({letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, bos_token="<s>", pad_token="<|pad|>")
    text = template if isinstance(template, str) else CHATML
    made.add_special_tokens({"additional_special_tokens": sorted({*_SPECIAL.findall(text)} - {end})})
    made.chat_template = template
    return made


MISLEADING = {
    "content as a list of parts": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'][0]['text'] }}"), "does not write an answer as it is given"
    ),
    "answers in capitals": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'] | upper }}"), "does not write an answer as it is given"
    ),
    "history is summed up": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}"),
        "rewrites earlier turns",
    ),
    "asks in words that are not in the conversation": (
        CHATML.replace("assistant\n{% endif %}", "assistant\nSure! {% endif %}"), "what is trained would not be what"
    ),
    "another end": (CHATML.replace("<|im_end|>", "<|done|>"), "would not stop at the other"),
    "not a template": ("{% for %}", "cannot be applied"),
    "raises": ("{{ raise_exception('no') }}", "cannot be applied"),
    "reaches out": ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be applied|does not write"),
    "counts for ever": ("{% for a in range(10**9) %}{% endfor %}", "cannot be applied"),
    "longer than a book": (CHATML + "{# " + "x" * 200_000 + " #}", "no text of at most"),
    "several, none of them the default": ({"tool_use": CHATML, "rag": CHATML}, "no chat template, or several"),
    "none": (None, "no chat template"),
}  # fmt: skip
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
    for end in ENDS:
        try:
            return Chat(tokenizer(template, end), TASK)
        except BadInput as refused:
            reasons.append(one_line(refused))
    return reasons


@pytest.mark.parametrize("name", SHIPPED)
def test_every_template_that_trl_ships_agrees_or_is_refused_when_the_dialect_is_made(name: str) -> None:
    chat = made(SHIPPED[name])
    if isinstance(chat, Chat):
        agrees(chat)
    else:
        assert all("chat template" in reason for reason in chat)


def test_most_templates_are_supported_and_of_several_the_default_is_used() -> None:
    taken = {name for name, text in SHIPPED.items() if isinstance(made(text), Chat)}
    assert taken >= {"qwen2_5", "qwen3", "llama3", "llama3_2", "gemma", "phi3", "deepseek_r1_distill"}
    assert len(taken) > 0.6 * len(SHIPPED)
    several = {"tool_use": "{{ 'tools' }}", "default": CHATML}
    agrees(Chat(tokenizer(several), TASK))
    one, other = (Chat(tokenizer(text), TASK) for text in (several, CHATML))
    item = TASK.items("ood")[0]
    assert one.prompt(item) == other.prompt(item)


@pytest.mark.parametrize("name", MISLEADING)
def test_misleading_templates_are_refused_with_the_reason(name: str) -> None:
    template, words = MISLEADING[name]
    with refused(match=words):
        Chat(tokenizer(template), TASK)
