"""What the book's pages show without a script of their own: formulas, definitions of the glossary's words, icons.

Formulas become MathML, so that no page loads a typesetter of two megabytes. On each page the first use of a word of the
glossary is a link whose title is the definition. Icons come from a small font (`book.css`), not the theme's script.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

GLOSSARY = "book/glossary"
EVERYDAY = {
    "advantage", "base", "control", "format", "gain", "group", "hand", "rule", "run", "state", "store", "strict",
    "window",
}  # fmt: skip
"""Words of the glossary that pages use in other senses, too: they are no links."""
NO_LINKS = (
    nodes.reference,
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.term,
    nodes.caption,
    nodes.raw,
)
ICONS = re.compile(r"\s*<script[^>]*/fontawesome\.js[^>]*></script>")


def mathml(tex: str, as_block: bool = False) -> str:
    """TeX as MathML. A bar that is an accent would be drawn through its letter in Chromium."""
    return tex2mathml(tex, as_block=as_block).replace('<mover accent="true">', "<mover>")


def _formula(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _displayed(self: Any, node: nodes.math_block) -> None:
    self.body.append(f"<div>{mathml(node.astext(), as_block=True)}</div>\n")
    raise nodes.SkipNode


def definitions(glossary: nodes.Node) -> dict[str, tuple[str, str]]:
    """By word of a glossary: its anchor and its definition."""
    found = {}
    for item in glossary.findall(nodes.definition_list_item):
        meaning = next(iter(item.findall(nodes.definition))).astext()
        for term in item.findall(nodes.term):
            for word in term.astext().split(", "):
                found[word] = (term["ids"][0], " ".join(meaning.split()))
    return found


def linked(
    text: str, pattern: re.Pattern[str], known: dict[str, tuple[str, str]], uri: str
) -> list[nodes.Node]:
    """A text with links for the words of the glossary in it; these are taken out of `known`."""
    parts: list[nodes.Node] = []
    done = 0
    for match in pattern.finditer(text):
        if match[1] in known:
            anchor, meaning = known.pop(match[1])
            parts.append(nodes.Text(text[done : match.start()]))
            about = {
                "internal": True,
                "refuri": f"{uri}#{anchor}",
                "reftitle": meaning,
                "classes": ["defined"],
            }
            parts.append(nodes.reference("", match[0], **about))
            done = match.end()
    return [*parts, nodes.Text(text[done:])] if parts else []


def _define(app: Any, doctree: nodes.document, docname: str) -> None:
    """Link the first use of each word on a page."""
    if app.builder.format != "html" or docname == GLOSSARY or GLOSSARY not in app.env.all_docs:
        return
    (glossary,) = app.env.get_doctree(GLOSSARY).findall(addnodes.glossary)
    known = {word: said for word, said in definitions(glossary).items() if word not in EVERYDAY}
    words = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    pattern, uri = (
        re.compile(rf"(?<![\w@-])({words})s?(?![\w@-])"),
        app.builder.get_relative_uri(docname, GLOSSARY),
    )
    for text in list(doctree.findall(nodes.Text)):
        above, inside = text.parent, False
        while above is not None and not inside:
            above, inside = above.parent, isinstance(above, NO_LINKS)
        if not inside and (parts := linked(text.astext(), pattern, known, uri)):
            text.parent.replace(text, parts)


def _listed(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Make entries of the bibliography items of its list; the role that docutils gives them is no more."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def _small_icons(app: Any, error: Exception | None) -> None:
    """Drop the theme's script with all icons (1.5 MB) from every page that was written."""
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if (without := ICONS.sub("", text)) != text:
                page.write_text(without, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this once."""
    app.add_html_math_renderer("mathml", (_formula, None), (_displayed, None))
    app.connect("doctree-resolved", _define)
    app.connect("html-page-context", _listed)
    app.connect("build-finished", _small_icons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
