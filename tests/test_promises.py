"""The page of promises: what it quotes stands in the documents, and what it names as holding a promise exists."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/promises.md"
COLUMNS = ["promise", "where", "held by", "since"]
DATED = re.compile(r"\d{4}-\d\d-\d\d|never run|at every change")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row != COLUMNS and set(row) != {"---"}]


def bare(text: str) -> str:
    """Without white space, and without the backslashes of quotes inside of quotes."""
    return re.sub(r"\s+", "", text.replace('\\"', '"'))


@cache
def sections(name: str) -> dict[str, str]:
    """Text by heading, of markdown and notebooks; by name of the command or option, of Python."""
    text, found, heading, fenced = (ROOT / name).read_text(encoding="utf-8"), dict[str, str](), "", False
    if name.endswith(".py"):
        for node in ast.parse(text).body:
            names = [getattr(one, "id", "") for one in getattr(node, "targets", [node])]
            source = ast.get_source_segment(text, node) or ""
            found |= dict.fromkeys([*names, getattr(node, "name", "")], source)
        return found
    if name.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (match := re.fullmatch(r"#+ (.+)", line)):
            heading = match[1]
        found[heading] = f"{found.get(heading, '')}\n{line}"
    return found


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in tree if isinstance(node, ast.FunctionDef)}


def test_there_are_many_and_none_stands_twice() -> None:
    found = [row[0] for row in rows()]
    assert len(found) == len(set(found)) > 70


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row[0])[:50])
def test_a_promise_stands_where_it_is_said_and_what_holds_it_exists(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row)
    promise, where, held, since = row
    quotes = [bare(one) for one in re.findall(r'"((?:[^"\\]|\\.)+)"', promise)]
    places = re.findall(r"`([^`]+)` \(([^()]+)\)(?:; |$)", where)
    assert quotes
    assert "; ".join(f"`{file}` ({heading})" for file, heading in places) == where
    texts = {place: bare(sections(place[0]).get(place[1], "")) for place in places}
    for quote in quotes:
        assert any(quote in text for text in texts.values()), f"nowhere: {quote}"
    for place, text in texts.items():
        assert any(quote in text for quote in quotes), f"nothing of it in {place}"
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", held)
    for file, test in named:
        assert test.startswith("test_")
        assert test in functions_in(ROOT / "tests" / file), f"{file} has no {test}"
    for path in re.findall(r"`((?:benchmarks|book|docs|\.ci)/[\w./-]+)`", held):
        assert (ROOT / path).exists()
    assert named or DATED.search(held)
    assert f"## [{since}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").lower()
