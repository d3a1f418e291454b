"""A small book built with the real `_config.yml`: it fetches nothing from elsewhere, and can be published."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from rlheals.book import colab, report

ROOT = Path(__file__).resolve().parents[2]
PAGE = "# Title\n\nA sum $1 + 1$ {cite}`wilson1927`.\n\n```{bibliography}\n```\n"
BADGE = "[![Open in Colab](https://colab.research.google.com/x.svg)](https://colab.research.google.com/y)"
FETCHED = ("stylesheet", "preload", "icon", "shortcut icon", "preconnect")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


class Loads(HTMLParser):
    """Collects every address that a browser fetches on its own when it opens the page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in FETCHED:
            self.addresses.append(given.get("href") or "")
        if address := given.get(LOADING.get(tag, "")):
            self.addresses.append(address)


def build(folder: Path, address: str | None = None) -> Path:
    """Build a small book with the project's configuration; the folder of its pages."""
    config = (ROOT / "_config.yml").read_text()
    if address:
        config = re.sub(r'url: "https://github.com/[^"]+"', f'url: "{address}"', config)
    played, explored = (folder / "book/_generated" / place for place in (report.PLAYED, report.EXPLORED))
    for place in (played, explored):
        place.mkdir(parents=True)
    (played / "checkpoints.js").write_text('Play.index = {"note": "", "checkpoints": []};')
    (played / "hands.js").write_text("")
    (explored / "data.js").write_text("")
    (folder / "_config.yml").write_text(config)
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/page\nchapters:\n"
        "- file: book/_generated/01_x\n- file: book/play\n- file: book/task\n- file: book/explore\n- file: book/lab\n"
    )
    (folder / "book/page.md").write_text(PAGE)
    for name in ("play", "explore"):
        shutil.copy(ROOT / f"book/{name}.md", folder / "book")
    for name in ("task", "lab"):
        (folder / f"book/{name}.md").write_text(f"# About the {name}\n")
    badge = nbformat.v4.new_markdown_cell(BADGE, metadata={"tags": ["remove-cell"]})
    set_up = nbformat.v4.new_code_cell(colab.install(address or "https://github.com/OWNER/rlheals"))
    cells = [badge, nbformat.v4.new_markdown_cell("# Chapter"), set_up, nbformat.v4.new_code_cell("1 + 1")]
    metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / "book/_generated/01_x.ipynb")
    shutil.copy(ROOT / "book/references.bib", folder / "book")
    for name in ("_static", "_ext"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    options = ["-W", "-n", "--keep-going", "-q"]
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build/html"


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("book"))


@pytest.mark.parametrize(
    "page",
    ["book/page.html", "book/_generated/01_x.html", "book/play.html", "book/explore.html", "search.html"],
)
def test_a_page_loads_only_files_of_the_book(html: Path, page: str) -> None:
    parser = Loads()
    parser.feed((html / page).read_text())
    assert any("_static" in address for address in parser.addresses)
    for address in parser.addresses:
        assert not re.match(r"(https?:)?//", address), f"{page} fetches {address}"
        assert (html / page).parent.joinpath(address.split("?")[0]).is_file(), f"{page}: {address} is missing"


def test_scripts_name_no_content_network(html: Path) -> None:
    for path in [*html.rglob("*.html"), *html.glob("_static/*.css")]:
        assert not re.search(r"jsdelivr|unpkg|cdnjs|cdn\.|googleapis", path.read_text()), path


def test_formulas_use_the_vendored_script(html: Path) -> None:
    text = (html / "book/page.html").read_text()
    assert "vendor/tex-svg.js" in text
    assert '"enableMenu": false' in text


def test_only_the_chapter_says_that_it_is_not_published(html: Path) -> None:
    assert "not published yet" in (html / "book/_generated/01_x.html").read_text()
    assert "not published yet" not in (html / "book/page.html").read_text()


def test_setting_the_address_is_enough_to_publish(tmp_path: Path) -> None:
    chapter = (build(tmp_path, "https://github.com/ada/lovelace") / "book/_generated/01_x.html").read_text()
    assert "not published yet" not in chapter
    assert "https://colab.research.google.com/github/ada/lovelace/blob/main/notebooks/01_x.ipynb" in chapter
    assert "https://mybinder.org/v2/gh/ada/lovelace/main?labpath=notebooks%2F01_x.ipynb" in chapter
