"""How an episode becomes tokens, and how tokens become a reply in the task's answer format.

Two dialects: `Compact` for the lab's word-level models, `Chat` for any instruct model with a chat template. Both hand
the verifier the same kind of reply, so a lab model and a language model are graded by the same code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal, Protocol

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from rlheals.errors import BadInput
from rlheals.tasks.base import Item, Task, Verdict
from rlheals.tasks.general_points.cards import FACES, LABELS, Rule
from rlheals.tasks.general_points.solver import canonical_solution

Layout = Literal["target", "plain", "none"]
Protocol_ = Literal["target", "either"]
Prompts = Literal["fixed", "diverse"]
"""fixed: every question is put in form 0; diverse: in any of the dialect's forms."""

PAD, BOS, END, UNK = "<pad>", "<s>", "<end>", "<unk>"
NUMBERS = tuple(str(n) for n in (*range(1, 14), 24))
OPERATORS = ("+", "-", "*", "/", "(", ")", "=")
WORDS = ("cards", "answer", "so", "{", "|", "}", "wrong", "format", "numbers", "value")

PROBE = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": "An answer."}]
DAY = "26 Jul 2024"
NO_CLOCK = f"{{%- macro strftime_now(form) -%}}{DAY}{{%- endmacro -%}}"

FACE_ORDERS = tuple(permutations(FACES))

FEEDBACK = {
    "illegal_formula": "format",
    "wrong_number": "numbers",
    "wrong_rule": "numbers",
    "aggregated": "numbers",
    "no_solution": "value",
    "partial": "value",
}


@dataclass(frozen=True)
class Reply:
    """What a model said: the reply for the verifier, the layout it came in, and the values it read off the cards."""

    text: str
    layout: Layout
    values: tuple[int, ...] = ()


class Dialect(Protocol):
    """The seam between tasks (text) and engines (tokens)."""

    tokenizer: PreTrainedTokenizerFast
    forms: int
    """In how many ways a question can be put."""

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the question, up to where the answer begins."""
        ...

    def expert(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the answer to imitate, its end token included."""
        ...

    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        """Tokens that follow the prompt of a failed attempt: the attempt itself, the feedback, the next opening."""
        ...

    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        """The reply in generated tokens; `protocol="either"` also accepts the layout that the base prefers."""
        ...


def compact_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer of the lab, a real `PreTrainedTokenizerFast`; card 10 and number 10 are one token.

    >>> tok = compact_tokenizer()
    >>> tok.decode(tok("J 10 cards 3 A 10 K answer")["input_ids"])
    'J 10 cards 3 A 10 K answer'
    """
    words = [PAD, BOS, END, UNK, *dict.fromkeys((*LABELS, *NUMBERS, *OPERATORS, *WORDS))]
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


class Compact:
    """The lab's dialect: about fifty words, a plain layout (pretraining) and a target layout (SFT).

    Prompt ``<s> J 11 Q 12 K 13 cards J 3 5 A answer``; plain answer ``11 3 5 1 so ( ... ) = 24 <end>``; target answer
    ``{ 11 3 5 1 | ( ... ) = 24 } <end>``; feedback ``wrong numbers answer``, after which the next attempt follows.
    Forms: J, Q and K in any order, the rule before the cards or after them.
    """

    name = "compact"
    forms = 2 * len(FACE_ORDERS)

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        self.tokenizer = tokenizer or compact_tokenizer()
        self._ids: dict[str, int] = self.tokenizer.get_vocab()
        self._words = {index: word for word, index in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """Token ids of space-separated words; an unknown word is BadInput."""
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            raise BadInput(f"the compact dialect has no word {error.args[0]!r}") from None

    def words(self, tokens: list[int]) -> list[str]:
        return [self._words.get(token, UNK) for token in tokens]

    def prompt(self, item: Item, form: int = 0) -> list[int]:
        rule_last, order = divmod(form, len(FACE_ORDERS))
        facts = [_rule_words(item.rule, FACE_ORDERS[order]), f"cards {' '.join(item.hand)}"]
        return self.encode(" ".join((BOS, *(reversed(facts) if rule_last else facts), "answer")))

    def expert(self, item: Item, form: int = 0) -> list[int]:
        values = item.rule.values(item.hand)
        return self.answer(values, canonical_solution(values))

    def answer(self, values: tuple[int, ...], formula: str, layout: Layout = "target") -> list[int]:
        """Tokens of an answer with its values, formula (without "= 24") and end token.

        >>> d = Compact(); " ".join(d.words(d.answer((10, 3, 5, 1), "(10-3+1)*5")))
        '{ 10 3 5 1 | ( 10 - 3 + 1 ) * 5 = 24 } <end>'
        """
        body = f"{' '.join(map(str, values))} {'|' if layout == 'target' else 'so'} {spaced(formula)} = 24"
        return self.encode(f"{{ {body} }} {END}" if layout == "target" else f"{body} {END}")

    def feedback(self, verdict: Verdict) -> list[int]:
        return self.encode(f"wrong {FEEDBACK[verdict.category]} answer")

    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        return [*attempt, *self.feedback(verdict)]

    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        words = self.words(attempt)
        unread = json.dumps({"text": " ".join(words)})
        if not words or words[-1] != END:
            return Reply(unread, "none")
        body = words[:-1]
        layout: Layout = "plain"
        if body[:1] == ["{"] and body[-1:] == ["}"]:
            layout, body = "target", body[1:-1]
        mark = "|" if layout == "target" else "so"
        if body.count(mark) != 1 or "{" in body or "}" in body:
            return Reply(unread, "none")
        at = body.index(mark)
        if not all(word in NUMBERS for word in body[:at]):
            return Reply(unread, "none")
        values = tuple(int(word) for word in body[:at])
        if layout == "plain" and protocol == "target":
            return Reply(unread, layout, values)
        formula = joined(body[at + 1 :])
        return Reply(json.dumps({"number": list(values), "formula": formula}), layout, values)


def joined(words: list[str]) -> str:
    """Formula words as text, with a space only where two numbers would otherwise run together.

    >>> joined(["(", "10", "-", "3", ")", "4", "1"])
    '(10-3)4 1'
    """
    text = ""
    for word in words:
        text += f" {word}" if text[-1:].isdigit() and word[:1].isdigit() else word
    return text


def spaced(formula: str) -> str:
    """A formula with a space around every token.

    >>> spaced("(10-3+1)*5")
    '( 10 - 3 + 1 ) * 5'
    """
    for sign in OPERATORS:
        formula = formula.replace(sign, f" {sign} ")
    return " ".join(formula.split())


def _rule_words(rule: Rule, order: tuple[str, ...]) -> str:
    values = {"J": rule.jack, "Q": rule.queen, "K": rule.king}
    return " ".join(f"{face} {values[face]}" for face in order)


class Chat:
    """Any instruct model: the task's own prompt through the tokenizer's chat template, feedback as a user turn.

    SFT, RL and evaluation take their tokens from here, so that what is trained is what is asked later: an expert's
    answer is the question's tokens, the reply's and the end token, as a model would generate them; and their text is
    that of the template for the whole conversation.
    """

    name = "chat"

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
    """The lab's dialect for a tokenizer that has its words, the chat dialect for one with a chat template."""
    vocabulary = tokenizer.get_vocab()
    if all(word in vocabulary for word in (END, "answer", "so", "numbers")) and len(vocabulary) < 100:
        return Compact(tokenizer)
    return Chat(tokenizer, task)
