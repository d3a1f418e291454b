"""Two dialects: a task's own words for the lab's word-level models, `Chat` for instruct models with a chat template.

Both hand the verifier the same kind of reply, so both are graded by the same code.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from transformers import PreTrainedTokenizerFast

from rlheals.errors import BadInput
from rlheals.tasks.base import END, Dialect, Item, Protocol_, Reply, Task, Verdict

Prompts = Literal["fixed", "diverse"]
"""fixed: every question is put in form 0; diverse: in any of the dialect's forms."""

PROBE = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": "An answer."}]
DAY = "26 Jul 2024"
NO_CLOCK = f"{{%- macro strftime_now(form) -%}}{DAY}{{%- endmacro -%}}"


class Chat(Dialect):
    """Any instruct model: the task's own prompt through the tokenizer's chat template, feedback as a user turn.

    SFT, RL and evaluation take their tokens from here, so that what is trained is what is asked later: an expert's
    answer is the question's tokens, the reply's and the end token, as a model would generate them; and their text is
    that of the template for the whole conversation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, task: Task) -> None:
        if tokenizer.chat_template is None:
            raise BadInput("the tokenizer has no chat template; the chat dialect needs an instruct model")
        self.tokenizer = tokenizer
        self.task = task
        self.forms = task.forms
        if not self._after_answer.startswith(tokenizer.eos_token or "?"):
            raise BadInput(
                f"the chat template ends an answer with {self._after_answer[:20]!r}, the tokenizer's end token is "
                f"{tokenizer.eos_token!r}; a model trained on one would not stop at the other"
            )

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        return self.question(self.task.prompt(item, form))

    def expert(self, item: Item, form: int = 0) -> list[int]:
        return self.reply(self.task.expert(item, form))

    def question(self, text: str) -> list[int]:
        """Tokens of any question, up to where the answer begins."""
        return self._tokens(self._text([{"role": "user", "content": text}], opening=True))

    def reply(self, text: str) -> list[int]:
        """Tokens of any answer, its end token included."""
        return [*self._tokens(text), self.tokenizer.eos_token_id]

    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        """The attempt's own tokens stay as they were generated; only the new user turn is rendered."""
        turn = {"role": "user", "content": f"That attempt failed: {verdict.feedback}"}
        before, after = self._before, self._text([*PROBE, turn], opening=True)
        if not after.startswith(before):
            raise BadInput("this chat template rewrites earlier turns; an episode cannot be extended with it")
        end = self.tokenizer.eos_token_id
        body = attempt[:-1] if attempt and attempt[-1] == end else attempt
        return [*body, *self._tokens(self._after_answer + after[len(before) :])]

    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        text = str(self.tokenizer.decode(attempt, skip_special_tokens=True))
        return Reply(text, "target" if "{" in text and "}" in text else "none")

    @cached_property
    def _before(self) -> str:
        """A conversation of one question and one answer."""
        return self._text(PROBE, opening=False)

    @cached_property
    def _after_answer(self) -> str:
        """What the template writes after an answer, before the next turn."""
        text = self._before
        return text[text.rindex(PROBE[-1]["content"]) + len(PROBE[-1]["content"]) :]

    def _text(self, messages: list[dict[str, str]], opening: bool) -> str:
        """The conversation as the template writes it, on the same day always: some templates name today's date."""
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=opening,
                chat_template=f"{NO_CLOCK}{self.tokenizer.chat_template}",
                date_string=DAY,
            )
        )

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def dialect_for(tokenizer: PreTrainedTokenizerFast, task: Task) -> Dialect:
    """The lab's dialect for a tokenizer that has the task's words, the chat dialect for one with a chat template."""
    if task.words and {END, *task.words} <= tokenizer.get_vocab().keys():
        return task.dialect(tokenizer)
    return Chat(tokenizer, task)
