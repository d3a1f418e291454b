"""The project files agree with each other, and the book's prose types no results.

A reader who installs from `environment.yml`, from `requirements.txt` or with pip must get the same packages,
and a number in the prose must come from a result file or carry its source.
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlheals import __version__
from rlheals.chapters.registry import WAITING
from rlheals.engines.hf import Generation
from rlheals.evaluation import evaluate
from rlheals.evaluation.rollout import Attempt, Episode
from rlheals.tasks.base import Reply
from rlheals.tasks.general_points.cards import ID_RULE, all_hands, census, split_of
from rlheals.tasks.general_points.task import GeneralPoints
from rlheals.tasks.general_points.verifier import REWARDS

ROOT = Path(__file__).resolve().parents[1]
NINE = {
    "jupyter-book", "papermill", "torch", "transformers", "trl", "vllm", "matplotlib", "ipywidgets", "nbval",
}  # fmt: skip
VENDOR = ROOT / "book/_static/vendor"
PROSE = sorted((ROOT / "book").glob("*.md"))
DOCUMENTS = [*PROSE, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]


# --- dependencies: pyproject is the source, the other lists repeat it


def by_name(lines: Iterable[str]) -> dict[str, Requirement]:
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def declared(*extras: str) -> dict[str, Requirement]:
    """The requirements of pyproject.toml with those of some extras and of the extras in them, or of all, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found = by_name([*project["dependencies"], *chain(*(optional[name] for name in extras or optional))])
    inner = found.pop("rlheals", None)
    return found if inner is None else declared(*(inner.extras - {*extras})) | found


def test_environment_names_all_nine_packages_with_the_ranges_of_pyproject() -> None:
    """Those in force, and the commented GPU section."""
    text = (ROOT / "environment.yml").read_text()
    pip = next(part["pip"] for part in yaml.safe_load(text)["dependencies"] if isinstance(part, dict))
    found = by_name(line for line in pip if not line.startswith("-"))
    gpu = by_name(re.findall(r"^ *# - (\S+)$", text, flags=re.M))
    assert [found.keys(), gpu.keys()] == [NINE - {"vllm"}, {"vllm"}]
    source = declared()
    for name, requirement in {**found, **gpu}.items():
        assert requirement.specifier == source[name].specifier, name


def test_constraints_pin_every_declared_package_inside_its_range() -> None:
    assert (ROOT / "requirements.txt").read_text() == "-c constraints.txt\n-e .[book,cluster,test]\n"
    lines = re.findall(r"^[^#\n].*$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9A-Za-z.]*", line)]
    pins = dict(line.split("==") for line in lines)
    needed = declared(
        "book", "cluster", "test"
    )  # vllm pins its own torch and numpy; the other frameworks are optional
    assert not pins.keys() & (declared().keys() - needed.keys())
    for name, requirement in needed.items():
        assert requirement.specifier.contains(pins[name]), (
            f"{name}=={pins[name]} is outside {requirement.specifier}"
        )


def test_what_ci_and_binder_install_has_hashes_and_the_versions_of_constraints() -> None:
    """All but torch, whose wheel differs by index; no second index is asked for a name that the first one has."""
    pinned = set(re.findall(r"^[a-z].*==.*$", (ROOT / "constraints.txt").read_text(), flags=re.M))
    locked = (ROOT / "locked.txt").read_text()
    entries = re.findall(
        r"^([a-z]\S+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", locked, flags=re.M
    )
    assert "".join(f"{name} \\\n{hashes}" for name, hashes in entries) == locked
    assert {name for name, _ in entries} == {pin for pin in pinned if not pin.startswith("torch==")}
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert backend in pinned
    built = [ROOT / name for name in ("Makefile", ".binder/postBuild", ".github/workflows/book.yml")]
    for file in built:
        text = file.read_text()
        assert "extra-index" not in text.lower().replace("_", "-"), file.name
        for line in re.findall(r"^.*(?<!uv )pip install.*$|^.*\$\(PIP\) install.*$", text, flags=re.M):
            assert re.search(r"--require-hashes| torch$|--no-build-isolation|\$\(UV\)", line), line


def test_the_version_stands_once_and_its_copies_agree() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert {cff["version"], zenodo["version"], recipe["package"]["version"]} == {__version__}
    assert f"## [{__version__}] - 2" in (ROOT / "CHANGELOG.md").read_text()
    assert (cff["title"], cff["license"], cff["authors"]) == tuple(
        zenodo[name] for name in ("title", "license", "creators")
    )
    cited = [one["identifiers"][0]["value"] for one in cff["references"]]
    assert cited == [one["identifier"] for one in zenodo["related_identifiers"]]
    needs, summary = recipe["requirements"], recipe["about"]["summary"]
    run = by_name(line for line in needs["run"] if not line.startswith("python "))
    assert run == by_name(project["project"]["dependencies"])
    assert by_name(needs["host"][2:]) == by_name(project["build-system"]["requires"])
    assert summary == project["project"]["description"]


def test_workflows_take_actions_by_commit_and_publish_what_all_lanes_passed() -> None:
    text = (ROOT / ".github/workflows/book.yml").read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert len(used) > 10
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)
    jobs = yaml.safe_load(text)["jobs"]
    assert {*jobs["publish"]["needs"], "publish"} == jobs.keys()


def test_longer_tests_are_targets_and_lanes_and_a_pull_request_builds_the_book() -> None:
    page, makefile = (ROOT / name for name in ("book/reproducing.md", "Makefile"))
    named = set(re.findall(r"^\| `make (test-\w+)` \|", page.read_text(), flags=re.M))
    assert named == set(re.findall(r"^(test-\w+):", makefile.read_text(), flags=re.M))
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
    jobs = workflow["jobs"]
    run = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert {f"make {name}" for name in (*named, "test", "book")} <= run
    assert "make sbom && cp _build/sbom.json _build/html/" in run
    assert {name for name, job in jobs.items() if "needs" in job} == {"publish"}, "all others at once"
    assert {"push", "pull_request"} <= workflow[True].keys(), "to YAML 1.1 `on` is true"


def test_the_imports_of_the_readme_work() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["evaluate"]("8/(3-8/3)") == 24
    assert {"census", "CensusCallback", "load_engine", "principal_angles", "subspaces"} <= names.keys()


# --- the book's files


def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "_config.yml").read_text())


def source_of(entry: str) -> Path:
    """The committed file behind an entry: a page, or the notebook that is executed into it."""
    path = Path(entry)
    return ROOT / (f"notebooks/{path.name}.ipynb" if path.parent.name == "_generated" else f"{entry}.md")


def test_the_table_of_contents_has_every_page_and_notebook() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    entries = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    there = {path for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem not in WAITING}
    assert {source_of(entry) for entry in entries} == {*PROSE, *there}
    assert not any((ROOT / "results").glob("lab-navigation*")), (
        "what waits for data is in the book once they are there"
    )


def test_vendored_files_have_their_published_hash() -> None:
    table = dict(
        re.findall(
            r"^\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), flags=re.M
        )
    )
    files = {path.name for path in VENDOR.iterdir()} - {"README.md"}
    assert files == table.keys()
    for name, digest in table.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_the_book_loads_no_script_from_elsewhere() -> None:
    sphinx = config()["sphinx"]["config"]
    assert sphinx["nb_ipywidgets_js"] == {}
    assert sphinx["html_math_renderer"] == "mathml"
    assert "launch_buttons" not in config(), (
        "the theme's own buttons point at executed copies that are not in git"
    )
    style = "".join(path.read_text() for path in (ROOT / "book/_static").glob("*.css"))
    for text in (yaml.safe_dump(sphinx), style):
        assert not re.search(r"https?:|//cdn|url\((?!\"vendor/)", text)


@pytest.fixture(scope="module")
def launch_row() -> Callable[[str, str, str], str]:
    return runpy.run_path(str(ROOT / "book/_ext/book_launch.py"))["launch_row"]


@pytest.mark.parametrize(
    "url",
    ["https://github.com/OWNER/rlheals", "", "https://github.com/ada", "https://example.org/ada/rlheals"],
)
def test_placeholder_address_gives_no_link(launch_row: Callable[[str, str, str], str], url: str) -> None:
    row = launch_row(url, "main", "01_sft_forgets")
    assert "not published yet" in row
    assert "href" not in row


def test_real_address_gives_links_to_the_source_notebook(launch_row: Callable[[str, str, str], str]) -> None:
    row = launch_row("https://github.com/ada/lovelace", "main", "01_sft_forgets")
    hosts = re.findall(r'href="https://([^/"]+)/', row)
    assert hosts == ["colab.research.google.com", "mybinder.org", "github.com"]
    assert (row.count("ada/lovelace"), row.count("01_sft_forgets.ipynb")) == (3, 3)
    assert "_generated" not in row


# --- prose: numbers come from results or carry their source

NUMBER = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?\s?(?:%|percent\b|per cent\b|points?\b)|0?\.\d+|\d+\.\d+)")
NOMINAL = re.compile(r"95 % interval")
LABELS = re.compile(r"Python \d\.\d+|arXiv \d{4}\.\d{5}")
CITED = re.compile(r"\{cite(?::\w+)?\}`")


def typed_results(markdown: str) -> list[str]:
    """The sentences that type a percentage or a decimal fraction without citing where it comes from.

    Code, mathematics, tables, the nominal level of an interval, and the names of Python versions and arXiv
    numbers are no results and are left out.

    >>> typed_results("OOD accuracy fell to 12 %. Theirs fell to 9 % {cite}`x`.")
    ['OOD accuracy fell to 12 %.']
    """
    text = re.sub(r"^(`{3,}|~{3,}|\$\$).*?^\1", "", markdown, flags=re.M | re.S)
    text = "\n".join(line for line in text.split("\n") if not line.startswith("|"))
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z*`\-(])|\n\s*\n|\n(?=- )", text)
    found = []
    for sentence in sentences:
        plain = re.sub(r"`[^`]*`", "", LABELS.sub("", NOMINAL.sub("", sentence)))
        if NUMBER.search(plain) and not CITED.search(sentence):
            found.append(" ".join(sentence.split()))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_ours_that_prose_names_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r"`((?:rlheals|tests|benchmarks|notebooks|results|book|docs)/[\w./-]*\w/?)`", text)
    linked = re.findall(r"\]\((?!https?:|/|#)([\w./-]+)", text)
    missing = {name for name in named if "NAME" not in name and not (ROOT / name).exists()}
    missing |= {name for name in linked if not (path.parent / name).exists()}
    assert missing == set()


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_prose_types_no_result(path: Path) -> None:
    assert typed_results(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("The peak was 34 % high.", True),
        ("It fell by 2.5 points after step 40.", True),
        ("First {cite}`a` says so. Ours came to 12 percent.", True),
        ("The peak was 17.52 percent {cite}`a`.", False),
        ("| 17.52 | 19.67 |", False),
        ("All intervals are 95 % intervals. At step 40 of 2,560 it turned.", False),
    ],
)
def test_lint_sees_typed_results_and_lets_sources_and_tables_pass(line: str, typed: bool) -> None:
    assert len(typed_results(f"A sentence before.\n\n{line}\n")) == typed


def glossary_names(section: str) -> set[str]:
    """The names in the first column of one of the glossary's tables."""
    text = (ROOT / "book/glossary.md").read_text()
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in body.split("\n") if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_glossary_explains_every_column() -> None:
    """Those that a full evaluation writes, here of one hand."""
    task = GeneralPoints()
    (item,) = task.items("ood")[:1]
    reply = Reply("8/(3-8/3)", "target", (3, 3, 8, 8))
    generation = Generation(tokens=(1,), logprobs=np.zeros(1), entropies=np.zeros(1))
    episode = Episode(item, item.id, [Attempt((1,), generation, reply, task.grade(item, reply.text))])
    attempts = pd.DataFrame(evaluate._rows(task, episode, "target"))
    episodes = evaluate.episodes_table(attempts)
    (entry,) = evaluate.summary(task, attempts, episodes).values()
    assert glossary_names("Columns of `attempts.parquet`") == set(attempts.columns)
    assert glossary_names("Columns of `episodes.parquet`") == set(episodes.columns)
    assert glossary_names("Fields of `summary.json`") == entry.keys()


def test_task_page_states_the_counts_that_the_code_gives() -> None:
    text = (ROOT / "book/task.md").read_text()
    hands = census("id")
    value_sets = {tuple(sorted(ID_RULE.values(hand))) for hand in hands}
    table = text.split("## The census")[1].split("## The verifier")[0]
    shown = [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+) (?=\|)", table)]
    assert shown == [len(all_hands()), len(hands), len(value_sets), len(census("ood")), len(census("both"))]
    parts = Counter(split_of(values) for values in value_sets)
    shares = dict(re.findall(r"\| `(\w+)` \| (\d+) % \|", table))
    assert shares == {part: f"{100 * count / len(value_sets):.0f}" for part, count in parts.items()}


def test_task_page_states_every_category_with_its_reward() -> None:
    text = (ROOT / "book/task.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \|.*\| ([+-]\d) \|$", text, flags=re.M)) == {
        name: f"{reward:+.0f}" for name, reward in REWARDS.items()
    }
