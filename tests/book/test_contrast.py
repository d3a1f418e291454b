"""Text in the outputs of notebook pages stands out from its background, in the light theme and in the dark one.

The style sheets that a page loads are applied here without a browser: the installed themes', then the book's own.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

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
PROPERTIES = ("color", "background-color", "background")
LEAST = 4.5
"""WCAG 2, level AA, for text of normal size."""

soupsieve = pytest.importorskip("soupsieve")
bs4 = pytest.importorskip("bs4")

Weight = tuple[int, int, int, int, int]
Rule = tuple[str, Weight, dict[str, str]]


def sheets() -> str:
    texts = []
    for package, path in THEMES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed")
        texts.append((Path(spec.origin).parent / path).read_text(encoding="utf-8"))
    return "\n".join([*texts, *(path.read_text(encoding="utf-8") for path in OWN)])


def weight(selector: str) -> tuple[int, int, int]:
    """Specificity: ids, classes (attributes, pseudo-classes), elements; `:is`, `:not`, `:has` count what they hold."""
    flat = re.sub(r":(not|is|has)\(", " ", selector).replace(")", " ")
    flat = re.sub(r":where\([^)]*\)", " ", flat)
    ids = len(re.findall(r"#[\w-]+", flat))
    classes = len(re.findall(r"\.[\w-]+|\[[^\]]*\]|(?<!:):[\w-]+", flat))
    bare = re.sub(r"[#.][\w-]+|\[[^\]]*\]|::?[\w-]+", " ", flat)
    return ids, classes, len(re.findall(r"[a-zA-Z][\w-]*", bare))


def rules(css: str) -> list[Rule]:
    """Rules outside of media queries that set a colour or a custom property, each selector on its own."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    css = re.sub(r"@[^{;]+(;|\{([^{}]*\{[^{}]*\})*[^{}]*\})", "", css)
    found: list[Rule] = []
    for order, (head, body) in enumerate(re.findall(r"([^{}]+)\{([^{}]*)\}", css)):
        pairs = (line.split(":", 1) for line in body.split(";") if ":" in line)
        said = {name.strip(): value.strip() for name, value in pairs}
        said = {name: value for name, value in said.items() if name in PROPERTIES or name.startswith("--")}
        if said:
            selectors = (one.strip() for one in re.split(r",(?![^(]*\))", head))
            found += [(one, (0, *weight(one), order), said) for one in selectors]
    return found


class Page:
    """Elements with the colours that the cascade gives them."""

    def __init__(self, html: str, found: list[Rule]) -> None:
        self.soup = bs4.BeautifulSoup(html, "html.parser")
        self.said: dict[int, dict[str, tuple[Weight, str]]] = {}
        for selector, rank, pairs in found:
            if "::" in selector or re.search(r":(hover|focus|active|visited|before|after|target)", selector):
                continue
            try:
                elements = soupsieve.select(selector, self.soup)
            except soupsieve.SelectorSyntaxError:
                continue
            for element in elements:
                mine = self.said.setdefault(id(element), {})
                for name, value in pairs.items():
                    name = "background" if name == "background-color" else name
                    urgent = "!important" in value
                    placed = (int(urgent), *rank[1:])
                    if name not in mine or placed >= mine[name][0]:
                        mine[name] = (placed, value.replace("!important", "").strip())

    def own(self, element: object, name: str) -> str | None:
        value = self.said.get(id(element), {}).get(name)
        return None if value is None else self.resolved(value[1], element)

    def resolved(self, value: str, element: object) -> str:
        """The value with its custom properties put in."""
        while found := re.search(r"var\((--[\w-]+)(?:,\s*([^()]*))?\)", value):
            put = found[2] or "unset"
            one = element
            while one is not None:
                if known := self.said.get(id(one), {}).get(found[1]):
                    put = known[1]
                    break
                one = one.parent  # type: ignore[attr-defined]
            value = value.replace(found[0], put)
        return value

    def text(self, element: object) -> tuple[float, ...]:
        while element is not None:
            value = self.own(element, "color")
            if value not in (None, "inherit", "unset", "currentColor"):
                return rgb(value)
            element = element.parent  # type: ignore[attr-defined]
        return rgb("#000000")

    def behind(self, element: object) -> tuple[float, ...]:
        layers = []
        while element is not None:
            value = self.own(element, "background")
            if value not in (None, "none", "inherit", "unset", "transparent", "initial"):
                layers.append(rgb(value))
                if layers[-1][3] == 1:
                    break
            element = element.parent  # type: ignore[attr-defined]
        color: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
        for layer in reversed(layers):
            color = over(layer, color)
        return color


def over(top: tuple[float, ...], bottom: tuple[float, ...]) -> tuple[float, ...]:
    return (*(top[3] * a + (1 - top[3]) * b for a, b in zip(top[:3], bottom[:3], strict=True)), 1.0)


def rgb(value: str) -> tuple[float, ...]:
    """Red, green, blue and opacity, each from 0 to 1; transparent for what is no colour."""
    if found := re.match(r"rgba?\(([^)]*)\)", value):
        parts = [float(part) for part in re.split(r"[,\s/]+", found[1].strip())]
        return (*(part / 255 for part in parts[:3]), *(parts[3:] or [1.0]))
    try:
        return to_rgba(value.split()[0].lower())
    except ValueError:
        return (0.0, 0.0, 0.0, 0.0)


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def light(color: tuple[float, ...]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def page(theme: str) -> str:
    """An output cell as the book's pages hold it, with a figure, a table of verdicts and the panel."""
    drawn = Drawn("x", "Title", b"<svg/>", pd.DataFrame({"value": [0.5]}), "What is drawn.", "Where from.")
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
    )


PLACES = {
    "caption": "figure.rlheals-figure figcaption",
    "title in a caption": "figcaption strong",
    "link to the data": "figcaption a",
    "origin": "figcaption details",
    "words": ".text_html p",
    "code in an output": ".text_html p code",
    "code in a table": ".text_html td code",
    "head of a table": ".text_html th",
    "cell of a table": ".text_html td",
    "heading in the panel": ".rlheals-bars h4",
    "label in the panel": ".rlheals-bars span",
    "number in the panel": ".rlheals-bars .number",
    "caption of a page": "figure.align-default figcaption p",
}


@pytest.fixture(scope="module", params=["dark", "light"])
def shown(request: pytest.FixtureRequest) -> Page:
    return Page(page(request.param), rules(sheets()))


@pytest.mark.parametrize("place", PLACES)
def test_text_stands_out(shown: Page, place: str) -> None:
    elements = shown.soup.select(PLACES[place])
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
