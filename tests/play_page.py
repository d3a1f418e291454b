"""The book's interactive pages outside of the book: their JavaScript in node or Chromium, and pages in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLAY = ROOT / "book/_static/play"
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]  # fmt: skip
SCRIPTS = ("model.js", "task.js")

Runs = Callable[[str, Any], Any]


def browser(page: Path, *more: str, address: str = "") -> subprocess.CompletedProcess[str]:
    """A page opened by Chromium, which finds no other machine, and its document then. address: if not a file."""
    home = f"--user-data-dir={page.parent / 'browser'}"
    command = [str(CHROMIUM), *FLAGS, home, *more, "--dump-dom", address or page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def javascript(tmp_path: Path) -> Runs:
    """Runs the body of a JavaScript function of `input` with the page's scripts loaded: what it returns."""
    if NODE is None and CHROMIUM is None:
        pytest.skip("neither node nor Chromium is here to run JavaScript")

    def run(body: str, given: Any) -> Any:
        call = f"JSON.stringify(((input) => {{{body}}})({json.dumps(given)}))"
        if NODE is not None:
            loads = "".join(f"require({json.dumps(str(PLAY / name))});" for name in SCRIPTS)
            script = tmp_path / "run.js"
            script.write_text(f"const Play = globalThis.Play ??= {{}};{loads}process.stdout.write({call});")
            done = subprocess.run([NODE, str(script)], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout)
        loads = "".join(f'<script src="{(PLAY / name).as_uri()}"></script>' for name in SCRIPTS)
        (tmp_path / "run.js").write_text(f"document.querySelector('pre').textContent = {call}")
        page = tmp_path / "run.html"
        page.write_text(
            f'<!doctype html><meta charset=utf-8><body><pre></pre>{loads}<script src="run.js"></script>'
        )
        done = browser(page)
        found = re.search(r"<pre>(.+)</pre>", done.stdout, flags=re.S)
        assert found, done.stdout[:500] + done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return run


def page_with(folder: Path, scripts: dict[str, str], drive: str, name: str = "play") -> Path:
    """A page of the book, with its own markup and scripts, these data, and a script that uses it."""
    for each in {"play", name}:
        shutil.copytree(ROOT / "book/_static" / each, folder / "_static" / each)
    for file, text in scripts.items():
        (folder / "_static" / name / file).write_text(text)
    markup = "\n".join(
        line for line in (ROOT / f"book/{name}.md").read_text().splitlines() if line.startswith("<")
    )
    (folder / "book").mkdir()
    page = folder / f"book/{name}.html"
    section = f'<section id="{name}"><h1>{name}</h1>{markup}</section>'  # as Sphinx names it
    page.write_text(
        f"<!doctype html><meta charset=utf-8><script>{WATCH}</script><body>{section}<pre></pre><script>{drive}</script>"
    )
    return page


WATCH = """window.troubles = [];
addEventListener("error", (event) => troubles.push(event.message || "not loaded: " + event.target.src), true);
addEventListener("unhandledrejection", (event) => troubles.push(String(event.reason)));
console.error = console.warn = (...said) => troubles.push(said.join(" "));"""
HELP = """const find = (one) => document.querySelector(".play-page " + one);
const all = (one) => [...document.querySelectorAll(".play-page " + one)];
const press = (text) => all("button").find((one) => one.textContent === text).click();
const until = async (test) => { while (!test()) await new Promise((go) => setTimeout(go, 20)); };
const told = () => document.querySelector("#play-lab .play-status")?.textContent;
const choose = (values) => values.forEach((value, at) => { all("select")[at].value = String(value); });
const done = (found) => {
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  document.querySelector("pre").textContent = JSON.stringify({ ...found, troubles, loaded });
};
"""


def driven(page: Path, address: str = "") -> dict[str, Any]:
    """What the driving script left behind."""
    done = browser(page, "--virtual-time-budget=200000", address=address)
    found = re.search(r"<pre>(.+)</pre>", done.stdout, flags=re.S)
    assert found, done.stdout[:2000] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a folder's files, on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *said: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
