"""Text of others is plain data to every reader and plain text on every page and terminal."""

from __future__ import annotations

import ast
import itertools
import json
import re
import resource
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import folders
import pandas as pd
import pytest
import texts
from docutils.core import publish_string
from lab_helpers import one_line, refused
from myst_parser.parsers.docutils_ import Parser
from play_page import browser, needs_chromium
from safetensors.torch import save_file

import rlheals
from rlheals.book import pages
from rlheals.chapters.edits.panel import Panel
from rlheals.cli import main as cli
from rlheals.display.markup import Block, Table, html_page, to_html, to_markdown
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.publish.licence import front_matter
from rlheals.store.files import read_json
from rlheals.store.foreign import read_table
from rlheals.study import record
from rlheals.study.slurm import read_slurm_file
from rlheals.tasks import load_task
from rlheals.tasks.gallery import gallery_html, gallery_markdown, samples_of
from rlheals.yaml_file import yaml_text

# --- YAML, JSON and tables


@pytest.mark.parametrize("name", texts.YAML)
def test_yaml_that_is_more_than_plain_data_is_one_line(name: str) -> None:
    text, words = texts.YAML[name]
    with pytest.raises(BadInput, match="^F.*" + re.escape(words)) as refused:
        yaml_text(text, "F")
    assert len(one_line(refused)) < 300


def test_every_reader_of_yaml_is_the_strict_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in Path(rlheals.__file__).parent.rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_bytes()))
        called = {node.attr for node in tree if isinstance(node, ast.Attribute)}
        assert file.name == "yaml_file.py" or not {"safe_load", "full_load", "load_all"} & called, file
    file = tmp_path / "settings.yaml"
    file.write_text("name: mine\nseeds: [1]\nseeds: [2]\n")
    for read in (lambda: load_profile(str(file)), lambda: read_slurm_file(file)):
        with pytest.raises(BadInput, match="line 3: 'seeds' is given twice"):
            read()
    (tmp_path / "README.md").write_text("---\nlicense: &a mit\nlicense_name: *a\n---\n# card\n")
    assert front_matter(tmp_path / "README.md") == {}
    (tmp_path / "README.md").write_text("\ufeff---\r\nlicense: mit\r\n---\r\n# card\n")
    assert front_matter(tmp_path / "README.md") == {"license": "mit"}
    assert cli.main(["doctor", "--profile", "smoke", "--set", "sft={batch: 1, batch: 2}"]) == 2
    assert "'batch' is given twice" in capsys.readouterr().err


RUNS_DATA = {"eval", "exec", "__import__", "torch.load", "numpy.load", "np.load", "pd.read_pickle"}
UNPACKS_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_no_module_of_ours_hands_data_to_what_could_run_it() -> None:
    """No eval, no exec, no pickle; where a library asks whether code of a model may run, the answer is no."""
    asked = 0
    for file in Path(rlheals.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in RUNS_DATA, f"{file}:{node.lineno}"
            elif isinstance(node, ast.Import):
                assert not UNPACKS_CODE & {one.name.split(".")[0] for one in node.names}, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in UNPACKS_CODE, file
            elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", file
                asked += 1
    assert asked


@pytest.mark.parametrize("name", texts.TABLES)
def test_a_table_is_no_larger_than_it_says(tmp_path: Path, name: str) -> None:
    make, words = texts.TABLES[name]
    make(tmp_path / "a.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(words):
        read_table(tmp_path / "a.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_an_ordinary_table_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"]), "d": [0.5, None]})
    frame.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", texts.JSON)
def test_json_is_an_object_of_bearable_size_and_depth(tmp_path: Path, name: str) -> None:
    text, words = texts.JSON[name]
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    if not words:
        read_json(tmp_path / "a.json", 1_000)
        return
    with refused(match=words):
        read_json(tmp_path / "a.json", 1_000 if name == "large" else 1_000_000)


# --- pages


class Page(HTMLParser):
    """What a browser would run, and what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "svg", "img", "base", "form"):
            self.runs.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.runs.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Page:
    made = Page()
    made.feed(page)
    return made


def as_book(markdown: str) -> str:
    """Markdown as the book's pages are made of it."""
    extensions = ["colon_fence", "dollarmath", "linkify", "substitution", "tasklist", "attrs_inline"]
    more = {"myst_enable_extensions": extensions, "output_encoding": "unicode", "report_level": 5}
    made = publish_string(markdown, parser=Parser(), writer_name="html5", settings_overrides=more)
    return re.sub(r"(?s)<head>.*?</head>", "", str(made))


def ours(text: str) -> str:
    """A payload as it is shown: on one line, without what is bold or code to us as well."""
    return re.sub(r"`([^`]+)`|\*\*([^*]+)\*\*", r"\1\2", " ".join(text.split()))


