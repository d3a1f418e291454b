"""Every page of the book: what it loads and links to, and in a real browser what it weighs and who can use it.

The book is the one whose pages lie where RLHEALS_BOOK says. Without that it is made here: every page, with the numbers
of the recorded study, and chapters with a figure, a table and the panel in place of what they would compute.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from play_page import CHROMIUM, FLAGS, needs_chromium, served

from rlheals.book import claims, colab, explore, report
from rlheals.book.references import SMALL
from rlheals.chapters.edits.panel import STATIC, bars
from rlheals.chapters.registry import CHAPTERS, PAGES
from rlheals.display.markup import Table, to_html
from rlheals.display.style import Drawn
from rlheals.profiles import load_profile
from rlheals.store.store import Store
from rlheals.study import record
from rlheals.study.tables import SFT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
FRONT, MOST_OF_FRONT, MOST = "book/intro.html", 300_000, 1_200_000
"""Bytes that opening a page sends, packed with gzip where GitHub Pages packs; weights of models come on demand."""
WORDS = ("intro", "claims", "play", "explore", "methods", "glossary", "_generated/01_sft_forgets")
CHECKED = {f"book/{name}.html" for name in WORDS}
"""Pages that axe looks at where the book is made here; `make test-pages` has it look at every one."""
PACKED = {".html", ".css", ".js", ".svg"}
OPTIONS = ["build", ".", "-W", "-n", "--keep-going", "-q"]


def built(folder: Path) -> Path:
    """The pages of a book whose sources lie in a folder; configuration, styles and scripts are the project's."""
    for name in ("_static", "_ext", "references.bib"):
        copy = shutil.copytree if (ROOT / "book" / name).is_dir() else shutil.copy
        copy(ROOT / "book" / name, folder / "book" / name)
    command = [Path(sys.executable).with_name("jupyter-book"), *OPTIONS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build/html"


def outputs() -> str:
    """What chapters show, in small: a figure, a table of verdicts, the panel."""
    frame = pd.DataFrame({"value": [0.5]})
    drawn = Drawn("x", "Title", b"<svg/>", frame, "What is drawn.", "Where from.", "It rises.")
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
    style = f"<style>{(STATIC / 'panel.css').read_text()}</style>"
    panel = f'<div class="rlheals-panel"><div class="rlheals-bars">{bars(pd.DataFrame([row]))}</div></div>'
    return "".join((drawn._repr_html_(), table, style, panel))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, shared: Store) -> Path:
    if "RLHEALS_BOOK" in os.environ:
        return Path(os.environ["RLHEALS_BOOK"]).resolve()
    folder = tmp_path_factory.mktemp("book")
    made = folder / "book/_generated"
    small = load_profile(str(ROOT / "tests/notebooks" / SMALL))
    report.report(small, results=RESULTS, out=made, store=shared, quiet=True)
    claims.write(small, RESULTS, made, shared)
    lab = SimpleNamespace(
        profile=load_profile("lab"), recorded=record.find("lab", SFT, RESULTS)[0], variants={}
    )
    (made / report.EXPLORED / explore.DATA).write_text(explore.script(lab, RESULTS))
    for name in PAGES:
        notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
        last = next(cell for cell in reversed(notebook.cells) if cell.cell_type == "code")
        last.metadata.tags = []
        last.outputs = [nbformat.v4.new_output("display_data", {"text/html": outputs()})]
        nbformat.write(notebook, made / f"{name}.ipynb")
    for page in (ROOT / "book").glob("*.md"):
        shutil.copy(page, folder / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    return built(folder)


@pytest.fixture(scope="module")
def pages(html: Path) -> dict[str, BeautifulSoup]:
    found = (path for path in html.rglob("*.html") if "_static" not in path.parts)
    return {
        str(path.relative_to(html)): BeautifulSoup(path.read_text(), "html.parser") for path in sorted(found)
    }


def test_every_link_leads_to_a_place_in_the_book_and_pages_load_only_its_files(
    html: Path, pages: dict[str, BeautifulSoup]
) -> None:
    anchors = {name: {one[key] for key in ("id", "name") for one in page.find_all(attrs={key: True})}
               for name, page in pages.items()}  # fmt: skip
    broken = []
    for name, page in pages.items():
        for tag in page.find_all(["a", "link", "script", "img", "iframe", "source"]):
            address = tag.get("href") or tag.get("src") or ""
            if re.match(r"[a-z]+:|//", address):
                assert tag.name == "a" or address.startswith("data:"), f"{name} loads {address[:100]}"
                continue
            path, anchor = urldefrag(urljoin(name, unquote(address)))
            path = path.partition("?")[0] or name
            there = not anchor or anchor == "top" or path not in pages or anchor in anchors[path]
            if not (there and (html / path).is_file()):
                broken.append((name, address))
    assert broken == []


def test_scripts_name_no_content_network(html: Path) -> None:
    for path in [*html.rglob("*.html"), *html.glob("_static/*.css")]:
        assert not re.search(r"jsdelivr|unpkg|cdnjs|cdn\.|googleapis", path.read_text()), path


def test_formulas_need_no_script_and_words_of_the_glossary_say_what_they_mean(
    pages: dict[str, BeautifulSoup],
) -> None:
    methods = pages["book/methods.html"]
    assert len(methods.find_all("math")) > 15
    (link,) = methods.find_all("a", class_="defined", string="sampling seed")
    (term,) = pages["book/glossary.html"].find_all("dt", id=link["href"].partition("#")[2])
    meaning = " ".join(term.find_next("dd").get_text().split())
    assert link["title"] == meaning
    assert meaning.startswith("The seed of the answers sampled")


def test_only_chapters_say_that_they_are_not_published(pages: dict[str, BeautifulSoup]) -> None:
    said = {name for name, page in pages.items() if "Colab and Binder: not published yet" in page.get_text()}
    assert said == {f"book/_generated/{name}.html" for name in PAGES} or "RLHEALS_BOOK" in os.environ


def test_setting_the_address_is_enough_to_publish(tmp_path: Path) -> None:
    address = "https://github.com/ada/lovelace"
    (tmp_path / "book/_generated/static").mkdir(parents=True)
    configuration = (ROOT / "_config.yml").read_text()
    (tmp_path / "_config.yml").write_text(
        re.sub(r'url: "https://github.com/[^"]+"', f'url: "{address}"', configuration)
    )
    contents = {"format": "jb-book", "root": "book/page", "chapters": [{"file": "book/_generated/01_x"}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(contents))
    (tmp_path / "book/page.md").write_text("# Title\n")
    cells = [nbformat.v4.new_markdown_cell("# Chapter"), nbformat.v4.new_code_cell(colab.install(address))]
    metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "book/_generated/01_x.ipynb"
    )
    chapter = (built(tmp_path) / "book/_generated/01_x.html").read_text()
    assert "not published yet" not in chapter
    assert "https://colab.research.google.com/github/ada/lovelace/blob/main/notebooks/01_x.ipynb" in chapter
    assert "https://mybinder.org/v2/gh/ada/lovelace/main?labpath=notebooks%2F01_x.ipynb" in chapter


# --- in a browser


@pytest.fixture(scope="module")
def address(html: Path) -> Iterator[str]:
    with served(html) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture(scope="module")
def seen(
    html: Path, pages: dict[str, BeautifulSoup], browser: Any, address: str
) -> dict[str, dict[str, Any]]:
    """By page and look: what the console said, what was loaded, how much too wide it is, what axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    standard = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    found: dict[str, dict[str, Any]] = {}
    for look, width in (("light", 1440), ("dark", 390)):
        context = browser.new_context(color_scheme=look, viewport={"width": width, "height": 900})
        for name in (
            name for name, soup in pages.items() if not soup.find("meta", {"http-equiv": "Refresh"})
        ):
            page, loaded, said = context.new_page(), list[str](), list[str]()
            page.on("request", lambda request, loaded=loaded: loaded.append(request.url))
            page.on("console", lambda one, said=said: said.append(one.text) if one.type == "error" else None)
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            checked = name in CHECKED or "RLHEALS_BOOK" in os.environ
            page.goto(f"{address}/{name}", wait_until="networkidle" if checked else "load")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            one = {"said": [*said], "loaded": {*loaded}, "wide": wide}  # axe loads more
            one["faults"] = [
                f"{rule['impact']} {rule['id']}: {node['target']} {node['failureSummary']}"
                for rule in (Axe().run(page, options=standard).response["violations"] if checked else [])
                for node in rule["nodes"]
            ]
            found[f"{name} {look}"] = one
            page.close()
        context.close()
    return found


def sent(html: Path, name: str) -> int:
    """Bytes of a file as GitHub Pages sends it."""
    file = html / unquote(name)
    data = file.read_bytes()
    return len(gzip.compress(data) if file.suffix in PACKED else data)


@needs_chromium
def test_pages_open_without_an_error_and_ask_no_other_machine(
    seen: dict[str, dict[str, Any]], address: str
) -> None:
    assert {name: one["said"] for name, one in seen.items() if one["said"]} == {}
    loaded = {url for one in seen.values() for url in one["loaded"]}
    assert [url for url in loaded if not url.startswith((address, "data:"))] == []


@needs_chromium
def test_everybody_can_read_every_page_in_light_and_in_the_dark(seen: dict[str, dict[str, Any]]) -> None:
    assert {f"{name} {look}" for name in CHECKED for look in ("light", "dark")} <= seen.keys()
    assert {name: one["faults"] for name, one in seen.items() if one["faults"]} == {}


@needs_chromium
def test_on_a_phone_no_page_is_wider_than_the_screen(seen: dict[str, dict[str, Any]]) -> None:
    assert {name: one["wide"] for name, one in seen.items() if one["wide"] > 0} == {}


@needs_chromium
def test_pages_are_light(html: Path, seen: dict[str, dict[str, Any]], address: str) -> None:
    heavy = {}
    for name, one in seen.items():
        files = {
            url.removeprefix(f"{address}/").partition("?")[0]
            for url in one["loaded"]
            if url.startswith(address)
        }
        weights = {file: sent(html, file) for file in files}
        print(
            name,
            f"{sum(weights.values()):,}",
            f"{sum((html / unquote(file)).stat().st_size for file in files):,}",
        )
        if sum(weights.values()) > (MOST_OF_FRONT if name.startswith(FRONT) else MOST):
            heavy[name] = weights
    assert heavy == {}


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    yield page
    page.close()


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the element is reached."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("(one) => document.activeElement.matches(one)", selector):
            return
    pytest.fail(f"Tab does not reach {selector}")


@needs_chromium
def test_claims_are_found_by_their_ids(page: Any, address: str) -> None:
    for one in CHAPTERS.values():
        claim = one.claims.read().claims[0]
        page.goto(f"{address}/search.html?q={claim.id}")
        page.locator("ul.search a[href*='book/claims.html']").first.wait_for()


@needs_chromium
def test_explore_is_operated_by_keys_alone(page: Any, address: str) -> None:
    page.goto(f"{address}/book/explore.html")
    if not page.locator("#explore-curves select").count():
        pytest.skip("nothing is recorded of this book's profile")
    said, lines = page.locator("#explore-curves [role=status]"), page.locator(".explore-seed")
    assert ", OOD, mean of" in said.inner_text()
    tab_to(page, "#explore-curves label:nth-of-type(3) select")
    page.keyboard.press("ArrowDown")
    assert ", ID, hands of SFT, mean of" in said.inner_text()
    count = lines.count()
    tab_to(page, ".explore-seeds input")
    page.keyboard.press("Space")
    assert lines.count() == count - 1 > 0
    tab_to(page, "#explore-atlas canvas")
    page.keyboard.press("ArrowRight")
    assert "solved in" in page.locator("#explore-atlas [role=status]").inner_text()


@needs_chromium
def test_play_is_operated_by_keys_alone(page: Any, address: str) -> None:
    page.goto(f"{address}/book/play.html")
    tab_to(page, "#play-lab select")
    page.keyboard.press("8")
    tab_to(page, "#play-lab .play-main")
    page.keyboard.press("Enter")
    page.locator("#play-lab section .play-attempts").first.wait_for()
    assert page.locator("#play-lab .play-status").inner_text().startswith("8 ")
    tab_to(page, "#play-lab .play-own input")
    page.keyboard.type("1+1")
    page.keyboard.press("Enter")
    assert "wrong values, reward -2" in page.locator("#play-lab .play-own-verdict").inner_text()
