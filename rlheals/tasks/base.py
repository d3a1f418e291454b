"""What a task is: items with prompts and expert answers, a verifier that grades replies, and a lab side.

Word-level models of the lab read and write alike in every task: one word, one token. A question ends in `answer`. An
answer states something and then gives its result, in one of two layouts: target (SFT) `{ STATED | RESULT } <end>`,
plain (pretraining) `STATED so RESULT <end>`; what is stated may have several fields, with `|` between them. A failed
attempt is followed by `wrong WORD answer` and the next attempt.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rlheals.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

Layout = Literal["target", "plain", "none"]
"""target: the answer format that SFT teaches; plain: that of a base's pretraining; none: neither."""
Protocol_ = Literal["target", "either"]
"""Which layouts count as an answer."""
Variant = Literal["default", "strict", "new_rules"]
"""Of pretraining. strict: what only held-out items need never occurs; new_rules: the ID rule never occurs."""

PAD, BOS, END, UNK = SPECIAL = "<pad>", "<s>", "<end>", "<unk>"
FRAME = ("answer", "so", "{", "|", "}", "wrong")
"""Words that the lab has in every task."""


@dataclass(frozen=True)
class Item:
    """One question under a rule.

    split: a split that has the item (`Task.splits`, or `rule:` and a rule's name); rule: the rule's name; group: what
    is resampled together, such as a hand or a route; payload: what the question is made of, read by the task only.
    """

    id: str
    split: str
    rule: str
    group: str
    payload: Any


@dataclass(frozen=True)
class Reply:
    """What a model said: text for the verifier, the layout it came in, and what it states before its answer."""

    text: str
    layout: Layout
    stated: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Document:
    """One pretraining document: tokens, the loss weight of each, the rule that it states, and what it was made of."""

    tokens: list[int]
    weights: list[float]
    rule: str
    payload: Any = None


@dataclass(frozen=True)
class Verdict:
    """What the verifier says about one reply.

    category: one of `Task.rewards`; feedback: one sentence for the next attempt; read_as: the rule under which the
    reply would be right, if it is another one, else None.
    """

    solved: bool
    reward: float
    category: str
    feedback: str
    read_as: str | None = None


