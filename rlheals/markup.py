"""Paragraphs and tables that are written once and rendered twice: as markdown for the book, as HTML for the report."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


@dataclass(frozen=True)
class Table:
    """A table of text cells; `**bold**` and `` `code` `` are the only markup in a cell."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = str | Table


def to_markdown(blocks: Sequence[Block]) -> str:
    """Blocks as markdown, separated by empty lines.

    >>> print(to_markdown(["Words.", Table(("a", "b"), (("1", "x | y"),))]), end="")
    Words.
    <BLANKLINE>
    | a | b |
    | --- | --- |
    | 1 | x \\| y |
    """
    return "\n\n".join(block if isinstance(block, str) else _pipes(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Blocks as HTML; all text is escaped.

    >>> to_html(["**a** < `b`"])
    '<p><strong>a</strong> &lt; <code>b</code></p>'
    """
    return "\n".join(
        f"<p>{inline(block)}</p>" if isinstance(block, str) else _html_table(block) for block in blocks
    )


def show(blocks: Sequence[Block]) -> HTML:
    """Blocks as a notebook's output."""
    from IPython.display import HTML

    return HTML(to_html(blocks))


def inline(text: str) -> str:
    """One line of text as HTML."""

    def mark(match: re.Match[str]) -> str:
        return f"<code>{match[1]}</code>" if match[1] else f"<strong>{match[2]}</strong>"

    return _INLINE.sub(mark, html.escape(text, quote=False))


def _pipes(table: Table) -> str:
    rows = [table.head, ("---",) * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{inline(cell)}</th>" for cell in table.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )
