"""Text that is nearly right, thrown at whatever reads text.

A target takes text and returns if all is well: the text was refused with BadInput on one line, or read, and what was
read keeps its promises. Anything else raises. `--hypothesis-seed=random` tries others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import folders
import pytest
import texts
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_helpers import one_line
from test_hostile_text import as_book
from test_hostile_text import read as page_of

from rlheals.book.notebooks import parameters
from rlheals.cli.options import parse_settings
from rlheals.display.markup import Table, to_html, to_markdown
from rlheals.engines import weight_files
from rlheals.errors import BadInput
from rlheals.profiles import PROFILES, load_profile, to_yaml
from rlheals.study import record
from rlheals.study.slurm import read_slurm_file
from rlheals.tasks.general_points.task import graded
from rlheals.weights.edit_parser import parse
from rlheals.weights.selection import Where
from rlheals.yaml_file import yaml_text

PIECES = [
    *"[]{}()<>|&*!%@#`'\",:;?=~^$\\/+-._ \n\r\t\0", "<<: ", "&a ", "*a", "!!python/name:os.system ", "!!set ", "? ",
    "---\n", "null", "true", ".nan", ".inf", "1e999", "-0", "0x1f", "1:30", "2001-12-14", "9" * 50, "é", "\u202e",
    "\x1b[2J", "\ud800", "then ", " like ", "top=", "bottom=", "range=5-", "%", "all", "layers=", "kinds=",
    "</think>", "<think>", "```json\n", '{"formula": "', "×", "÷", "−", "../", "x" * 300, "<script>", "](", "{{",
]  # fmt: skip


def _yaml(text: str, at: Path) -> None:
    assert yaml_text(text, "F") == yaml.safe_load(text) or ".nan" in text.lower()


def _file_of(read: Callable[[Path], object]) -> Callable[[str, Path], None]:
    def target(text: str, at: Path) -> None:
        file = at / "mine.yaml"
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        read(file)

    return target


def _profile(file: Path) -> None:
    found = load_profile(str(file))
    file.write_text(to_yaml(found), encoding="utf-8")
    assert load_profile(str(file)) == found


def _settings(text: str, at: Path) -> None:
    parse_settings([text])
    parse_settings([f"store={text}"], "-p", ("store",))


def _parameters(text: str, at: Path) -> None:
    parameters({"seeds": text})


def _edit(text: str, at: Path) -> None:
    assert parse(str(parse(text))) == parse(text)


def _where(text: str, at: Path) -> None:
    assert Where.parse(str(Where.parse(text))) == Where.parse(text)


def _index(text: str, at: Path) -> None:
    if not (at / "index").is_dir():
        folders.key_in_two_shards(at / "index")
    (at / "index" / folders.INDEX).write_text(text, encoding="utf-8", errors="surrogatepass")
    found, _ = weight_files.places(at / "index")
    assert all(place.file.parent == at / "index" for place in found.values())


def _config(text: str, at: Path) -> None:
    (at / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    assert isinstance(weight_files.read_config(at), dict)


def _manifest(text: str, at: Path) -> None:
    (at / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    found = record.read_manifest(at)
    assert found.sealed().digest


def _reply(text: str, at: Path) -> None:
    for compat in (None, "reference"):
        found = graded("3 3 8 8", text, "id", compat)
        said = found["feedback"]
        assert said.isprintable(), said
        assert said.isascii(), said
        assert len(said) < 2_048


def _page(text: str, at: Path) -> None:
    blocks = [text, Table((text,), ((text,), (f"`{text}`",)))]
    assert page_of(as_book(to_markdown(blocks))).runs == []
    assert page_of(to_html(blocks)).runs == []


EDITS = [
    "directions(top=20%)", "values(all) then rollback()", "noise(seed=1) like left(top=8)", "interpolate(0.25)",
    "subspace(range=5-10)", "triples(bottom=8)", "right(top=12.345678%)",
]  # fmt: skip
WHERES = ["attention layers=0-3", "everything", "kinds=q,k layers=1,3-5", "blocks", "mlp"]
FILES = {folders.Q: "model-00001-of-00002.safetensors", folders.HEAD: "model.safetensors"}
INDICES = [json.dumps({"metadata": {}, "weight_map": FILES})]
SLURM = [
    "jobqueue:\n  slurm: {queue: cpu, memory: 8GB}\n  rl: {walltime: '1-12:30:00', job-extra-directives: ['-n 1']}\n"
]
MINE = "name: mine\nbase: lab\nseeds: [1, 2]\nsft: {batch: 8}\n"
REPLIES = [
    '{"cards": ["3", "3", "8", "8"], "number": [3, 3, 8, 8], "formula": "8/(3-8/3)=24"}',
    "<think>8*3=24</think>```json\n{\"formula\": \"(8/(3-(8/3)))\"}\n```", "8 ÷ (3 − 8 ÷ 3)", "8/(3-8/3)",
]  # fmt: skip

TARGETS: dict[str, tuple[Callable[[str, Path], None], list[str]]] = {
    "yaml": (_yaml, [to_yaml(PROFILES["smoke"]), *SLURM, *(text for text, _ in list(texts.YAML.values())[:8])]),
    "profile": (_file_of(_profile), [MINE, to_yaml(PROFILES["smoke"])]),
    "slurm": (_file_of(read_slurm_file), SLURM),
    "settings": (_settings, ["sft.learning_rate=1e-3", "evaluated=[0, 40]", "a=null", "a='x'"]),
    "parameters": (_parameters, ["[7]", "1", "[1, 2, 3]"]),
    "edit": (_edit, EDITS),
    "where": (_where, WHERES),
    "index": (_index, INDICES),
    "config": (_config, [json.dumps(folders.CONFIG)]),
    "manifest": (_manifest, [json.dumps(texts.manifest())]),
    "reply": (_reply, REPLIES),
    "page": (_page, [*texts.MARKUP, "**bold** `code` [0.1, 0.2] < 0.001"]),
}  # fmt: skip


@st.composite
def nearly(draw: st.DrawFn, seeds: list[str]) -> str:
    """One of the seeds with a few cuts, copies and pieces put in."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 5))):
        at, to = sorted(draw(st.integers(0, len(text))) for _ in range(2))
        piece = draw(st.sampled_from([*PIECES, "", text[at:to] * 2, *(one[-200:] for one in seeds)]))
        text = (
            text[:at]
            + piece * draw(st.sampled_from((1, 1, 1, 2, 40)))
            + text[draw(st.sampled_from((at, to))) :]
        )
    return text[:20_000]


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_nearly_right_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    (target, seeds), at = TARGETS[name], tmp_path_factory.mktemp(name)

    @settings(max_examples=20 if name in ("page", "profile") else 200, deadline=None)
    @given(nearly(seeds))
    def judge(text: str) -> None:
        try:
            target(text, at)
        except BadInput as error:
            one_line(error)

    judge()