class Task(ABC):
    """Everything else is written against this class; a task is a folder `rlheals/tasks/NAME/` with a `task.py` whose
    `TASK` is a subclass, or any `package.module:CLASS`.

    The lab side (`words`, `prompt_tokens`, `dialect`, `documents`, `panel`) is for models of the lab, trained from
    scratch; a task without `words` is for language models only.
    """

    name: ClassVar[str]
    called: ClassVar[tuple[str, str]] = ("question", "questions")
    """What figures call one of its items, and several."""
    options: ClassVar[tuple[str, ...]] = ()
    """Names of the keyword arguments that `load_task` passes on."""
    rules: ClassVar[tuple[str, ...]]
    """Names of the ID rule, of the OOD rule, and of the others that the split `rules` of an evaluation asks."""
    splits: ClassVar[tuple[str, ...]] = ("sft", "rl", "held_out", "ood")
    """Disjoint; every task has these four: SFT trains on the first, RL on the first two, nothing on the others."""
    more_splits: ClassVar[tuple[str, ...]] = ()
    """varied: as many questions as `sft` and `rl` have together, under many rules, none of them unseen; familiar: the
    same without words that answers under the ID rule lack; control: such questions under a rule as unseen as OOD's."""
    paired: ClassVar[tuple[str, ...]] = ()
    """Splits of the same questions under the ID rule and under the OOD rule, in the same order."""
    rewards: ClassVar[Mapping[str, float]]
    """Reward of every category of verdicts; `correct` is the one that solves."""
    feedback_words: ClassVar[Mapping[str, str]]
    """What a lab model is told about a failed attempt, by category: one word."""
    attempts: ClassVar[int] = 5
    """At an item, with feedback in between."""
    forms: ClassVar[int] = 1
    """In how many ways `prompt` can put a question; 0 is the usual one."""
    short_form: ClassVar[int | None] = None
    """One more way, in few words, for small language models; None: there is none."""
    unjudged: float | None = None
    """Reward of one more reply after the last attempt, which the Gymnasium environment takes and does not judge."""

    @abstractmethod
    def items(self, split: str) -> Sequence[Item]:
        """The items of a split, of `paired`, or of `rule:NAME`, in a fixed order. BadInput for other splits."""

    @abstractmethod
    def prompt(self, item: Item, form: int = 0) -> str:
        """The question as text."""

    @abstractmethod
    def answers(self, item: Item) -> tuple[str, ...]:
        """Expert replies, the simplest first."""

    @abstractmethod
    def grade(self, item: Item, reply: str) -> Verdict:
        """Judge one reply. Raises BadInput when it is not text, and nothing else for any text."""

    def expert(self, item: Item, form: int = 0) -> str:
        """The reply to imitate, as the question in that form asks for it."""
        return self.answers(item)[0]

    def shown(self, item: Item, random: np.random.Generator) -> Item:
        """The item as SFT shows it this time: the same question in an equivalent way (augmentation)."""
        return item

    def item_columns(self, item: Item) -> dict[str, Any]:
        """The task's own columns of an evaluation's tables that follow from the item."""
        return {}

    def reply_columns(self, item: Item, reply: Reply) -> dict[str, Any]:
        """The task's own columns that follow from a reply; tables of episodes have them as `first_NAME`."""
        return {}

    def chance(self) -> dict[str, float]:
        """Shares of items that are solved by policies that calculate nothing, by name: "POLICY on SPLIT"."""
        return {}

    def facts(self) -> tuple[str, ...]:
        """Lines that come out the same on every machine."""
        return tuple(f"{split}: {len(self.items(split))} items" for split in self.splits)

    def rule_distance(self, rule: str) -> float:
        """How far a rule is from the ID rule."""
        return float(rule != self.rules[0])

    words: ClassVar[tuple[str, ...]] = ()
    """Of the lab's dialect; those of `FRAME` may be left out."""
    prompt_tokens: ClassVar[int] = 0
    """Length of the longest question in that dialect."""
    answer_tokens: ClassVar[int | None] = None
    """Where an answer in that dialect is cut, in a profile made for another task; None: where the profile says."""

    def dialect(self, tokenizer: PreTrainedTokenizerFast | None = None) -> WordDialect:
        """How lab models read and write; with the tokenizer of a model, or a new one."""
        raise BadInput(f"task {self.name} has no words for a model that is trained from scratch")

    def documents(self, dialect: Any, seed: int, variant: Variant = "default") -> Iterator[Document]:
        """An endless stream of pretraining documents that depends on the seed only and never shows the OOD rule."""
        raise BadInput(f"task {self.name} has no pretraining documents")

    def panel(self, size: int) -> list[Item]:
        """Items that say when a base is able enough, under rules that are neither the ID nor the OOD rule."""
        raise BadInput(f"task {self.name} has no ability panel")


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer, a real `PreTrainedTokenizerFast`, of these words and what every dialect has.

    >>> tok = word_tokenizer(["J", "10", "cards"])
    >>> tok.decode(tok("J 10 cards 10 answer")["input_ids"])
    'J 10 cards 10 answer'
    """
    # seconds to import, which the game of cards alone does not need
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

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


class Dialect(ABC):
    """How an episode becomes tokens, and how tokens become a reply in the task's answer format."""

    tokenizer: PreTrainedTokenizerFast
    forms: int = 1
    """In how many ways a question can be put."""

    @property
    def beginning(self) -> Sequence[int]:
        """Tokens that questions have in common from the first on, which an engine may read once for all."""
        return ()

    @abstractmethod
    def prompt(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the question, up to where the answer begins."""

    @abstractmethod
    def expert(self, item: Item, form: int = 0) -> list[int]:
        """Tokens of the answer to imitate, its end token included."""

    @abstractmethod
    def retry(self, attempt: list[int], verdict: Verdict) -> list[int]:
        """Tokens that follow the prompt of a failed attempt: the attempt itself, the feedback, the next opening."""

    @abstractmethod
    def read(self, attempt: list[int], protocol: Protocol_ = "target") -> Reply:
        """The reply in generated tokens; `protocol="either"` also accepts the layout that the base prefers."""


class WordDialect(Dialect):
    """The part of a lab dialect that is the same for all tasks; a task says what its words mean."""

    def __init__(
        self, words: Sequence[str], feedback: Mapping[str, str], tokenizer: PreTrainedTokenizerFast | None
    ) -> None:
        self.tokenizer = tokenizer or word_tokenizer(words)
        self._ids: dict[str, int] = self.tokenizer.get_vocab()
        self._words = {index: word for word, index in self._ids.items()}
        self._feedback = {kind: self.encode(f"wrong {word} answer") for kind, word in feedback.items()}

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
