"""How word-level models of the lab read and write, whatever the task: one word, one token.

A question ends in `answer`. An answer states something and then gives its result, in one of two layouts:
target (SFT) `{ STATED | RESULT } <end>`, plain (pretraining) `STATED so RESULT <end>`; what is stated may have several
fields, with `|` between them. A failed attempt is followed by `wrong WORD answer` and the next attempt.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from rlheals.errors import BadInput
from rlheals.tasks.base import Item, Layout, Protocol_, Reply, Verdict

PAD, BOS, END, UNK = SPECIAL = "<pad>", "<s>", "<end>", "<unk>"
FRAME = ("answer", "so", "{", "|", "}", "wrong")


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer, a real `PreTrainedTokenizerFast`, of these words and what every dialect has.

    >>> tok = word_tokenizer(["J", "10", "cards"])
    >>> tok.decode(tok("J 10 cards 10 answer")["input_ids"])
    'J 10 cards 10 answer'
    """
    known = dict.fromkeys((*SPECIAL, *words, *FRAME))
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(known)}, unk_token=UNK))
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


class WordDialect(ABC):
    """The part of a lab dialect that is the same for all tasks; a task says what its words mean."""

    name = "compact"
    forms: ClassVar[int] = 1
    """In how many ways a question can be put."""

    def __init__(
        self, words: Sequence[str], feedback: Mapping[str, str], tokenizer: PreTrainedTokenizerFast | None
    ) -> None:
        self.tokenizer = tokenizer or word_tokenizer(words)
        self._ids: dict[str, int] = self.tokenizer.get_vocab()
        self._words = {index: word for word, index in self._ids.items()}
        self._feedback = {kind: self.encode(f"wrong {word} answer") for kind, word in feedback.items()}

    @abstractmethod
    def prompt(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the question, up to where the answer begins."""

    @abstractmethod
    def expert(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the answer to imitate, its end token included."""

    @abstractmethod
    def stated(self, words: list[str]) -> tuple[Any, ...] | None:
        """What the words before the result say; None when they can say nothing."""

    @abstractmethod
    def reply(self, stated: tuple[Any, ...], result: list[str]) -> str:
        """An answer as the task's verifier reads it."""

    def encode(self, text: str) -> list[int]:
        """Token ids of space-separated words; an unknown word is BadInput."""
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            raise BadInput(f"the compact dialect has no word {error.args[0]!r}") from None

    def words(self, tokens: list[int]) -> list[str]:
        return [self._words.get(token, UNK) for token in tokens]

    def laid_out(self, stated: str, result: str, layout: Layout = "target") -> list[int]:
        """Tokens of an answer, its end token included."""
        if layout == "target":
            return self.encode(f"{{ {stated} | {result} }} {END}")
        return self.encode(f"{stated} so {result} {END}")

    def feedback(self, verdict: Verdict) -> list[int]:
        return list(self._feedback[verdict.category])

    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        return [*attempt, *self.feedback(verdict)]

    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        """The reply in generated tokens; what is in neither layout is no answer to any task."""
        words = self.words(attempt)
        unread = json.dumps({"text": " ".join(words)})
        if not words or words[-1] != END:
            return Reply(unread, "none")
        body = words[:-1]
        layout: Layout = "plain"
        if body[:1] == ["{"] and body[-1:] == ["}"]:
            layout, body = "target", body[1:-1]
        mark = "|" if layout == "target" else "so"
        if mark not in body or "{" in body or "}" in body:
            return Reply(unread, "none")
        at = len(body) - 1 - body[::-1].index(mark)
        stated = self.stated(body[:at])
        if stated is None:
            return Reply(unread, "none")
        if layout == "plain" and protocol == "target":
            return Reply(unread, layout, stated)
        return Reply(self.reply(stated, body[at + 1 :]), layout, stated)
