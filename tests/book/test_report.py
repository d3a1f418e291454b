"""The report: works from nothing, invents nothing, loads nothing; snippets, gallery, model card and README agree."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from lab_helpers import TINY

from rlheals.book import cards, front, pages, report
from rlheals.book import claims as claims_tables
from rlheals.book.pages import README_BEGIN, README_END
from rlheals.chapters.registry import CHAPTERS
from rlheals.cli.main import main
from rlheals.display.markup import Table, escaped, inline, p_text, spans, to_html, to_markdown
from rlheals.display.style import Drawn
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.profiles import PROFILES
from rlheals.profiles.describe import profiles_table
from rlheals.publish.base_card import model_card
from rlheals.store.stages import code_behind
from rlheals.study import record
from rlheals.study.claims import FAMILIES
from rlheals.study.tables import SFT
from rlheals.tasks import load_task
from rlheals.tasks.gallery import gallery_html, gallery_markdown, samples_of
from rlheals.tasks.general_points.verifier import REWARDS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
CLAIMS = CHAPTERS["sft"].claims.read()
KNOWN = cards.every_claim()
ORDER = cards.read_order(KNOWN)
NUMBER = r"([+-]?\d+(?:\.\d+)?)"

# --- a report from an empty folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `rlheals report` ran with nothing else there; the report is in `out`."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RLHEALS_STORE", str(folder / ".rlheals"))
        assert main(["report", "--profile", "tiny.yaml", "--out", "out", "--json"]) == 0
    return folder


def test_every_snippet_that_the_book_includes_is_written(made: Path) -> None:
    included: set[str] = set()
    for page in (ROOT / "book").glob("*.md"):
        included |= set(re.findall(r"^```\{include\} _generated/(\S+)$", page.read_text(), flags=re.M))
    assert len(included) >= 6
    # these need the runs of all chapters: test_claims_page.py
    elsewhere = {"all_claims.md", "rivals.md", "time.md"}
    for name in included - elsewhere:
        text = (made / "out" / name).read_text()
        assert text.strip() or name == "finding_more.md"  # nothing is found here
        assert not re.search(r"^#|^\(.*\)=$|^:name:|^:label:", text, flags=re.M), (
            f"{name} may be on two pages"
        )


def test_without_a_recorded_study_claims_have_margins_and_no_numbers(made: Path) -> None:
    text = (made / "out/claims_table.md").read_text()
    assert text.count("Nothing is recorded yet") == len(CHAPTERS)
    for one in CHAPTERS.values():
        for claim in one.claims.read().claims:
            start = f"| {escaped(claim.sentence)} | "
            (row,) = [line for line in text.splitlines() if line.startswith(start)]
            measured, limit, _, verdict = row.removesuffix(" |").removeprefix(start).split(" | ")
            assert re.fullmatch(r"(more|less) than -?[\d.]+( .+)?", limit)
            assert (measured, verdict) == (escaped(ORDER.shows(claim).of), "no verdict yet")
    assert "There is no recorded study" in (made / "out/recorded.md").read_text()


def test_figures_are_images_with_their_data(made: Path) -> None:
    images = sorted(path.stem for path in (made / "out").glob("sft-*.svg"))
    assert images == sorted(path.stem for path in (made / "out").glob("*.csv"))
    assert len(images) >= 8
    for name in images:
        assert ElementTree.parse(made / "out" / f"{name}.svg").getroot().tag.endswith("svg")
        assert len(pd.read_csv(made / "out" / f"{name}.csv")) > 0


def test_front_picture_is_found_from_the_page_above(made: Path) -> None:
    text = (made / "out/front_picture.md").read_text()
    (target,) = re.findall(r"\{figure\} (\S+)", text)
    assert (made / target).read_bytes() == (made / "out/sft-accuracy.svg").read_bytes()


def words(html: str) -> str:
    """The text of a page whose tags are all closed."""
    page = BeautifulSoup(html, "html.parser")
    for tag in {tag.name for tag in page.find_all()} - {"meta", "img", "br", "link"}:
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag
    return page.get_text()


def test_index_is_one_self_contained_page(made: Path) -> None:
    text = (made / "out/index.html").read_text()
    addresses = [
        tag[name]
        for tag in BeautifulSoup(text, "html.parser").find_all()
        for name in ("src", "href", "srcset", "data")
        if tag.has_attr(name)
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\(", text)
    said = words(text)
    for claim in CLAIMS.claims:
        assert claim.sentence in said
    assert "Prompts, answers and verdicts" in said
    assert "The figure sensitivity is not drawn" in said, "it needs the recorded study"
    assert not (made / "out/sft-sensitivity.svg").exists()
    assert text.count("<figure") == len(list((made / "out").glob("sft-*.svg")))


def test_run_facts_name_profile_seed_and_hands(made: Path) -> None:
    text = (made / "out/run_facts.md").read_text()
    for fact in ("`tiny`", "| base seeds | 0 |", "of SFT 4", "OOD 4", "up to 2", "torch "):
        assert fact in text
    assert str(made) not in text


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_runs_give_the_same_files(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("RLHEALS_STORE", str(made / ".rlheals"))
    before = contents(made / "out")
    assert "static/play/checkpoints.js" in before
    assert main(["report", "--profile", "tiny.yaml", "--out", "out"]) == 0
    assert contents(made / "out") == before


def test_an_absent_figure_does_not_stop_the_report() -> None:
    def refuses(chapter: object) -> Drawn:
        raise BadInput("no recorded study")

    def empty(chapter: object) -> Drawn:
        return Drawn("empty", "Empty", b"<svg/>", pd.DataFrame(), "")

    for figure in (refuses, empty):
        drawn = report.draw(figure, None)  # type: ignore[arg-type]
        assert f"The figure `{figure.__name__}` is not drawn" in str(drawn)
        assert report.figure_files([drawn]) == {}


# --- the recorded study


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the study of SFT alone is recorded; its verdicts are kept there once they are given."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(RESULTS / "lab", folder / "results" / "lab")
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture
def results(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.delenv("RLHEALS_STORE", raising=False)
    return project / "results"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(RESULTS / "lab", tmp_path / "results" / "lab")
    return tmp_path / "results"


def measured(text: str) -> tuple[float, ...]:
    """Estimate and interval that a cell shows."""
    found = re.search(rf"{NUMBER}[^\[\d]*\[{NUMBER}, {NUMBER}\]$", text)
    assert found, text
    return tuple(map(float, found.groups()))


def test_claims_table_shows_what_was_measured_in_units_that_need_no_glossary(results: Path) -> None:
    paper, table, ours, controls, about = claims_tables.claims_table("sft", results)
    assert (paper, ours) == ("Claims of the paper:", "Our own questions and controls:")
    assert isinstance(table, Table)
    assert isinstance(controls, Table)
    judged = CHAPTERS["sft"].claims.outcome(record.find("lab", SFT, RESULTS)[0]).judged
    ordered = [one for family in FAMILIES for one in judged if one.claim.family == family]
    for row, one in zip((*table.rows, *controls.rows), ordered, strict=True):
        shown, at = ORDER.shows(one.claim), one.interval
        sentence, cell, limit, adjusted, verdict = row
        assert (sentence, adjusted, verdict) == (one.claim.sentence, p_text(one.adjusted), one.shown)
        assert cell.startswith(f"{shown.of}: ")
        ends = sorted(shown.turned(number, one.claim) for number in (at.low, at.high))
        wanted = (shown.turned(at.estimate, one.claim), *ends)
        assert measured(cell) == pytest.approx(wanted, abs=0.51 * 10**-shown.decimals)
        side = "more" if shown.sign > 0 else "less"
        margin = round(shown.turned(one.claim.margin, one.claim), shown.decimals) + 0.0
        assert limit == f"{side} than {margin:g} {shown.unit}".strip()
    assert f"base seeds {spans(CHAPTERS['sft'].claims.read().study.seeds)}" in about


def test_an_incomplete_study_gives_no_verdict_and_a_damaged_one_is_refused(copied: Path) -> None:
    last = max(CHAPTERS["sft"].claims.read().study.seeds)
    shutil.rmtree(copied / f"lab/seed-{last}")
    blocks = claims_tables.claims_table("sft", copied)
    assert f"not complete (without base seed {last} so far)" in blocks[0]
    assert not re.search(r"\*\*|\[-?\d\.", to_markdown(blocks))
    file = copied / "lab/seed-12/episodes.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"seed-12.*episodes.parquet"):
        claims_tables.claims_table("sft", copied)


def test_claims_command_agrees_with_the_table(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--results", str(results), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    rows = [
        row for block in claims_tables.all_claims(results) if isinstance(block, Table) for row in block.rows
    ]
    assert found["sft"]["missing"] == []
    for claim in found["sft"]["claims"]:
        (row,) = (row for row in rows if row[0] == claim["sentence"])
        known = KNOWN[claim["id"]]
        number = ORDER.shows(known).turned(claim["interval"]["estimate"], known)
        assert measured(row[1])[0] == pytest.approx(number, abs=0.51 * 10 ** -ORDER.shows(known).decimals)
        assert f"**{claim['verdict']}**" in row[-1]


def test_recorded_page_says_when_code_has_changed(copied: Path) -> None:
    for stale in (False, True):
        for file in copied.glob("lab/seed-*/manifest.json"):
            data = json.loads(file.read_text())
            for run in data["runs"]:
                today = code_behind(run["stage"], record.read_manifest(file.parent).profile).hash
                run["code_hash"] = "0" * 64 if stale and run["stage"] == "evaluate" else today
            file.write_text(json.dumps(data | {"digest": record.manifest_digest(data)}))
        text = to_markdown(pages.recorded_page(copied))
        manifests = record.read(copied / "lab")[1]
        seeds, runs = spans([one.seed for one in manifests]), sum(len(one.runs) for one in manifests)
        assert re.search(rf"^\| `lab` \| {seeds} \| \d+ \| {runs} \| ", text, re.M)
        assert ("(**stale**)" in text) == stale
    assert f"`evaluate` (lab seeds {seeds})" in text


# --- README


def test_readme_part_is_replaced_and_the_rest_kept(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{README_BEGIN}\noutdated\n{README_END}\n\nend\n")
    assert report.update_readme(readme, results)
    text = readme.read_text()
    table = to_markdown(claims_tables.the_finding(results)[:2])
    assert text == f"# Title\n\n{README_BEGIN}\n{table.strip()}\n{README_END}\n\nend\n"
    assert not report.update_readme(readme, results)
    assert readme.read_text() == text


@pytest.mark.parametrize(
    "text", ["", README_BEGIN, README_END, README_END + README_BEGIN, 2 * README_BEGIN + README_END]
)
def test_readme_without_both_markers_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="claims:"):
        pages.rewritten_readme(text, "table")


def test_readme_agrees_with_the_recorded_study() -> None:
    text = (ROOT / "README.md").read_text()
    table = to_markdown(claims_tables.the_finding(RESULTS)[:2])
    assert pages.rewritten_readme(text, table) == text, "run: rlheals report --readme README.md"
    drawn = front.picture("lab", RESULTS)
    assert (ROOT / report.PICTURE).read_bytes() == drawn.svg or drawn.frame.empty, "the same"


# --- gallery


def test_gallery_is_what_the_verifier_says() -> None:
    task = load_task("general_points")
    drawn = samples_of(task, report.SLIPS)
    shown = [(sample.verdict.category, sample.item.rule) for sample in drawn]
    assert shown == [(category, rule) for category in REWARDS for rule in ("id", "ood")]
    for sample in drawn:
        assert sample.verdict == task.grade(sample.item, sample.reply)
        assert sample.verdict.reward == REWARDS[sample.verdict.category]
        assert sample.prompt == task.prompt(sample.item)

    markdown, said = gallery_markdown(drawn), words(gallery_html(drawn))
    assert markdown.count("````{dropdown}") == len(drawn)
    for sample in drawn:
        for text in (sample.prompt, sample.reply, sample.verdict.feedback):
            assert text in markdown.replace("\\", "")
            assert text in said


@pytest.mark.parametrize("name", report.OTHER_TASKS)
def test_the_gallery_of_another_task_is_what_its_verifier_says(name: str) -> None:
    task = load_task(name)
    drawn = samples_of(task)
    for split, rule in (("sft", task.rules[0]), ("ood", task.rules[1])):
        found = {sample.verdict.category for sample in drawn if sample.item.split == split}
        assert found >= {"correct", *({"wrong_rule"} if "wrong_rule" in task.rewards else ())}
        assert {sample.item.rule for sample in drawn if sample.item.split == split} == {rule}
    for sample in drawn:
        assert sample.verdict == task.grade(sample.item, sample.reply)
        assert sample.prompt == task.prompt(sample.item)
    assert samples_of(task) == drawn
    assert gallery_markdown(drawn).count("{dropdown}") == len(drawn)


# --- markup, profiles, model card


def test_markup_escapes() -> None:
    table = Table(("a|b", "<i>"), (("**x**", "`<y>`"),))
    assert to_markdown([table]).splitlines()[0] == "| a\\|b | \\<i> |"
    assert "<script>" in words(to_html(["<script>", table]))
    assert inline("`a` **b** <") == "<code>a</code> <strong>b</strong> &lt;"


def test_profiles_table_has_every_setting_with_its_value() -> None:
    about, settings, variants = profiles_table()
    assert isinstance(about, Table)
    assert isinstance(settings, Table)
    assert isinstance(variants, Table)
    for place, profile in enumerate(PROFILES.values()):
        for cells in settings.rows:
            value: Any = profile
            for part in cells[0].strip("`").split("."):
                value = getattr(value, part)
            shown = cells[2 + place].replace(",", "")
            if isinstance(value, bool):
                assert shown == str(value).lower()
            elif isinstance(value, int | float):
                assert [float(number) for number in re.findall(r"[\d.]+", shown)] == [value]
            elif isinstance(value, tuple) and value and isinstance(value[0], int):
                assert tuple(map(int, shown.split())) == value


def test_shipped_card_is_the_one_that_its_files_give() -> None:
    card = (SHIPPED_BASE / "README.md").read_text()
    assert card == model_card(SHIPPED_BASE, PROFILES["lab"].pretrain, 0)
    assert hashlib.sha256((SHIPPED_BASE / "model.safetensors").read_bytes()).hexdigest() in card


def test_card_follows_weights_and_history(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(SHIPPED_BASE, folder)
    settings = PROFILES["lab"].pretrain
    before = model_card(folder, settings, 3)
    assert "seed 3" in before
    assert "enters no verdict" not in before
    (folder / "model.safetensors").write_bytes(b"other")
    assert model_card(folder, settings, 3) != before
