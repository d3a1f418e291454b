"""Text in the outputs of notebook pages stands out from its background, in the light theme and in the dark one.

The style sheets that a page loads are applied here without a browser: the installed themes', then the book's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from rlheals.chapters.edits.panel import bars
from rlheals.display.markup import Table, to_html
from rlheals.display.style import Drawn

ROOT = Path(__file__).parents[2]
THEMES = (
    ("pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"),
    ("sphinx_book_theme", "theme/sphinx_book_theme/static/styles/sphinx-book-theme.css"),
    ("myst_nb", "static/mystnb.css"),
)
OWN = (ROOT / "book/_static/book.css", ROOT / "rlheals/chapters/edits/panel.css")
LEAST = 4.5
"""WCAG 2, level AA, for text of normal size."""
INHERITED = (None, "none", "inherit", "unset", "transparent", "initial", "currentColor")
STATES = r"::|:(hover|focus|active|visited|before|after|target)"

soupsieve = pytest.importorskip("soupsieve")
bs4 = pytest.importorskip("bs4")
Color = tuple[float, ...]


def sheets() -> str:
    texts = []
    for package, path in THEMES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed")
        texts.append((Path(spec.origin).parent / path).read_text(encoding="utf-8"))
    return "\n".join([*texts, *(path.read_text(encoding="utf-8") for path in OWN)])


def specificity(selector: str) -> tuple[int, int, int]:
    """Ids, classes (attributes, pseudo-classes), elements; `:is`, `:not`, `:has` count what they hold."""
    flat = re.sub(r":(not|is|has)\(", " ", selector).replace(")", " ")
    flat = re.sub(r":where\([^)]*\)", " ", flat)
    classes = r"\.[\w-]+|\[[^\]]*\]|(?<!:):[\w-]+"
    bare = re.sub(r"[#.][\w-]+|\[[^\]]*\]|::?[\w-]+", " ", flat)
    return (
        len(re.findall(r"#[\w-]+", flat)),
        len(re.findall(classes, flat)),
        len(re.findall(r"[a-zA-Z][\w-]*", bare)),
    )


def rules(css: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Selector and colours or custom properties of each rule outside of media queries."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    css = re.sub(r"@[^{;]+(;|\{([^{}]*\{[^{}]*\})*[^{}]*\})", "", css)
    for head, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
        pairs = (line.split(":", 1) for line in body.split(";") if ":" in line)
        said = {
            name.strip().replace("background-color", "background"): value.strip() for name, value in pairs
        }
        said = {name: value for name, value in said.items() if re.match("--|color$|background$", name)}
        for selector in re.split(r",(?![^(]*\))", head) if said else ():
            yield selector.strip(), said


class Page:
    """Elements with the colours that the cascade gives them."""

    def __init__(self, html: str, css: str) -> None:
        self.soup = bs4.BeautifulSoup(html, "html.parser")
        self.said: dict[int, dict[str, tuple[tuple[int, ...], str]]] = {}
        for order, (selector, pairs) in enumerate(rules(css)):
            try:
                elements = [] if re.search(STATES, selector) else soupsieve.select(selector, self.soup)
            except soupsieve.SelectorSyntaxError:
                continue
            for element in elements:
                mine = self.said.setdefault(id(element), {})
                for name, value in pairs.items():
                    rank = (int("!important" in value), *specificity(selector), order)
                    if name not in mine or rank >= mine[name][0]:
                        mine[name] = (rank, value.replace("!important", "").strip())

    def values(self, element: Any, name: str) -> Iterator[str]:
        """What is said of a property, from the element outwards, custom properties put in."""
        for one in (element, *element.parents):
            value = self.said.get(id(one), {}).get(name, (None, None))[1]
            while value and (found := re.search(r"var\((--[\w-]+)(?:,\s*([^()]*))?\)", value)):
                put = next(self.values(one, found[1]), found[2] or "unset")
                value = value.replace(found[0], put)
            if value not in INHERITED:
                yield value

    def text(self, element: Any) -> Color:
        return rgb(next(self.values(element, "color"), "#000000"))

    def behind(self, element: Any) -> Color:
        color: Color = (1.0, 1.0, 1.0, 1.0)
        for layer in reversed([rgb(value) for value in self.values(element, "background")]):
            color = over(layer, color)
        return color


def over(top: Color, bottom: Color) -> Color:
    return (*(top[3] * a + (1 - top[3]) * b for a, b in zip(top[:3], bottom[:3], strict=True)), 1.0)


def rgb(value: str) -> Color:
    """Red, green, blue and opacity, each from 0 to 1; transparent for what is no colour."""
    if found := re.match(r"rgba?\(([^)]*)\)", value):
        parts = [float(part) for part in re.split(r"[,\s/]+", found[1].strip())]
        return (*(part / 255 for part in parts[:3]), *(parts[3:] or [1.0]))
    try:
        return to_rgba(value.split()[0].lower())
    except ValueError:
        return (0.0, 0.0, 0.0, 0.0)


def contrast(one: Color, other: Color) -> float:
    def light(color: Color) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def page(theme: str) -> str:
    """An output cell as the book's pages hold it, with a figure, a table of verdicts and the panel."""
    drawn = Drawn(
        "x", "Title", b"<svg/>", pd.DataFrame({"value": [0.5]}), "What is drawn.", "Where from.", "It rises."
    )
    table = to_html(["**bold** words and `code`", Table(("claim", "verdict"), (("`id`", "**holds**"),))])
    row = {
        "series": "peak",
        "role": "checkpoint",
        "split": "ood",
        "value": 0.1,
        "low": 0.0,
        "high": 0.2,
        "size": 1.0,
    }
    panel = f'<div class="rlheals-panel"><div class="rlheals-bars">{bars(pd.DataFrame([row]))}</div></div>'
    cells = "".join(
        f'<div class="cell docutils container"><div class="cell_output docutils container">'
        f'<div class="output text_html">{html}</div></div></div>'
        for html in (drawn._repr_html_(), table, panel)
    )
    figure = "<figure class='align-default'><figcaption><p>Caption of a page.</p></figcaption></figure>"
    return (
        f'<html data-theme="{theme}" data-mode="{theme}"><body><div class="bd-container"><main class="bd-main">'
        f'<div class="bd-content"><div class="bd-article-container"><article class="bd-article">{cells}{figure}'
        "</article></div></div></main></div></body></html>"
    )  # fmt: skip