def hostile_pages(tmp_path: Path) -> dict[str, str]:
    """HTML pages into which everything hostile was put."""
    rows = tuple((text, f"`{text}`", f"**{text}**") for text in texts.MARKUP)
    blocks: list[Block] = [*texts.MARKUP, Table(("a", texts.MARKUP[0], "c"), rows)]
    manifests = pages.recorded_page(
        texts.recorded(
            tmp_path,
            machine={"kind": "cpu", "model": texts.MARKUP[4], "isa": texts.MARKUP[0][:40], "threads": 1},
        )
    )
    drawn = [
        type(one)(one.item, f"``` {text}\n```", f"````\n{text}\n````\n", one.verdict)
        for one, text in zip(
            itertools.cycle(samples_of(load_task("general_points"))), texts.MARKUP, strict=False
        )
    ]
    panel = Panel.__new__(Panel)
    bars = pd.DataFrame({"series": texts.MARKUP, "split": "ood", "role": "edited", "size": 1.0})
    panel.chosen = {
        text: {text: {100: bars.assign(value=0.5, low=0.4, high=0.6)}}
        for text in ("<!--<script>", "</script>")
    }
    return {
        "blocks.md": to_markdown(blocks),
        "manifests.md": to_markdown(manifests),
        "gallery.md": gallery_markdown(drawn).replace("{dropdown}", "{note}"),
        "blocks.html": html_page(
            texts.MARKUP[0], texts.MARKUP[1], {texts.MARKUP[0]: to_html([*blocks, *manifests])}
        ),
        "gallery.html": gallery_html(drawn),
        "panel.html": panel.twin(),
    }


@pytest.mark.parametrize("name", ["blocks.md", "manifests.md", "gallery.md", "blocks.html", "gallery.html"])
def test_a_page_shows_hostile_text_and_runs_none_of_it(tmp_path: Path, name: str) -> None:
    source = hostile_pages(tmp_path)[name]
    page = read(as_book(source) if name.endswith(".md") else source)
    assert page.runs == []
    shown = " ".join(page.text.split())
    if name.startswith("blocks"):
        for text in texts.MARKUP:
            assert ours(text) in shown
    if name == "manifests.md":
        assert ours(texts.MARKUP[4]) in shown


def test_the_panel_has_its_own_script_and_no_other(tmp_path: Path) -> None:
    page = hostile_pages(tmp_path)["panel.html"]
    assert read(page).runs == ["script"]
    assert page.count("<script") == page.count("</script") == 1
    assert "<!--" not in page


@needs_chromium
def test_in_a_browser_nothing_runs(tmp_path: Path) -> None:
    parts = [as_book(one) if name.endswith(".md") else one for name, one in hostile_pages(tmp_path).items()]
    probe = f"<script>{texts.RAN}</script>"
    for body, ran in (("\n".join(parts), False), (probe, True)):
        file = tmp_path / "page.html"
        file.write_text(
            f"<!doctype html><meta charset=utf-8><title>still</title><body>{body}", encoding="utf-8"
        )
        done = browser(file)
        assert ("<title>ran" in done.stdout) is ran, done.stdout[:500]
        assert ("<title>still" in done.stdout) is not ran


@pytest.mark.parametrize("field", texts.MANIFESTS)
def test_a_field_of_a_manifest_that_is_not_what_it_should_be_is_one_line(tmp_path: Path, field: str) -> None:
    place = texts.recorded(tmp_path, **{field: texts.MANIFESTS[field]})
    with pytest.raises(BadInput, match="digest" if field == "digest" else field) as refused:
        record.read_manifest(place / "lab" / "seed-1")
    assert len(one_line(refused)) < 400


def test_a_manifest_matches_its_digest(tmp_path: Path) -> None:
    place = texts.recorded(tmp_path) / "lab" / "seed-1"
    sealed = record.read_manifest(place).sealed()
    (place / "manifest.json").write_text(sealed.text())
    assert record.read_manifest(place) == sealed
    for changed in (
        sealed.text().replace("a processor", "another one"),
        sealed.text().replace(sealed.digest, ""),
    ):
        (place / "manifest.json").write_text(changed)
        with pytest.raises(BadInput, match="does not match its own digest"):
            record.read_manifest(place)


def test_a_study_is_not_called_anything(tmp_path: Path) -> None:
    (texts.recorded(tmp_path) / "lab").rename(tmp_path / "<script>")
    with pytest.raises(BadInput, match="is not the name of a study"):
        pages.recorded_page(tmp_path)


# --- terminals


def test_names_of_tensors_do_not_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {f"model.layers.0.{texts.STEERING}.weight": folders.tensors(0)[folders.Q]}
    for seed, name in enumerate(("base", "target")):
        save_file(folders.tensors(seed) | more, folders.model(tmp_path / name) / "model.safetensors")
    asked = [str(tmp_path / "base"), str(tmp_path / "target")]
    for options in ([], ["--json"]):
        out = tmp_path / f"out{len(options)}"
        cli.main(["spectra", *asked, "--null", "0", *options])
        cli.main(
            ["edit", *asked, "--edit", "rollback()", "--where", "everything", "--out", str(out), *options]
        )
        said = capsys.readouterr()
        for letter in said.out + said.err:
            assert letter == "\n" or letter.isprintable(), repr(letter)
    assert json.dumps(texts.STEERING).isprintable()


def test_what_libraries_say_of_a_models_files_does_not_steer_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own, whose log goes to the terminal."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED_BASE, folder)
    config = json.loads((folder / "config.json").read_text())
    harm = {"rope_scaling": {"type": texts.STEERING, "factor": 2.0}}
    (folder / "config.json").write_text(json.dumps(config | harm))
    asked = ["evaluate", "--folder", str(folder), "--hands", "1", "--attempts", "1", "--split", "ood"]
    done = subprocess.run([sys.executable, "-m", "rlheals", *asked], check=False)
    said = capfd.readouterr()
    assert done.returncode == 2
    assert "rope_type" in said.err
    for letter in said.out + said.err:
        assert letter == "\n" or letter.isprintable(), repr(letter)
