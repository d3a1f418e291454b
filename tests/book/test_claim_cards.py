"""The claims page: each claim once, in its place, with what its verdict says and no more; numbers in natural units."""

from __future__ import annotations

import random
import re
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from play_page import WATCH, driven, needs_chromium

from rlheals.book import cards, claims
from rlheals.chapters.registry import CHAPTERS
from rlheals.display.markup import to_markdown
from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval
from rlheals.stats.verdicts import VERDICTS, verdict
from rlheals.study.claims import Claim, ClaimsFile, Judged, Outcome

ROOT = Path(__file__).resolve().parents[2]
KNOWN = cards.every_claim()
ORDER = cards.read_order(KNOWN)
HOSTILE = '</span><script>alert("x")</script> & `b`\n\n# heading\n\n<b>'


def made_up(claim: Claim, wanted: str) -> Interval:
    """An interval of which the rules say that."""
    room = claim.margin or 0.01
    low, high = {
        "holds": (1.5, 2.5), "holds in part": (0.5, 2.0), "open": (-1.0, 3.0), "not here": (-2.0, -1.0)
    }[wanted]  # fmt: skip
    found = Interval((low + high) / 2 * room, low * room, high * room)
    return found if verdict(found, claim.margin, claim.partly) == wanted else made_up(claim, "open")


def table(**changes: Any) -> pd.DataFrame:
    """What `claims.frame` makes, with made-up outcomes of all kinds; every fifth claim has none."""
    rows = []
    for key, one in CHAPTERS.items():
        for claim in one.claims.read().claims:
            wanted = [*VERDICTS, ""][len(rows) % 5]
            row = {
                "chapter": one.title, "page": one.notebook, "id": claim.id, "source": claim.source, "seeds": "11-15",
                "estimate": nan, "low": nan, "high": nan, "verdict": cards.UNDECIDED, "holm_p": nan, "fresh": nan,
                "shown": "no start has lost half", "section": claim.section, "code": f"{key}: {claim.estimator}",
            }  # fmt: skip
            if wanted:
                at = made_up(claim, wanted)
                said = verdict(at, claim.margin, claim.partly)
                row |= {"estimate": at.estimate, "low": at.low, "high": at.high, "verdict": said}
                row |= {"shown": f"**{said}**{', not after Holm' if said == 'holds' else ''}"}
                row |= {"holm_p": 0.2, "fresh": 0.1}
            rows.append(row | changes)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def soup() -> BeautifulSoup:
    return BeautifulSoup(cards.page(table()), "html.parser")


def test_every_claim_is_there_once_tests_of_the_paper_under_its_claims_first(soup: BeautifulSoup) -> None:
    rows = soup.select("details.claim")
    assert sorted(row["id"] for row in rows) == sorted(f"claim-{name}" for name in KNOWN)
    for row in rows:
        claim = KNOWN[row["id"].removeprefix("claim-")]
        assert row.select_one(".sentence").get_text() == claim.sentence
        assert row["data-family"] == claim.family
        folded = row.find_parent("details")
        if folded:
            assert claim.family == "ours"
            assert folded.find_parent("div").select_one("details.claim")["data-family"] == "paper"
    assert sum(len(one.tests) for one in ORDER.claims) == len(soup.select('[data-family="paper"]'))
    headings = re.findall(r"^(#+ .*)$", soup.get_text(), re.M)
    assert [f"## {n}. {one.title}" for n, one in enumerate(ORDER.claims, 1)] == headings[:6]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": ["sft-nothing"]}, "'sft-nothing' is no claim"),
        ({"bearing": {"nothing": "supports"}}, "'nothing' is no claim"),
        ({"bearing": {"sft-feedback": "refutes"}}, "bearing.sft-feedback"),
        ({"tests": ["rl-heals"]}, "'rl-heals' is there twice"),
        ({"qualified": {"sft-loss-falls": ["rl-heals-severe"]}}, "'rl-heals-severe' is there twice"),
        ({"tests": ["sft-feedback"]}, "'sft-feedback' is not of family 'paper'"),
        ({"qualified": {"sft-loss-falls": ["rl-heals"]}}, "'rl-heals' is not of family 'ours'"),
        ({"qualified": {"rl-heals": ["sft-feedback"]}}, "'rl-heals' is no test of"),
    ],
)
def test_an_order_that_names_what_is_not_there_or_twice_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    data = yaml.safe_load(cards.FILE.read_text(encoding="utf-8"))
    first = data["claims"][0]
    first["tests"] += change.get("tests", [])
    first["qualified"] |= change.get("qualified", {})
    data["bearing"] |= change.get("bearing", {})
    file = tmp_path / "order.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(BadInput, match=re.escape(said)):
        cards.read_order(KNOWN, file)


