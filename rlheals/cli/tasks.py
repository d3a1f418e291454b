"""Commands about questions, their verifiers, and answers: `grade`, `census`, `compare`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from rlheals.cli.options import Json
from rlheals.cli.terminal import show
from rlheals.errors import BadInput

MAX_ANSWER = 1_000_000
OtherTask = Annotated[
    str | None, Option("--task", help="Another task, such as navigation; default: the card game.")
]

app = Typer()


@app.command(epilog='Example: rlheals grade "A 5 J K" "(13-1)*(11-5-9)" --rule ood --json')
def grade(
    hand: Annotated[str, Argument(help='Four card labels, e.g. "3 3 8 8"; with --task the id of an item.')],
    answer: Annotated[str, Argument(help='A reply or a bare formula; "-" reads it from stdin.')],
    rule: Annotated[
        str | None, Option(help="id (the default), ood or values of J, Q, K such as 5,7,2.")
    ] = None,
    compat: Annotated[str | None, Option(help="reference: grade as the original does.")] = None,
    task: OtherTask = None,
    json: Json = False,
) -> None:
    """The verifier's verdict on one answer. Put -- before an answer that begins with a minus sign."""
    if task is not None:
        from rlheals.tasks import graded as of_task

        if rule is not None:
            raise BadInput("--rule: with --task the item's id says its rule")
        found = of_task(task, hand, _read_answer(answer), compat)
        read_as = [f"It would be right under the rule {found['read_as']}."] if found["read_as"] else []
        verdict = f"{found['category']}, reward {found['reward']:+g}"
        show(found, [verdict, *([found["feedback"]] if found["feedback"] else []), *read_as], json)
        return
    from rlheals.tasks.general_points.task import graded

    rule = rule or "id"
    found = graded(hand, _read_answer(answer), rule, compat)
    lines = [f"{found['category']}, reward {found['reward']:+g}", found["feedback"]]
    if not found["solvable"]:
        lines += [f"No formula makes 24 from this hand under the rule {found['rule']}."]
    show(found, lines, json)


def _read_answer(text: str) -> str:
    """The answer as typed, or from stdin for "-"; BadInput when it is not UTF-8 text or too long."""
    try:
        data = sys.stdin.buffer.read(MAX_ANSWER + 1) if text == "-" else os.fsencode(text)
        if len(data) > MAX_ANSWER:
            raise BadInput(f"answer: more than {MAX_ANSWER:,} bytes")
        answer = data.decode("utf-8")
        return answer.removesuffix("\n") if text == "-" else answer
    except UnicodeError as error:
        raise BadInput(f"answer: is not UTF-8 text ({error.reason})") from None  # type: ignore[attr-defined]


@app.command(epilog="Example: rlheals census --rule ood")
def census(
    rule: Annotated[str | None, Option(help="id, ood, both or values such as 5,7,2.")] = None,
    task: OtherTask = None,
    split: Annotated[str | None, Option(help="With --task: the split whose items are listed.")] = None,
    json: Json = False,
) -> None:
    """The hands that can make 24: their numbers, or with --rule each of them with its values and one solution.

    With --task: a task's numbers and what guesses would score, or with --split its items with their answers.
    """
    if task is not None:
        from rlheals.tasks import load_task

        if rule is not None:
            raise BadInput("--rule: with --task, --split says which items are meant")
        chosen = load_task(task)
        if split is None:
            facts = chosen.facts()
            show({"task": task, "facts": list(facts)}, facts, json)
            return
        items = [
            {"id": item.id, "rule": item.rule, "answer": chosen.expert(item)} for item in chosen.items(split)
        ]
        show(
            {"task": task, "split": split, "items": items},
            [f"{item['id']}  {item['answer']}" for item in items],
            json,
        )
        return
    if split is not None:
        raise BadInput("--split: only with --task")
    from rlheals.tasks.general_points.task import census_counts, census_hands

    if rule is None:
        counts = census_counts()
        show(counts, [f"{name:10} {count:6,}" for name, count in counts.items()], json)
        return
    hands = census_hands(rule)
    show(hands, [f"{' '.join(h['hand']):12} {h['solution']}" for h in hands["hands"]], json)


@app.command(epilog="Example: rlheals compare before/episodes.parquet after/episodes.parquet --split ood")
def compare(
    first: Annotated[Path, Argument(help="A log of rlheals, lm-evaluation-harness or inspect_ai.")],
    second: Annotated[Path, Argument(help="Another one, of the same items.")],
    metric: Annotated[str | None, Option(help="Which score, where a log has several.")] = None,
    split: Annotated[str | None, Option(help="Only this split (of rlheals' tables).")] = None,
    json: Json = False,
) -> None:
    """Two evaluation logs item by item: who solves what the other does not, with a paired test and interval."""
    from rlheals.evaluation.logs import compare as compared
    from rlheals.evaluation.logs import read

    found = compared(*(read(log, metric, split) for log in (first, second)))
    n, d = found.items, found.difference
    lines = [f"items in both: {n:,}"]
    if any(found.only_here):
        lines += ["left out: {:,} in the first log only, {:,} in the second only".format(*found.only_here)]
    lines += [
        f"solved: {found.solved[0] / n:.1%} and {found.solved[1] / n:.1%}",
        f"solved by one alone: {found.alone[0]:,} and {found.alone[1]:,}",
        f"difference: {100 * d.estimate:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}], "
        f"McNemar p = {found.p:.3g}",
    ]
    show(asdict(found), lines, json)
