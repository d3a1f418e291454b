"""Paragraphs and tables that are written once and rendered twice: as markdown for the book, as HTML for the report.

`**bold**` and `` `code` `` are the only markup in them, in markdown also links to a section of a notebook
or to claims. All else is shown as it stands, whoever wrote it: names, replies and manifests of others are text in both
renderings.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
figure { margin: 1.5rem 0; } figure img { width: 100%; background: #fff; border-radius: 4px; }
.rlheals-takeaway { font-weight: 600; margin: 0 0 .4rem; }
figcaption, .note { font-size: .85rem; opacity: .85; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
details { border-bottom: 1px solid var(--line); padding: .3rem 0; } summary { cursor: pointer; }
"""

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_KEPT = re.compile(
    rf"{_INLINE.pattern}|\[[^][`*<>|{{}}$\\&_~]+\]\((?:[\w./-]+\.ipynb#[\w-]+|#paper-claim-\d|book/claims\.md)\)"
)
_ACTIVE = re.compile(
    r"[\\`|${}*~]|<(?=[A-Za-z/!?])|&(?=[#\w])|\[(?=\^)|\](?=[(\[:])|(?<!\w)_|_(?!\w)|:(?=//)"
)
"""What markdown, with the book's extensions, would take for markup; "[0.1, 0.2]" and "< 0.001" are none."""


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

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
    return "\n\n".join(escaped(block) if isinstance(block, str) else _pipes(block) for block in blocks) + "\n"


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


def html_page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """A page that loads no other file; sections: HTML by heading."""
    body = "\n".join(f"<h2>{html.escape(name)}</h2>\n{part}" for name, part in sections.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        f'<p class="note">{html.escape(lead)}</p>\n{body}\n</body>\n</html>\n'
    )


def inline(text: str) -> str:
    """One line of text as HTML."""

    def mark(match: re.Match[str]) -> str:
        return f"<code>{match[1]}</code>" if match[1] else f"<strong>{match[2]}</strong>"

    return _INLINE.sub(mark, html.escape(text, quote=False))


def fence(*texts: str) -> str:
    """Backticks that end none of the texts.

    >>> fence("a ```` b", "c")
    '`````'
    """
    longest = max((len(run) for text in texts for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def escaped(text: str) -> str:
    """Text on one line of markdown, in a table or outside: bold and code stay, all else is shown as it stands.

    >>> print(escaped("**bold** <script> [0.1, 0.2] [a](b) $x$"))
    **bold** \\<script> [0.1, 0.2] [a\\](b) \\$x\\$
    """
    parts, done, text = [], 0, " ".join(text.split())
    for match in _KEPT.finditer(text):
        code, bold = match.groups()
        parts.append(_shown(text[done : match.start()]))
        if code:
            parts.append("`" + code.replace("|", "\\|") + "`")
        else:
            parts.append(f"**{_shown(bold)}**" if bold else match[0])
        done = match.end()
    return "".join([*parts, _shown(text[done:])])


def _shown(text: str) -> str:
    return _ACTIVE.sub(r"\\\g<0>", text)


def _pipes(table: Table) -> str:
    rows = [table.head, ("---",) * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(map(escaped, row)) + " |" for row in rows)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{inline(cell)}</th>" for cell in table.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def p_text(p: float) -> str:
    """A p-value for a table.

    >>> p_text(0.0321), p_text(0.00004)
    ('0.032', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers as a short text.

    >>> spans([1, 2, 3, 7]), spans([0]), spans([])
    ('1-3, 7', '0', 'none')
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts) or "none"