def test_a_claim_that_is_registered_later_needs_a_place_and_a_unit() -> None:
    paper = KNOWN["sft-rise"].model_copy(update={"id": "new"})
    with pytest.raises(BadInput, match="'new' of the paper is under none"):
        cards.read_order({**KNOWN, "new": paper})
    own = paper.model_copy(update={"family": "ours", "estimator": "new_one"})
    with pytest.raises(BadInput, match="shown: nothing for 'new'"):
        cards.read_order({**KNOWN, "new": own})


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_shown_leads_to_the_same_verdict(name: str) -> None:
    """Above its margin, or below where the sign is turned, the shown interval is judged as the registered one is."""
    claim, draws = KNOWN[name], random.Random(name)
    shown, zero = ORDER.shows(claim), ORDER.shows(claim).turned(0, claim)
    for _ in range(50):
        low, high = sorted(draws.gauss(claim.margin, 2 * (claim.margin or 0.02)) for _ in range(2))
        ends = [shown.turned(end, claim) for end in (low, high)]
        margin = shown.turned(claim.margin, claim)
        beyond = sorted(shown.sign * (end - margin) for end in ends)
        partly = claim.partly and min(shown.sign * (end - zero) for end in ends) > 0
        less = "holds in part" if partly else "not here" if beyond[1] <= 0 else "open"
        assert ("holds" if beyond[0] > 0 else less) == verdict(
            Interval((low + high) / 2, low, high), claim.margin, claim.partly
        )


def test_numbers_are_in_the_natural_sign_and_unit() -> None:
    def said(name: str, number: float) -> tuple[str, str]:
        shown = ORDER.shows(KNOWN[name])
        row = cards.Row(KNOWN[name], {}, shown, "neutral")
        return shown.with_unit(shown.text(shown.turned(number, KNOWN[name]))), row.limit

    assert said("sft-rise", 0.154) == ("+15.4 points", "more than 5")
    assert said("rl-too-early", -0.134) == ("+15.4 points", "less than 2")
    assert said("rotation-tracks-ood", -0.5) == ("+0.50", "less than -0.3")
    assert said("navigation-values-small", 0.04) == ("1.0 %", "less than 5")
    assert said("rl-id-rule", 0.181) == ("68.1 % right", "more than 60")
    assert said("sft-loss-falls", -4.388) == ("+438.8 %", "less than -10")
    assert said("rl-raises", -0.0001) == ("+0.0 points", "more than 2")


def test_a_bar_ends_in_the_shaded_part_where_the_claim_holds(soup: BeautifulSoup) -> None:
    margins: dict[Any, set[str]] = {}
    for row in soup.select("details.claim"):
        bar, decided = row.select_one("svg"), row["data-verdict"] != cards.NO_DATA
        assert (bar is not None) == decided == ("[" in row.select_one(".effect").get_text())
        if bar is None:
            assert "no start has lost half" in row.get_text()
            continue
        low, high = map(float, re.findall(r"M([\d.]+) 9\.0H([\d.]+)", str(bar))[0])
        shade = bar.select_one(".claimed")
        start, wide = float(shade["x"]), float(shade["width"])
        assert (start <= low and high <= start + wide) == (row["data-verdict"] == "holds"), row["id"]
        assert row.select_one("b").get_text() in bar["aria-label"]
        claim = KNOWN[row["id"].removeprefix("claim-")]
        shown = ORDER.shows(claim)
        key = (row["data-chapter"], shown.unit, shown.turned(claim.margin, claim))
        margins.setdefault(key, set()).add(bar.select_one(".margin")["d"])
    assert all(len(places) == 1 for places in margins.values()), (
        "one scale for a chapter's claims in one unit"
    )


def test_a_verdict_has_a_word_and_a_shape_and_what_it_means_when_it_is_decided(soup: BeautifulSoup) -> None:
    seen = set()
    for row in soup.select("details.claim"):
        claim, said = KNOWN[row["id"].removeprefix("claim-")], row["data-verdict"]
        assert row.select_one(".verdict").get_text() == f"{cards.MARKS[said]} {said}"
        text = "".join(each.get_text() for each in row.select(".meaning"))
        bearing, shown = ORDER.bears(claim), said in ("holds", "holds in part")
        assert ("counts" in text) == (bearing == "undermines" and shown)
        assert text.startswith("supports") == (bearing == "supports" and shown)
        assert ("not after Holm" in text) == (said == "holds")
        if said in ("open", cards.NO_DATA) or (bearing == "neutral" and said != "holds"):
            assert not text
        seen.add(said)
    assert seen == set(cards.MARKS)
    assert not re.search("refut|disprov|wrong about", " ".join(cards.MEANING.values()))
    assert all("in this lab" in text for (_, said), text in cards.MEANING.items() if said == "not here")


