"""Two dialects: a task's own words for the lab's word-level models, `Chat` for instruct models with a chat template.

Both hand the verifier the same kind of reply, so both are graded by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Literal

from transformers import PreTrainedTokenizerFast

from rlheals.errors import BadInput
from rlheals.tasks.base import END, Dialect, Item, Protocol_, Reply, Task, Verdict

Prompts = Literal["fixed", "diverse", "short"]
"""fixed: every question is put in form 0; diverse: in any of the dialect's forms; short: in the task's form of few
words, for small language models."""

ANSWER = '{"answer": [1, 2]}'
PROBE = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": ANSWER}]
LONGEST_TEMPLATE = 100_000
_THOUGHT = re.compile(r"\s*(<think>)?\s*(</think>)?\s*")
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*$")
DAY = "26 Jul 2024"
NO_CLOCK = f"{{%- macro strftime_now(form) -%}}{DAY}{{%- endmacro -%}}"


class Chat(Dialect):
    """Any instruct model: the task's own prompt through the tokenizer's chat template, feedback as a user turn.

    SFT, RL and evaluation take their tokens from here, so that what is trained is what is asked later. A question is
    the template's text of a conversation up to where it writes something else with an answer than without; an expert's
    answer is what it then writes, with its end token. So an empty thought that the template puts before an answer
    (Qwen3) is part of the expert's answer, and an opening `<think>` that it only asks with (R1) is left out of the
    question: thinking is up to the model, as part of its reply. All this is checked when the dialect is made.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, task: Task, prompts: Prompts = "fixed") -> None:
        if prompts == "short" and task.short_form is None:
            raise BadInput(f"prompts: task {task.name} has no short form; accepted: fixed, diverse")
        self.tokenizer = tokenizer
        self.task = task
        self.forms = task.forms
        self._usual = (task.short_form or 0) if prompts == "short" else 0
        self._template = NO_CLOCK + _template(tokenizer)
        asked, answered = self._text(PROBE[:1], opening=True), self._text(PROBE, opening=False)
        at = answered.rfind(ANSWER)
        if at < 0:
            raise BadInput(
                "the chat template does not write an answer as it is given (it may take the content of a message as "
                "a list of parts, which is not supported)"
            )
        pairs = zip(asked, answered[:at], strict=False)
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._left_out, self._put_in, self._before_answer = asked[start:], answered[start:at], answered[:at]
        if self._left_out and not _THOUGHT.fullmatch(self._left_out):
            raise BadInput(
                f"the chat template asks for an answer with {self._left_out[-40:]!r}, which it leaves out of the "
                "conversation that has the answer; what is trained would not be what is asked"
            )
        end, after = tokenizer.eos_token or "", answered[at + len(ANSWER) :]
        if not end or not after.startswith(end):
            raise BadInput(
                f"the chat template ends an answer with {after[:20]!r}, the tokenizer's end token is "
                f"{tokenizer.eos_token!r}; a model trained on one would not stop at the other"
            )
        whole = self._tokens(answered[: at + len(ANSWER)] + end)
        if whole != [*self.question(PROBE[0]["content"]), *self.reply(ANSWER)]:
            raise BadInput(
                "the tokenizer reads a question and its answer together as other tokens than one after the other; "
                "what is trained would not be what is generated"
            )
        self._new_turn("Feedback.")

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(self.task.prompt(item, form or self._usual))

    def expert(self, item: Item, form: int = 0) -> list[int]:
        return self.reply(self.task.expert(item, form or self._usual))

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """What the template writes before every question, and what all questions in the usual form begin with."""
        some = [item for split in ("sft", "ood") for item in _ends(self.task.items(split))]
        tried = map(self.prompt, some)
        shared = takewhile(lambda column: len(set(column)) == 1, zip(*tried, strict=False))
        return tuple(column[0] for column in shared)

    def question(self, text: str) -> list[int]:
        """Tokens of any question, up to where the answer begins."""
        return self._tokens(self._open(self._text([{"role": "user", "content": text}], opening=True)))

    def reply(self, text: str) -> list[int]:
        """Tokens of any answer, its end token included."""
        return [*self._tokens(self._put_in + text), self.tokenizer.eos_token_id]

    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        """The attempt's own tokens stay as they were generated; only the new user turn is rendered."""
        end = self.tokenizer.eos_token_id
        body = attempt[:-1] if attempt and attempt[-1] == end else attempt
        return [*body, *self._tokens(self._new_turn(f"That attempt failed: {verdict.feedback}"))]

    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        text = str(self.tokenizer.decode(attempt, skip_special_tokens=True))
        return Reply(text, "target" if "{" in text and "}" in text else "none")

    def _new_turn(self, text: str) -> str:
        """What the template writes behind an answer for another user turn, up to where the next answer begins.

        BadInput where it writes the turns before otherwise than they were, but for thoughts that it takes out.
        """
        before = self._before_answer
        after = self._text([*PROBE, {"role": "user", "content": text}], opening=True)
        at = after.rfind(ANSWER, 0, after.rfind(text))
        kept = (before, _EMPTY_THOUGHT.sub("", before))
        turn = self._open(after[at + len(ANSWER) :])
        if at < 0 or after[:at] not in kept or not turn.startswith(self.tokenizer.eos_token):
            raise BadInput("this chat template rewrites earlier turns; an episode cannot be extended with it")
        return turn

    def _open(self, text: str) -> str:
        """Without the thought that the template opens for the model."""
        if not text.endswith(self._left_out):
            raise BadInput(
                "this chat template opens answers in more than one way; its questions cannot be told"
            )
        return text.removesuffix(self._left_out)

    def _text(self, messages: list[dict[str, str]], opening: bool) -> str:
        """The conversation as the template writes it, on the same day always: some templates name today's date."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=opening,
                    chat_template=self._template,
                    date_string=DAY,
                )
            )
        except Exception as error:  # a template is anybody's program
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise BadInput(
                f"the chat template cannot be applied to a question and its answer: {reason}"
            ) from None

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _ends(items: Sequence[Item]) -> list[Item]:
    return [*items[:2], *items[-1:]]


def _template(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's chat template, of several named ones the default; BadInput if there is none."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise BadInput(
            "the tokenizer has no chat template, or several and none called default; the chat dialect needs an "
            "instruct model"
        ) from None
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        raise BadInput(f"the chat template is no text of at most {LONGEST_TEMPLATE} characters")
    return template


def dialect_for(tokenizer: PreTrainedTokenizerFast, task: Task, prompts: Prompts = "fixed") -> Dialect:
    """The lab's dialect for a tokenizer that has the task's words, the chat dialect for one with a chat template."""
    if task.words and {END, *task.words} <= tokenizer.get_vocab().keys():
        if prompts == "short":
            raise BadInput("prompts=short is for language models; a lab model has no other words")
        return task.dialect(tokenizer)
    return Chat(tokenizer, task, prompts)