PLACES = (
    "p.rlheals-takeaway", "figure.rlheals-figure figcaption", "figcaption strong", "figcaption a",
    "figcaption details", ".text_html p", ".text_html p code", ".text_html td code", ".text_html th",
    ".text_html td", ".rlheals-bars h4", ".rlheals-bars span", ".rlheals-bars .number",
    "figure.align-default figcaption p",
)  # fmt: skip


@pytest.fixture(scope="module", params=["dark", "light"])
def shown(request: pytest.FixtureRequest) -> Page:
    return Page(page(request.param), sheets())


@pytest.mark.parametrize("place", PLACES)
def test_text_stands_out(shown: Page, place: str) -> None:
    elements = shown.soup.select(place)
    assert elements
    for element in elements:
        found = contrast(over(shown.text(element), shown.behind(element)), shown.behind(element))
        assert found >= LEAST, f"{place}: {found:.2f}:1"


def test_the_themes_colours_are_read_from_its_own_sheet(shown: Page) -> None:
    """The dark page is dark, the light one light: else the cascade above would pass anything."""
    theme = shown.soup.html["data-theme"]
    light = contrast(shown.behind(shown.soup.select_one("article")), rgb("#000000"))
    assert (light > 10) == (theme == "light")


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(rgb("#000"), rgb("white")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.01)