def test_whatever_a_claim_says_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**KNOWN, "sft-rise": KNOWN["sft-rise"].model_copy(update={"sentence": HOSTILE, "unit": HOSTILE})}
    monkeypatch.setattr(cards, "every_claim", lambda: known)
    text = cards.page(table(source=HOSTILE, section=HOSTILE, code=HOSTILE, seeds=HOSTILE))
    found = BeautifulSoup(text, "html.parser")
    assert not found.select("script, h1, .claim dl b")
    row = found.select_one("#claim-sft-rise")
    assert " ".join(HOSTILE.split()) == row.select_one(".sentence").get_text()
    assert row.get_text().count("alert") == 6
    for block in text.split("\n\n"):  # an empty line ends a block of raw HTML
        assert block.count("<details") == block.count("</details>")


def test_links_lead_to_the_ids_that_headings_get(soup: BeautifulSoup) -> None:
    nodes = pytest.importorskip("docutils.nodes")
    for claim in KNOWN.values():
        assert cards.anchor(claim.section) == nodes.make_id(claim.section)
    assert soup.select_one('dl a[href="_generated/01_sft_forgets.html#what-is-forgotten"]')
    assert not soup.select('a[href*="06_beyond_cards"]'), "a page that the book does not have yet"


def test_front_page_and_readme_count_the_tests_of_six_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(read: ClaimsFile) -> Outcome:
        some = [one for one in read.claims if one.family == "paper" and one.id != "sft-fall"]
        judged = (Judged(claim, {}, made_up(claim, "holds"), "holds", 0.01) for claim in some)
        return Outcome(read, (), tuple(judged), {"sft-fall": "none"})

    found = {key: made(one.claims.read()) for key, one in CHAPTERS.items()}
    monkeypatch.setattr(claims, "outcomes", lambda results: found)
    book, readme, plain = (to_markdown(claims.counts(ROOT, page)) for page in ("", "book/claims.md", None))
    rows = [line for line in book.splitlines() if line.startswith("| [")]
    assert len(rows) == 6
    first = ORDER.claims[0]
    words = f"{len(first.tests) - 1} of {len(first.tests)} tests hold, 1 has no data yet"
    assert rows[0] == f"| [1. {first.title}](#paper-claim-1) | {words} |"
    assert "](book/claims.md) | the one test holds |" in readme
    assert "](" not in plain
    assert f"no data yet on {sum(one.family == 'ours' for one in KNOWN.values())} questions" in plain


@needs_chromium
def test_rows_are_filtered_counted_and_opened_by_their_address(tmp_path: Path) -> None:
    drive = """
    const form = document.forms[0], rows = [...document.querySelectorAll("details.claim")];
    const set = (name, value) => {
      form.elements[name].value = value;
      form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
      return form.elements.count.value;
    };
    const seen = () => rows.filter((row) => row.checkVisibility()).length;
    const found = { opened: rows.filter((row) => row.open).map((row) => row.id), start: form.elements.count.value };
    found.folded = document.querySelector("#claim-sft-rise-layout-free").closest(".claim-controls").open;
    found.family = set("family", "ours");
    found.both = set("chapter", "04_swapping_directions");
    form.reset();
    found.text = set("text", "the ONE and only");
    found.empty = seen() + [...document.querySelectorAll("h2")].filter((one) => one.checkVisibility()).length;
    form.reset();
    location.hash = "#claim-swap-over-noise";
    setTimeout(() => {
      found.later = document.getElementById("claim-swap-over-noise").checkVisibility();
      document.querySelector("pre").textContent = JSON.stringify({ ...found, troubles });
    }, 100);"""
    html = re.sub(r"^## (.*)$", r"</section><section><h2>\1</h2>", cards.page(table()), flags=re.M)
    page = tmp_path / "claims.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><script>{WATCH}</script><body><section><h1>Claims</h1><section>{html}"
        f"</section></section><pre></pre><script>{(ROOT / 'book/_static/claims.js').read_text()}</script>"
        f"<script>{drive}</script>"
    )
    found = driven(page, f"{page.as_uri()}#claim-sft-rise-layout-free")
    assert (found["troubles"], found["folded"]) == ([], True)
    assert found["opened"] == ["claim-sft-rise-layout-free"]
    assert found["start"] == f"{len(KNOWN)} claims"
    ours = [name for name, claim in KNOWN.items() if claim.family == "ours"]
    assert found["family"] == f"{len(ours)} of {len(KNOWN)} claims"
    swaps = [claim.id for key in ("swaps", "protection") for claim in CHAPTERS[key].claims.read().claims]
    assert found["both"] == f"{len(set(swaps) & set(ours))} of {len(KNOWN)} claims"
    assert found["text"] == f"0 of {len(KNOWN)} claims"
    assert (found["empty"], found["later"]) == (0, True)
