"""Prompts, replies and verdicts for the page of a task: real items, real verdicts, under both rules."""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlheals.display.markup import escaped, fence, inline
from rlheals.tasks.base import Item, Task, Verdict

SEED = 24
UNREADABLE = "I am not sure about this one."


@dataclass(frozen=True)
class Sample:
    """One prompt, one reply and what the verifier said."""

    item: Item
    prompt: str
    reply: str
    verdict: Verdict


def samples_of(task: Task, slips: Sequence[Callable[[str], str]] = ()) -> list[Sample]:
    """Of any task, under both rules, a reply for every verdict that an expert's answer to the question, to it under the
    other rule, to another question, no answer at all, or the right answer with a slip gets.

    >>> from rlheals.tasks import load_task
    >>> sorted({sample.verdict.category for sample in samples_of(load_task("rank"))})
    ['correct', 'unreadable', 'wrong']
    """
    chance, found = random.Random(SEED), dict[tuple[str, str], Sample]()
    # the same question under the other rule has the same id behind its rule
    known = {item.id: item for split in task.paired for item in task.items(split)}
    for split, other in (("sft", task.rules[1]), ("ood", task.rules[0])):
        items = [
            item for item in task.items(split) if item.split == split
        ]  # what the rules answer differently
        for item in chance.sample(items, min(50, len(items))):
            twin = known.get(f"{other}/{item.id.partition('/')[2]}")
            experts = [one for one in (item, twin, chance.choice(items)) if one is not None]
            slipped = (slip(task.expert(item)) for slip in slips)
            for reply in (*map(task.expert, experts), UNREADABLE, *slipped):
                verdict = task.grade(item, reply)
                found.setdefault((verdict.category, split), Sample(item, task.prompt(item), reply, verdict))
    order = list(task.rewards)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1] == "ood"))]


def about(drawn: list[Sample]) -> str:
    """The sentence above the gallery."""
    return (
        f"Questions and replies are drawn by a seeded generator; {len(drawn)} are shown. The verdicts are those of the "
        "verifier that training and evaluation use."
    )


def gallery_markdown(drawn: list[Sample]) -> str:
    """The gallery for the book: one folded box per sample; feedback quotes formulas, whose `*` is no emphasis."""
    parts = [about(drawn)]
    for number, sample in enumerate(drawn, 1):
        verdict, text = _verdict(sample, escaped(sample.verdict.feedback)), fence(sample.prompt, sample.reply)
        parts.append(
            f"{text}`{{dropdown}} {escaped(_headline(number, sample))}\n{text}text\n{sample.prompt}\n{text}\n"
            f"Reply:\n{text}text\n{sample.reply}\n{text}\n{verdict}\n{text}`"
        )
    return "\n\n".join(parts) + "\n"


def gallery_html(drawn: list[Sample]) -> str:
    """The gallery for the report: the same boxes as HTML."""
    boxes = [
        f"<details><summary>{html.escape(_headline(number, sample))}</summary>"
        f"<pre>{html.escape(sample.prompt)}</pre><p>Reply:</p><pre>{html.escape(sample.reply)}</pre>"
        f"<p>{inline(_verdict(sample, sample.verdict.feedback))}</p></details>"
        for number, sample in enumerate(drawn, 1)
    ]
    return f"<p>{inline(about(drawn))}</p>\n" + "\n".join(boxes)


def _headline(number: int, sample: Sample) -> str:
    item, verdict = sample.item, sample.verdict
    question = item.id.partition("/")[2]
    return f"{number}. {item.rule.upper()} rule, {question}: {verdict.category}, {verdict.reward:+g}"


def _verdict(sample: Sample, feedback: str) -> str:
    verdict = sample.verdict
    read_as = f" (right under the rule `{verdict.read_as}`)" if verdict.read_as else ""
    return f"Verdict: `{verdict.category}`, reward {verdict.reward:+g}{read_as}. {feedback}"
