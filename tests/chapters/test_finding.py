"""The finding reads as English in every outcome of the claims that it follows from, and says what they say."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

from rlheals.chapters.healing import finding
from rlheals.chapters.healing.claims import CLAIMS as REGISTERED
from rlheals.chapters.healing.finding import CASES, CLAIMS, IMITATION, NUMBERS, RULES, TURNS, VECTORS, blocks
from rlheals.display.markup import Table, to_markdown
from rlheals.profiles.healing import ARMS
from rlheals.stats.intervals import Interval
from rlheals.stats.verdicts import verdict
from rlheals.study.claims import Judged

KNOWN = {claim.id: claim for claim in REGISTERED.read().claims}
EFFECTS = [(-0.9, -0.5), (-0.2, 0.01), (0.001, 0.015), (-0.3, 0.6), (0.18, 0.9), (0.4, 1.2)]
"""Intervals that give every verdict at every margin in use."""


def judged(claim: str, low: float, high: float) -> Judged:
    interval, one = Interval((low + high) / 2, low, high), KNOWN[claim]
    return Judged(one, {}, interval, verdict(interval, one.margin, one.partly), 0.01)


def outcomes(claim: str) -> list[Judged | None]:
    """One for each verdict that a claim can get, and no data."""
    found = {one.verdict: one for one in (judged(claim, *ends) for ends in EFFECTS)}
    return [*found.values(), None]


def every(claims: tuple[str, ...]) -> Iterator[dict[str, Judged]]:
    for each in itertools.product(*map(outcomes, claims)):
        yield {claim: one for claim, one in zip(claims, each, strict=True) if one is not None}


GROUPS = (tuple(case.claim for case in CASES), (NUMBERS,), (IMITATION,), (TURNS, VECTORS))


def sentences(known: dict[str, Judged]) -> list[str]:
    """The headline and those of the paragraph."""
    headline, *more = blocks(known)
    text = [one for one in more if isinstance(one, str)]
    return [str(headline).strip("*"), *(re.split(r"(?<=\.) (?=[A-Z])", text[0]) if text else [])]


def cells(known: dict[str, Judged]) -> dict[str, str]:
    """By claim, what the table says."""
    table = next(block for block in blocks(known) if isinstance(block, Table))
    losses = [head.removeprefix("of a loss of ") for head in table.head[1:]]
    said = {(row[0], loss): cell for row in table.rows for loss, cell in zip(losses, row[1:], strict=True)}
    tried = {(case.rules, case.loss): case.claim for case in CASES}
    assert {at for at, cell in said.items() if cell == finding.UNTRIED} == said.keys() - tried.keys()
    return {claim: said[at] for at, claim in tried.items()}


def test_a_claim_can_get_every_verdict_that_its_margin_allows() -> None:
    for claim in CLAIMS:
        partly = KNOWN[claim].partly and KNOWN[claim].margin > 0
        assert len(outcomes(claim)) == (5 if partly else 4), claim


def test_every_outcome_reads_as_english() -> None:
    """All outcomes of a group, whatever the other groups say: no sentence depends on the claims of two groups."""
    other = random.Random(5)
    full = [list(every(group)) for group in GROUPS]
    assert [len(some) for some in full] == [4**6, 4, 4, 4 * 5]
    for place, some in enumerate(full):
        for mine in some:
            rest = {}
            for at, others in enumerate(full):
                if at != place:
                    rest |= other.choice(others)
            english({**mine, **rest})


def english(known: dict[str, Judged]) -> None:
    said = sentences(known)
    text = " ".join(said)
    assert len(said) == (4 if known else 1), text
    assert "  " not in text, text
    assert not re.search(
        r" [,.;:]|[,;:]{2}|\.\.|\b(\w+) \1\b|\(\)|None|nan| and [,.;]| or [,.;]|, and\b.*, and\b.*, and", text
    ), text
    assert text.count("(") == text.count(")"), text
    others = [claim for claim in known if claim not in GROUPS[0]]
    assert text.count("[") == text.count("]") == len(others), "one interval for each claim with data: " + text
    for one in said:
        assert one[0].isupper(), one
        assert one.endswith("."), one
        assert not re.search(r"^(It|They|Its|Them)\b", one), one


def test_no_sentence_depends_on_the_claims_of_another_group() -> None:
    """So that all outcomes together are those of the groups."""
    first = [next(every(group)) for group in GROUPS]
    for place, group in enumerate(GROUPS):
        texts = []
        for mine in every(group):
            known = {
                claim: one for at, some in enumerate(first) if at != place for claim, one in some.items()
            }
            texts.append(sentences({**known, **mine}))
        for at in set(range(4)) - {place}:
            assert len({text[at] for text in texts}) == 1, (group, at)


def test_the_table_says_of_every_case_what_its_claim_says() -> None:
    words = {"holds": "**heals**", "not here": "does not heal", "open": "open"}
    for known in every(GROUPS[0]):
        for claim, cell in cells(known | {NUMBERS: judged(NUMBERS, 0.4, 1.2)}).items():
            if claim in known:
                assert cell == f"{finding.per_cent(known[claim].interval)}: {words[known[claim].verdict]}"
            else:
                assert cell == "no data yet"


def test_the_headline_says_of_all_rules_what_the_table_says_of_their_losses() -> None:
    for known in every(GROUPS[0]):
        headline = sentences(known | {NUMBERS: judged(NUMBERS, 0.4, 1.2)})[0]
        said = headline_says(headline)
        assert said.keys() == {*RULES}
        for rules, losses in re.findall(f"({'|'.join(RULES)}) \\(after a loss of ([^)]*)\\)", headline):
            decided = {
                case.loss
                for case in CASES
                if case.rules == rules and case.claim in known and known[case.claim].verdict != "open"
            }
            assert decided == {*re.split(", | or ", losses)}, headline
        assert headline.count("(after") == sum(one in ("heals", "does not heal") for one in said.values())
        for rules in RULES:
            verdicts = {
                known[case.claim].verdict for case in CASES if case.rules == rules and case.claim in known
            }
            if said[rules] == "some losses and not others":
                assert {"holds", "not here"} <= verdicts
            elif said[rules] == "heals":
                assert "holds" in verdicts
                assert "not here" not in verdicts
            elif said[rules] == "does not heal":
                assert "not here" in verdicts
                assert "holds" not in verdicts
            else:
                assert verdicts == ({"open"} if said[rules] == "open" else set())


def headline_says(sentence: str) -> dict[str, str]:
    """A reader of the headline: what it says of all rules, from its words alone."""
    said = dict[str, str]()
    for clause in sentence.rstrip(".").split(". "):
        words, listed = clause.split(" where ")[0].split(" is open")[0].lower(), clause.split(" follow ")[1]
        kind = next(
            known
            for known in ("some losses and not others", "no data", "whether", "does not heal", "heals")
            if known in words
        )
        for rules in RULES:
            if rules in listed:
                assert rules not in said, sentence
                said[rules] = {"whether": "open"}.get(kind, kind)
    return said


def test_the_other_sentences_tell_the_verdicts_apart() -> None:
    for group in GROUPS[1:]:
        texts = {
            " ".join(sentences(known | {CASES[0].claim: judged(CASES[0].claim, 0.4, 1.2)}))
            for known in every(group)
        }
        assert len(texts) == len(list(every(group)))


def test_cases_are_what_their_claims_are_about() -> None:
    losses = {10: "a tenth", 50: "half", 90: "nine tenths"}
    rules = {"rl": finding.ID, "rl-varied": finding.VARIED, "rl-familiar": finding.FAMILIAR}
    for case in CASES:
        claim = KNOWN[case.claim]
        assert (claim.estimator, claim.margin, claim.partly) == ("regained", 0.25, False)
        assert case.loss == losses[claim.options["state"]]
        assert case.rules == rules[claim.options["arm"]]
        assert claim.options["arm"] in ARMS
    assert {KNOWN[claim].options["state"] for claim in (NUMBERS, IMITATION, TURNS, VECTORS)} == {50}
    asked = KNOWN[NUMBERS].options
    assert (asked["arm"], asked["other"]) == ("rl-varied", "rl-familiar")


def test_numbers_are_those_of_the_claims() -> None:
    known = {claim: judged(claim, 0.4, 1.2) for claim in CLAIMS}
    known["healing-rl-half"] = judged("healing-rl-half", -0.124, 0.218)
    known[IMITATION] = judged(IMITATION, 0.02, 0.10)
    text = " ".join(sentences(known))
    assert cells(known)["healing-rl-half"] == "5 % [-12, 22]: does not heal"
    assert "regains as much as RL, within 15 % of the loss (they differ by 9 % [5, 13]" in text, (
        "0.15 - effect"
    )


def test_a_sample_for_reading() -> None:
    """`pytest -s` prints it."""
    chance = random.Random(1)
    for _ in range(12):
        known = {claim: one for claim in CLAIMS if (one := chance.choice(outcomes(claim))) is not None}
        english(known)
        print(f"\n{to_markdown(blocks(known))}")
