"""Prose as readers meet it: spelling, usage, the field's terms, and sentences that can be taken in at one reading."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest
import typer
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from proselint.checks import __register__
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

from rlheals.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/promises.md")),
    *sorted(chain(*(ROOT.glob(some) for some in ("book/*.md", "rlheals/publish/*.md", "notebooks/*.ipynb")))),
]
MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)
CONFIG = {**DEFAULT, "checks": {**DEFAULT["checks"], "typography": False}}
LONGEST = 35  # words of a sentence
TRAPS = {
    r"first[ -]tr(?:y|ies)": "pass@1, first attempt",
    r"within (?:five|5)": "success@5 with feedback",
    r"layouts?": "format, format-agnostic",
    r"decodes?": "sampling seed",
    r"rejection": "expert iteration",
    r"ladders?": "RL start checkpoints",
    r"the ends": "embeddings and output head",
    r"(?<!random )directions": "singular vectors",
    r"credit": "advantage estimator",
    r"hangs? on": "depends on",
    r"accepted (?:are|is) the": "accepted: the",
    r"anew|likewise|for want of|whoever|hereby|thereby|wherein|whilst|amongst|that (?:is|are) none": "plainer words",
}
"""Words that others replace here; of code and quoted names nothing is read."""
CheckRegistry().register_many(__register__)


def blocks(markdown: str) -> Iterator[str]:
    """Paragraphs, headings, items and cells as plain text; a word such as C1 stands for each code or formula."""
    for token in MARKDOWN.parse(markdown):
        if token.type == "fence" and token.info.startswith("{") and "rst" not in token.info:
            yield from blocks(re.sub(r"^(?::\w+:.*| +)", "\n", token.content, flags=re.M))
        parts = {"text": "{0.content}", "softbreak": " ", "html_inline": ""}
        words = (
            parts.get(child.type, f"C{i}" * bool(child.content)).format(child)
            for i, child in enumerate(token.children or ())
        )
        if text := re.sub(r"\{[\w:]+\}|\s*<[^>]*>", "", "".join(words)).strip():
            yield text


def page(path: Path) -> str:
    """A file's Markdown; templates as if every branch and value were there."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"\{%.*?%\}", "\n\n", re.sub(r"\{\{.*?\}\}", "`x`", text), flags=re.S)


def values(field: str, files: str) -> list[str]:
    found = (
        re.findall(rf"^ *{field}: ['\"]?(.*?)['\"]?$", path.read_text(), flags=re.M)
        for path in ROOT.glob(files)
    )
    return list(chain(*found))


def helps(command: click.Command) -> Iterator[str]:
    for part in (command, *command.params):
        yield getattr(part, "help", None) or ""
    for part in getattr(command, "commands", {}).values():
        yield from helps(part)


def errors() -> Iterator[str]:
    """What raise BadInput(...) says, a word for each value in it."""
    for path in sorted((ROOT / "rlheals").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BadInput":
                parts = chain(*(getattr(one, "values", [one]) for one in node.args))
                yield "".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else f"C{i}"
                              for i, part in enumerate(parts))  # fmt: skip


TEXTS = {
    **{path.name: list(blocks(page(path))) for path in PAGES},
    "claims": values("sentence", "rlheals/claims*.yaml"),
    "profiles": values("about", "rlheals/profiles/*.yaml"),
    "commands": list(chain(*map(blocks, helps(typer.main.get_command(app))))),
    "errors": list(errors()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_prose_is_plain_and_in_the_words_of_the_field(name: str) -> None:
    assert TEXTS[name]
    sentences = chain(*(re.split(r"(?<=[.!?])[\")*]*\s+|(?<=\");\s+", block) for block in TEXTS[name]))
    found = [
        f"more than {LONGEST} words: {sentence}"
        for sentence in sentences
        if len(re.findall(r"\S*\w\S*", sentence)) > LONGEST
    ]
    text = "\n|\n".join(TEXTS[name])
    for trap, instead in TRAPS.items():
        hits = re.finditer(rf"\b(?:{trap})\b", text, flags=re.I)
        found += [f"{text[max(hit.start() - 40, 0) : hit.end()]!r}: {instead}" for hit in hits]
    for one in LintFile(name, text).lint(CONFIG):
        start, end = one.check_result.span
        found.append(f"{text[max(start - 40, 0) : end]!r}: {one.check_result.message}")
    call = [Path(sys.executable).with_name("typos"), "--locale=en-gb", "--format=brief", "-"]
    found += subprocess.run(call, input=text, text=True, capture_output=True).stdout.splitlines()
    assert not found, "\n".join(found)


def test_what_is_not_plain_is_found() -> None:
    """In items, cells, directives and quotations; code is not read."""
    text = "- A `decode` of\n  {doc}`x` [it](y).\n\n```{note}\nOne.\n```\n```py\nno\n```\n| a |\n| - |\n| b |"
    assert list(blocks(text)) == ["A C1 of C5 it.", "One.", "a", "b"]
    TEXTS["planted"] = [
        "One.",
        "Two.",
        f"{'word ' * 40}.",
        "The first try gets its color anew, it goes without saying.",
    ]
    with pytest.raises(AssertionError) as failed:
        test_prose_is_plain_and_in_the_words_of_the_field("planted")
    del TEXTS["planted"]
    assert all(
        word in str(failed.value) for word in ("more than 35", "pass@1", "plainer words", "color", "saying")
    )
